"""Noise: Gaussian, shot, impulse and speckle (Hendrycks & Dietterich, 2019, arXiv:1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant.corruptions.base import check_pictures, check_severity, figures
from adamant.random import Rng


@final
@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """x + s N(0, 1), s from .04 to .10 for small pictures and from .08 to .38 for large ones."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("GaussianNoise", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        s = figures(x, self.severity, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))
        return (x + s * rng.fold("gaussian noise").normal(*x.shape[1:]).to(x)).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class SpeckleNoise:
    """x + x s N(0, 1): noise that grows with the light."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("SpeckleNoise", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        s = figures(x, self.severity, (0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6))
        return (x + x * s * rng.fold("speckle noise").normal(*x.shape[1:]).to(x)).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class ShotNoise:
    """Poisson(r x) / r: the grain of r photons for a white point."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("ShotNoise", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        r = figures(x, self.severity, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3))
        u = rng.fold("shot noise").uniform(*x.shape[1:], dtype=torch.float64)
        return (_poisson(x.double() * r, u) / r).to(x.dtype).clamp(0, 1)


def _poisson(rate: Tensor, u: Tensor) -> Tensor:
    """The quantile u of a Poisson distribution of each rate, by adding up its probabilities from 0 on."""
    chance = torch.exp(-rate)
    below, count = chance.clone(), torch.zeros_like(rate)
    most = int(float(rate.max()) * 1.0 + 10 * float(rate.max()) ** 0.5 + 20) if rate.numel() else 0
    for k in range(1, most + 1):
        above = u >= below
        if k % 16 == 0 and not bool(above.any()):
            break
        count += above
        chance = chance * rate / k
        below += chance
    return count


@final
@dataclass(frozen=True, kw_only=True)
class ImpulseNoise:
    """Salt and pepper: a share of all values becomes 0 or 1, each channel by itself."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("ImpulseNoise", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        share = figures(x, self.severity, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))
        u = rng.fold("impulse noise").uniform(*x.shape[1:])
        return torch.where(u < share, (u < share / 2).to(x), x)
