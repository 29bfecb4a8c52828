"""Averages of the weights along the way, which are what is evaluated and saved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Average(Protocol):
    """Takes the weights and buffers after every step into a mean."""

    def share(self, step: int, steps: int) -> float:
        """The share of the live weights in the mean after this step, of so many."""
        ...


@final
@dataclass(frozen=True)
class EMA:
    """Exponential moving average of weights and buffers (Gowal et al., 2020, arXiv:2010.03593).

    The decay is min(decay, (1 + t) / (10 + t)), or the average would sit at its random start for most of a short run.
    """

    decay: float = 0.995

    def share(self, step: int, steps: int) -> float:
        return 1 - min(self.decay, (1 + step) / (10 + step))


@final
@dataclass(frozen=True)
class SWA:
    """The plain mean of weights and buffers from `start` on (Izmailov et al., 2018, arXiv:1803.05407).

    Until then it is the live network; where the rate falls to nothing at the end, a mean has little left to do.
    """

    start: float = 0.75

    def share(self, step: int, steps: int) -> float:
        return 1 / (step - math.ceil(self.start * steps) + 1) if step >= self.start * steps else 1.0


def update(average: Average, mean: dict[str, Tensor], model: nn.Module, step: int, steps: int) -> None:
    """One step of the mean of those weights and buffers that it names, in place; counters are copied."""
    share, state = average.share(step, steps), model.state_dict()
    with torch.no_grad():
        for name, held in mean.items():
            if held.is_floating_point():
                held.lerp_(state[name], share)
            else:
                held.copy_(state[name])


CATALOGUE: tuple[type, ...] = (EMA, SWA)
