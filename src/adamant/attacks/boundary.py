"""Decision-based attack by a random walk along the boundary: BoundaryAttack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.access import Look, Sight
from adamant.attacks.decision import VERDICT, begin, fools, to_boundary
from adamant.batch import Rows, Shared, per_row, where
from adamant.desk import Problem
from adamant.losses import Loss
from adamant.threats import L2
from adamant.threats.balls import unit


@final
@dataclass(frozen=True, kw_only=True)
class BoundaryAttack:
    """A random walk: a step around x and a little one towards it, kept where it still fools; both lengths adapt.

    Brendel et al., 2018, arXiv:1712.04248. A step is one query, and every `check`-th a second one, of the step around x
    alone.
    """

    steps: int = 10_000
    around: float = 0.01  # the first step around x, as a share of the distance from it
    toward: float = 0.01  # the first step towards x
    check: int = 10
    tries: int = 100  # to find a first success in noise
    examples: Shared | None = None  # inputs to start from; needed where a target is given
    loss: ClassVar[Loss] = VERDICT
    needs: ClassVar[Sight] = Sight.LABELS
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2,)

    @dataclass(frozen=True)
    class State(Rows):
        """The step to look at, where it begins, how long steps are, and how the last ones went."""

        z: Tensor
        best: Tensor
        sphere: Tensor  # the step around x alone
        around: Tensor
        toward: Tensor
        kept: Tensor  # (n, 2): how many of the last steps fooled, of those towards x and of those around it
        made: Tensor  # (n, 2): and of how many
        done: Tensor

    def init(self, p: Problem) -> State:
        z, found = begin(p, self.examples, self.tries)
        best = to_boundary(p, z, 1e-3, found)
        one = torch.ones_like(best.flatten(1)[:, 0])
        none = torch.zeros(len(p.x), 2, device=p.x.device)
        return self._walk(p, best, self.around * one, self.toward * one, none, none, ~found, 0)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        fooled = p.goal.reached(seen.logits)
        best = where(fooled, s.z, s.best)
        kept, made = s.kept + _column(fooled, 0), s.made + _column(torch.ones_like(fooled), 0)
        if t % self.check == 0:
            kept = kept + _column(fools(p, s.sphere, ~s.done), 1)
            made = made + _column(torch.ones_like(fooled), 1)
        around, toward, kept, made = _adapted(s.around, s.toward, kept, made)
        return self._walk(p, best, around, toward, kept, made, s.done, t + 1)

    def _walk(
        self, p: Problem, best: Inputs, around: Scores, toward: Scores, kept: Tensor, made: Tensor, done: Mask, t: int
    ) -> State:
        """A step on the sphere around x through the best, and from there towards x."""
        back = p.x - best
        distance = back.flatten(1).norm(dim=1)
        noise = p.threat.free(p.rng.fold("walk").fold(t).normal(*p.x.shape[1:], dtype=p.x.dtype))
        radial = unit(back)
        noise = unit(noise - per_row((noise * radial).flatten(1).sum(1), noise) * radial)
        sphere = p.x + per_row(distance / (1 + around**2).sqrt(), noise) * (per_row(around, noise) * noise - radial)
        sphere = p.threat.clip(sphere)
        # What the box took off the sphere's radius counts as a part of the step towards x.
        there = p.x - sphere
        length = there.flatten(1).norm(dim=1)
        share = (1 - distance * (1 - toward) / length.clamp_min(torch.finfo(length.dtype).tiny)).clamp_min(0)
        z = p.threat.clip(sphere + per_row(share, there) * there)
        return self.State(z, best, sphere, around, toward, kept, made, done)


def _column(rows: Mask, which: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(which), 2).to(rows.device) * rows[:, None].float()


def _adapted(around: Scores, toward: Scores, kept: Tensor, made: Tensor) -> tuple[Scores, Scores, Tensor, Tensor]:
    """Longer steps where many of the last were kept, shorter where few were: the boundary is locally flat at half."""
    share = kept / made.clamp_min(1)
    full = made >= torch.tensor((30, 10), device=made.device)
    up, down = full & (share > torch.tensor((0.25, 0.5)).to(share)), full & (share < torch.tensor((0.1, 0.2)).to(share))
    factor = torch.where(up, 1.5, torch.where(down, 1 / 1.5, 1.0)).to(around)
    return around * factor[:, 1], toward * factor[:, 0] * factor[:, 1], kept * ~full, made * ~full
