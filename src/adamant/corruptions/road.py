"""Weather on the road: rain as streaks, and fog by the law of the atmosphere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant.batch import per_row
from adamant.corruptions._draw import gaussian, streaks
from adamant.corruptions.base import check_pictures, check_severity, tint
from adamant.random import Rng


@final
@dataclass(frozen=True, kw_only=True)
class Rain:
    """Bright slanted streaks over a slightly darker, softer picture; all of a picture's rain falls at one slant.

    A drop that falls while the shutter is open draws a bright streak (Garg & Nayar, 2007,
    doi:10.1007/s11263-006-0028-6). The figures of the severities are ours.
    """

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("Rain", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        share, length, bright, dark = (
            (0.006, 0.08, 0.35, 0.04), (0.01, 0.1, 0.45, 0.08), (0.015, 0.12, 0.55, 0.12),
            (0.02, 0.14, 0.65, 0.18), (0.03, 0.16, 0.75, 0.25),
        )[self.severity - 1]  # fmt: skip
        h, w = x.shape[2:]
        radius = max(2, round(length * min(h, w) / 2))
        luck = rng.fold("rain")
        wide = 2 * radius + 1  # drops fall in from outside of the picture too
        drops = luck.fold("drops").uniform(1, h + wide, w + 2 * wide).to(x)
        drops = torch.where(drops < share, 0.4 + 0.6 * drops / share, 0)
        slant = 70 + 40 * luck.fold("slant").uniform(1, dtype=torch.float64)[:, 0]
        # The drop is drawn along its way; its light is shared by the pixels of the way, so it is made stronger first.
        rain = streaks(drops, radius, 1.5 * radius, slant)[:, :, :h, wide : wide + w]
        rain = (rain * radius).clamp(0, 1) * bright
        soft = gaussian(x, 0.1 + 0.08 * self.severity)
        dimmed = soft * (1 - dark)
        return (dimmed + rain * (tint((0.9, 0.93, 0.95), x) - dimmed).clamp_min(0)).clamp(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class RoadFog:
    """x t + A (1 - t) with t = exp(-beta depth), the law of Koschmieder (1924), as in Foggy Cityscapes.

    The depth is that of a flat road: 8 m at the lower edge, growing as one over the height below the horizon, up to
    120 m there and above. The horizon lies at 35 to 45 % of the height. beta is .005, .01, .02 per metre, as in
    Sakaridis, Dai & Van Gool (2018, arXiv:1708.07819), and .03 and .06 beyond; A is .85 to .95, a grey.
    """

    severity: int = 3

    def __post_init__(self) -> None:
        check_severity("RoadFog", self.severity)

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        check_pictures(x)
        beta = (0.005, 0.01, 0.02, 0.03, 0.06)[self.severity - 1]
        luck = rng.fold("road fog").uniform(2, dtype=torch.float64)
        horizon, light = 0.35 + 0.1 * luck[:, :1], 0.85 + 0.1 * luck[:, 1]
        place = (torch.arange(x.shape[2], device=x.device, dtype=torch.float64) + 0.5) / x.shape[2]
        below = ((place - horizon) / (1 - horizon)).clamp_min(1e-9)
        clear = torch.exp(-beta * (8 / below).clamp_max(120))[:, None, :, None].to(x)
        return (x * clear + per_row(light, x).to(x) * (1 - clear)).clamp(0, 1)
