"""Attacks that look at random: random draws, random search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant.access import Look, Sight
from adamant.batch import Rows, where
from adamant.desk import Problem
from adamant.losses import Loss, Margin


@final
@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random members of the threat model, one after another: the worst of k.

    What Engstrom et al. (2019, arXiv:1712.02779) try for turns and shifts; and a test of whether noise alone succeeds.
    """

    steps: int = 9  # one more draw than steps
    loss: Loss = Margin()
    needs: ClassVar[Sight] = Sight.LABELS

    @dataclass(frozen=True)
    class State(Rows):
        """The draw to look at."""

        z: Tensor

    def init(self, p: Problem) -> State:
        return self.State(p.threat.sample(p.x, p.rng.fold("draw").fold(-1)))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        return self.State(p.threat.sample(p.x, p.rng.fold("draw").fold(t)))


@final
@dataclass(frozen=True, kw_only=True)
class RandomSearch:
    """Perturb, predict, compare, adjust: keep a random change if it helps, and change less as time goes on.

    Random search in the sense of Rastrigin (1963), from the corners of the set; each try moves a random share of the
    entries across the budget, the share falling geometrically from `wide` to one entry.
    """

    steps: int = 500
    wide: float = 0.3  # the share of entries changed at the beginning
    loss: Loss = Margin()
    needs: ClassVar[Sight] = Sight.SCORES

    @dataclass(frozen=True)
    class State(Rows):
        """The try to look at, the best so far, and its loss."""

        z: Tensor
        best: Tensor
        loss: Tensor

    def init(self, p: Problem) -> State:
        first = self._jump(p, p.x, p.rng.fold("start").sign(*p.x.shape[1:], dtype=p.x.dtype))
        return self.State(first, first, torch.full((len(p.x),), -torch.inf, dtype=torch.float64, device=p.x.device))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        better = seen.loss.double() > s.loss
        best, loss = where(better, s.z, s.best), torch.where(better, seen.loss.double(), s.loss)
        rng = p.rng.fold("try").fold(t)
        narrow = 1 / p.x[0].numel()
        share = max(narrow, self.wide * (narrow / self.wide) ** (t / max(1, self.steps)))
        free = p.threat.free(torch.ones_like(p.x)).flatten(1) > 0
        lot = torch.where(free, rng.uniform(*p.x.shape[1:]).flatten(1), torch.inf)
        # at least one entry, or the look is wasted
        chosen = (lot < share).scatter(1, lot.argmin(1, keepdim=True), True).view_as(p.x)
        direction = rng.fold("sign").sign(*p.x.shape[1:], dtype=p.x.dtype) * chosen
        # One try in four stops on the way: among few entries, such as parameters, the best place may lie inside.
        u = rng.fold("length").uniform(dtype=p.x.dtype)
        return self.State(self._jump(p, best, direction, torch.where(u < 0.25, 8 * u, 2.0)), best, loss)

    def _jump(self, p: Problem, z: Tensor, direction: Tensor, rate: Tensor | float = 2.0) -> Tensor:
        # Twice the budget carries an entry from one end of its range to the other; the projection does the rest.
        return p.threat.project(p.threat.move(z, direction, rate), p.x)
