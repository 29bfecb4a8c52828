"""Fast adaptive boundary: projections onto the linearised boundary, biased towards the input; minimum norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Logits, Scores
from adamant.access import Look, Sight
from adamant.attacks.hyperplane import nearest, onto, tighten
from adamant.attacks.starts import Here, Start
from adamant.batch import Rows, per_row, where
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.goals import Goal, Targeted
from adamant.losses import Margin, Margins
from adamant.threats import L1, L2, Linf, Normed


@final
@dataclass(frozen=True)
class OverLabel:
    """Margins over the label: of the `top` likeliest other classes, likeliest first, or of the target alone."""

    top: int | None = None  # all

    def __call__(self, logits: Logits, goal: Goal) -> Tensor:
        if not isinstance(goal, Targeted):
            return Margins(self.top)(logits, goal)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return wide.gather(1, goal.target[:, None]) - wide.gather(1, goal.label[:, None])


@final
@dataclass(frozen=True, kw_only=True)
class FAB:
    """Past the nearest boundary as if the network were affine, by a way that keeps near the input; then back a little.

    Croce & Hein, 2020, arXiv:1907.02044. Restarts: `Restarts(FAB(start=Within()), n)`.
    """

    steps: int = 100
    bias: float = 0.1  # the largest weight of the input's own projection: the paper's alpha_max
    overshoot: float = 0.05  # the projections are passed by this share: its eta - 1
    back: float = 0.9  # what is kept of the change after a success: its beta
    search: int = 3  # looks at the end, between the smallest success and the input
    classes: int | None = None  # among so many likeliest others the nearest boundary is sought; None: among all
    start: Start = Here()
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (Linf, L2, L1)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, its smallest success so far, and how far that is."""

        z: Tensor
        best: Tensor
        size: Tensor

    @property
    def loss(self) -> OverLabel:
        """A margin, and so a gradient, for each class that might be the nearest."""
        return OverLabel(self.classes)

    def init(self, p: Problem) -> State:
        if isinstance(p.goal, Targeted):
            raise InputError(
                "FAB looks for the nearest wrong class, and its way to a target need not end there: attack untargeted, "
                "one class after another with EachTarget(FAB(), 9), or take a targeted attack such as DDN or PGD."
            )
        never = torch.full_like(p.x.flatten(1)[:, 0], torch.inf, dtype=torch.float64)
        return self.State(self.start(p), p.x, never)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        assert isinstance(p.threat, Normed)
        w, margin = nearest(p.threat, seen.loss, seen.slope)
        z = self._across(p, s.z, w, margin)
        fooled = p.goal.reached(p.look(z, self.loss).logits)
        size = p.threat.size(z, p.x)
        smaller = fooled & (size < s.size)
        best, size = where(smaller, z, s.best), where(smaller, size, s.size)
        z = where(fooled, p.x + self.back * (z - p.x), z)
        if t == self.steps - 1 and self.search:
            under, over = (Margin()(k, p.goal) for k in p.looks(torch.stack([p.x, best]), self.loss).logits)
            z = tighten(p, best, under, over, self.search, self.loss)
        return self.State(z, best, size)

    def _across(self, p: Problem, z: Inputs, w: Tensor, margin: Scores) -> Inputs:
        """Beyond the boundary with normal w, at a mean of the projections of z and of x."""
        gap = (w * (z - p.x)).flatten(1).sum(1) - margin
        both = onto(p.threat, torch.cat([z, p.x]), torch.cat([w, w]), torch.cat([-margin, gap]))
        near, far = (p.threat.size(d, torch.zeros_like(d)).to(d).clamp_min(1e-8) for d in both.chunk(2))
        bias = per_row((near / (near + far)).clamp(max=self.bias), z)
        of_z, of_x = ((1 + self.overshoot) * d for d in both.chunk(2))
        return p.threat.clip((1 - bias) * (z + of_z) + bias * (p.x + of_x))
