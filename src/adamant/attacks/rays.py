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
from adamant.attacks.decision import VERDICT, bisect, box
from adamant.batch import Rows, per_row, where
from adamant.engine import Problem
from adamant.errors import InputError
from adamant.goals import Targeted
from adamant.losses import Loss
from adamant.threats import Linf


@final
@dataclass(frozen=True, kw_only=True)
class RayS:
    """The signs along which the boundary is nearest: they are turned all, in halves, in quarters, ... one by one.

    Chen & Gu, 2020, arXiv:2006.12792. A step is one query, and one search by halves where that fools. Where the
    paper's first signs, all alike, meet no boundary, runs of random signs are tried until some do.
    """

    steps: int = 5000
    exact: float = 1e-3  # where a search by halves ends: the Euclidean length of its stretch, in widths of the box
    loss: ClassVar[Loss] = VERDICT
    needs: ClassVar[Sight] = Sight.LABELS
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (Linf,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where the signs that are tried lead, within the radius of the best; how many in turn were no better."""

        z: Tensor
        tried: Tensor
        signs: Tensor
        radius: Tensor  # infinite until a try has fooled
        count: Tensor  # tries since the first that fooled
        idle: Tensor
        done: Tensor

    def init(self, p: Problem) -> State:
        if isinstance(p.goal, Targeted):
            raise InputError("RayS looks for any wrong class: attack untargeted, or take HopSkipJump(examples=...).")
        n, device = len(p.x), p.x.device
        none = torch.zeros(n, dtype=torch.int64, device=device)
        radius, ones = torch.full((n,), torch.inf, dtype=p.x.dtype, device=device), torch.ones_like(p.x)
        return self.State(self._reached(p, -ones, radius), -ones, ones, radius, none, none, none.bool())

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        size = p.x[0].numel()
        fooled = p.goal.reached(seen.logits)
        narrow = self.exact * p.threat.width / math.sqrt(size)
        far = s.radius.clamp(max=self._farthest(p))
        _, radius = bisect(p, lambda r: self._reached(p, s.tried, r), s.z, far, narrow, fooled)
        better = fooled & (radius < s.radius)
        signs, radius = where(better, s.tried, s.signs), torch.where(better, radius, s.radius)
        met = radius.isfinite()
        count, idle = s.count + met, torch.where(better | ~met, 0, s.idle + 1)
        blocks = _blocks(size, self.steps + 1).to(count.device)
        singles = int((blocks[:, 1] - blocks[:, 0] > 1).sum())  # the first try that turns a single entry
        done = (idle >= size) & (count >= singles + size)  # each entry was turned in vain
        tried = where(met, _turned(signs, blocks[count.clamp(max=self.steps)]), self._guess(p, t))
        return self.State(self._reached(p, tried, radius), tried, signs, radius, count, idle, done)

    def _farthest(self, p: Problem) -> float:
        low, high = box(p)
        return (1 if math.isfinite(high - low) else 16) * p.threat.width

    def _reached(self, p: Problem, signs: Tensor, radius: Scores) -> Tensor:
        return p.threat.clip(p.x + p.threat.free(signs) * per_row(radius.clamp(max=self._farthest(p)), signs))

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
