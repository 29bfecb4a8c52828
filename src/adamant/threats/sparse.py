"""The number of entries, or of pixels, that change: L0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.batch import per_row
from adamant.errors import InputError
from adamant.random import Rng
from adamant.threats._box import Ball


@final
@dataclass(frozen=True)
class L0(Ball):
    """{z in the box: at most eps entries differ from x}; with `pixels`, at most eps pixels, all channels together."""

    pixels: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.box[1] - self.box[0]):
            raise InputError(f"L0 needs a finite box, got {self.box}: its entries may go anywhere in it.")

    def contains(self, z: Inputs, x: Inputs) -> Mask:
        return self._sizes_fit(self.size(z, x), z, x)

    def size(self, z: Inputs, x: Inputs) -> Scores:
        """How many entries (or pixels) changed."""
        changed = (z != x).flatten(1) if not self.pixels else self._by_pixel((z != x).to(x.dtype)) > 0
        return changed.sum(1).double()

    def sample(self, x: Inputs, rng: Rng) -> Inputs:
        """Random entries, each uniform on the box."""
        low, high = self.box
        anywhere = low + (high - low) * rng.uniform(*x.shape[1:], dtype=x.dtype)
        lottery = self._by_pixel(self.free(rng.fold("entries").uniform(*x.shape[1:], dtype=x.dtype)))
        return self._hold(torch.where(self._top(lottery, x), anywhere, x), x)

    def move(self, z: Inputs, g: Inputs, rate: Scores | float) -> Inputs:
        """A step along the gradient at unit L1 length, scaled by the box and the number of entries.

        Long on purpose (Croce & Hein, 2019, arXiv:1909.05040, take 0.15 of this unit): with short steps the entries
        chosen first could never be overtaken.
        """
        g = self.free(g)
        length = per_row(g.flatten(1).abs().sum(1).clamp_min(torch.finfo(g.dtype).tiny), g)
        rate = per_row(rate, z) if isinstance(rate, Tensor) else rate
        return z + (g / length) * (rate * (self.box[1] - self.box[0]) * g[0].numel())

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        """Exact: clip to the box, then keep the entries whose undoing would cost most."""
        inside = self._hold(self.clip(z), x)
        gain = (inside - x) * ((z - x) + (z - inside))  # the difference of squares, without their cancellation
        return torch.where(self._top(self._by_pixel(self.free(gain)), x), inside, x)

    def _by_pixel(self, values: Tensor) -> Tensor:
        return (values.sum(1) if self.pixels else values).flatten(1)

    def _top(self, score: Tensor, like: Inputs) -> Tensor:
        """True on the eps entries of highest positive score, shaped to broadcast over the inputs."""
        count = self._limits(like).floor().clamp(max=score.shape[1]).long()
        most = int(count.max()) if len(count) else 0
        value, where = score.topk(most, dim=1)
        keep = (torch.arange(most, device=score.device) < count[:, None]) & (value > 0)
        chosen = torch.zeros_like(score, dtype=torch.bool).scatter(1, where, keep)
        return chosen.view(len(like), 1, *like.shape[2:]) if self.pixels else chosen.view_as(like)
