"""Changes to the training rows that leave their meaning: cropped, mirrored, cut out, mixed; keyed by row and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs
from adamant.batch import per_row
from adamant.errors import InputError
from adamant.random import Rng


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


CATALOGUE: tuple[type, ...] = (Flip, Crop)
