"""Where an attack looks first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor

from adamant._types import Inputs, Logits, Mask, Scores
from adamant.access import Sight
from adamant.batch import PerRow, Rows, where
from adamant.desk import Desk, Problem
from adamant.errors import AccessError, InputError
from adamant.goals import Goal, Untargeted
from adamant.losses import Margin


@runtime_checkable
class Start(Protocol):
    """A first place to look, for every row."""

    def __call__(self, p: Problem) -> Inputs: ...


@final
@dataclass(frozen=True)
class Here:
    """The input itself."""

    def __call__(self, p: Problem) -> Inputs:
        return p.x


@final
@dataclass(frozen=True)
class Anywhere:
    """A random member of the threat model."""

    def __call__(self, p: Problem) -> Inputs:
        return p.threat.sample(p.x, p.rng.fold("start"))


@final
@dataclass(frozen=True)
class Near:
    """The input plus a little Gaussian noise, in units of the input (TRADES takes 0.001)."""

    sigma: float = 0.001

    def __call__(self, p: Problem) -> Inputs:
        noise = p.rng.fold("start").normal(*p.x.shape[1:], dtype=p.x.dtype)
        return p.threat.project(p.x + self.sigma * noise, p.x)


@final
@dataclass(frozen=True)
class Within:
    """A random point within half the budget, or half the smallest change found so far; with neither, the input itself.

    So a search for the smallest change begins at the input, and its restarts begin at random.
    """

    def __call__(self, p: Problem) -> Inputs:
        radius = p.threat.budget(p.x).double()
        if isinstance(p.desk, Desk):
            radius = radius.minimum(p.desk.size[p.index])
        some = p.threat.at(PerRow((radius.nan_to_num(posinf=1.0) / 2).clamp_min(1e-30))).sample(
            p.x, p.rng.fold("start")
        )
        return where(radius.isfinite(), some, p.x)


@final
@dataclass(frozen=True)
class Best:
    """Where the attacks before came nearest to success, as a part of `Union`; the input where there were none."""

    def __call__(self, p: Problem) -> Inputs:
        return p.desk.best_of(p) if isinstance(p.desk, Desk) else p.x


@dataclass(frozen=True)
class _Toward(Rows):
    """A direction in the logits for each row, beside the label that it should leave."""

    label: Tensor
    weights: Tensor

    @property
    def anchor(self) -> Tensor:
        return self.label

    def reached(self, logits: Logits) -> Mask:
        return Untargeted(self.label).reached(logits)

    def check(self, classes: int) -> None:
        pass


@dataclass(frozen=True)
class _Along:
    """How far the logits are along the direction that the goal holds."""

    def __call__(self, logits: Logits, goal: Goal) -> Scores:
        assert isinstance(goal, _Toward)
        return (logits.float() * goal.weights).sum(1)


@dataclass(frozen=True)
class Won:
    """The margin of a success, and nothing else is worth keeping: no attack climbs what these looks show."""

    def __call__(self, logits: Logits, goal: Goal) -> Scores:
        margin = Margin()(logits, goal)
        return torch.where(goal.reached(logits), margin, -torch.inf)


@final
@dataclass(frozen=True)
class Diverse:
    """From another start some whole steps that move the logits in a random direction: starts that differ in output.

    Tashiro et al., 2020, arXiv:2003.06878. Each step is a look with a gradient, counted as any other.
    """

    steps: int = 2
    start: Start = Anywhere()

    def __call__(self, p: Problem) -> Inputs:
        z = self.start(p)
        if not isinstance(p.desk, Desk):
            raise InputError("Diverse looks at the model, which only an attack may; train with Anywhere().")
        weights = p.rng.fold("direction").uniform(p.desk.classes) * 2 - 1
        if p.access.gives < Sight.GRADIENT:
            raise AccessError(
                f"Diverse follows gradients and {type(p.access).__name__} gives none: take Anywhere() or access=NES()."
            )
        q = replace(p, aim=_Toward(p.goal.anchor, weights), yardstick=p.yardstick or Won())
        for _ in range(self.steps):
            z = q.project(q.threat.move(z, q.look(z, _Along(), grad=True).slope.nan_to_num(0.0), 1.0))
        return z


CATALOGUE: tuple[type, ...] = (Here, Anywhere, Near, Within, Best, Diverse)
