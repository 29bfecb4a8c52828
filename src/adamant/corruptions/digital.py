"""Light, geometry and coding: brightness, saturation, contrast, elastic, pixelate (arXiv:1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant.corruptions._draw import gaussian, sample
from adamant.corruptions.base import SMALL_BELOW, check_pictures, check_severity, figures
from adamant.random import Rng


@final
@dataclass(frozen=True, kw_only=True)
class Brightness:
    """The value of HSV raised by .05 to .3 (small) or .1 to .5 (large).

    The value is the largest channel, and all channels grow in proportion: so it is defined for any number of them, and
    for one it is x + c.
    """

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Brightness", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        add = figures(x, self.severity, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5))
        value = x.amax(1, keepdim=True)
        lifted = (value + add).clamp(0, 1)
        return torch.where(value > 0, x * (lifted / value.clamp_min(1e-12)), lifted).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class Saturate:
    """The saturation of HSV times a plus b: paler at severity 1 and 2, more vivid from 3 on.

    Saturation is the spread of the channels over the largest, so it is defined for two channels and more; one channel
    has none, and stays. A grey pixel of three channels has the hue of red, as in the published code, so the b of
    severity 4 and 5 reddens it; with any other number of channels a grey stays grey.
    """

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Saturate", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        times, add = figures(
            x,
            self.severity,
            ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
            ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
        )
        value = x.amax(1, keepdim=True)
        spread = value - x.amin(1, keepdim=True)
        wanted = (spread / value.clamp_min(1e-12) * times + add).clamp(0, 1) * value
        y = value - (value - x) * (wanted / spread.clamp_min(1e-12))
        grey = x
        if x.shape[1] == 3:
            grey = torch.cat([value, value - wanted, value - wanted], 1)
        return torch.where(spread > 0, y, grey).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Each channel drawn towards its mean."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Contrast", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        keep = figures(x, self.severity, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
        mean = x.double().mean((2, 3), keepdim=True).to(x)
        return ((x - mean) * keep + mean).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class Elastic:
    """A random affine map, then a smooth random displacement.

    The lengths are shares of the shorter side: of 1 for small pictures, of 244/224 for large ones, as published.
    """

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Elastic", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        alpha, sigma, affine = figures(
            x,
            self.severity,
            ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
            ((2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
        )
        h, w = x.shape[2:]
        unit = min(h, w) * (1.0 if min(h, w) < SMALL_BELOW else 244 / 224)
        y = _affine(x, affine * unit, rng.fold("elastic affine"))
        if not alpha:
            return y.clamp(0, 1)
        pushes = rng.fold("elastic").uniform(2, h, w, dtype=torch.float64) * 2 - 1
        pushes = gaussian(pushes, sigma * unit, truncate=3.0, mode="reflect") * (alpha * unit)
        rows = torch.arange(h, device=x.device, dtype=torch.float64)[:, None] + pushes[:, 1]
        columns = torch.arange(w, device=x.device, dtype=torch.float64) + pushes[:, 0]
        return sample(y, rows, columns, mode="reflect").clamp(0, 1)


def _affine(x: Tensor, reach: float, rng: Rng) -> Tensor:
    """Moved so that three points around the middle each go up to `reach` pixels along each axis."""
    h, w = x.shape[2:]
    side, middle = min(h, w) // 3, (h // 2, w // 2)
    anchors = torch.tensor([(side, side), (side, -side), (-side, -side)], dtype=torch.float64)
    anchors = (anchors + torch.tensor(middle, dtype=torch.float64)).to(x.device)
    moved = anchors + (rng.uniform(3, 2, dtype=torch.float64) * 2 - 1) * reach
    ones = torch.ones(len(x), 3, 1, dtype=torch.float64, device=x.device)
    back = torch.linalg.solve(torch.cat([moved, ones], 2), anchors.expand(len(x), 3, 2))
    rows = torch.arange(h, device=x.device, dtype=torch.float64)[:, None]
    columns = torch.arange(w, device=x.device, dtype=torch.float64)
    a = back[:, :, :, None, None]
    return sample(
        x,
        a[:, 0, 0] * rows + a[:, 1, 0] * columns + a[:, 2, 0],
        a[:, 0, 1] * rows + a[:, 1, 1] * columns + a[:, 2, 1],
        mode="mirror",
    )


@final
@dataclass(frozen=True, kw_only=True)
class Pixelate:
    """Reduced to a share of the size by boxes, and enlarged again by boxes, with Pillow's weights."""

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Pixelate", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        share = figures(x, self.severity, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25))
        for axis in (2, 3):
            size = x.shape[axis]
            x = _boxes(_boxes(x, axis, int(size * share)), axis, size)
        return x.clamp(0, 1)


def _boxes(x: Tensor, axis: int, out: int) -> Tensor:
    """One axis resized by Pillow's box filter: a pixel counts where its middle lies in the box (sums, no products of
    matrices, which round by the size of the batch).
    """
    size = x.shape[axis]
    scale = size / out
    middle = (torch.arange(out, dtype=torch.float64) + 0.5) * scale
    half = 0.5 * max(scale, 1.0)
    first = (middle - half).floor().long() + 1
    first = torch.where(first - 0.5 > middle - half, first - 1, first)
    shape = [1, 1, 1, 1]
    shape[axis] = out
    total, count = 0.0, torch.zeros(shape, device=x.device)
    for tap in range(int(2 * half) + 2):
        off = first + tap + 0.5 - middle
        counts = ((off > -half) & (off <= half)).view(shape).to(x)
        total = total + counts * x.index_select(axis, (first + tap).clamp(0, size - 1).to(x.device))
        count = count + counts
    assert isinstance(total, Tensor)
    return total / count
