"""Decoupled direction and norm: a gradient step, then a longer or shorter radius; minimum L2 norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant.access import Look, Sight
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.losses import CrossEntropy, Loss
from adamant.threats import L2
from adamant.threats.balls import unit


@final
@dataclass(frozen=True, kw_only=True)
class DDN:
    """Steps along the gradient; the radius shrinks after a success and grows otherwise.

    Rony et al., 2019, arXiv:1811.09600, without its quantisation: the desk keeps the smallest success.
    """

    steps: int = 100
    rate: float = 1.0  # length of the first step in widths of the box; falls to a hundredth along a cosine
    radius: float = 1.0  # of the first projection, in widths of the box
    gamma: float = 0.05  # by how much the radius changes
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, the change before it met the box, and the radius."""

        z: Tensor
        change: Tensor
        radius: Tensor

    def init(self, p: Problem) -> State:
        radius = torch.full_like(p.x.flatten(1)[:, 0], self.radius * p.threat.width)
        return self.State(p.x, torch.zeros_like(p.x), radius)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        rate = self.rate * p.threat.width * (0.01 + 0.99 * (1 + math.cos(math.pi * t / self.steps)) / 2)
        change = s.change + rate * unit(seen.slope)
        fooled = p.goal.reached(seen.logits)
        radius = s.radius * torch.where(fooled, 1 - self.gamma, 1 + self.gamma)
        change = p.threat.clip(p.x + unit(change) * per_row(radius, change)) - p.x
        return self.State(p.x + change, change, radius)
