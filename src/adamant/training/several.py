"""Inner parts for several threat models at once: one of them a step, by chance or by error, or the steepest of all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs
from adamant.access import Look, Sight
from adamant.attacks.gradient import At
from adamant.attacks.starts import Anywhere, Start
from adamant.batch import where
from adamant.desk import Problem
from adamant.goals import Untargeted
from adamant.losses import CrossEntropy, Loss
from adamant.threats import Projectable
from adamant.training.parts import Batch, Inner, Memory, attacked, finer, grown, scaled


def _mean_cost(parts: tuple[Inner, ...]) -> int:
    """Of a part drawn by chance, rounded up."""
    return math.ceil(sum(part.cost for part in parts) / len(parts))


def _drawn(batch: Batch, chances: Tensor) -> int:
    """One place of a list, with these chances; the same in all processes."""
    luck = float(batch.common.fold("which").uniform(dtype=torch.float64)) * float(chances.sum())
    return min(int((chances.cumsum(0) <= luck).sum()), len(chances) - 1)


@final
@dataclass(frozen=True, init=False)
class OneOf:
    """One of several inner parts, drawn anew for every step, each as likely (Madaan et al., 2021, arXiv:2006.12135)."""

    parts: tuple[Inner, ...]
    labelless: ClassVar[bool] = True  # if its parts are

    def __init__(self, *parts: Inner) -> None:
        object.__setattr__(self, "parts", parts)

    def __repr__(self) -> str:
        return f"OneOf({', '.join(map(repr, self.parts))})"

    @property
    def cost(self) -> int:
        return _mean_cost(self.parts)

    def stronger(self) -> Inner:
        return OneOf(*map(grown, self.parts))

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        chosen = self.parts[_drawn(batch, torch.ones(len(self.parts), dtype=torch.float64))]
        return chosen(model, batch, threat, memory)


@final
@dataclass(frozen=True)
class ByError:
    """One of several inner parts, as likely as its share of the running errors (Croce & Hein, 2022, arXiv:2105.12508).

    The error of a part is the share of its points that the model has wrong, in the mode of the attack; `keep` is how
    much of the old one a new batch leaves. All parts make the same view.
    """

    parts: tuple[Inner, ...]
    keep: float = 0.9
    view: str = "adv"

    @property
    def cost(self) -> int:
        return _mean_cost(self.parts) + 1

    def stronger(self) -> Inner:
        return replace(self, parts=tuple(map(grown, self.parts)))

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        errors = memory.setdefault("errors", torch.full((len(self.parts),), 0.5, dtype=torch.float64)).cpu()
        which = _drawn(batch, errors.clamp_min(1e-3))  # a part that is never wrong is looked at now and then
        views = self.parts[which](model, batch, threat, memory)
        with torch.no_grad():
            wrong = (model(views[self.view]).argmax(1) != batch.y).double().mean().cpu()
        errors = errors.clone()
        errors[which] = self.keep * errors[which] + (1 - self.keep) * wrong
        memory["errors"] = errors
        return views


@final
@dataclass(frozen=True)
class _Steepest:
    """Each step is that of the threat model where it leads to the highest loss."""

    sets: tuple[Projectable, ...]
    steps: int
    rate: float
    start: Start
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    def init(self, p: Problem) -> At:
        return At(self.start(replace(p, threat=self.sets[0])))

    def step(self, p: Problem, s: At, seen: Look, t: int) -> At:
        best, height = s.z, torch.full_like(seen.loss, -torch.inf)
        for threat in self.sets:
            z = threat.project(threat.move(s.z, seen.slope, self.rate), p.x)
            loss = p.look(z, self.loss).loss
            best, height = where(loss > height, z, best), height.maximum(loss)
        return At(best)


@final
@dataclass(frozen=True)
class Steepest:
    """A view: from an ascent that takes, step by step and row by row, the best step of several threat models.

    Multi steepest descent (Maini et al., 2020, arXiv:1909.04068): each candidate is projected into its own set, so the
    last point is in the set of the step that was taken last. The run's schedule of the budget applies to all.
    """

    threats: tuple[Projectable, ...]
    steps: int = 10
    rate: float = 0.25  # of each budget, per step
    start: Start = Anywhere()
    view: str = "adv"

    @property
    def cost(self) -> int:
        return (2 + len(self.threats)) * self.steps

    def stronger(self) -> Inner:
        return finer(self)

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        threats = tuple(scaled(t, batch.scale) for t in self.threats)
        attack = _Steepest(threats, self.steps, self.rate, self.start)
        return {self.view: attacked(attack, model, batch, Untargeted(batch.y), threats[0])}


CATALOGUE: tuple[type, ...] = (OneOf, ByError, Steepest)
