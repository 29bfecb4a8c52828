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
from adamant.corruptions import Brightness, Contrast, Pixelate, Saturate
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
        h, w = pictures(x, "Crop")
        m, device = self.margin, x.device
        top, left = (rng.fold(side).integers(2 * m + 1)[:, None] for side in ("top", "left"))
        rows = (top + torch.arange(h, device=device))[:, None, :, None]
        columns = (left + torch.arange(w, device=device))[:, None, None, :]
        some = torch.arange(len(x), device=device)[:, None, None, None]
        channels = torch.arange(x.shape[1], device=device)[None, :, None, None]
        return F.pad(x, (m, m, m, m))[some, channels, rows, columns]


@final
@dataclass(frozen=True)
class Rotate:
    """Turned about the centre by up to so many degrees either way; what comes into view is zero."""

    degrees: float = 15.0

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        h, w = pictures(x, "Rotate")
        angle = (2 * rng.fold("angle").uniform(dtype=x.dtype) - 1) * math.radians(self.degrees)
        c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # The grid goes from -1 to 1 along both sides, so that a turn of a picture that is not square is stretched.
        turn = torch.stack([torch.stack([c, -s * h / w, zero], 1), torch.stack([s * w / h, c, zero], 1)], 1)
        grid = F.affine_grid(turn, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@final
@dataclass(frozen=True)
class Shift:
    """Moved by up to a share of its sides, by whole pixels; what comes into view is zero."""

    share: float = 0.125

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        h, w = pictures(x, "Shift")
        down, right = round(self.share * h), round(self.share * w)
        top = down - rng.fold("down").integers(2 * down + 1)
        left = right - rng.fold("right").integers(2 * right + 1)
        padded = F.pad(x, (right, right, down, down))
        rows = (top[:, None] + down + torch.arange(h, device=x.device))[:, None, :, None]
        columns = (left[:, None] + right + torch.arange(w, device=x.device))[:, None, None, :]
        some = torch.arange(len(x), device=x.device)[:, None, None, None]
        channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        return padded[some, channels, rows, columns]


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

    With `each` it is called with one picture (c, h, w) at a time, keyed by row and step; else once with the batch, which
    is faster, and where the rows that share a batch may share its luck.
    """

    transform: Callable[[Tensor], Tensor]
    each: bool = True

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


@final
@dataclass(frozen=True)
class AugMix:
    """Chains of changes, mixed with one another and with the picture itself (Hendrycks et al., 2020, arXiv:1912.02781).

    `width` chains of one to `depth` changes (turned, moved, brighter, less contrast, other saturation, coarser), their
    weights uniform on the simplex and the share of the mixture uniform (alpha 1). Changes of the corruptions that the
    result may be tested on, noise and blur, are not among them. The paper's consistency loss is a recipe's affair.
    """

    width: int = 3
    depth: int = 3
    severity: int = 2

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        pictures(x, "AugMix")
        changes: tuple[Augment, ...] = (
            Rotate(6.0 * self.severity), Shift(0.06 * self.severity), Brightness(self.severity),
            Contrast(self.severity), Saturate(self.severity), Pixelate(self.severity),
        )  # fmt: skip
        weights = -(1 - rng.fold("weights").uniform(self.width, dtype=x.dtype)).log()
        weights = weights / weights.sum(1, keepdim=True)
        mixture = torch.zeros_like(x)
        for i in range(self.width):
            chain, z = rng.fold("chain").fold(i), x
            long = chain.fold("long").integers(self.depth)
            for j in range(self.depth):
                which = chain.fold("which").fold(j).integers(len(changes))
                which = torch.where(j <= long, which, -1)
                for k, change in enumerate(changes):
                    rows = (which == k).nonzero().squeeze(1)
                    if len(rows):
                        z = z.index_copy(0, rows, change(z[rows], Rng(chain.fold(j).key[rows])).to(z.dtype))
            mixture = mixture + per_row(weights[:, i], x) * z
        share = per_row(rng.fold("share").uniform(dtype=x.dtype), x)
        return share * x + (1 - share) * mixture


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


CATALOGUE: tuple[type, ...] = (Flip, Crop, Rotate, Shift, Noise, Cutout, CutMix, AugMix)
