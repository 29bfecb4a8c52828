"""Write an attack: a record of settings with two functions. The engine does the rest, and the house tests it."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

import adamant as am
from adamant.access import Look, Sight
from adamant.attacks.gradient import climb
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.losses import CrossEntropy, Loss
from adamant.testing import Member, cases, check


# --8<-- [start:attack]
@final
@dataclass(frozen=True, kw_only=True)
class Lookahead:
    """Momentum that looks ahead: the gradient is that of the next place; the house has it as NIFGSM."""

    steps: int = 10
    rate: float = 0.1  # of the budget, per step
    decay: float = 1.0
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    @dataclass(frozen=True)
    class State(Rows):
        """Where to look, where it is, and the momentum: each leads with the batch."""

        z: Tensor
        at: Tensor
        m: Tensor

    def init(self, p: Problem) -> State:
        return self.State(p.x, p.x, torch.zeros_like(p.x))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        g = seen.slope
        m = self.decay * s.m + g / per_row(g.flatten(1).abs().sum(1).clamp_min(torch.finfo(g.dtype).tiny), g)
        at = climb(p, s.at, m, self.rate)
        if t == self.steps - 1:
            return self.State(at, at, m)  # the last look is at the point itself
        ahead = p.project(at + m * per_row(self.rate * self.decay * p.threat.budget(p.x), m))
        return self.State(ahead, at, m)


# --8<-- [end:attack]


if __name__ == "__main__":
    # --8<-- [start:check]
    member = Member(
        attack=Lookahead(steps=20),
        threats=(am.Linf(0.15),),
        reach=1.5,  # breaks every row that a budget 1.5 times smaller can break, on affine networks of two classes
        random=False,  # draws nothing, so the seed changes nothing
    )
    kept = 0
    for case in cases(member):
        check(case)  # raises AssertionError, with the promise that was broken
        kept += 1
    print(f"{member.attack} keeps every promise in {kept} cases.")
    # --8<-- [end:check]
