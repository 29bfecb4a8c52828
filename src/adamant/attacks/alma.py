"""The augmented Lagrangian method: the size of the change plus a penalty on the margin whose multiplier is learnt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Logits, Scores
from adamant.access import Look, Sight
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.goals import Goal, Targeted
from adamant.losses import Margin
from adamant.threats import L1, L2
from adamant.threats.balls import unit


@final
@dataclass(frozen=True)
class Share:
    """The margin as a share of how far the highest logit is above the third (targeted: third and fourth).

    The paper's scaling of the margin, which, unlike DLR, is negative wherever the goal is not reached. With too few
    classes for it the margin is left as it is.
    """

    def __call__(self, logits: Logits, goal: Goal) -> Scores:
        margin, needed = Margin()(logits, goal), 4 if isinstance(goal, Targeted) else 3
        if logits.shape[1] < needed:
            return margin
        top = logits.to(margin).topk(needed, dim=1).values
        return margin / (top[:, 0] - top[:, 2:].mean(1)).clamp_min(1e-8)


@final
@dataclass(frozen=True, kw_only=True)
class ALMA:
    """RMSProp on the size of the change plus a penalty on the margin, whose weight and slope follow the margin.

    Rony et al., 2021, arXiv:2011.11857, with its penalty P2; the paper takes 1000 steps.
    """

    steps: int = 100
    first: float | None = None  # size of the first step in widths of the box; if None, 0.1 in L2 and 0.5 in L1
    last: float = 0.01  # what is left of the rate at the end, counted from the first success of the row
    multiplier: float = 1.0  # of the margin, at first
    penalty: float = 1.0  # grows while the margin does not
    patience: int = 10  # steps after which it should have
    gain: float = 0.95  # what should be left of the margin by then
    growth: float = 1.2
    decay: float = 0.9  # of all averages
    slack: float = 1e-4  # by how much the margin should be positive
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L1, L2)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is; the averages of RMSProp; multiplier and penalty; the rate; when the first success was."""

        z: Tensor
        square: Tensor
        momentum: Tensor
        multiplier: Tensor
        penalty: Tensor
        before: Tensor  # the margin when it was last checked
        rate: Tensor
        found: Tensor  # the step of the first success, `steps` before it

    @property
    def loss(self) -> Share:
        return Share()

    def init(self, p: Problem) -> State:
        zero = torch.zeros_like(p.x.flatten(1)[:, 0])
        one, flat = zero + 1, torch.zeros_like(p.x)
        return self.State(p.x, flat + 1, flat, one * self.multiplier, one * self.penalty, zero, zero, zero + self.steps)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        # Lengths are in widths of the box; `lack` is positive until the row is fooled.
        width, lack, fooled = p.threat.width, (self.slack - seen.loss).to(s.z), p.goal.reached(seen.logits)
        before, penalty, multiplier = (lack if t == 0 else s.before), s.penalty, s.multiplier
        if (t + 1) % self.patience == 0:
            stuck = (s.found >= self.steps) & ~(lack < self.gain * before)
            before, penalty = lack, torch.where(stuck, self.growth * penalty, penalty)
        if t:
            new = _slope(lack, penalty, multiplier).nan_to_num(1e12, 1e12)
            multiplier = (self.decay * multiplier + (1 - self.decay) * new).clamp(1e-6, 1e12)
        change = (s.z - p.x) / width
        toward = change.sign() if isinstance(p.threat, L1) else unit(change)
        g = toward - per_row(_slope(lack, penalty, multiplier).nan_to_num(0.0, 1e12), change) * seen.slope * width
        rate = self._first_rate(p, g) if t == 0 else s.rate
        found = torch.where(fooled, s.found.clamp_max(t), s.found)
        along = (t - found).clamp_min(0) / (self.steps - found).clamp_min(1)
        fallen = (math.log(self.last) * along).exp()  # torch's own power rounds by the place in the batch
        square = self.decay * s.square + (1 - self.decay) * g.square()
        momentum = self.decay * s.momentum + g / (square.sqrt() + 1e-8)
        z = p.threat.clip(s.z - p.threat.free(per_row(rate * fallen * width, g) * momentum))
        return self.State(z, square, momentum, multiplier, penalty, before, rate, found)

    def _first_rate(self, p: Problem, g: Tensor) -> Scores:
        """The rate at which a step along g is of the wanted size, by bisection."""
        wanted = (self.first or (0.5 if isinstance(p.threat, L1) else 0.1)) * p.threat.width
        low = torch.full_like(p.x.flatten(1)[:, 0], -20.0)
        high = -low
        for _ in range(30):
            middle = (low + high) / 2
            far = p.threat.size(p.threat.clip(p.x - per_row(middle.exp() * p.threat.width, g) * g), p.x) > wanted
            low, high = torch.where(far, low, middle), torch.where(far, middle, high)
        return torch.where(g.flatten(1).any(1), low.exp(), 0)


def _slope(y: Scores, penalty: Scores, multiplier: Scores) -> Scores:
    """The derivative of the paper's P2 by y."""
    outside = multiplier * (1 + 2 * penalty * y) + penalty**2 * y**2 / 2
    return torch.where(y >= 0, outside, multiplier / (1 - penalty * y.clamp_max(0)) ** 2)
