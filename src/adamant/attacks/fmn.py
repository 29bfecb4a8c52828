"""Fast minimum norm: a gradient step, then back into a ball that shrinks after a success and grows otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant.access import Look, Sight
from adamant.batch import PerRow, Rows, per_row
from adamant.desk import Problem
from adamant.losses import CrossEntropy, Loss, Margin
from adamant.threats import L0, L1, L2, Linf
from adamant.threats.balls import unit


@final
@dataclass(frozen=True, kw_only=True)
class FMN:
    """Steps along the gradient, then back into a ball: as far as the boundary seems, then smaller after each success.

    Pintor et al., 2021, arXiv:2102.12827; FMN(gamma=0.05, own=False, outward=False, loss=Margin()) is
    the paper's. With the log loss a row is first taken far out, and it takes some 60 steps to come back.
    """

    steps: int = 100
    rate: float = 1.0  # length of the first step in widths of the box; falls to a hundredth along a cosine
    gamma: float = 0.1  # by how much the radius changes at first; falls to `last_gamma` along a cosine
    last_gamma: float = 0.001
    own: bool = True  # in Linf and L0 steps as these norms measure; or all steps at Euclidean length, as in the paper
    outward: bool = True  # before its first success a row is taken out to the sphere: inside it many come to rest
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L0, L1, L2, Linf)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, the radius, and the smallest success so far (inf before the first)."""

        z: Tensor
        radius: Tensor
        best: Tensor

    def init(self, p: Problem) -> State:
        radius = torch.ones(len(p.x), dtype=torch.float64, device=p.x.device)  # read only by L0, before the first step
        return self.State(p.x, radius, torch.full_like(radius, torch.inf))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        falling = (1 + math.cos(math.pi * t / self.steps)) / 2
        rate, gamma = self.rate * (0.01 + 0.99 * falling), self.last_gamma + (self.gamma - self.last_gamma) * falling
        fooled, size, g = p.goal.reached(seen.logits), p.threat.size(s.z, p.x), _open(p, s.z, seen.slope)
        best = torch.where(fooled, size.minimum(s.best), s.best)
        if isinstance(p.threat, L0):
            less = (s.radius - 1).minimum((s.radius * (1 - gamma)).floor()).minimum(best).clamp_min(1)
            more = (s.radius + 1).maximum((s.radius * (1 + gamma)).floor())
        else:
            less = (s.radius * (1 - gamma)).minimum(best)
            # Where the boundary would be, were the network affine; exact for the margin, farther for the log loss.
            there = size + Margin()(seen.logits, p.aim).double().abs() / _length(g, _DUAL[type(p.threat)]).double()
            more = torch.where(best.isfinite(), s.radius * (1 + gamma), there)
        radius = torch.where(fooled, less, more).minimum(_farthest(p))
        radius = torch.where(radius > 0, radius, torch.finfo(s.z.dtype).tiny)  # a NaN is not positive either
        z = p.threat.at(PerRow(radius)).project(s.z + self._step(p, g, radius, rate), p.x)
        if self.outward and not isinstance(p.threat, L0):
            short = (radius / p.threat.size(z, p.x)).nan_to_num(1.0, 1.0).clamp_min(1).where(best.isinf(), 1.0)
            z = p.threat.clip(p.x + per_row(short.to(z), z) * (z - p.x))
        return self.State(z, radius, best)

    def _step(self, p: Problem, g: Tensor, radius: Tensor, rate: float) -> Tensor:
        if self.own and isinstance(p.threat, Linf):
            return rate * per_row(radius.to(g), g) * g.sign()
        if self.own and isinstance(p.threat, L0):
            return rate * p.threat.width * g / per_row(_length(g, torch.inf), g)
        return rate * p.threat.width * unit(g)


_DUAL: dict[type, float] = {L1: torch.inf, L2: 2.0, Linf: 1.0}


def _length(g: Tensor, order: float) -> Tensor:
    return torch.linalg.vector_norm(g.flatten(1), order, dim=1).clamp_min(torch.finfo(g.dtype).tiny)


def _open(p: Problem, z: Tensor, g: Tensor) -> Tensor:
    """The gradient without what would lead out of the box."""
    return torch.where(p.threat.clip(z + p.threat.width * g.sign()) == z, 0, g)


def _farthest(p: Problem) -> Tensor:
    """The size of the largest change that the box allows."""
    up, down = (p.threat.clip(torch.full_like(p.x, end)) - p.x for end in (torch.inf, -torch.inf))
    change = p.threat.free(torch.where(up > -down, up, down)).nan_to_num(0.0, torch.inf)  # a masked infinity is NaN
    return p.threat.size(p.x + change, p.x)
