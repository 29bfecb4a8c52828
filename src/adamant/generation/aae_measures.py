"""How well an adversarial autoencoder does: rebuilding, codes against the prior, classes asked for and found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from adamant.batch import cat
from adamant.generation.aae_labels import Clustered, Guessed, Placed
from adamant.generation.base import Material, Measured
from adamant.generation.measures import likeness, modes
from adamant.generation.monitor import asked_labels, samples
from adamant.generation.twosample import TwoSample, energy_test
from adamant.random import Rng

if TYPE_CHECKING:
    from adamant.generation.aae import AAE
    from adamant.generation.aae_nets import Autoencoder

ROWS = 2000  # that are rebuilt and sampled along the way
TESTED = 500  # codes, and as many draws of the prior: a shift of 0.3 in one of 8 coordinates is seen then
_BATCH = 500


def in_batches(work: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The rows of what `work` returns for some hundred rows at a time, one after another."""
    return cat([work(*parts) for parts in zip(*(t.split(_BATCH) for t in tensors), strict=True)])


def reconstruction(game: AAE, networks: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """The mean squared error by entry, pictures in [0, 1] and tables in their columns' spreads; and the variance of x.

    Whoever always draws the mean picture has the variance for an error.
    """
    net = cast("Autoencoder", networks)
    plain = net.plain(x).double()
    made = net.plain(in_batches(partial(game.reconstruct, networks), x, y)).double()
    return float((made - plain).square().mean()), float((plain - plain.mean(0)).square().mean())


def latent(game: AAE, networks: nn.Module, x: Tensor, y: Tensor, seed: int) -> TwoSample:
    """Codes of rows against draws of the prior; where parts of it are for classes, a row's own part is drawn from."""
    codes = encoded(game, networks, x)[0]
    part = y if isinstance(game.labels, Placed) else None
    drawn = game.prior.draw(Rng.of(seed, len(x)).to(x.device).fold("against"), part)
    return energy_test(codes, drawn, part=part, seed=seed)


def agreement(game: AAE, networks: nn.Module, judge: nn.Module, y: Tensor, seed: int) -> int:
    """How many samples of the classes y (n,) are of that class in the eyes of a classifier that has no part in it."""
    return int((in_batches(judge, samples(game, networks, len(y), seed=seed, y=y)).argmax(1) == y).sum())


def encoded(game: AAE, networks: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The codes (n dim) of many inputs, and the logits (n k) of the classes or clusters that the encoder guesses."""
    dim = game.prior.dim

    def both(part: Tensor) -> Tensor:
        return torch.cat(game.encode(networks, part), 1)

    whole = in_batches(both, x)
    return whole[:, :dim], whole[:, dim:]


def names(guess: Tensor, y: Tensor) -> Tensor:
    """The class of each cluster (k,): that of the row of y (n,) which is surest to be in it, as in the paper."""
    return y[guess.log_softmax(1).argmax(0)]


def measure(game: AAE, networks: nn.Module, material: Material, seed: int) -> Measured:
    """The figures, on validation rows; the score asks for no label that training did not have."""
    net = cast("Autoencoder", networks)
    device = next(net.parameters()).device
    rows = material.validation
    x, y = rows.x[:ROWS].to(device), rows.y[:ROWS].to(device)
    error, variance = reconstruction(game, networks, x, y)
    test = latent(game, networks, x[:TESTED], y[:TESTED], seed)
    figures = {"reconstruction_error": error, "mean_input_error": variance}
    figures |= {"latent_distance": test.distance, "latent_p": test.p, "latent_rows": float(test.rows[0])}
    x, y = x[y >= 0], y[y >= 0]
    if isinstance(game.labels, Guessed) and len(y):
        figures["accuracy"] = int((encoded(game, networks, x)[1].argmax(1) == y).sum()) / len(y)
    if isinstance(game.labels, Clustered) and len(y) > 1:
        figures |= _found(encoded(game, networks, x)[1], y)
    if material.judge is not None:
        figures |= _made(game, networks, material, seed)
    warnings: list[str] = []
    if error > variance:
        warnings.append("It rebuilds worse than the mean input would: train longer, or lower the rate of the encoder.")
    # The energy distance is a square: its root is in the unit of the shift that it sees.
    return Measured(score=1 - error / variance - test.share**0.5, figures=figures, warnings=tuple(warnings))


def _found(guess: Tensor, y: Tensor) -> dict[str, float]:
    """Half of the rows name the clusters, and the other half counts."""
    half = len(y) // 2
    right = names(guess[:half], y[:half])[guess[half:].argmax(1)] == y[half:]
    used = len(guess.argmax(1).unique())
    return {"cluster_accuracy": int(right.sum()) / len(right), "clusters_used": float(used)}


def _made(game: AAE, networks: nn.Module, material: Material, seed: int) -> dict[str, float]:
    """What is said of the samples of any game."""
    reference = material.reference
    y = asked_labels(reference.rows, material.classes) if game.conditional else None
    features, named = reference.judge.look(samples(game, networks, reference.rows, seed=seed, y=y))
    made = {**asdict(likeness(reference.real, features)), "modes": float(modes(named, material.classes))}
    return made if y is None else {**made, "as_asked": int((named == y).sum()) / len(y)}
