"""Attacks that step to the nearest boundary of the linearised network: DeepFool, SuperDeepFool, SparseFool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask
from adamant.access import Look, Sight
from adamant.attacks.hyperplane import Boundaries, nearest, onto, tighten
from adamant.batch import Rows, per_row, take, where
from adamant.desk import Problem
from adamant.losses import Margin
from adamant.threats import L0, L1, L2, Linf, Normed


def _toward(threat: Normed, z: Inputs, seen: Look) -> Tensor:
    """The change of z to the nearest boundary, and a hair beyond, as if the network were affine."""
    here = z[:, None]
    # An entry at the edge of its range, that is to go further, goes nowhere: without it the box may stop the step.
    stays = threat.clip(here + threat.width * seen.slope.sign()) == here
    w, margin = nearest(threat, seen.loss, torch.where(stays, 0, seen.slope))
    away = (margin.abs() + 1e-4) / threat.dual(w).clamp_min(torch.finfo(w.dtype).tiny)
    return per_row(away, w) * threat.steepest(w)


def _nowhere(p: Problem) -> Mask:
    return torch.zeros(len(p.x), dtype=torch.bool, device=p.x.device)


@final
@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """To the nearest boundary as if the network were affine, again and again until it is crossed.

    Moosavi-Dezfooli et al., 2016, arXiv:1511.04599; the nearest is sought among the `classes` likeliest others.
    """

    steps: int = 50
    rate: float = 0.8  # how much of the way a step goes: 1 in the paper; less looks oftener and ends nearer
    overshoot: float = 0.02  # the change is made so much longer, as a share
    classes: int = 2
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2, Linf)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, and whether it has crossed."""

        z: Tensor
        done: Tensor

    @property
    def loss(self) -> Boundaries:
        """A margin, and so a gradient, for each class that might be the nearest."""
        return Boundaries(self.classes)

    def init(self, p: Problem) -> State:
        return self.State(p.x, _nowhere(p))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        assert isinstance(p.threat, Normed)
        change = (s.z - p.x) / (1 + self.overshoot) + self.rate * _toward(p.threat, s.z, seen)
        done = p.goal.reached(seen.logits)
        z = p.threat.clip(p.x + (1 + self.overshoot) * change)
        return self.State(where(done, s.z, z), done)


@final
@dataclass(frozen=True, kw_only=True)
class SuperDeepFool:
    """DeepFool, then from the input straight along the normal of the boundary that it met; again until that crosses.

    Abdolahpourrostam et al., 2023, arXiv:2303.12481, SDF(inf, 1), whose projection here keeps to the box.
    """

    steps: int = 30
    overshoot: float = 0.02
    classes: int = 3
    search: int = 3  # looks at the end, between the success and the input
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, whether it went there along a normal, the margin at the input, and whether it has ended."""

        z: Tensor
        straight: Tensor
        under: Tensor
        done: Tensor

    @property
    def loss(self) -> Boundaries:
        """A margin, and so a gradient, for each class that might be the nearest."""
        return Boundaries(self.classes)

    def init(self, p: Problem) -> State:
        return self.State(p.x, _nowhere(p), torch.zeros_like(p.x.flatten(1)[:, 0]), _nowhere(p))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        assert isinstance(p.threat, Normed)
        margin, fooled = Margin()(seen.logits, p.goal), p.goal.reached(seen.logits)
        under, done = (margin if t == 0 else s.under), fooled & s.straight
        if self.search and bool((done & ~s.done).any()):
            ends = done & ~s.done
            tighten(take(p, ends), s.z[ends], under[ends], margin[ends], self.search, self.loss)
        walked = s.z + (1 + self.overshoot) * _toward(p.threat, s.z, seen)
        w = seen.slope[:, 0]  # of the class that it is taken for, or of the target
        normal = p.x + onto(p.threat, p.x, w, (w * (s.z - p.x)).flatten(1).sum(1))
        z = where(done, s.z, p.threat.clip(where(fooled, normal, walked)))
        return self.State(z, fooled, under, done)


@final
@dataclass(frozen=True, kw_only=True)
class SparseFool:
    """DeepFool to meet the boundary, then the fewest entries that cross its tangent, until that fools the network.

    Modas et al., 2019, arXiv:1811.02248.
    """

    steps: int = 100
    reach: float = (
        1.0  # the tangent is met so many times as far as the boundary: the paper's lambda; 3 takes half the looks
    )
    overshoot: float = 0.02
    classes: int = 3
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L1, L0)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, the sparse point that this round began at, whether it is still there, whether it has ended."""

        z: Tensor
        base: Tensor
        sparse: Tensor
        done: Tensor

    @property
    def loss(self) -> Boundaries:
        """A margin, and so a gradient, for each class that might be the nearest."""
        return Boundaries(self.classes)

    def init(self, p: Problem) -> State:
        return self.State(p.x, p.x, _nowhere(p), _nowhere(p))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        assert isinstance(p.threat, (L1, L0))
        fooled, far = p.goal.reached(seen.logits), 1 + self.overshoot
        walk = where(s.sparse, torch.zeros_like(s.z), (s.z - s.base) / far)
        on = walk + _toward(L2(box=p.threat.box, mask=p.threat.mask), s.z, seen)
        w = seen.slope[:, 0]  # of the class that it is taken for, or of the target
        base = p.threat.clip(s.base + onto(p.threat, s.base, w, self.reach * (w * walk).flatten(1).sum(1)))
        done = fooled & s.sparse
        z = p.threat.clip(where(fooled, p.x + far * (base - p.x), s.base + far * on))
        return self.State(where(done, s.z, z), where(fooled, base, s.base), fooled & ~done, done)
