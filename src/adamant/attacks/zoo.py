"""Carlini and Wagner's attack without a gradient: slopes along a few entries, from differences of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask
from adamant.access import Look, Sight
from adamant.attacks.carlini import Search, adam
from adamant.batch import Rows, where
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import Margin
from adamant.threats import L2


@final
@dataclass(frozen=True, kw_only=True)
class ZOO:
    """Adam by coordinates on the squared length of the change plus a weight times the margin.

    Chen et al., 2017, arXiv:1708.03999 (ZOO-ADAM, without the hierarchy for large pictures). Each step asks on both
    sides of a few random entries and moves these alone; the box is kept by clipping. A round of the search for the
    weight goes on from where the last one ended.
    """

    rounds: int = 6  # of the search for the weight
    each: int = 200  # steps of a round
    entries: int = 32  # of a step; two looks for each
    rate: float = 0.02  # of Adam, in widths of the box, at first
    last: float = 0.1  # the share of it that is left at the end, along a line
    apart: float = 0.0005  # how far from the point the looks are, in widths of the box
    weight: float = 1.0  # of the margin, in the first round
    loss: Margin = Margin()
    needs: ClassVar[Sight] = Sight.SCORES
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is; Adam's moments and the steps that each entry has seen, in this round; and the search."""

        z: Tensor
        mean: Tensor
        square: Tensor
        turns: Tensor
        search: Search

        @property
        def done(self) -> Mask:
            """No round is left, and the last step was looked at."""
            return (self.search.left <= 0) & (self.search.age > 0)

    @property
    def steps(self) -> int:
        return self.rounds * self.each

    def init(self, p: Problem) -> State:
        if self.entries < 1 or not self.apart > 0:
            raise InputError(
                f"ZOO asks beside at least one entry, some way off; got entries={self.entries}, apart={self.apart}."
            )
        zero = torch.zeros_like(p.x)
        return self.State(p.x, zero, zero, zero, Search.of(self.weight, self.rounds, p.x))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        width, weight, fooled = p.threat.width, s.search.weight, p.goal.reached(seen.logits)
        change = (s.z - p.x) / width
        cost = change.flatten(1).square().sum(1) + weight * (-seen.loss).clamp_min(0).to(change)
        # A round begins where another weight led: only its last quarter tells whether its own is enough.
        search, over = s.search.after(fooled & (s.search.age >= 0.75 * self.each), cost, each=self.each, abort=False)

        chosen = self._chosen(p, t)
        held = [v.flatten(1).gather(1, chosen) for v in (s.z, change, s.mean, s.square, s.turns)]
        turn = held[4] + 1
        g = 2 * held[1] + weight[:, None] * self._slope(p, s.z, chosen)
        along, mean, square = (v.view_as(g) for v in adam(*(v.flatten() for v in (held[2], held[3], g, turn))))
        free = p.threat.free(torch.ones_like(s.z)).flatten(1).gather(1, chosen)
        rate = self.rate * (1 - (1 - self.last) * t / self.steps)
        z = p.threat.clip(held[0] - rate * width * free * along)
        z, mean, square, turns = (
            old.flatten(1).scatter(1, chosen, new).view_as(old)
            for old, new in ((s.z, z), (s.mean, mean), (s.square, square), (s.turns, turn))
        )
        mean, square, turns = (where(over, 0 * v, v) for v in (mean, square, turns))
        return self.State(z, mean, square, turns, search)

    def _chosen(self, p: Problem, t: int) -> Tensor:
        """A few random entries of each row, those that may not change last, (n, k)."""
        lottery = p.rng.fold("entries").fold(t).uniform(*p.x.shape[1:], dtype=torch.float64)
        order = (lottery + p.threat.free(torch.ones_like(lottery))).flatten(1).argsort(dim=1, descending=True)
        return order[:, : self.entries]

    def _slope(self, p: Problem, z: Inputs, chosen: Tensor) -> Tensor:
        """How much faster a row falls short where each chosen entry grows, per width of the box, (n, k)."""
        flat, slopes, far = z.flatten(1), list[Tensor](), self.apart * p.threat.width
        chunk = max(1, min(32, 2**20 // flat.shape[1]))
        for which in chosen.split(chunk, dim=1):
            here = flat.gather(1, which)
            sides = [p.threat.clip(here + far), p.threat.clip(here - far)]
            zs = flat.expand(2 * which.shape[1], *flat.shape)
            zs = zs.scatter(2, which.T.repeat(2, 1)[..., None], torch.cat([v.T for v in sides])[..., None])
            short = (-p.looks(zs.view(-1, *z.shape), self.loss).loss).clamp_min(0).to(z)
            up, down = short.chunk(2)
            slopes.append((up - down).T / (sides[0] - sides[1]) * p.threat.width)
        return torch.cat(slopes, 1)
