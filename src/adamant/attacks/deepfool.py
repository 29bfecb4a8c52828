"""Attacks that step to the nearest decision boundary of the linearised network: DeepFool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant.access import Look, Sight
from adamant.batch import Rows, per_row
from adamant.engine import Problem
from adamant.losses import Margins
from adamant.threats import L2, Linf, Normed


@final
@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """To the nearest boundary as if the network were affine, again and again until it is crossed.

    Moosavi-Dezfooli et al., 2016, arXiv:1511.04599; the nearest is sought among the `classes` likeliest others.
    """

    steps: int = 50
    overshoot: float = 0.02  # the change is made so much longer, as a share
    classes: int = 10
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2, Linf)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, and whether it has crossed."""

        z: Tensor
        done: Tensor

    @property
    def loss(self) -> Margins:
        """A margin, and so a gradient, for each class that might be the nearest."""
        return Margins(self.classes)

    def init(self, p: Problem) -> State:
        return self.State(p.x, torch.zeros(len(p.x), dtype=torch.bool, device=p.x.device))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        assert isinstance(p.threat, Normed)
        w, here = seen.slope, s.z[:, None]
        # An entry at the edge of its range, that is to go further, goes nowhere: without it the box may stop the step.
        w = torch.where(p.threat.clip(here + p.threat.width * w.sign()) == here, 0, w)
        slope = torch.stack([p.threat.dual(v) for v in w.unbind(1)], 1).clamp_min(torch.finfo(w.dtype).tiny)
        away = (seen.loss.abs().to(w) + 1e-4) / slope
        near = torch.arange(len(w), device=w.device), away.argmin(1)
        step = p.threat.steepest(w[near])
        change = (s.z - p.x) / (1 + self.overshoot) + per_row(away[near], step) * step
        done = p.goal.reached(seen.logits)
        z = p.threat.clip(p.x + (1 + self.overshoot) * change)
        return self.State(torch.where(per_row(done, z), s.z, z), done)
