"""A rectangle that may show anything, anywhere in the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs, Mask, Scores
from adamant.batch import PerRow, per_row
from adamant.errors import InputError
from adamant.random import Rng
from adamant.threats._box import check_precision


@final
@dataclass(frozen=True)
class Patch:
    """{z in the box: all pixels that differ from x lie in one rectangle}; sides are (height, width) in pixels.

    Adversarial patches (Brown et al., 2017, arXiv:1712.09665; Karmon et al., 2018, arXiv:1801.02608), one to a picture.
    """

    sides: tuple[int, int]
    box: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if min(self.sides) < 1:
            raise InputError(f"The sides of a patch are whole numbers of pixels from 1 on, got {self.sides}.")
        if not self.box[0] < self.box[1] or not math.isfinite(self.box[1] - self.box[0]):
            raise InputError(f"The box must be (low, high), finite, with low < high, got {self.box}.")

    @property
    def allows(self) -> str:
        """What the attacker may do, in words."""
        return f"put any picture of {self.sides[0]} by {self.sides[1]} pixels anywhere on the input"

    def check(self, x: Inputs) -> None:
        low, high = self.box
        check_precision(x)
        if x.ndim != 4:
            raise InputError(f"A patch covers pictures (rows, channels, height, width), got {tuple(x.shape)}.")
        if self.sides[0] > x.shape[2] or self.sides[1] > x.shape[3]:
            raise InputError(f"A patch of {self.sides} does not fit in a picture of {tuple(x.shape[2:])}.")
        if not bool(((x >= low) & (x <= high)).all()):
            raise InputError(f"Inputs leave the box [{low:g}, {high:g}] of Patch: give it the box of your data.")

    @property
    def width(self) -> float:
        """The width of the box."""
        return self.box[1] - self.box[0]

    def contains(self, z: Inputs, x: Inputs) -> Mask:
        """Which rows are finite, in the box, and as they were outside of one rectangle."""
        least, most = z.flatten(1).aminmax(dim=1)
        fine = (least >= self.box[0]) & (most <= self.box[1])  # no order holds for a NaN
        high, wide = _extent(z, x)
        return fine & (high <= self.sides[0]) & (wide <= self.sides[1])

    def size(self, z: Inputs, x: Inputs) -> Scores:
        """The share of the picture that the smallest rectangle around all changes covers."""
        high, wide = _extent(z, x)
        return (high * wide).double() / (x.shape[2] * x.shape[3])

    def budget(self, like: Inputs) -> Scores:
        """The share of the picture that the patch covers."""
        share = self.sides[0] * self.sides[1] / (like.shape[2] * like.shape[3])
        return torch.full((len(like),), share, dtype=like.dtype, device=like.device)

    def at(self, eps: float | PerRow) -> Self:
        """A patch has sides and no budget: it is what it is."""
        return self

    def clip(self, z: Inputs) -> Inputs:
        """Into the box."""
        return z.clamp(*self.box)

    def free(self, values: Tensor) -> Tensor:
        """Every entry may change, though not all of them at once."""
        return values

    def sample(self, x: Inputs, rng: Rng) -> Inputs:
        """Anywhere, each entry of it uniform on the box."""
        (h, w), low = self.sides, self.box[0]
        top = rng.fold("top").integers(x.shape[2] - h + 1)
        left = rng.fold("left").integers(x.shape[3] - w + 1)
        anything = low + self.width * rng.uniform(*x.shape[1:], dtype=x.dtype)
        return torch.where(self._window(top, left, x), anything, x)

    def move(self, z: Inputs, g: Inputs, rate: Scores | float) -> Inputs:
        """A step of the sign, its length in widths of the box; it moves every entry, `project` chooses the place."""
        length = rate * self.width
        return z + g.sign() * (per_row(length, z) if isinstance(length, Tensor) else length)

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        """Exact: clip to the box, then the rectangle whose undoing would cost most keeps its changes."""
        (h, w), inside = self.sides, self.clip(z)
        gain = ((inside - x) * ((z - x) + (z - inside))).sum(1, keepdim=True)  # the difference of squares
        worth = F.avg_pool2d(gain, (h, w), stride=1).flatten(1)
        best, across = worth.argmax(1), x.shape[3] - w + 1
        return torch.where(self._window(best // across, best % across, x), inside, x)

    def _window(self, top: Tensor, left: Tensor, x: Inputs) -> Tensor:
        """True inside the rectangle of each row, (n, 1, h, w)."""
        row = torch.arange(x.shape[2], device=x.device) - top[:, None]
        column = torch.arange(x.shape[3], device=x.device) - left[:, None]
        rows, columns = (row >= 0) & (row < self.sides[0]), (column >= 0) & (column < self.sides[1])
        return rows[:, None, :, None] & columns[:, None, None, :]


def _extent(z: Inputs, x: Inputs) -> tuple[Tensor, Tensor]:
    """Height and width of the smallest rectangle around all changes, 0 where there are none."""
    changed = (z != x).any(1)  # a NaN differs
    return tuple(_span(changed.any(axis)) for axis in (2, 1))  # type: ignore[return-value]


def _span(lines: Tensor) -> Tensor:
    first, last = lines.int().argmax(1), lines.shape[1] - lines.flip(1).int().argmax(1)
    return torch.where(lines.any(1), last - first, 0)
