"""Primal-dual proximal gradient descent: a step down the margin, then one that makes the change smaller."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Scores
from adamant.access import Look, Sight
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.losses import Margin
from adamant.threats import L0, L1, L2, Linf


@final
@dataclass(frozen=True, kw_only=True)
class PDPGD:
    """Adam on the softplus of the margin, then the proximal operator of the norm; their weight is learnt (the dual).

    Matyasko & Chau, 2021, arXiv:2106.01538; after each success the norm weighs more, after each failure the margin.
    adv_lib's is PDPGD(steps=500, rate=0.1, ratio=0.01, hard=True).
    """

    steps: int = 200
    rate: float = 0.3  # of Adam at first, in widths of the box
    last: float = 0.01  # the share of it that is left at the end, geometrically
    ratio: float = 0.1  # of the weight of the norm to that of the margin, at first
    least_ratio: float = 1e-6  # of the one weight to the other
    dual: float = 0.1  # by how much the log of the weight changes at first
    last_dual: float = 0.1  # the share of that which is left at the end, along a line
    average: float = 0.9  # of the weights
    rounds: int = 5  # of proximal steps within a step, in the metric of Adam (arXiv:1910.10094)
    tolerance: float = 0.01  # a round that changes less, as a share, is the row's last
    hard: bool = False  # L0 by its own proximal operator, not by that of the sum of |change|^(2/3), which finds less
    loss: Margin = Margin()
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L0, L1, L2, Linf)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is; Adam's moments; the log of the weight of the margin, and the mean share of the norm."""

        z: Tensor
        mean: Tensor
        square: Tensor
        weight: Tensor
        share: Tensor

    def init(self, p: Problem) -> State:
        nothing = torch.zeros_like(p.x)
        weight = torch.full_like(p.x.flatten(1)[:, 0], -math.log(self.ratio))
        return self.State(p.x, nothing, nothing, weight, _share(weight))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        width, margin = p.threat.width, seen.loss.to(s.z)
        g = -per_row(_share(margin), s.z) * seen.slope * width  # of softplus(-margin), by widths of the box
        mean, square = s.mean.lerp(g, 0.1), s.square.lerp(g.square(), 0.001)
        metric = (square / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8
        rate = self.rate * self.last ** (t / self.steps)
        there = p.threat.clip(s.z - width * rate / (1 - 0.9 ** (t + 1)) * mean / metric)
        z = self._smaller(p, there, metric, rate * s.share / (1 - s.share))

        along = t / max(1, self.steps - 1)
        weight = s.weight - self.dual * (1 - along * (1 - self.last_dual)) * margin.sign()
        weight = weight.clamp(math.log(self.least_ratio), -math.log(self.least_ratio))
        return self.State(z, mean, square, weight, s.share.lerp(_share(weight), 1 - self.average))

    def _smaller(self, p: Problem, z: Tensor, metric: Tensor, much: Scores) -> Tensor:
        """The point near z, as the metric has it, whose change is the smaller the more that counts."""
        most = metric.flatten(1).amax(1)
        much, metric, there = much / most, metric / per_row(most, metric), (z - p.x) / p.threat.width
        change, going = there, torch.ones_like(much, dtype=torch.bool)
        for _ in range(self.rounds):
            new = shrunk(p.threat, change - metric * (change - there), much, hard=self.hard)
            new = (p.threat.clip(p.x + p.threat.width * new) - p.x) / p.threat.width
            moved = (new - change).flatten(1).norm(dim=1) > self.tolerance * new.flatten(1).norm(dim=1)
            change = torch.where(per_row(going, change), new, change)
            going = going & moved
        return p.threat.clip(p.x + p.threat.width * change)


def _share(v: Scores) -> Scores:
    return 1 / (1 + v.exp())  # torch's own sigmoid rounds by the place in the batch


def shrunk(threat: object, v: Tensor, much: Scores, *, hard: bool = False) -> Tensor:
    """The proximal operator of `much` times the norm: the u of least |u - v|^2 / 2 + much * norm(u).

    For L0 that of the sum of |u|^(2/3) (with `pixels` of a pixel's length), or, if `hard`, of the number itself.
    """
    flat, much = v.flatten(1), much[:, None]
    match threat:
        case L0():
            size = v.square().sum(1, keepdim=True).sqrt() if threat.pixels else v.abs()
            much = per_row(much, v)
            if hard:
                return torch.where(size.square() >= 2 * much, v, 0)
            root = (size.log() / 3).exp()  # of u, beginning at u = v: root^4 - v * root + 2/3 * much = 0, by Newton
            for _ in range(6):
                cube = root.square() * root
                root = root - (cube * root - size * root + much * 2 / 3) / (4 * cube - size)
            keep = (size.square().square() > 128 / 27 * much.square() * much) & (size > 0)
            return torch.where(keep, v * (root.square() * root / size), 0)
        case L1():
            u = flat.sign() * (flat.abs() - much).clamp_min(0)
        case L2():
            u = flat * (1 - much / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)).clamp_min(0)
        case _:  # v without its projection on the dual ball is v cut off at a height, which costs `much` in all
            top = flat.abs().sort(dim=1, descending=True).values.cumsum(1)
            height = ((top - much) / torch.arange(1, top.shape[1] + 1).to(top)).amax(1, keepdim=True).clamp_min(0)
            u = flat.clamp(-height, height)
    return u.view_as(v)
