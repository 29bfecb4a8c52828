"""JPEG (ITU-T T.81, 1992): what its quantisation leaves of a picture, without the coding that loses nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from adamant.corruptions.base import check_pictures, check_severity, figures
from adamant.random import Rng

# Tables K.1 and K.2 of the standard.
_LUMINANCE = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMINANCE = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""


@final
@dataclass(frozen=True, kw_only=True)
class JPEG:
    """The picture after JPEG of quality 80 to 40 (small) or 25 to 7 (large), as libjpeg scales the standard tables.

    Three channels are RGB with chroma halved along both axes (4:2:0); of any other number each is coded as a grey
    picture. Values are rounded to 8 bits before and after.
    """

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("JPEG", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        quality = figures(x, self.severity, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7))
        return compress(x, quality)


def compress(x: Tensor, quality: int) -> Tensor:
    """x (n, c, h, w) in [0, 1] after JPEG of a quality of 1 to 100."""
    levels = (x.double() * 255).round()
    if x.shape[1] != 3:
        return (_quantised(levels, _table(_LUMINANCE, quality)) / 255).to(x.dtype)
    h, w = x.shape[2:]
    r, g, b = levels.split(1, 1)
    luma = (0.299 * r + 0.587 * g + 0.114 * b).round()
    blue = (128 - 0.168735892 * r - 0.331264108 * g + 0.5 * b).round()
    red = (128 + 0.5 * r - 0.418687589 * g - 0.081312411 * b).round()
    luma = _quantised(luma, _table(_LUMINANCE, quality))
    chroma = F.pad(torch.cat([blue, red], 1), (0, w % 2, 0, h % 2), mode="replicate")
    chroma = _quantised((F.avg_pool2d(chroma, 2)).round(), _table(_CHROMINANCE, quality))
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).round()[:, :, :h, :w] - 128
    blue, red = chroma.split(1, 1)
    rgb = torch.cat([luma + 1.402 * red, luma - 0.344136286 * blue - 0.714136286 * red, luma + 1.772 * blue], 1)
    return (rgb.round().clamp(0, 255) / 255).to(x.dtype)


def _table(text: str, quality: int) -> Tensor:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    values = [min(255, max(1, (int(v) * scale + 50) // 100)) for v in text.split()]
    return torch.tensor(values, dtype=torch.float64).view(8, 8)


def _cosines() -> Tensor:
    k = torch.arange(8, dtype=torch.float64)
    waves = torch.cos(math.pi / 16 * k[:, None] * (2 * k + 1)) / 2
    waves[0] /= math.sqrt(2)
    return waves


def _quantised(levels: Tensor, table: Tensor) -> Tensor:
    """Channels (n, c, h, w) of 0..255 with the cosines of each block of 8 x 8 rounded to the table."""
    n, c, h, w = levels.shape
    padded = F.pad(levels - 128, (0, -w % 8, 0, -h % 8), mode="replicate")
    high, wide = padded.shape[2:]
    blocks = padded.view(n, c, high // 8, 8, wide // 8, 8).transpose(3, 4)
    waves, table = _cosines().to(levels.device), table.to(levels.device)
    steps = torch.matmul(torch.matmul(waves, blocks), waves.T) / table
    # Ties go away from zero, as in libjpeg; a hair of rounding error must not decide them.
    steps = ((steps.abs() + 0.5 + 1e-9).floor() * steps.sign()) * table
    back = torch.matmul(torch.matmul(waves.T, steps), waves)
    back = back.transpose(3, 4).reshape(n, c, high, wide)[:, :, :h, :w]
    return (back + 128).round().clamp(0, 255)
