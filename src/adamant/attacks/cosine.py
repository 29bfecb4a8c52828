"""The gradient attack that finds most in few steps: long strides first, and ever shorter ones, with momentum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from adamant._types import Inputs
from adamant.access import Look, Sight
from adamant.attacks.starts import Anywhere, Start
from adamant.batch import PerRow, Rows
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import Loss, Margin


@final
@dataclass(frozen=True, kw_only=True)
class CosinePGD:
    """PGD whose steps fall from `rate` to nothing along half a cosine, with the momentum of Auto-PGD.

    Liu et al., 2022, arXiv:2203.05154, take these steps, Croce & Hein, 2020, arXiv:2003.01690, this momentum. The
    margin as a loss does not saturate, whatever the scale of the logits. With `wide` above 1 the way leads through a
    larger ball, which shrinks to the budget by the middle of the run (the idea of Pan et al., 2025: relax, then
    tighten).
    """

    steps: int = 20
    rate: float = 1.0  # of the budget, the first step
    momentum: float = 0.25  # the share of the last move that is made again
    wide: float = 1.0  # the first ball, in budgets
    start: Start = Anywhere()
    loss: Loss = Margin()
    needs: ClassVar[Sight] = Sight.GRADIENT
    roams: ClassVar[bool] = True

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is and was."""

        z: Tensor
        last: Tensor

    def init(self, p: Problem) -> State:
        if not self.wide >= 1:
            raise InputError(f"The wide ball of CosinePGD holds the budget, so wide is at least 1, not {self.wide:g}.")
        z = self.start(p)
        return self.State(z, z)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        project = self._ball(p, t)
        z = project(p.threat.move(s.z, seen.slope, self.rate * _fall(t / self.steps)))
        if t > 0 and self.momentum:
            z = project(s.z + (1 - self.momentum) * (z - s.z) + self.momentum * (s.z - s.last))
        return self.State(z, s.z)

    def _ball(self, p: Problem, t: int) -> Callable[[Inputs], Inputs]:
        """The way back into the set of the next look."""
        wide = 1 + (self.wide - 1) * _fall(2 * (t + 1) / self.steps)
        if wide <= 1:
            return p.project
        ball = p.threat.at(PerRow(p.threat.budget(p.x).double() * wide))
        return lambda z: ball.project(z, p.x)


def _fall(progress: float) -> float:
    """From 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
