"""The rules by which bounds pass through layers: affine maps, sums, activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant.bounds.node import Bounded, Pulled
from adamant.bounds.sets import Interval, lowest_of

Map = Callable[[Tensor], Tensor]


def _dot(a: Tensor, v: Tensor) -> Tensor:
    """a . v by row, (n, m), for a (n, m, *d) and v (n or 1, *d) or what broadcasts to it."""
    return (a * v[:, None]).flatten(2).sum(2)


def _everything(before: Interval) -> Tensor:
    return torch.ones_like(before[0], dtype=torch.bool)


@final
@dataclass(frozen=True, eq=False)
class Affine:
    """A linear map and a constant, the same for every row; `spread` is the map with absolute weights and without it."""

    apply: Map
    spread: Map
    back: Map | None = None  # the transposed map; autograd finds it where none is given
    straight: bool = True

    def interval(self, *before: Interval) -> Interval:
        low, high = before[0]
        middle, reach = self.apply((low + high) / 2), self.spread((high - low) / 2)
        return middle - reach, middle + reach

    def pull(self, node: Bounded, a: Tensor, slope: float | None) -> Pulled:
        source, flat = node.before[0], a.flatten(0, 1)
        z = flat.new_zeros(1, *source.shape[1:])
        if self.back is not None:
            pulled = self.back(flat)
        else:
            keep = torch.is_grad_enabled()
            with torch.enable_grad():
                many = z.expand(len(flat), *z.shape[1:]).clone().requires_grad_()
                pulled = torch.autograd.grad(self.apply(many), many, flat, create_graph=keep)[0]
        return [(source, pulled.view(*a.shape[:2], *source.shape[1:]))], _dot(a, self.apply(z))

    loose = staticmethod(_everything)


@final
@dataclass(frozen=True, eq=False)
class Scaled:
    """Each entry times a factor plus a shift, both with as many dimensions as the value; they may differ by row."""

    factor: Tensor
    shift: Tensor
    straight: bool = True

    def apply(self, v: Tensor) -> Tensor:
        return v * self.factor + self.shift

    def interval(self, *before: Interval) -> Interval:
        one, other = (self.apply(side) for side in before[0])
        return torch.minimum(one, other), torch.maximum(one, other)

    def pull(self, node: Bounded, a: Tensor, slope: float | None) -> Pulled:
        return [(node.before[0], a * self.factor[:, None])], _dot(a, self.shift)

    loose = staticmethod(_everything)


@final
@dataclass(frozen=True, eq=False)
class Joined:
    """The sum of two values, or their difference."""

    sign: float = 1.0
    straight: bool = True

    def interval(self, *before: Interval) -> Interval:
        (low, high), (least, most) = before
        return (low + least, high + most) if self.sign > 0 else (low - most, high - least)

    def pull(self, node: Bounded, a: Tensor, slope: float | None) -> Pulled:
        one, other = node.before
        return [(one, a), (other, self.sign * a)], 0.0

    loose = staticmethod(_everything)


@final
@dataclass(frozen=True, eq=False)
class Rising:
    """A layer that never falls where its input rises; a line stands for it nowhere, only its own interval."""

    apply: Map
    straight: bool = False

    def interval(self, *before: Interval) -> Interval:
        return self.apply(before[0][0]), self.apply(before[0][1])

    def pull(self, node: Bounded, a: Tensor, slope: float | None) -> Pulled:
        return [], lowest_of(a, node.interval)

    loose = staticmethod(_everything)


@final
@dataclass(frozen=True, eq=False)
class Valley:
    """An activation that falls to one lowest value and rises from there: SiLU, GELU."""

    apply: Map
    bottom: float  # where
    least: float  # how low; a hair below, for rounding
    straight: bool = False

    def interval(self, *before: Interval) -> Interval:
        low, high = before[0]
        ends = self.apply(low), self.apply(high)
        inside = (low <= self.bottom) & (high >= self.bottom)
        return torch.where(inside, self.least, torch.minimum(*ends)), torch.maximum(*ends)

    def pull(self, node: Bounded, a: Tensor, slope: float | None) -> Pulled:
        return [], lowest_of(a, node.interval)

    loose = staticmethod(_everything)


@final
@dataclass(frozen=True, eq=False)
class Bent:
    """max(z, leak z), ReLU for leak 0: between two lines where the sign is open (Zhang et al., arXiv:1811.00866)."""

    leak: float = 0.0
    straight: bool = False

    def apply(self, v: Tensor) -> Tensor:
        return F.leaky_relu(v, self.leak) if self.leak else F.relu(v)

    def interval(self, *before: Interval) -> Interval:
        return self.apply(before[0][0]), self.apply(before[0][1])

    def pull(self, node: Bounded, a: Tensor, slope: float | None) -> Pulled:
        low, high = node.before[0].interval
        sure = torch.where(low >= 0, 1.0, self.leak).to(low)  # the slope where the sign is settled
        open_ = self.loose((low, high))
        width = torch.where(open_, high - low, 1.0)
        above = torch.where(open_, (high - self.leak * low) / width, sure)
        if slope is None:
            guess = torch.where(high > -low, 1.0, self.leak).to(low)
        else:
            guess = torch.full_like(low, max(slope, self.leak))
        below = torch.where(open_, guess, sure)
        rise = torch.where(open_, high * (1 - above), 0.0)
        up, down = a.clamp_min(0), a.clamp_max(0)
        return [(node.before[0], up * below[:, None] + down * above[:, None])], _dot(down, rise)

    def loose(self, before: Interval) -> Tensor:
        return (before[0] < 0) & (before[1] > 0)
