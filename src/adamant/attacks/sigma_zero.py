"""Sigma-zero: few entries by descent on a smooth stand-in for their number; minimum L0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant.access import Look, Sight
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.losses import Loss, Margin
from adamant.threats import L0


@final
@dataclass(frozen=True, kw_only=True)
class SigmaZero:
    """Descends on the margin plus a smooth number of changed entries; what changed little is put back at each step.

    Cinà et al., 2024, arXiv:2402.01879: how little grows after a success and shrinks otherwise. The steps are Adam's.
    """

    steps: int = 1000
    rate: float = 1.0  # of the first step, in widths of the box; falls to a tenth along a cosine
    sigma: float = 0.001  # how sharp the stand-in is: sum of d^2 / (d^2 + sigma), d the change in widths of the box
    threshold: float = 0.3  # at first, in widths of the box: changes below it are put back
    adapt: float = 0.01  # by how much the threshold changes, as a share of the rate
    loss: Loss = Margin()
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L0,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, the means of gradient and squared gradient, and the threshold."""

        z: Tensor
        mean: Tensor
        square: Tensor
        threshold: Tensor

    def init(self, p: Problem) -> State:
        nothing = torch.zeros_like(p.x)
        return self.State(p.x, nothing, nothing, torch.full_like(p.x.flatten(1)[:, 0], self.threshold))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        width, tiny = p.threat.width, torch.finfo(s.z.dtype).tiny
        change, fooled = (s.z - p.x) / width, p.goal.reached(seen.logits)
        squared = change.square()
        few = 2 * change * self.sigma / (squared + self.sigma).square() / change[0].numel()
        # Once the model is fooled only the number counts.
        g = p.threat.free(few - torch.where(per_row(fooled, few), 0.0, seen.slope * width))
        g = g / per_row(g.flatten(1).abs().amax(1).clamp_min(tiny), g)
        mean, square = s.mean.lerp(g, 0.1), s.square.lerp(g.square(), 0.001)
        step = mean / (1 - 0.9 ** (t + 1)) / ((square / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8)

        z = p.threat.clip(s.z - self._rate(t) * width * step)
        grow = self.adapt * self._rate(t + 1)
        threshold = (s.threshold + torch.where(fooled, grow, -grow)).clamp(0, 1)
        little = (z - p.x).abs() < per_row(threshold, z) * width
        return self.State(torch.where(little, p.x, z), mean, square, threshold)

    def _rate(self, t: int) -> float:
        return self.rate * (0.1 + 0.9 * (1 + math.cos(math.pi * t / self.steps)) / 2)
