"""Blur: defocus, glass, motion, zoom and Gaussian (Hendrycks & Dietterich, 2019, arXiv:1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant.corruptions._draw import bell, convolve, gaussian, streaks, zoomed
from adamant.corruptions.base import check_pictures, check_severity, figures
from adamant.random import Rng


@final
@dataclass(frozen=True, kw_only=True)
class GaussianBlur:
    """A Gaussian of sigma .4 to 1 pixels for small pictures, 1 to 6 for large ones."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("GaussianBlur", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        sigma = figures(x, self.severity, (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0))
        return gaussian(x, sigma).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class DefocusBlur:
    """A disk of a radius in pixels, its edge softened by a small Gaussian."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("DefocusBlur", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        radius, alias = figures(
            x,
            self.severity,
            ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
            ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
        )
        return convolve(x, _disk(radius, alias), "mirror").clamp(0, 1)


def _disk(radius: float, alias: float) -> Tensor:
    soft = 1 if radius <= 8 else 2
    reach = int(radius) + soft
    t = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (t[:, None] ** 2 + t**2 <= radius**2).double()
    edge = bell(alias, soft / alias, disk)
    return convolve((disk / disk.sum())[None, None], edge[:, None] * edge)[0, 0]


@final
@dataclass(frozen=True, kw_only=True)
class GlassBlur:
    """Pixels that take the place of near ones, between two small Gaussian blurs.

    The published code goes through the picture from its lower right end and means to swap each pixel with a near one;
    as its rows are views, it copies the near one instead, which may have been replaced before. Here the chains of
    copies are followed for all pixels at once, which gives the same pictures in law; values are not cut to 8 bits.
    """

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("GlassBlur", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        sigma, reach, rounds = figures(
            x,
            self.severity,
            ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
            ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        )
        n, c, h, w = x.shape
        y = gaussian(x, sigma).reshape(n, c, h * w)
        for i in range(rounds):
            source = _copies(rng.fold("glass blur").fold(i), reach, h, w)
            y = y.gather(2, source[:, None].expand(n, c, h * w))
        return gaussian(y.view(x.shape), sigma).clamp(0, 1)


def _copies(rng: Rng, reach: int, h: int, w: int) -> Tensor:
    """Which pixel ends in each place (n, h w) when every inner pixel, from the last on, copies a near one."""
    device = rng.key.device
    here = torch.arange(h * w, device=device)
    row, column = here // w, here % w
    inner = (row > reach) & (row <= h - reach) & (column > reach) & (column <= w - reach)
    jump = rng.integers(2 * reach, 2, h * w) - reach
    target = torch.where(inner, here + jump[:, 0] * w + jump[:, 1], here)
    found, goes_on = target, (target > here) & inner[target]
    while bool(goes_on.any()):
        further = target.gather(1, found)
        moved = torch.where(goes_on, further, found)
        goes_on, found = goes_on & (moved > found) & inner[moved], moved
    return found


@final
@dataclass(frozen=True, kw_only=True)
class MotionBlur:
    """A streak of up to 2 r + 1 pixels with falling weights, in a direction of -45 to 45 degrees."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("MotionBlur", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        radius, sigma = figures(
            x,
            self.severity,
            ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
            ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
        )
        degrees = rng.fold("motion blur").uniform(1, dtype=torch.float64)[:, 0] * 90 - 45
        return streaks(x, radius, sigma, degrees).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class ZoomBlur:
    """The mean of the picture and of its middle at growing zooms, 1 to 1.25 (small) or 1.31 (large)."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("ZoomBlur", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        most, by = figures(
            x,
            self.severity,
            ((6, 1), (11, 1), (15, 1), (20, 1), (25, 1)),  # the last step of arange(1, 1.06, .01) is 1.06
            ((11, 1), (15, 1), (20, 2), (25, 2), (30, 3)),
        )
        total, zooms = 2 * x, range(by, most + 1, by)  # per cent; the picture itself and a zoom of 1
        for zoom in zooms:
            total = total + zoomed(x, 1 + zoom / 100)
        return (total / (len(zooms) + 2)).clamp(0, 1)
