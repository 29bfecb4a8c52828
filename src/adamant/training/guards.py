"""What may go wrong in a run, noticed in time: the run goes back to where it was well, and on with more care."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from torch import nn

from adamant._types import Inputs, Labels
from adamant.adversary import Attack
from adamant.attacks.gradient import FGSM, PGD
from adamant.engine import run
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.threats import Projectable


@runtime_checkable
class Guard(Protocol):
    """Looks at the model every so many steps, on the same few training rows."""

    @property
    def every(self) -> int: ...

    @property
    def rows(self) -> int: ...

    def probe(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng) -> tuple[float, float]:
        """What the alarm goes by: robust accuracy, and that under one step."""
        ...

    def alarm(self, probe: tuple[float, float], best: float) -> str:
        """What is wrong, in words, given the best robust accuracy so far; nothing, where nothing is."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Collapse:
    """Catastrophic overfitting (Wong et al., 2020, arXiv:2001.03994): the model answers one step and nothing else.

    A small PGD on training rows; the alarm is a fall of robust accuracy by `drop` since its best, or one step that is
    answered better than many by `gap`.
    """

    every: int = 100  # steps
    rows: int = 256
    drop: float = 0.15
    gap: float = 0.4
    attack: Attack = PGD(steps=10, rate=0.25)

    def probe(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng) -> tuple[float, float]:
        many, one = (run(a, model, x, Untargeted(y), threat, rng=rng).robust_accuracy for a in (self.attack, FGSM()))
        return many, one

    def alarm(self, probe: tuple[float, float], best: float) -> str:
        many, one = probe
        if best - many > self.drop:
            return f"robust accuracy on training rows fell from {best:.1%} to {many:.1%}"
        if one - many > self.gap:
            return f"one step leaves {one:.1%} of the training rows standing, several leave {many:.1%}"
        return ""


CATALOGUE: tuple[type, ...] = (Collapse,)
