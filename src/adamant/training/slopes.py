"""Penalties on gradients by the input: how steep, how bent, how far from a plane the model is around a row.

All differentiate twice. In the training mode of a network with batch normalisation the gradient of a row also runs
through the statistics of its batch, as in the authors' own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Scores
from adamant.access import Look, Sight
from adamant.attacks.gradient import climb
from adamant.attacks.starts import Anywhere, Start
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.goals import Untargeted
from adamant.losses import CrossEntropy, Loss
from adamant.threats import Projectable
from adamant.training.parts import Batch, Inner, Memory, attacked, finer
from adamant.training.views import Views

_SLOPE = 3  # a gradient by the input, and the two passes more that differentiating it takes


def _square(g: Inputs) -> Scores:
    return g.flatten(1).square().sum(1)


def _product(a: Inputs, b: Inputs) -> Scores:
    return (a * b).flatten(1).sum(1)


@final
@dataclass(frozen=True)
class Steepness:
    """Squared length of the gradient of the cross-entropy by the input (Ross & Doshi-Velez, 2018)."""

    view: str = "clean"

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def slopes(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def passes(self) -> int:
        return _SLOPE

    def __call__(self, views: Views) -> Scores:
        return _square(views.slope(self.view, views.log_loss(views.logits(self.view))))

    def __str__(self) -> str:
        return f"||grad CE({self.view})||^2"


@final
@dataclass(frozen=True)
class Sensitivity:
    """Half the squared Frobenius norm of the Jacobian of the logits, from random projections (Hoffman et al., 2019)."""

    view: str = "clean"
    projections: int = 1

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def slopes(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def passes(self) -> int:
        return _SLOPE * self.projections

    def __call__(self, views: Views) -> Scores:
        logits = views.logits(self.view)
        classes, total = logits.shape[1], torch.zeros_like(logits[:, 0])
        for i in range(self.projections):
            v = views.rng.fold("projection").fold(i).normal(classes, dtype=logits.dtype)
            v = v / v.norm(dim=1, keepdim=True).clamp_min(1e-12)
            total = total + _square(views.slope(self.view, (v * logits).sum(1)))
        return 0.5 * classes / self.projections * total

    def __str__(self) -> str:
        return f"||J({self.view})||^2 / 2"


@final
@dataclass(frozen=True)
class Curved:
    """Squared distance between the gradients of the loss at two views (CURE: Moosavi-Dezfooli et al., 2019)."""

    one: str = "clean"
    other: str = "adv"

    @property
    def views(self) -> tuple[str, ...]:
        return (self.one, self.other)

    @property
    def slopes(self) -> tuple[str, ...]:
        return (self.one, self.other)

    @property
    def passes(self) -> int:
        return 2 * _SLOPE

    def __call__(self, views: Views) -> Scores:
        here, there = (views.slope(v, views.log_loss(views.logits(v))) for v in (self.one, self.other))
        return _square(there - here)

    def __str__(self) -> str:
        return f"||grad CE({self.other}) - grad CE({self.one})||^2"


@final
@dataclass(frozen=True)
class Plane:
    """How far the loss at one view is from the plane through another, and how far that plane rises (LLR).

    bend x |CE(to) - CE(source) - d.grad CE(source)| + rise x |d.grad CE(source)|, d the way from source to to
    (Qin et al., 2019, arXiv:1907.02610).
    """

    source: str = "clean"
    to: str = "adv"
    bend: float = 4.0
    rise: float = 3.0

    @property
    def views(self) -> tuple[str, ...]:
        return (self.source, self.to)

    @property
    def slopes(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def passes(self) -> int:
        return _SLOPE

    def __call__(self, views: Views) -> Scores:
        here, there = views.log_loss(views.logits(self.source)), views.log_loss(views.logits(self.to))
        way = (views.inputs[self.to] - views.inputs[self.source]).detach()
        rise = _product(way, views.slope(self.source, here))
        return self.bend * (there - here - rise).abs() + self.rise * rise.abs()

    def __str__(self) -> str:
        return f"{self.bend:g} |CE({self.to}) - plane at {self.source}| + {self.rise:g} |d.grad CE({self.source})|"


@final
@dataclass(frozen=True)
class _Unbend:
    """Gradient ascent on the distance from the plane through the input; its first look is at the input itself."""

    climbs: int
    rate: float
    start: Start
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    @dataclass(frozen=True)
    class State(Rows):
        z: Tensor
        height: Tensor  # of the loss at the input
        slope: Tensor  # of the loss at the input

    @property
    def steps(self) -> int:
        return self.climbs + 1

    def init(self, p: Problem) -> State:
        return self.State(p.x, torch.zeros(len(p.x), device=p.x.device), torch.zeros_like(p.x))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        if t == 0:
            return self.State(self.start(p), seen.loss, seen.slope)
        error = seen.loss - s.height - _product(s.z - p.x, s.slope)
        uphill = per_row(torch.where(error < 0, -1.0, 1.0), s.z) * (seen.slope - s.slope)
        return self.State(climb(p, s.z, uphill, self.rate), s.height, s.slope)


@final
@dataclass(frozen=True)
class Bend:
    """A view: where the loss is furthest from the plane through the input (Qin et al., 2019, arXiv:1907.02610)."""

    steps: int = 2
    rate: float = 0.5  # of the budget, per step
    start: Start = Anywhere()
    view: str = "adv"

    @property
    def cost(self) -> int:
        return 2 * (self.steps + 1)

    def stronger(self) -> Inner:
        return finer(self)

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        attack = _Unbend(self.steps, self.rate, self.start)
        return {self.view: attacked(attack, model, batch, Untargeted(batch.y), threat)}


CATALOGUE: tuple[type, ...] = (Steepness, Sensitivity, Curved, Plane)
