"""What a corruption is: a record of one severity that turns pictures into worse pictures."""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from adamant.errors import InputError
from adamant.random import Rng

P = TypeVar("P")
Five = tuple[P, P, P, P, P]

SMALL_BELOW = 64  # pixels of the shorter side: below it the figures of CIFAR-10-C, from it on those of ImageNet-C


@runtime_checkable
class Corruption(Protocol):
    """Pictures (n, c, h, w) in [0, 1] to pictures of the same shape in [0, 1]; `severity` goes from 1 to 5.

    A row's result depends on the picture and its stream alone, never on its batch.
    """

    @property
    def severity(self) -> int: ...

    def __call__(self, x: Tensor, rng: Rng) -> Tensor: ...


def check_severity(name: str, severity: int) -> None:
    """Raise InputError for a severity that is not one of 1, 2, 3, 4, 5."""
    if severity not in (1, 2, 3, 4, 5):
        raise InputError(f"{name}(severity={severity}): severities go from 1 to 5.")


def check_pictures(x: Tensor) -> None:
    """Raise InputError for what is not a batch of pictures in [0, 1]."""
    if x.ndim != 4 or not x.is_floating_point():
        raise InputError(
            f"Corruptions take pictures (rows, channels, height, width) of floats, and these are {tuple(x.shape)} of "
            f"{x.dtype}."
        )
    if min(x.shape[1:]) < 1 or min(x.shape[2:]) < 8:
        raise InputError(f"Corruptions need at least 8 x 8 pixels, and these pictures have {tuple(x.shape[2:])}.")
    if x.numel() and not bool(((x >= 0) & (x <= 1)).all()):
        raise InputError("Corruptions take values in [0, 1], and these pictures have others: scale them first.")


def figures(x: Tensor, severity: int, small: Five[P], large: Five[P]) -> P:
    """The figures of a severity for pictures of this size."""
    return (small if min(x.shape[2:]) < SMALL_BELOW else large)[severity - 1]


def grey(x: Tensor) -> Tensor:
    """(n, 1, h, w): the luma of three channels (ITU-R BT.601), the mean of any other number."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return x[:, :1] * 0.299 + x[:, 1:2] * 0.587 + x[:, 2:] * 0.114


def tint(rgb: tuple[float, float, float], x: Tensor) -> Tensor:
    """A colour as (1, c, 1, 1): itself for three channels, else its luma in each."""
    r, g, b = rgb
    values = rgb if x.shape[1] == 3 else (0.299 * r + 0.587 * g + 0.114 * b,) * x.shape[1]
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
