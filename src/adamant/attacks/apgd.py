"""Gradient attacks that set their own step size: APGD within Linf and L2, APGDL1 within L1."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Scores
from adamant.access import Look, Sight
from adamant.attacks.starts import Anywhere, Start
from adamant.batch import PerRow, Rows, per_row, where
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import CrossEntropy, Loss
from adamant.threats import L1, L2, Linf


@dataclass(frozen=True)
class Place(Rows):
    """A point that was looked at, its gradient and its loss."""

    z: Tensor
    slope: Tensor
    loss: Tensor

    @classmethod
    def nowhere(cls, x: Inputs) -> Place:
        """Worse than any point."""
        return cls(x, torch.zeros_like(x), torch.full_like(x.flatten(1)[:, 0], -torch.inf, dtype=torch.float64))

    def better(self, other: Place) -> Place:
        """Of each row the place of higher loss."""
        return where(other.loss > self.loss, other, self)


@final
@dataclass(frozen=True, kw_only=True)
class APGD:
    """Long steps with momentum; at checkpoints a row that makes no progress halves its step and returns to its best.

    Auto-PGD (Croce & Hein, 2020, arXiv:2003.01690); with DLR for each target (`EachTarget`) it is their APGD-T.
    """

    steps: int = 100
    rate: float = 2.0  # length of the first steps, in budgets
    momentum: float = 0.25  # the share of the last move that is made again
    rises: float = 0.75  # a row whose loss rose in no more than this share of the steps halves its step
    start: Start = Anywhere()
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT
    threats: ClassVar[tuple[type, ...]] = (Linf, L2)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is and was; the best, now and at the last checkpoint; the step, and how it has done since."""

        z: Tensor
        last: Tensor
        loss: Tensor  # at the last look
        best: Place
        mark: Tensor  # loss of the best at the last checkpoint
        rate: Tensor
        rose: Tensor  # in how many steps since the last checkpoint
        halved: Tensor  # whether the step was halved there

    def init(self, p: Problem) -> State:
        z, best = self.start(p), Place.nowhere(p.x)
        rate = torch.full_like(best.loss, self.rate, dtype=p.x.dtype)
        halved = torch.ones_like(rate, dtype=torch.bool)
        return self.State(z, z, -best.loss, best, best.loss, rate, torch.zeros_like(rate), halved)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        here = Place(s.z, seen.slope, seen.loss.double())
        best, rose = s.best.better(here), s.rose + (here.loss > s.loss)
        loss, mark, rate, halved = here.loss, s.mark, s.rate, s.halved
        if since := _checkpoints(self.steps).get(t):
            halved = (rose <= self.rises * since) | (~s.halved & (best.loss <= s.mark))
            here, rate = where(halved, best, here), torch.where(halved, rate / 2, rate)
            mark, rose = best.loss, torch.zeros_like(rose)
        z = p.project(p.threat.move(here.z, here.slope, rate))
        if t > 0:
            z = p.project(here.z + (1 - self.momentum) * (z - here.z) + self.momentum * (here.z - s.last))
        return self.State(z, here.z, loss, best, mark, rate, rose, halved)


def _checkpoints(steps: int) -> dict[int, int]:
    """After which steps to check, and how many steps each has behind it: first many, later few."""
    at = [0] + [-(-share * steps // 100) for share in (22, 41, 57, 70, 80, 87, 93, 99)]
    return {now: now - before for before, now in pairwise(at) if now > before}


@final
@dataclass(frozen=True, kw_only=True)
class APGDL1:
    """Sparse steps, as many entries as the best change has by two thirds, first in a ball of `wide` budgets.

    Croce & Hein, 2021, arXiv:2103.01208. The ball shrinks twice on the way, to the budget at last; only points within
    the budget count.
    """

    steps: int = 100
    wide: float = 3.0  # 1 stays within the budget throughout
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT
    roams: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L1,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, the best in this ball, the step, and how many entries the best had changed when last counted."""

        z: Tensor
        best: Place
        rate: Tensor
        changed: Tensor

    def init(self, p: Problem) -> State:
        if self.wide < 1:
            raise InputError(f"The wide ball of APGDL1 holds the budget, so wide is at least 1, not {self.wide:g}.")
        # Noise much longer than the budget: its projection is sparse, as good changes are.
        noise = p.rng.fold("start").normal(*p.x.shape[1:], dtype=p.x.dtype)
        z, best = self._project(p, p.x + p.threat.width * noise, 0), Place.nowhere(p.x)
        one = torch.ones_like(best.loss, dtype=p.x.dtype)
        return self.State(z, best, one, one)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        here, (begin, pace, ball) = Place(s.z, seen.slope, seen.loss.double()), self._phase(t)
        if t == begin:
            best, rate, changed = Place.nowhere(p.x).better(here), torch.ones_like(s.rate), _count(s.z, p.x)
        else:
            best, rate, changed = s.best.better(here), s.rate, s.changed
            if (t - begin) % pace == 0:
                changed = _count(best.z, p.x)
                sparser = changed < 0.95 * s.changed
                here, rate = where(sparser, best, here), torch.where(sparser, 1.0, (rate / 1.5).clamp_min(0.1))
        if self._phase(t + 1)[0] > t:
            return self.State(self._project(p, best.z, t + 1), best, rate, changed)
        entries = (changed / 1.5).ceil().long()
        direction = _sparse(here.slope, entries)
        # Where all entries chosen are at the edge of their range, the step is for those that can move.
        can = p.threat.clip(here.z + p.threat.width * here.slope.sign()) != here.z
        moves = (can & (direction != 0)).flatten(1).any(1)
        if not bool(moves.all()):
            direction = where(moves, direction, _sparse(torch.where(can, here.slope, 0), entries))
        z = here.z + per_row(rate * p.threat.budget(p.x) * ball, direction) * direction
        return self.State(self._project(p, z, t), best, rate, changed)

    def _phase(self, t: int) -> tuple[int, int, float]:
        """At which look the phase of look t begins, every how many looks it checks, and its ball in budgets."""
        third = 3 * self.steps // 10 if self.wide > 1 else 0
        n = min(t // third, 2) if third else 2
        length = third if n < 2 else self.steps - 2 * third
        return n * third, max(1, length // 25), (self.wide, (self.wide + 1) / 2, 1.0)[n]

    def _project(self, p: Problem, z: Inputs, t: int) -> Inputs:
        """Onto the ball of look t."""
        ball = self._phase(t)[2]
        return p.project(z) if ball == 1 else p.threat.at(PerRow(p.threat.budget(p.x) * ball)).project(z, p.x)


def _count(z: Inputs, x: Inputs) -> Scores:
    """How many entries of each row are not as they were."""
    return (z != x).flatten(1).sum(1, dtype=x.dtype)


def _sparse(g: Inputs, entries: Tensor) -> Inputs:
    """The signs of so many entries of each row, those of largest gradient, at L1 length one."""
    size = g.flatten(1).abs()
    entries = entries.clamp(1, size.shape[1])
    least = size.topk(int(entries.max()), dim=1).values.gather(1, entries[:, None] - 1)
    chosen = g.sign() * (size >= least).view_as(g)
    return chosen / per_row(chosen.flatten(1).abs().sum(1).clamp_min(1), chosen)
