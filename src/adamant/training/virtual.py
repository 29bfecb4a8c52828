"""The direction in which an answer changes most, from a power iteration and no label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs
from adamant.access import Look, Sight
from adamant.attacks.gradient import At
from adamant.batch import per_row
from adamant.desk import Problem
from adamant.goals import Diverge
from adamant.losses import KL, Loss
from adamant.threats import Projectable
from adamant.threats.balls import unit
from adamant.training.parts import Batch, Inner, Memory, attacked


@final
@dataclass(frozen=True)
class _Power:
    """Looks a hair away from the input, along the gradient found so far; at the end, the whole budget that way."""

    steps: int
    hair: float  # of the budget
    loss: Loss = KL()
    needs: ClassVar[Sight] = Sight.GRADIENT

    def init(self, p: Problem) -> At:
        return self._beside(p, p.rng.fold("start").normal(*p.x.shape[1:], dtype=p.x.dtype))

    def step(self, p: Problem, s: At, seen: Look, t: int) -> At:
        if t < self.steps - 1:
            return self._beside(p, seen.slope)
        return At(p.project(p.threat.move(p.x, seen.slope, 1.0)))

    def _beside(self, p: Problem, direction: Tensor) -> At:
        """A step of equal share of the budget in the threat model's own unit; no hair leaves the box by much."""
        way = unit(p.threat.free(direction))
        length = p.threat.size(way, torch.zeros_like(way)).to(way).clamp_min(1e-12)
        return At(p.x + way * per_row(self.hair * p.threat.budget(p.x) / length, way))


@final
@dataclass(frozen=True)
class Virtual:
    """A view: the whole budget in the direction in which the answer changes most (Miyato et al., 2018); no label.

    The direction is the first eigenvector of the divergence's Hessian, from `steps` of the power iteration by
    differences over `hair` of the budget; within L2 it is that of the paper, elsewhere the steepest step along it.
    """

    steps: int = 1
    hair: float = 0.01
    view: str = "adv"
    labelless: ClassVar[bool] = True

    @property
    def cost(self) -> int:
        return 2 * self.steps + 1

    def stronger(self) -> Inner:
        return replace(self, steps=self.steps + 1)

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        with torch.no_grad():
            goal = Diverge(model(batch.x))
        attack = _Power(self.steps, self.hair)
        return {self.view: attacked(attack, model, batch, goal, threat)}
