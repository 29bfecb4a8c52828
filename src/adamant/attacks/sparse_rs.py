"""Sparse random search: a few entries or pixels at corners of the box, some of them moved at each try; scores only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs
from adamant.access import Look, Sight
from adamant.batch import Rows, where
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import Loss, Margin
from adamant.random import Rng
from adamant.threats import L0

# Up to which query (of 10,000) the share of the budget that a try moves is the first share over what.
_SCHEDULE = (
    (0, 1),
    (50, 2),
    (200, 4),
    (500, 5),
    (1000, 6),
    (2000, 8),
    (4000, 10),
    (6000, 12),
    (8000, 15),
    (10_000, 20),
)


@final
@dataclass(frozen=True, kw_only=True)
class SparseRS:
    """Always the whole budget at corners of the box; a try puts some of it back and colours others; kept if better.

    Croce et al., 2022, arXiv:2006.12834, for L0 by entries or by pixels, with the authors' schedule. For a targeted
    attack they take share=0.1 and loss=CrossEntropy().
    """

    steps: int = 10_000
    share: float = 0.3  # of the budget, moved by the first try; falls to a twentieth of it
    loss: Loss = Margin()
    needs: ClassVar[Sight] = Sight.SCORES
    threats: ClassVar[tuple[type, ...]] = (L0,)

    @dataclass(frozen=True)
    class State(Rows):
        """The try to look at and which units it colours; the best so far, its units and its loss."""

        z: Tensor
        units: Tensor
        best: Tensor
        best_units: Tensor
        loss: Tensor

    def init(self, p: Problem) -> State:
        if not 0 < self.share <= 1:
            raise InputError(f"share is a part of the budget, above 0 and up to 1, got {self.share}.")
        rng, free = p.rng.fold("start"), _free(p)
        z, units = _move(p, p.x, torch.zeros_like(free), _lottery(rng, free), _count(p, free), rng)
        loss = torch.full((len(z),), -torch.inf, dtype=torch.float64, device=z.device)
        return self.State(z, units, z, units, loss)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        better = seen.loss.double() > s.loss
        best, held = where(better, s.z, s.best), where(better, s.units, s.best_units)
        loss = torch.where(better, seen.loss.double(), s.loss)
        rng, free = p.rng.fold("try").fold(t), _free(p)
        count = _count(p, free)
        moved = (self._share(t + 1) * count.double()).long().clamp_min(1).minimum(count)
        lottery = _lottery(rng, free)
        _, back = _highest(lottery.where(held, -torch.inf), moved)
        # Others come into their place; they themselves only where there are not enough others.
        lottery = torch.where(back, lottery - 1, lottery.where(~held, -torch.inf))
        z, units = _move(p, best, back, lottery, moved, rng)
        return self.State(z, (held & ~back) | units, best, held, loss)

    def _share(self, query: int) -> float:
        """The authors' schedule, stretched to the number of queries."""
        query = int(query / (self.steps + 1) * 10_000)
        return self.share / next(over for last, over in _SCHEDULE if query <= last)


def _move(p: Problem, z: Inputs, back: Tensor, lottery: Tensor, count: Tensor, rng: Rng) -> tuple[Inputs, Tensor]:
    """Some units back to what they are in x, then corners of the box for those that win the lottery; and these."""
    assert isinstance(p.threat, L0)
    place, coloured = _highest(lottery, count)
    before, (low, high) = _by_unit(p, z), p.threat.box
    channels = before.shape[1]
    up = rng.fold("colour").sign(place.shape[1], channels, dtype=z.dtype).mT > 0
    place = place[:, None].expand_as(up)
    # A single unit that stays what it was would be a wasted look: one of its channels goes to the other end.
    same = (torch.where(up, high, low) == before.gather(2, place)).all(1, keepdim=True) & (count == 1)[:, None, None]
    channel = rng.fold("channel").integers(channels)[:, None, None]
    up = up ^ (same & (torch.arange(channels, device=z.device)[:, None] == channel))
    painted = before.scatter(2, place, torch.where(up, high, low).to(z))
    now = torch.where(back[:, None], _by_unit(p, p.x), before)
    now = torch.where(coloured[:, None], painted, now).view_as(z)
    return torch.where(p.threat.free(torch.ones_like(z)) > 0, now, p.x), coloured


def _by_unit(p: Problem, values: Tensor) -> Tensor:
    """(n, channels, units): a unit is a pixel with all its channels, or a single entry."""
    assert isinstance(p.threat, L0)
    return values.reshape(len(values), values.shape[1] if p.threat.pixels else 1, -1)


def _free(p: Problem) -> Tensor:
    """Which units may change, (n, units)."""
    return _by_unit(p, p.threat.free(torch.ones_like(p.x))).amax(1) > 0


def _count(p: Problem, free: Tensor) -> Tensor:
    """How many units each row may change, (n,)."""
    return p.threat.budget(p.x).double().floor().minimum(free.sum(1).double()).long()


def _lottery(rng: Rng, mask: Tensor) -> Tensor:
    """A random number for each unit of the mask, minus infinity for all others."""
    # float64, as equal numbers would be drawn in an order that depends on the batch
    return rng.uniform(mask.shape[1], dtype=torch.float64).where(mask, -torch.inf)


def _highest(lottery: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The places (n, most) of the `count` highest numbers of each row, highest first, and a mask of them."""
    top = lottery.topk(int(count.max()), dim=1)
    valid = (torch.arange(top.indices.shape[1], device=count.device) < count[:, None]) & (top.values > -torch.inf)
    return top.indices, torch.zeros_like(lottery, dtype=torch.bool).scatter(1, top.indices, valid)
