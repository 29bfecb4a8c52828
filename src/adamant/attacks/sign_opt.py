"""Decision-based attack that turns the direction to the nearest boundary, one label for each derivative: Sign-OPT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.access import Look, Sight
from adamant.attacks.decision import VERDICT, begin, bisect, fools, noise, to_boundary, units, votes
from adamant.batch import Rows, Shared, per_row, where
from adamant.desk import Problem
from adamant.losses import Loss
from adamant.random import Rng
from adamant.threats import L2, Linf
from adamant.threats.balls import unit

_TURNS = 15  # step sizes that are tried, larger ones and then smaller ones


@final
@dataclass(frozen=True, kw_only=True)
class SignOPT:
    """Gradient descent on the distance to the boundary, as a function of the direction from the input.

    Cheng et al., 2020, arXiv:1909.10773. Whether the boundary is nearer in a direction beside the best is one label:
    that of the point as far out as the best. A step sums such signs, and searches the size of its turn. On Linf, where
    directions end on a cube, a turn moves every entry by its sign.
    """

    steps: int = 100
    queries: int = 100  # signs for each gradient; the authors take 200
    rate: float = 0.2  # the first turn to be tried
    around: float = 0.001  # how far off the directions are that are asked, as a share of the change
    tries: int = 100  # to find a first success in noise
    examples: Shared | None = None  # inputs to start from; needed where a target is given
    loss: ClassVar[Loss] = VERDICT
    needs: ClassVar[Sight] = Sight.LABELS
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2, Linf)

    @dataclass(frozen=True)
    class State(Rows):
        """The nearest success, the turn to try, how far off directions are asked, and rows without a success."""

        z: Tensor
        rate: Tensor
        around: Tensor
        done: Tensor

    def init(self, p: Problem) -> State:
        z, found = begin(p, self.examples, self.tries)
        z = to_boundary(p, z, self.around * _share(p), found)
        one = torch.ones_like(z.flatten(1)[:, 0])
        return self.State(z, self.rate * one, (self.around * one).clamp_min(_least(p)), ~found)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        theta, v, z, rate = _one(p, s.z - p.x), self._descent(p, s, t), s.z, s.rate
        nearer, longer = torch.zeros_like(s.done), ~s.done
        for _ in range(_TURNS):  # twice as far, as long as it helps
            rate, tried = torch.where(longer, 2 * rate, rate), rate
            z, longer = self._nearer(p, z, _turned(p, theta, v, tried), s.around, longer)
            nearer = nearer | longer
            if not bool(longer.any()):
                break
        return self._shorter(p, s, z, theta, v, rate, nearer)

    def _shorter(self, p: Problem, s: State, z: Inputs, theta: Tensor, v: Tensor, rate: Scores, nearer: Mask) -> State:
        open_ = ~nearer & ~s.done
        for _ in range(_TURNS):  # else a quarter, until it helps
            if not bool(open_.any()):
                break
            rate = torch.where(open_, rate / 4, rate)
            z, helps = self._nearer(p, z, _turned(p, theta, v, rate), s.around, open_)
            open_ = open_ & ~helps
        stuck = rate < 1e-4
        around = torch.where(stuck, s.around / 10, s.around).clamp_min(_least(p))
        return self.State(z, torch.where(stuck, 1.0, rate), around, s.done)

    def _descent(self, p: Problem, s: State, t: int) -> Tensor:
        """The mean of random directions, each with its sign: plus where the boundary is nearer there."""
        theta, far, v = _one(p, s.z - p.x), per_row(p.threat.size(s.z, p.x).to(s.z), s.z), torch.zeros_like(s.z)
        cube = isinstance(p.threat, Linf)

        def draw(rng: Rng, k: int) -> Tensor:
            u = noise(p, rng, k)
            return u if cube else units(u)

        def at(u: Tensor) -> Tensor:
            way = theta + per_row(s.around, theta) * u
            return p.threat.clip(p.x + far * (way.clamp(-1, 1) if cube else units(way)))

        for u, _, sign in votes(p, p.rng.fold("signs").fold(t), self.queries, draw, at):
            v = v + per_row(sign, u) * u
        return v.sign() if cube else v / self.queries

    def _nearer(self, p: Problem, z: Inputs, u: Tensor, around: Scores, rows: Mask) -> tuple[Inputs, Mask]:
        """The boundary along u where that is nearer than z, which costs other rows one label; and where it is."""
        u, size = _one(p, u), p.threat.size(z, p.x).to(z)
        exact = around * _share(p)

        def way(r: Scores) -> Inputs:
            return p.threat.clip(p.x + per_row(r, u) * u)

        far = size * (1 - exact)
        helps = fools(p, way(far), rows)
        low, open_, gap = far, helps, 0.01
        for _ in range(8):  # nearer by 1 %, 2 %, 4 %, ..., until it does not fool
            if not bool(open_.any()):
                break
            low = torch.where(open_, size * max(0.0, 1 - gap), low)
            fooled = fools(p, way(low), open_ & (low > 0))
            far, open_, gap = torch.where(fooled, low, far), fooled, 2 * gap
        narrow = size * exact / (far - low).clamp_min(torch.finfo(z.dtype).tiny)
        best, _ = bisect(p, lambda share: way(low + share * (far - low)), way(far), torch.ones_like(far), narrow, helps)
        return where(helps, best, z), helps


def _one(p: Problem, v: Tensor) -> Tensor:
    """A direction at size one."""
    if not isinstance(p.threat, Linf):
        return unit(v)
    return v / per_row(v.flatten(1).abs().amax(1).clamp_min(torch.finfo(v.dtype).tiny), v)


def _turned(p: Problem, theta: Tensor, v: Tensor, rate: Scores) -> Tensor:
    """The direction theta, of size one, and so much of v; what leaves the cube of Linf ends on its face."""
    way = theta + per_row(rate, v) * v
    return _one(p, way.clamp(-1, 1) if isinstance(p.threat, Linf) else way)


def _share(p: Problem) -> float:
    """How exactly to know the distance, well within what a direction beside the best changes: a share of `around`."""
    return 1 / (16 * math.sqrt(p.x[0].numel()))


def _least(p: Problem) -> float:
    """Directions nearer to the best than this are lost in the precision of the inputs."""
    return 64 * torch.finfo(p.x.dtype).eps * math.sqrt(p.x[0].numel())
