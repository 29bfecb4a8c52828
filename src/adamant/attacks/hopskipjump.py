"""Decision-based attack by estimated normals of the boundary: HopSkipJump."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.access import Look, Sight
from adamant.attacks.decision import VERDICT, begin, fools, noise, to_boundary, units, votes
from adamant.batch import Rows, Shared, per_row, where
from adamant.desk import Problem
from adamant.losses import Loss
from adamant.random import Rng
from adamant.threats import L2, Linf, Normed

_HALVINGS = 32  # of the step, until it fools


@final
@dataclass(frozen=True, kw_only=True)
class HopSkipJump:
    """Back to the boundary, its normal estimated from the labels of points around, and a step along the normal.

    Chen et al., 2020, arXiv:1904.02144. A step asks about queries * sqrt(t) labels, and some 20 on the way.
    """

    steps: int = 40
    queries: int = 100  # for the first normal; step t takes so many times the root of t
    most: int = 10_000  # and never more than so many
    tries: int = 100  # to find a first success in noise
    examples: Shared | None = None  # inputs to start from; needed where a target is given
    loss: ClassVar[Loss] = VERDICT
    needs: ClassVar[Sight] = Sight.LABELS
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2, Linf)

    @dataclass(frozen=True)
    class State(Rows):
        """A success at the boundary, how far it was before it went back there, and rows that never had one."""

        z: Tensor
        far: Tensor
        done: Tensor

    def init(self, p: Problem) -> State:
        z, found = begin(p, self.examples, self.tries)
        return self._back(p, z, found)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        assert isinstance(p.threat, Normed)
        size = p.x[0].numel()
        around = torch.full_like(s.far, 0.1 * p.threat.width) if t == 0 else s.far / size
        # With many entries the paper's radius is less than the precision of the inputs can hold.
        around = around.clamp_min(4 * torch.finfo(s.z.dtype).eps * p.threat.width * math.sqrt(size))
        v = p.threat.steepest(self._normal(p, s.z, around, t))
        rate = p.threat.size(s.z, p.x).to(s.z) / math.sqrt(t + 1)
        return self._back(p, self._hop(p, s.z, v, rate, ~s.done), ~s.done)

    def _back(self, p: Problem, z: Inputs, rows: Mask) -> State:
        size = p.x[0].numel()
        share = size**-2.0 if isinstance(p.threat, Linf) else size**-1.5
        return self.State(to_boundary(p, z, share, rows), p.threat.size(z, p.x).to(z), ~rows)

    def _normal(self, p: Problem, z: Inputs, around: Scores, t: int) -> Tensor:
        """The mean of random directions, each with the sign of its label, less what the mean sign explains."""
        radius, count = per_row(around, z), min(int(self.queries * math.sqrt(t + 1)), self.most)
        signed, plain, balance = torch.zeros_like(z), torch.zeros_like(z), torch.zeros_like(around)

        def draw(rng: Rng, k: int) -> Tensor:
            return units(noise(p, rng, k))

        rng = p.rng.fold("normal").fold(t)
        for _, there, sign in votes(p, rng, count, draw, lambda u: p.threat.clip(z + radius * u)):
            way = (there - z) / radius
            signed, plain, balance = signed + per_row(sign, z) * way, plain + way, balance + sign
        mean = per_row(balance / count, z)
        return torch.where(mean.abs() == 1, mean * plain, signed - mean * plain)

    def _hop(self, p: Problem, z: Inputs, v: Tensor, rate: Scores, rows: Mask) -> Inputs:
        """As far along v as it still fools, by halves of the rate; it stays where nothing does."""
        here = z
        for _ in range(_HALVINGS):
            if not bool(rows.any()):
                break
            there = p.threat.clip(here + per_row(rate, here) * v)
            fooled = fools(p, there, rows)
            z, rows, rate = where(fooled, there, z), rows & ~fooled, rate / 2
        return z
