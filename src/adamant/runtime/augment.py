"""Changes to the training rows that leave their meaning: cropped, mirrored, cut out, mixed; keyed by row and step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs
from adamant.batch import per_row
from adamant.errors import InputError
from adamant.random import Rng, sealed


@runtime_checkable
class Augment(Protocol):
    """Changes rows, and keeps their number, shape and range."""

    def __call__(self, x: Inputs, rng: Rng) -> Inputs: ...


@runtime_checkable
class Mixing(Protocol):
    """Changes rows and what they show: labels become probabilities."""

    def mix(self, x: Inputs, label: Tensor, rng: Rng) -> tuple[Inputs, Tensor]:
        """Rows and their labels as probabilities (n, k), changed."""
        ...


def pictures(x: Inputs, name: str) -> tuple[int, int]:
    """Height and width; raises InputError where x holds no pictures."""
    if x.ndim != 4:
        raise InputError(f"{name} changes pictures (rows, channels, height, width), got {tuple(x.shape)}.")
    return x.shape[2], x.shape[3]


@final
@dataclass(frozen=True)
class Flip:
    """Mirrored left to right, every other row by chance."""

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        pictures(x, "Flip")
        return torch.where(per_row(rng.fold("flip").uniform() < 0.5, x), x.flip(3), x)


@final
@dataclass(frozen=True)
class Crop:
    """Padded by `margin` pixels of zero all around, and cropped to its size again at a random place."""

    margin: int = 4

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        pictures(x, "Crop")
        m = self.margin
        top, left = (rng.fold(side).integers(2 * m + 1) for side in ("top", "left"))
        return _window(x, m, m, top, left)


@final
@dataclass(frozen=True)
class Rotate:
    """Turned about the centre by up to so many degrees either way; what comes into view is zero."""

    degrees: float = 15.0

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        h, w = pictures(x, "Rotate")
        angle = (2 * rng.fold("angle").uniform(dtype=x.dtype) - 1) * math.radians(self.degrees)
        c, s = angle.cos(), angle.sin()
        return turned(
            x, (c, -s * h / w, s * w / h, c)
        )  # the sides of the grid are one long each, whatever the picture's


@final
@dataclass(frozen=True)
class Shift:
    """Moved by up to a share of its sides, by whole pixels; what comes into view is zero."""

    share: float = 0.125

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        h, w = pictures(x, "Shift")
        down, right = round(self.share * h), round(self.share * w)
        top, left = rng.fold("down").integers(2 * down + 1), rng.fold("right").integers(2 * right + 1)
        return _window(x, down, right, top, left)


@final
@dataclass(frozen=True)
class Noise:
    """Normal noise of the given spread added, and cut off at the box."""

    sigma: float = 0.05
    box: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        return (x + self.sigma * rng.fold("noise").normal(*x.shape[1:], dtype=x.dtype)).clamp(*self.box)


@final
@dataclass(frozen=True)
class Cutout:
    """A square of `side` pixels set to zero, its centre anywhere (DeVries & Taylor, 2017, arXiv:1708.04552)."""

    side: int = 8

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        h, w = pictures(x, "Cutout")
        hole = _square(rng, h, w, x.new_full((len(x),), self.side), x.new_full((len(x),), self.side))
        return torch.where(hole[:, None], torch.zeros_like(x), x)


@final
@dataclass(frozen=True)
class CutMix:
    """A patch from another row of the batch, and the label by its area (Yun et al., 2019, arXiv:1905.04899).

    The share that stays is uniform (alpha 1, as in the paper); `share` of the rows are mixed.
    """

    share: float = 0.5

    def mix(self, x: Inputs, label: Tensor, rng: Rng) -> tuple[Inputs, Tensor]:
        h, w = pictures(x, "CutMix")
        side = rng.fold("area").uniform(dtype=torch.float64).sqrt()
        side = torch.where(rng.fold("whether").uniform() < self.share, side, 0.0)
        patch = _square(rng, h, w, (side * h).round(), (side * w).round())
        other = rng.fold("order").key.argsort(stable=True)
        other = torch.empty_like(other).scatter_(0, other, other.roll(1))  # the next in that order, never itself
        taken = patch.flatten(1).to(label.dtype).mean(1, keepdim=True)
        return torch.where(patch[:, None], x[other], x), (1 - taken) * label + taken * label[other]


@final
@dataclass(frozen=True)
class Own:
    """A function of pictures (n, c, h, w) to such, or a transform of torchvision v2; torch's randomness is sealed.

    With `each` it is called with one picture (c, h, w) at a time, keyed by row and step; else once with the batch,
    which is faster, and where the rows of a batch may share its luck.
    """

    transform: Callable[[Tensor], Tensor]
    each: bool = True

    def __repr__(self) -> str:
        name = getattr(self.transform, "__qualname__", None)  # the address of a function changes from run to run
        return f"Own({f'{self.transform.__module__}.{name}' if name else repr(self.transform)}, {self.each})"

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        keys = rng.fold("own").key.tolist()
        if self.each:
            made = torch.stack([self._sealed(one, key) for one, key in zip(x, keys, strict=True)])
        else:
            made = self._sealed(x, keys[0])
        if made.shape != x.shape or not bool(torch.isfinite(made).all()):
            raise InputError(
                f"An augmentation must keep the shape, {tuple(x.shape)}, and return numbers; "
                f"{self.transform!r} returned {tuple(made.shape)}."
            )
        return made.to(x.dtype)

    def _sealed(self, x: Tensor, key: int) -> Tensor:
        with sealed(key):
            return self.transform(x)


def _window(x: Tensor, high: int, wide: int, top: Tensor, left: Tensor) -> Tensor:
    """A window as large as the picture, at a place of each row's own, in the picture with zeros around it."""
    h, w, device = x.shape[2], x.shape[3], x.device
    rows = (top[:, None] + torch.arange(h, device=device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(w, device=device))[:, None, None, :]
    some = torch.arange(len(x), device=device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=device)[None, :, None, None]
    return F.pad(x, (wide, wide, high, high))[some, channels, rows, columns]


def turned(x: Tensor, by: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Seen through a linear map of the plane for each row, bilinear, zero where nothing is; in the range of the row."""
    zero = torch.zeros_like(by[0])
    grid = F.affine_grid(torch.stack([by[0], by[1], zero, by[2], by[3], zero], 1).view(-1, 2, 3), list(x.shape), False)
    made = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    low, high = x.flatten(1).amin(1).clamp_max(0), x.flatten(1).amax(1).clamp_min(0)  # rounding may lead out of it
    return made.clamp(per_row(low, x), per_row(high, x))


def _square(rng: Rng, h: int, w: int, high: Tensor, wide: Tensor) -> Tensor:
    """(n, h, w): whether a pixel is in a patch so high and wide; its centre is any pixel, so that edges cut it."""
    top = rng.fold("row").integers(h) - (high / 2).floor().long()
    left = rng.fold("column").integers(w) - (wide / 2).floor().long()
    rows, columns = torch.arange(h, device=top.device), torch.arange(w, device=top.device)
    inside = [
        (line >= first[:, None]) & (line < (first + size.long())[:, None])
        for line, first, size in ((rows, top, high), (columns, left, wide))
    ]
    return inside[0][:, :, None] & inside[1][:, None, :]


CATALOGUE: tuple[type, ...] = (Flip, Crop, Rotate, Shift, Noise, Cutout, CutMix)
