"""Watching a GAN: is it near to the data, does it make every class, and has either player won?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Protocol

import torch
from torch import Tensor, nn

from adamant.errors import InputError
from adamant.generation.base import Material, Measured, Sampler
from adamant.generation.measures import entropy, likeness, modes
from adamant.random import Rng, permutation

_CHUNK = 256


class Watched(Protocol):
    """A game that makes inputs, and has a discriminator that looks at them."""

    def sample(self, networks: nn.Module, rng: Rng, y: Tensor | None = None) -> Tensor: ...

    def logits(self, networks: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor: ...

    @property
    def conditional(self) -> bool: ...


def look_at(game: Watched, networks: nn.Module, material: Material, seed: int) -> Measured:
    """Figures of as many made rows as there are real ones to compare with; the score is minus the Frechet distance."""
    reference, classes = material.reference, material.classes
    y = asked_labels(reference.rows, classes) if game.conditional else None
    made = samples(game, networks, reference.rows, seed=seed, y=y)
    features, named = reference.judge.look(made)
    like = likeness(reference.real, features)
    found = {
        **asdict(like),
        "modes": float(modes(named, classes)),
        "entropy": entropy(named, classes),
        "told_apart": _told_apart(game, networks, material, made, y),
    }
    if y is not None:
        found["as_asked"] = float((named == y).double().mean())
    return Measured(score=-like.frechet, figures=found, warnings=tuple(_warnings(found, classes)))


def asked_labels(n: int, classes: int) -> Tensor:
    """Every class as often as every other (n,)."""
    return torch.arange(n) % classes


@torch.no_grad()
def samples(game: Sampler, networks: nn.Module, n: int, *, seed: int, y: Tensor | None = None) -> Tensor:
    """So many inputs (n *d), on the processor; each depends on the seed, its own number and its label alone."""
    device = next(networks.parameters()).device
    rng, parts = Rng.of(seed, n).fold("sample").to(device), list[Tensor]()
    for rows in torch.arange(n).split(_CHUNK):
        lane = rows if len(rows) == _CHUNK else torch.cat([rows, rows[:1].expand(_CHUNK - len(rows))])
        label = None if y is None else y[lane].to(device)
        parts.append(game.sample(networks, Rng(rng.key[lane.to(device)]), label)[: len(rows)].cpu())
    return torch.cat(parts)


def _told_apart(game: Watched, networks: nn.Module, material: Material, made: Tensor, y: Tensor | None) -> float:
    """Of pairs of a real row and a made one, the share in which the discriminator gives the real one the larger logit.

    One half where it cannot tell them apart. It needs no threshold, which Wasserstein and relativistic logits have not.
    """
    device = next(networks.parameters()).device
    held = permutation(len(material.validation), 0, "told apart")[: len(made)]
    real, label = material.validation.x[held], material.validation.y[held] if game.conditional else None
    one = _logits(game, networks, real, label, device)
    other = _logits(game, networks, made, y, device)
    return float((one[:, None] > other).double().mean() + (one[:, None] == other).double().mean() / 2)


def _logits(game: Watched, networks: nn.Module, x: Tensor, y: Tensor | None, device: torch.device) -> Tensor:
    parts = torch.arange(len(x)).split(_CHUNK)
    return torch.cat(
        [game.logits(networks, x[p].to(device), None if y is None else y[p].to(device)).cpu() for p in parts]
    )


def _warnings(found: dict[str, float], classes: int) -> list[str]:
    said: list[str] = []
    if found["modes"] < classes:
        said.append(
            f"Only {found['modes']:.0f} of {classes} classes are made (1 % of samples each, at least): the generator "
            "collapses; lower the rate, or take a larger gamma in R1."
        )
    elif found["entropy"] < 0.85:
        said.append(f"The classes are made unevenly: their entropy is {found['entropy']:.2f} of its largest value.")
    if found["told_apart"] > 0.98:
        said.append(
            f"The discriminator tells {found['told_apart']:.1%} of real rows from made ones, so the generator learns "
            "little from it: take a larger gamma in R1, or spectral=True."
        )
    return said


def sound(material: Material) -> None:
    """Raise InputError for rows that are no numbers, and for pictures that are not in [0, 1]."""
    for rows in (material.data, material.validation):
        if not bool(rows.x.isfinite().all()):
            bad = int((~rows.x.flatten(1).isfinite().all(1)).nonzero()[0])
            raise InputError(f"Row {int(rows.rows[bad])} of {rows.name} holds NaN or infinity: leave it out.")
        if rows.x.ndim == 4 and not (float(rows.x.min()) >= 0 and float(rows.x.max()) <= 1):
            raise InputError(
                f"The pictures of {rows.name} are in [{float(rows.x.min()):g}, {float(rows.x.max()):g}]; a generator "
                "makes pictures in [0, 1]: scale them."
            )


def labels_there(material: Material) -> None:
    """Raise InputError where a conditional game has no labels, or only one, to learn."""
    data, classes = material.data, material.classes
    for rows in (data, material.validation):
        if bool((rows.y < 0).any()):
            raise InputError(
                f"labels are asked for, and {int((rows.y < 0).sum())} rows of {rows.name} have none (-1): leave labels "
                "out of the game, or those rows out of the data."
            )
        if bool((rows.y >= classes).any()):
            raise InputError(
                f"A label of {rows.name} is {int(rows.y.max())}, and there are {classes} classes, numbered from 0 on."
            )
    if data.y.unique().numel() < 2:
        raise InputError(f"labels are asked for, and {data.name} has one class only: leave labels out of the game.")
