"""Averages of the weights along the way, which are what is evaluated and saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn


@final
@dataclass(frozen=True)
class EMA:
    """Exponential moving average of weights and buffers (Gowal et al., 2020, arXiv:2010.03593).

    The decay is min(decay, (1 + t) / (10 + t)), or the average would sit at its random start for most of a short run.
    """

    decay: float = 0.995

    def update(self, mean: dict[str, Tensor], model: nn.Module, step: int) -> None:
        """One step of the average, in place."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    mean[name].lerp_(value, 1 - decay)
                else:
                    mean[name].copy_(value)


CATALOGUE: tuple[type, ...] = (EMA,)
