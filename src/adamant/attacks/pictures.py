"""Inputs seen as pictures, for attacks that know what is beside what: channels, rows and columns."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from adamant._types import Inputs


def picture(x: Inputs) -> Tensor:
    """(n, channels, rows, columns): the last two axes are space, a flat input is one row of entries."""
    return x[:, None, None] if x.ndim == 2 else x.reshape(len(x), -1, *x.shape[-2:])


def window(top: Tensor, left: Tensor, high: int, wide: int, like: Tensor) -> Tensor:
    """True inside a window of each row of pictures, (n, 1, rows, columns); its corner is the row's own, (n,)."""
    down, across = (torch.arange(k, device=like.device) for k in like.shape[-2:])
    rows = (down >= top[:, None]) & (down < top[:, None] + high)
    columns = (across >= left[:, None]) & (across < left[:, None] + wide)
    return (rows[:, :, None] & columns[:, None])[:, None]


@lru_cache(maxsize=16)
def cosines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal cosine transform (DCT-II) as a matrix: a wave in each row, slow ones first; not to be written."""
    k = torch.arange(n, dtype=torch.float64)
    waves = (math.pi / n * (k + 0.5) * k[:, None]).cos() * math.sqrt(2 / n)
    waves[0] /= math.sqrt(2)
    return waves.to(device, dtype)


def transformed(v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Both axes of images times a matrix each; term by term, so that no row depends on how many there are."""
    for c in (columns, rows):
        v = sum((v[..., i : i + 1] * c[:, i] for i in range(v.shape[-1])), v.new_zeros(())).transpose(-2, -1)
    return v
