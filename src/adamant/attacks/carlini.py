"""Attacks that weigh the size of the change against the margin, and seek the weight: Carlini and Wagner's, EAD."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.access import Look, Sight
from adamant.batch import Rows, per_row, where
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import Margin
from adamant.threats import L1, L2, Linf


@final
@dataclass(frozen=True)
class Search(Rows):
    """The search for the least weight of the margin that is enough: rounds of so many steps, each row in its own."""

    weight: Tensor
    low: Tensor  # the most that was too little
    high: Tensor  # the least that was enough; inf before the first success
    age: Tensor  # steps of this round
    left: Tensor  # rounds
    hit: Tensor  # was there a success in this round?
    before: Tensor  # the objective when progress was last checked

    @staticmethod
    def of(weight: float, rounds: int, x: Inputs) -> Search:
        """Before the first round."""
        zero = torch.zeros_like(x.flatten(1)[:, 0])
        inf = torch.full_like(zero, torch.inf)
        return Search(zero + weight, zero, inf, zero.long(), zero.long() + rounds, zero.bool(), inf)

    def after(self, fooled: Mask, objective: Scores, *, each: int, abort: bool) -> tuple[Search, Mask]:
        """One step later, and whose round is over; with `abort` also where a tenth of a round gained nothing."""
        check = self.age % max(1, each // 10) == 0
        stuck = check & (objective > self.before * 0.9999) & abort
        one = replace(self, age=self.age + 1, hit=self.hit | fooled, before=torch.where(check, objective, self.before))
        over = (one.age >= each) | stuck
        low, high = torch.where(one.hit, self.low, self.weight), torch.where(one.hit, self.weight, self.high)
        weight = torch.where(high.isinf(), (self.weight * 10).clamp_max(1e10), (low + high) / 2)
        return where(over, replace(one.again(weight), low=low, high=high, left=self.left - 1), one), over

    def again(self, weight: Scores) -> Search:
        """Before the next round."""
        inf = torch.full_like(weight, torch.inf)
        return replace(self, weight=weight, age=self.age * 0, hit=self.hit & False, before=inf)


@final
@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Adam on the squared length of the change plus a weight times the margin, where tanh keeps inputs in their box.

    Carlini & Wagner, 2017, arXiv:1608.04644. Theirs is CarliniWagner(rounds=9, each=10000, rate=0.01, last=1.0,
    weight=0.001, warm=False, abort=True).
    """

    rounds: int = 12  # of the search for the weight
    each: int = 15  # steps of a round
    rate: float = 0.5  # of Adam, at first
    last: float = 0.01  # the share of it that is left at the end, along a cosine
    weight: float = 1.0  # of the margin, in the first round
    warm: bool = True  # a round goes on from where the last one ended, not from the input
    abort: bool = False  # end a round where a tenth of it gained nothing
    inset: float = 1e-6  # how far from the edges of the box artanh is kept, as a share: at them it is infinite
    loss: Margin = Margin()
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, in the box and in the space of artanh; Adam's moments, and the search."""

        z: Tensor
        w: Tensor
        mean: Tensor
        square: Tensor
        search: Search

        @property
        def done(self) -> Mask:
            """No round is left, and the last step was looked at."""
            return (self.search.left <= 0) & (self.search.age > 0)

    @property
    def steps(self) -> int:
        return self.rounds * self.each

    def init(self, p: Problem) -> State:
        check_box(p, "CarliniWagner", "DDN")
        w, search = artanh(p, p.x, self.inset), Search.of(self.weight, self.rounds, p.x)
        zero = torch.zeros_like(w)
        return self.State(p.x, w, zero, zero, search)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        width, start, weight = p.threat.width, artanh(p, p.x, self.inset), s.search.weight
        change, fooled, short = (s.z - p.x) / width, p.goal.reached(seen.logits), (-seen.loss).clamp_min(0).to(s.z)
        cost = change.flatten(1).square().sum(1)
        # A warm round begins where another weight led: only its last quarter tells whether its own is enough.
        counts = fooled & (s.search.age >= (0.75 * self.each if self.warm else 0))
        search, over = s.search.after(counts, cost + weight * short, each=self.each, abort=self.abort)
        slope = 2 * change - per_row(weight * (short > 0), change) * seen.slope * width
        g = slope * (1 - s.w.tanh().square()) / 2
        along, mean, square = adam(s.mean, s.square, g, s.search.age + 1)
        past = ((self.rounds - s.search.left) * self.each + s.search.age).to(g) / self.steps
        rate = self.rate * (self.last + (1 - self.last) * (1 + (math.pi * past).cos()) / 2)
        w = s.w - per_row(rate, g) * along
        w = w if self.warm else where(over, start, w)
        mean, square = (torch.where(per_row(over, g), 0, v) for v in (mean, square))
        z = p.threat.clip(p.x + p.threat.free((w.tanh() - start.tanh()) * width / 2))
        return self.State(z, w, mean, square, search)


@final
@dataclass(frozen=True, kw_only=True)
class CarliniWagnerLinf:
    """Adam on what exceeds a height plus a weight times the margin; the height falls whenever nothing exceeds it.

    Carlini & Wagner, 2017, arXiv:1608.04644, section VI.C: the weight doubles where it does not get there. Theirs is
    CarliniWagnerLinf(steps=75000, each=1000, rate=0.005, weight=0.00001). FMN finds less, sooner.
    """

    steps: int = 1000
    each: int = 50  # steps after which the weight doubles
    rate: float = 0.05  # of Adam
    weight: float = 0.1  # of the margin, at first
    most: float = 20.0  # a row whose weight is beyond this is given up
    shrink: float = 0.9  # what is left of the height after a success
    least: float = 1 / 256  # in widths of the box: the height at which a row is done
    inset: float = 1e-6  # how far from the edges of the box artanh is kept, as a share: at them it is infinite
    loss: Margin = Margin()
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (Linf,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, in the box and in the space of artanh; Adam's moments; height, weight, steps at this height."""

        z: Tensor
        w: Tensor
        mean: Tensor
        square: Tensor
        height: Tensor
        weight: Tensor
        age: Tensor
        done: Mask  # as low as asked for, or beyond the largest weight

    def init(self, p: Problem) -> State:
        check_box(p, "CarliniWagnerLinf", "FMN")
        w = artanh(p, p.x, self.inset)
        zero, one = torch.zeros_like(w), torch.ones_like(w.flatten(1)[:, 0])
        return self.State(p.x, w, zero, zero, one, one * self.weight, one.long() * 0, one < 0)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        width, start = p.threat.width, artanh(p, p.x, self.inset)
        change, fooled, short = (s.z - p.x) / width, p.goal.reached(seen.logits), (-seen.loss).clamp_min(0).to(s.z)
        size = change.flatten(1).abs()
        cost = (size - s.height[:, None]).clamp_min(0).sum(1) + s.weight * short
        solved = fooled & (cost < 1e-4 * s.weight)
        height = torch.where(solved, self.shrink * s.height.minimum(size.amax(1)), s.height)
        tired = ~solved & (s.age > 0) & (s.age % self.each == 0)
        weight = torch.where(tired, 2 * s.weight, s.weight)

        exceeds = change.sign() * (change.abs() > per_row(height, change))
        slope = exceeds - per_row(weight * (short > 0), change) * seen.slope * width
        g = slope * (1 - s.w.tanh().square()) / 2
        mean, square = (torch.where(per_row(solved, g), 0, v) for v in (s.mean, s.square))  # Adam begins anew
        age = s.age * ~solved + 1
        along, mean, square = adam(mean, square, g, age)
        w = s.w - self.rate * along
        z = p.threat.clip(p.x + p.threat.free((w.tanh() - start.tanh()) * width / 2))
        return self.State(z, w, mean, square, height, weight, age, (height <= self.least) | (weight > self.most))


@final
@dataclass(frozen=True, kw_only=True)
class EAD:
    """Elastic net: FISTA on squared length plus a share of the L1 length of the change plus a weight times the margin.

    Chen et al., 2018, arXiv:1709.04114, judged where the gradient is taken; theirs takes 1000 steps a round.
    """

    rounds: int = 9  # of the search for the weight
    each: int = 100  # steps of a round
    rate: float = 0.01  # of the gradient, at first; falls to nothing within a round, as a square root
    shrink: float = 0.01  # how much every entry of the change loses in each step, in widths of the box
    weight: float = 0.001  # of the margin, in the first round
    abort: bool = False  # end a round where a tenth of it gained nothing
    loss: Margin = Margin()
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L1,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it looks, which momentum has carried ahead of where it is; and the search."""

        z: Tensor
        x: Tensor
        search: Search

        @property
        def done(self) -> Mask:
            """No round is left, and the last step was looked at."""
            return (self.search.left <= 0) & (self.search.age > 0)

    @property
    def steps(self) -> int:
        return self.rounds * self.each

    def init(self, p: Problem) -> State:
        return self.State(p.x, p.x, Search.of(self.weight, self.rounds, p.x))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        width, weight, age = p.threat.width, s.search.weight, s.search.age.to(s.z)
        change, fooled, short = (s.z - p.x) / width, p.goal.reached(seen.logits), (-seen.loss).clamp_min(0).to(s.z)
        flat = change.flatten(1)
        objective = flat.square().sum(1) + self.shrink * flat.abs().sum(1) + weight * short
        search, over = s.search.after(fooled, objective, each=self.each, abort=self.abort)
        g = 2 * change - per_row(weight * (short > 0), change) * seen.slope * width
        change = change - per_row(self.rate * (1 - age / self.each).sqrt(), g) * g
        change = change.sign() * (change.abs() - self.shrink).clamp_min(0)
        x = p.threat.clip(p.x + p.threat.free(change * width))
        z = p.threat.clip(x + per_row(age / (age + 3), x) * (x - s.x))
        return self.State(where(over, p.x, z), where(over, p.x, x), search)


def check_box(p: Problem, name: str, other: str) -> None:
    """Raise InputError where tanh has no box to map onto."""
    if not all(map(math.isfinite, _box(p))):
        raise InputError(f"{name} needs a finite box: tanh maps onto it. Give the threat one, or use {other}.")


def _box(p: Problem) -> tuple[float, float]:
    low, high = p.threat.clip(p.x.new_tensor([-torch.inf, torch.inf])).double().tolist()
    return float(low), float(high)


def artanh(p: Problem, z: Inputs, inset: float) -> Tensor:
    """Inputs in the space of artanh."""
    low, high = _box(p)
    v = (2 * z - low - high) / (high - low) * (1 - inset)
    return (v.log1p() - (-v).log1p()) / 2  # torch's own atanh rounds by the place in the batch


def adam(mean: Tensor, square: Tensor, g: Tensor, age: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The direction that Adam goes at the age, counted from 1, of each row; and its two moments."""
    mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g.square()
    return _debias(mean, 0.9, age) / (_debias(square, 0.999, age).sqrt() + 1e-8), mean, square


def _debias(mean: Tensor, decay: float, age: Tensor) -> Tensor:
    return mean / per_row(-(age * math.log(decay)).expm1(), mean).to(mean)  # as does its power
