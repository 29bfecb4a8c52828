"""Weather: snow, frost, fog and spatter (Hendrycks & Dietterich, 2019, arXiv:1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from adamant.batch import per_row
from adamant.corruptions._draw import convolve, gaussian, plasma, streaks, zoomed
from adamant.corruptions.base import check_pictures, check_severity, figures, grey, tint
from adamant.random import Rng


@final
@dataclass(frozen=True, kw_only=True)
class Snow:
    """Flakes of enlarged noise, blurred along their fall, over a whitened picture."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Snow", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        mean, spread, zoom, least, radius, sigma, keep = figures(
            x,
            self.severity,
            (
                (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
                (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
            ),
            (
                (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
                (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
                (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
            ),
        )
        h, w = x.shape[2:]
        layer = zoomed(rng.fold("flakes").normal(1, h, w).to(x) * spread + mean, zoom)
        layer = torch.where(layer < least, 0, layer).clamp(0, 1)
        degrees = -45 - 90 * rng.fold("fall of snow").uniform(1, dtype=torch.float64)[:, 0]
        layer = streaks(layer, radius, sigma, degrees)
        white = torch.maximum(x, grey(x) * 1.5 + 0.5)
        return (keep * x + (1 - keep) * white + layer + layer.flip(2, 3)).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class Frost:
    """a x + b frost, with the published a and b.

    The frost is drawn and no photograph, unlike the published one: bluish white needles along three directions,
    as of a crystal, thick where a smooth cloud is thick. Its mean is .56 and its spread .11,
    where the photographs have .64 and .14.
    """

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Frost", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        keep, add = figures(
            x,
            self.severity,
            ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
            ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        )
        return (keep * x + add * _ice(x, rng.fold("frost")) * tint((0.86, 0.95, 1.0), x)).clamp(0, 1)


def _ice(x: Tensor, rng: Rng) -> Tensor:
    h, w = x.shape[2:]
    thick = plasma(rng.fold("thickness"), h, w, 2.0, x)
    angle = rng.fold("needles").uniform(1, dtype=torch.float64)[:, 0] * 180
    reach = max(2, min(h, w) // 24)
    wide = 2 * reach + 1  # needles grow in from outside of the picture too
    needles = torch.zeros_like(thick)
    for i, turn in enumerate((0, 60, 120)):
        seeds = (rng.fold("seeds").fold(i).normal(1, h + 2 * wide, w + 2 * wide).to(x) - 1.5).clamp_min(0)
        needles = torch.maximum(needles, streaks(seeds, reach, reach, angle + turn)[:, :, wide:-wide, wide:-wide])
    needles = needles / needles.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
    return (0.26 + 0.42 * thick + 1.3 * needles * thick).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class Fog:
    """(x + a clouds) max(x) / (max(x) + a), with clouds by midpoint displacement; for any size of picture."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Fog", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        amount, decay = figures(
            x,
            self.severity,
            ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
            ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
        )
        most = per_row(x.amax((1, 2, 3)), x)
        clouds = plasma(rng.fold("fog"), x.shape[2], x.shape[3], decay, x)
        return ((x + amount * clouds) * most / (most + amount)).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class Spatter:
    """Drops of water (severity 1 to 3) or mud (4 and 5) where blurred noise is high.

    The published water is shaded by an edge detector and an equalised distance map; here by how deep a pixel lies
    inside of its drop, lit from one side. The mud is as published.
    """

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Spatter", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        mean, spread, sigma, least, weight, mud = figures(
            x,
            self.severity,
            (
                (0.62, 0.1, 0.7, 0.7, 0.5, False),
                (0.65, 0.1, 0.8, 0.7, 0.5, False),
                (0.65, 0.3, 1.0, 0.69, 0.5, False),
                (0.65, 0.1, 0.7, 0.69, 0.6, True),
                (0.65, 0.1, 0.5, 0.68, 0.6, True),
            ),
            (
                (0.65, 0.3, 4.0, 0.69, 0.6, False),
                (0.65, 0.3, 3.0, 0.68, 0.6, False),
                (0.65, 0.3, 2.0, 0.68, 0.5, False),
                (0.65, 0.3, 1.0, 0.65, 1.5, True),
                (0.67, 0.4, 1.0, 0.65, 1.5, True),
            ),
        )
        liquid = gaussian(rng.fold("spatter").normal(1, *x.shape[2:]).to(x) * spread + mean, sigma)
        wet = (liquid >= least).to(x)
        if mud:
            cover = gaussian(wet, weight)
            cover = torch.where(cover < 0.8, 0, cover)
            return (x * (1 - cover) + cover * tint((63 / 255, 42 / 255, 20 / 255), x)).clamp(0, 1)
        shade = _lit(wet) * liquid * wet
        shade = weight * shade / shade.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
        return (x + shade * tint((175 / 255, 238 / 255, 238 / 255), x)).clamp(0, 1)


def _lit(wet: Tensor) -> Tensor:
    depth, left = torch.zeros_like(wet), wet
    for _ in range(6):
        depth = depth + left / 6
        left = -F.max_pool2d(-left, 3, 1, 1)
    relief = wet.new_tensor([[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    return convolve(convolve(depth, relief).clamp_min(0) + 0.2 * wet, wet.new_full((3, 3), 1 / 9))
