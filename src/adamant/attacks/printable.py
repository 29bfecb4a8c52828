"""A printed picture that fools a model wherever it is pasted: adversarial patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from adamant._types import Inputs
from adamant.batch import Shared, on, take
from adamant.calling import Caller, Settings, device_of, untouched, unwrapped
from adamant.errors import InputError
from adamant.goals import Goal
from adamant.losses import CrossEntropy, Loss
from adamant.random import Rng, permutation
from adamant.threats import Pasted


def printable(
    model: nn.Module,
    x: Inputs,
    goal: Goal,
    pasted: Pasted,
    *,
    epochs: int = 30,
    rate: float = 0.1,
    batch_size: int = 128,
    loss: Loss = CrossEntropy(),
    most: float = 9.0,
    seed: int = 0,
) -> Pasted:
    """A picture that fools the model on as many rows of x (n, c, h, w) as it can, wherever on them it is pasted.

    Brown et al., 2017, arXiv:1712.09665: ascent on the mean loss over rows, each with a fresh random place, turn and
    size in every epoch, and cut off at `most`, so that rows that fell long ago do not draw the picture. It starts at
    the picture of `pasted`; steps go along the sign, their length `rate` widths of the box, falling to nothing. What
    comes back is the threat model with the learned picture. Judge it on other inputs: with `Draws(steps=0)` at one
    random place each, with `Restarts(PGD())` or `RandomSearch()` at the worst.
    """
    pasted.check(x)
    if epochs < 1 or batch_size < 1 or not rate > 0:
        raise InputError(
            f"A picture is learned in epochs={epochs} over batches of {batch_size} with rate={rate}: "
            "give numbers above zero."
        )
    raw, device = unwrapped(model), device_of(model, x)
    (low, high), picture = pasted.box, pasted.picture.values.to(x).to(device)
    with untouched(raw, seed=seed):
        caller = Caller(raw, Settings())
        for epoch in range(epochs):
            length = rate * (high - low) * (1 - epoch / epochs)
            for rows in permutation(len(x), seed, epoch).split(batch_size):
                part, their = on(x[rows], device), on(take(goal, rows), device)
                rng = Rng.of(seed, rows).fold("place").fold(epoch).to(device)
                theta = 2 * rng.uniform(*pasted.parameters(part), dtype=x.dtype) - 1
                slope = _slope(
                    lambda v, z=part, at=theta, to=their: loss(caller(pasted.paste(z, at, v)), to).clamp(max=most),
                    picture,
                )
                picture = (picture + length * slope.sign()).clamp(low, high)
    return replace(pasted, picture=Shared(picture.cpu()))


def _slope(score: Callable[[Tensor], Tensor], picture: Tensor) -> Tensor:
    """The gradient of the mean score by the picture."""
    with torch.enable_grad():
        picture = picture.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(score(picture).mean(), picture)
    return g.nan_to_num(0.0, 0.0, 0.0)
