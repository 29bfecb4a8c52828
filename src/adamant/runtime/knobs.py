"""Settings that change during training: pure functions of progress, so that a resumed run needs no saved schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable


@runtime_checkable
class Knob(Protocol):
    """A factor as a function of progress, which goes from 0 to 1 over the run."""

    def __call__(self, progress: float) -> float: ...


@final
@dataclass(frozen=True)
class Constant:
    """Always the same."""

    value: float = 1.0

    def __call__(self, progress: float) -> float:
        return self.value


@final
@dataclass(frozen=True)
class Ramp:
    """From `low` to `high` in a straight line until the given share of the run, then `high`."""

    until: float = 0.3
    low: float = 0.0
    high: float = 1.0

    def __call__(self, progress: float) -> float:
        return self.low + (self.high - self.low) * progress / self.until if progress < self.until else self.high


@final
@dataclass(frozen=True)
class OneCycle:
    """Up in a straight line until `peak`, then down to 0 (Smith & Topin, 2019, arXiv:1708.07120)."""

    peak: float = 0.3
    low: float = 0.1

    def __call__(self, progress: float) -> float:
        if progress < self.peak:
            return self.low + (1 - self.low) * progress / self.peak
        return max(0.0, (1 - progress) / (1 - self.peak)) if self.peak < 1 else 1.0


@final
@dataclass(frozen=True)
class Cosine:
    """From 1 to 0 along half a cosine (Loshchilov & Hutter, 2017, arXiv:1608.03983)."""

    def __call__(self, progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


CATALOGUE: tuple[type, ...] = (Constant, Ramp, OneCycle, Cosine)
