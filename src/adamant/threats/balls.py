"""Norm balls around each input, intersected with the box of valid inputs: Linf, L2 and L1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.batch import per_row
from adamant.random import Rng
from adamant.threats._box import Ball

# Projections aim a hair inside the ball, so that rounding does not carry a point out of it: `contains` is strict.
# What is inside by half a hair stays where it is, so that projecting twice is projecting once.
_HAIR = 4e-6
_ROUNDS = 64  # bound on the exact line searches below; each ends when it has met its last kink, mostly after 3 to 6


def _step(z: Tensor, direction: Tensor, rate: Tensor | float, budget: Tensor | float) -> Tensor:
    if isinstance(rate, Tensor):
        rate = per_row(rate, z)
    length = rate * budget
    return z + direction * length if isinstance(length, Tensor) else torch.add(z, direction, alpha=length)


@final
@dataclass(frozen=True)
class Linf(Ball):
    """{z in the box: |z_i - x_i| <= eps for every entry}; the entries are independent."""

    def contains(self, z: Inputs, x: Inputs) -> Mask:
        return self._sizes_fit(self.size(z, x), z, x)

    def size(self, z: Inputs, x: Inputs) -> Scores:
        """The largest change of an entry."""
        return (z.double() - x.double()).abs().flatten(1).amax(1)

    def sample(self, x: Inputs, rng: Rng) -> Inputs:
        """Uniform on the set (ball and box together)."""
        reach = self._reach(x)
        low, high = self.clip(x - reach), self.clip(x + reach)
        u = rng.uniform(*x.shape[1:], dtype=x.dtype)
        return self._hold((low + (high - low) * u).clamp(low, high), x)

    def steepest(self, g: Inputs) -> Inputs:
        return self.free(g).sign()

    def dual(self, g: Inputs) -> Scores:
        return self.free(g).flatten(1).abs().sum(1)

    def move(self, z: Inputs, g: Inputs, rate: Scores | float) -> Inputs:
        return _step(z, self.steepest(g), rate, self._budget(z))

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        return self.around(x)(z)

    def around(self, x: Inputs) -> Callable[[Inputs], Inputs]:
        """`project` around this x, with ball and box met in one pair of bounds."""
        reach = self._reach(x)
        low, high = self.clip(x - reach), self.clip(x + reach)
        return lambda z: self._hold(z.clamp(low, high), x)

    def _reach(self, x: Inputs) -> Tensor | float:
        """The budget less what rounding x + eps could add: the bound holds in exact arithmetic."""
        reach = self._budget(x) - self._slack(x)
        return reach.clamp_min(0) if isinstance(reach, Tensor) else max(reach, 0.0)


@final
@dataclass(frozen=True)
class L2(Ball):
    """{z in the box: ||z - x||_2 <= eps}."""

    def contains(self, z: Inputs, x: Inputs) -> Mask:
        return self._sizes_fit(self.size(z, x), z, x)

    def size(self, z: Inputs, x: Inputs) -> Scores:
        """The Euclidean length of the change."""
        return (z.double() - x.double()).flatten(1).norm(dim=1)

    def sample(self, x: Inputs, rng: Rng) -> Inputs:
        """Uniform on the ball, then projected onto the box."""
        u = self.free(rng.normal(*x.shape[1:], dtype=x.dtype))
        free = self.free(torch.ones_like(x)).flatten(1).sum(1)
        radius = (rng.fold("length").uniform(dtype=x.dtype).log() / free.clamp_min(1)).exp()  # a power rounds by place
        return self.project(_step(x, unit(u), radius, self._budget(x)), x)

    def steepest(self, g: Inputs) -> Inputs:
        return unit(self.free(g))

    def dual(self, g: Inputs) -> Scores:
        return self.free(g).flatten(1).norm(dim=1)

    def move(self, z: Inputs, g: Inputs, rate: Scores | float) -> Inputs:
        return _step(z, self.steepest(g), rate, self._budget(z))

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        """Exact: the nearest point is x + clip(s d) with d = z - x and one s per row.

        The squared length of clip(s d) is a concave, piecewise linear function of s^2, so Newton's method from the
        left meets each kink at most once and ends on the root.
        """
        d = self.free(z - x).flatten(1)
        room = self._room(x, z - x).flatten(1)
        d = d.clamp(-_far(d), _far(d))
        squares, caps = d * d, room * room
        limit = self._budget(x, shrink=_HAIR) ** 2
        limit = limit.flatten() if isinstance(limit, Tensor) else torch.full_like(squares[:, 0], limit)
        inside = torch.minimum(squares, caps).sum(1) <= limit * (1 + _HAIR)
        t = torch.where(inside, 1.0, limit / squares.sum(1).clamp_min(torch.finfo(d.dtype).tiny)).clamp(max=1.0)
        for _ in range(_ROUNDS):
            free = t[:, None] * squares < caps
            spent = torch.where(free, 0.0, caps).sum(1)
            slope = torch.where(free, squares, 0.0).sum(1)
            ahead = ((limit - spent) / slope.clamp_min(torch.finfo(d.dtype).tiny)).clamp(max=1.0)
            moved = ~inside & (ahead > t * (1 + 1e-7))
            if not bool(moved.any()):
                break
            t = torch.where(moved, ahead, t)
        step = (torch.minimum(d.abs() * t.sqrt()[:, None], room) * d.sign()).view_as(x)
        moved = self._toward(self.clip(x + step), x, step)
        return self._hold(torch.where(per_row(inside, x), self.clip(z), moved), x)


@final
@dataclass(frozen=True)
class L1(Ball):
    """{z in the box: sum |z_i - x_i| <= eps}."""

    # The share of entries that a step moves (Tramèr & Boneh, 2019, arXiv:1904.13000); 0 is the exact steepest step,
    # which sends the whole of it into one entry while that has room.
    spread: float = 0.01

    def contains(self, z: Inputs, x: Inputs) -> Mask:
        return self._sizes_fit(self.size(z, x), z, x)

    def size(self, z: Inputs, x: Inputs) -> Scores:
        """The sum of all changes."""
        return (z.double() - x.double()).abs().flatten(1).sum(1)

    def sample(self, x: Inputs, rng: Rng) -> Inputs:
        """Uniform on the ball (exponential spacings), then projected onto the box."""
        spacing = self.free(-(1 - rng.uniform(*x.shape[1:], dtype=x.dtype)).log())
        spare = -(1 - rng.fold("spare").uniform(dtype=x.dtype)).log()
        total = spacing.flatten(1).sum(1) + spare
        sign = rng.fold("sign").sign(*x.shape[1:], dtype=x.dtype)
        return self.project(_step(x, sign * spacing / per_row(total, x), 1.0, self._budget(x)), x)

    def steepest(self, g: Inputs) -> Inputs:
        flat = self.free(g).flatten(1)
        where = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter(1, where, flat.gather(1, where).sign()).view_as(g)

    def dual(self, g: Inputs) -> Scores:
        return self.free(g).flatten(1).abs().amax(1)

    def move(self, z: Inputs, g: Inputs, rate: Scores | float) -> Inputs:
        """The entries of largest gradient first, each no further than the box, until the step is spent."""
        g = self.free(g).flatten(1)
        step = self._budget(z) * (per_row(rate, z) if isinstance(rate, Tensor) else rate)
        step = step.flatten(1) if isinstance(step, Tensor) else torch.full_like(g[:, :1], step)
        k = max(1, round(self.spread * g.shape[1]))
        # Entries at the edge of the box cannot use their share; more than these are never needed in practice.
        worth, where = g.abs().topk(min(g.shape[1], 8 * k + 32), dim=1)
        chosen = g.gather(1, where)
        room = self._room(z.flatten(1).gather(1, where), chosen) * (worth > 0)
        share = room.nan_to_num(0.0, torch.inf).minimum(step / k)
        share = share.minimum((step - share.cumsum(1) + share).clamp_min(0))
        return z + torch.zeros_like(g).scatter(1, where, share * chosen.sign()).view_as(z)

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        """Exact on ball and box together: change_i = clip(|d_i| - t, 0, room_i), with one threshold t per row.

        The length of the change falls in t, piecewise linearly; Newton's method inside a bracket ends on the root.
        """
        d = self.free(z - x).flatten(1)
        room = self._room(x, z - x).flatten(1)
        length = d.abs()
        limit = self._budget(x, shrink=_HAIR)
        limit = limit.flatten() if isinstance(limit, Tensor) else torch.full_like(length[:, 0], limit)
        inside = torch.minimum(length, room).sum(1) <= limit * (1 + _HAIR / 2)
        t = low = torch.zeros_like(limit)
        high, last = length.amax(1), torch.finfo(d.dtype).eps
        for _ in range(_ROUNDS):
            above = length - t[:, None]
            change = torch.minimum(above.clamp_min(0), room)
            excess = change.sum(1) - limit
            slope = ((above > 0) & (above < room)).sum(1)
            # Nearer than the sum can be told, or than the last place of t moves it, no round comes.
            open_ = excess.abs() > (max(1e-7, 4 * last) * limit).maximum(slope * t * last)
            open_ &= ~((t == 0) & (excess <= 0))
            if not bool(open_.any()):
                break
            low, high = torch.where(excess > 0, t, low), torch.where(excess <= 0, t, high)
            newton = t + excess / slope.clamp_min(1)
            fits = (slope > 0) & (newton > low) & (newton < high)
            t = torch.where(open_, torch.where(fits, newton, (low + high) / 2), t)
        step = torch.minimum((length - t[:, None]).clamp_min(0), room)
        step = step * (limit / step.sum(1).clamp_min(torch.finfo(d.dtype).tiny)).clamp(max=1.0)[:, None]
        step = (step * d.sign()).view_as(x)
        moved = self._toward(self.clip(x + step), x, step)
        return self._hold(torch.where(per_row(inside, x), self.clip(z), moved), x)


def _far(v: Tensor) -> float:
    """Farther than any budget, and yet its square, summed over all entries, is a number."""
    return torch.finfo(v.dtype).max ** 0.4


def unit(v: Tensor) -> Tensor:
    """Each row at Euclidean length one; a zero row stays zero."""
    largest = v.flatten(1).abs().amax(1)  # first to a safe scale: tiny gradients square to zero in float32
    v = v / per_row(largest.clamp_min(torch.finfo(v.dtype).tiny), v)
    return v / per_row(v.flatten(1).norm(dim=1).clamp_min(torch.finfo(v.dtype).tiny), v)
