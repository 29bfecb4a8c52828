"""Decision-based attack by circles through the input and its best: SurFree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.access import Look, Sight
from adamant.attacks.decision import VERDICT, begin, bisect, fools, to_boundary
from adamant.batch import Rows, Shared, per_row, where
from adamant.engine import Problem
from adamant.losses import Loss
from adamant.threats import L2
from adamant.threats.balls import unit

_WIDEN = 32  # times that an angle is made wider, at most
_RIGHT = math.pi / 2  # the angle at which the circle is back at x


@final
@dataclass(frozen=True, kw_only=True)
class SurFree:
    """In a random plane, around the circle from the best success towards x, as far as it fools; no normal is estimated.

    Maho et al., 2021, arXiv:2011.12807, with directions of white noise, not of the input's frequencies. A step is one
    plane: a query for each way around, and some eight more where one of them fools.
    """

    steps: int = 500
    angle: float = 30.0  # the first to be tried, in degrees
    rho: float = 0.95  # the angle is so much smaller after a plane in vain, and larger after another
    halvings: int = 7  # to find the best angle
    memory: int = 100  # a new direction is at right angles to so many of the last
    tries: int = 100  # to find a first success in noise
    examples: Shared | None = None  # inputs to start from; needed where a target is given
    loss: ClassVar[Loss] = VERDICT
    needs: ClassVar[Sight] = Sight.LABELS
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2,)

    @dataclass(frozen=True)
    class State(Rows):
        """The best success, the angle to try, the last directions (n, memory, size), and rows without a success."""

        z: Tensor
        angle: Tensor
        last: Tensor
        done: Tensor

    def init(self, p: Problem) -> State:
        z, found = begin(p, self.examples, self.tries)
        z = to_boundary(p, z, 2.0**-self.halvings, found)
        angle = torch.full_like(z.flatten(1)[:, 0], math.radians(self.angle))
        return self.State(z, angle, z.new_zeros(len(z), 0, z[0].numel()), ~found)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        change = s.z - p.x
        v = self._direction(p, change, s.last, t)
        distance = per_row(change.flatten(1).norm(dim=1), change)

        def at(angle: Scores) -> Inputs:
            a = per_row(angle, change)
            return p.threat.clip(p.x + a.cos() * (a.cos() * change + a.sin() * distance * v))

        one = fools(p, at(s.angle), ~s.done)
        other = fools(p, at(-s.angle), ~s.done & ~one)
        way, fooled = torch.where(one, 1.0, -1.0).to(s.angle), one | other
        least, most = self._bracket(p, lambda a: at(way * a), s.angle, fooled)
        best = where(fooled, at(way * least), s.z)
        best, _ = bisect(
            p, lambda share: at(way * (most + share * (least - most))), best, torch.ones_like(least),
            2.0**-self.halvings, fooled,
        )  # fmt: skip
        angle = (s.angle * torch.where(fooled, 1 / self.rho, self.rho)).clamp(max=_RIGHT / 2)
        return self.State(best, angle, torch.cat([s.last, v.flatten(1)[:, None]], 1)[:, -self.memory :], s.done)

    def _direction(self, p: Problem, change: Tensor, last: Tensor, t: int) -> Tensor:
        """A random direction at right angles to the change and, but for what that takes away, to the last ones."""
        v = p.threat.free(p.rng.fold("plane").fold(t).normal(*p.x.shape[1:], dtype=p.x.dtype)).flatten(1)
        room = v.shape[1] // 2  # with few entries fewer directions leave room for another
        for w in (*last.unbind(1)[max(0, last.shape[1] - room) :], unit(change).flatten(1)):
            v = v - (v * w).sum(1, keepdim=True) * w
        return unit(v).view_as(change)

    def _bracket(self, p: Problem, at: Callable[[Scores], Inputs], angle: Scores, rows: Mask) -> tuple[Scores, Scores]:
        """From an angle that fools, wider by as much again until one does not: the last that does, and the next."""
        least, most = angle, (2 * angle).clamp(max=_RIGHT)
        for _ in range(_WIDEN):
            rows = rows & (most < _RIGHT)
            if not bool(rows.any()):
                break
            rows = fools(p, at(most), rows)
            least = torch.where(rows, most, least)
            most = torch.where(rows, (most + angle).clamp(max=_RIGHT), most)
        return least, most
