"""Decision-based attack along vectors of signs: RayS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Scores
from adamant.access import Look, Sight
from adamant.attacks.decision import VERDICT, box
from adamant.batch import Rows, per_row, where
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.goals import Targeted
from adamant.losses import Loss
from adamant.threats import Linf


@final
@dataclass(frozen=True, kw_only=True)
class RayS:
    """The signs along which the boundary is nearest: they are turned all, in halves, in quarters, ... one by one.

    Chen & Gu, 2020, arXiv:2006.12792. A step is one query. Where the paper's first signs, all alike, meet no boundary,
    runs of random signs are tried until some do.
    """

    steps: int = 10_000
    exact: float = 1e-3  # where a search by halves ends: the Euclidean length of its stretch, in widths of the box
    loss: ClassVar[Loss] = VERDICT
    needs: ClassVar[Sight] = Sight.LABELS
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (Linf,)

    @dataclass(frozen=True)
    class State(Rows):
        """Signs are tried at the radius of the best; what fools there is followed back, by halves of low..high."""

        z: Tensor
        tried: Tensor
        signs: Tensor  # the best so far
        radius: Tensor  # of the best; infinite until a try has fooled
        low: Tensor
        high: Tensor
        back: Tensor  # rows that search between low and high
        count: Tensor  # tries since the first that fooled
        idle: Tensor  # how many of them, in turn, were no better
        done: Tensor

    def init(self, p: Problem) -> State:
        if isinstance(p.goal, Targeted):
            raise InputError("RayS looks for any wrong class: attack untargeted, or take HopSkipJump(examples=...).")
        none = torch.zeros(len(p.x), dtype=torch.int64, device=p.x.device)
        zero, no, ones = none.to(p.x), none.bool(), torch.ones_like(p.x)
        far = zero + self._farthest(p)
        return self.State(self._at(p, -ones, far), -ones, ones, zero + torch.inf, zero, far, no, none, none, no)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        fooled, size = p.goal.reached(seen.logits), p.x[0].numel()
        at = torch.where(s.back, (s.low + s.high) / 2, s.high)
        low, high = torch.where(fooled, s.low, torch.where(s.back, at, 0)), torch.where(fooled, at, s.high)
        back = s.back | fooled
        over = ~back | (high - low <= self.exact * p.threat.width / math.sqrt(size))
        better = over & back & (high < s.radius)
        signs, radius = where(better, s.tried, s.signs), torch.where(better, high, s.radius)
        met = radius.isfinite()
        count, idle = s.count + (over & met), torch.where(better | ~met, 0, s.idle + over)
        blocks = _blocks(size, self.steps + 1).to(count.device)
        singles = int((blocks[:, 1] - blocks[:, 0] > 1).sum())  # the first try that turns a single entry
        done = (idle >= size) & (count >= singles + size)  # each entry was turned in vain
        tried = where(met, _turned(signs, blocks[count.clamp(max=self.steps)]), self._guess(p, t))
        tried, back = where(over, tried, s.tried), back & ~over
        low, high = torch.where(over, 0, low), torch.where(over, radius.clamp(max=self._farthest(p)), high)
        z = self._at(p, tried, torch.where(back, (low + high) / 2, high))
        return self.State(z, tried, signs, radius, low, high, back, count, idle, done)

    def _farthest(self, p: Problem) -> float:
        low, high = box(p)
        return (1 if math.isfinite(high - low) else 16) * p.threat.width

    def _at(self, p: Problem, signs: Tensor, radius: Scores) -> Tensor:
        return p.threat.clip(p.x + p.threat.free(signs) * per_row(radius, signs))

    def _guess(self, p: Problem, t: int) -> Tensor:
        """Random signs in runs, from one run over all entries to single ones, and again."""
        size = p.x[0].numel()
        runs = 2 ** ((t + 1) % size.bit_length())
        signs = p.rng.fold("signs").fold(t).sign(runs, dtype=p.x.dtype)
        return signs[:, torch.arange(size, device=signs.device) * runs // size].view_as(p.x)


@lru_cache(maxsize=8)
def _blocks(size: int, most: int) -> Tensor:
    """The entries, from and to, that each try turns: all, halves, quarters, ..., single entries again and again."""
    blocks: list[tuple[int, int]] = []
    level = 0
    while len(blocks) < most:
        length = -(-size // 2**level)
        blocks += [(i, min(size, i + length)) for i in range(0, size, length)]
        level += 1
    return torch.tensor(blocks[:most])


def _turned(signs: Tensor, block: Tensor) -> Tensor:
    entry = torch.arange(signs[0].numel(), device=signs.device)
    inside = (entry >= block[:, :1]) & (entry < block[:, 1:])
    return torch.where(inside.view_as(signs), -signs, signs)
