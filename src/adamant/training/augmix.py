"""AugMix: chains of mild changes, mixed with one another and with the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from adamant._types import Inputs
from adamant.batch import per_row
from adamant.random import Rng
from adamant.runtime.augment import Augment, Rotate, Shift, pictures, turned


@final
@dataclass(frozen=True)
class _Shear:
    """Slanted by up to `by`, to the side or downward by chance."""

    by: float

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        by = (2 * rng.fold("by").uniform(dtype=x.dtype) - 1) * self.by
        one, zero = torch.ones_like(by), torch.zeros_like(by)
        side = rng.fold("side").uniform() < 0.5
        return turned(x, (one, torch.where(side, by, zero), torch.where(side, zero, by), one))


@final
@dataclass(frozen=True)
class _Posterize:
    """Rounded down to so many shades."""

    shades: int

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        return (x * (self.shades - 1)).floor() / (self.shades - 1)


@final
@dataclass(frozen=True)
class _Solarize:
    """Turned into its negative above a threshold."""

    above: float

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        return torch.where(x < self.above, x, 1 - x)


@final
@dataclass(frozen=True)
class _Stretch:
    """Each channel from its darkest to its lightest value, spread over the whole range."""

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-6), x).clamp(0, 1)


@final
@dataclass(frozen=True)
class AugMix:
    """Chains of changes, mixed with one another and with the picture itself (Hendrycks et al., 2020, arXiv:1912.02781).

    `width` chains of one to `depth` changes (turned, moved, slanted, posterised, solarised, stretched), their weights
    uniform on the simplex and the share of the mixture uniform (alpha 1). As in the paper no change is among them that
    the common corruptions test; histograms are not equalised. Its consistency loss is a recipe's affair. For [0, 1].
    """

    width: int = 3
    depth: int = 3
    severity: int = 3  # from 1 to 10

    def __call__(self, x: Inputs, rng: Rng) -> Inputs:
        pictures(x, "AugMix")
        weights = -(1 - rng.fold("weights").uniform(self.width, dtype=x.dtype)).log()
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
        mixture = torch.zeros_like(x)
        for i in range(self.width):
            mixture = mixture + per_row(weights[:, i], x) * self._chained(x, rng.fold("chain").fold(i))
        share = per_row(rng.fold("share").uniform(dtype=x.dtype), x)
        return (share * x + (1 - share) * mixture).clamp(0, 1)

    def _chained(self, x: Inputs, rng: Rng) -> Inputs:
        long, z, part = rng.fold("long").integers(self.depth), x, self.severity / 10
        changes: tuple[Augment, ...] = (
            Rotate(30 * part), Shift(part / 3), _Shear(0.3 * part), _Posterize(round(16 - 12 * part)),
            _Solarize(1 - part), _Stretch(),
        )  # fmt: skip
        for j in range(self.depth):
            which = torch.where(j <= long, rng.fold("which").fold(j).integers(len(changes)), -1)
            for k, change in enumerate(changes):
                rows = (which == k).nonzero().squeeze(1)
                if len(rows):
                    z = z.index_copy(0, rows, change(z[rows], Rng(rng.fold(j).key[rows])))
        return z


CATALOGUE: tuple[type, ...] = (AugMix,)
