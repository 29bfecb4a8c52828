"""What a training step minimises: an expression over named views of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Scores
from adamant.runtime.knobs import Constant, Knob
from adamant.training.views import Outer, Views, divergence


@final
@dataclass(frozen=True)
class CE:
    """Cross-entropy of the label on a view, with label smoothing; zero for rows without a label (-1)."""

    view: str
    smoothing: float = 0.0
    labelless: ClassVar[bool] = True

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    def __call__(self, views: Views) -> Scores:
        return views.log_loss(views.logits(self.view), self.smoothing)

    def __str__(self) -> str:
        return f"CE({self.view})"


@final
@dataclass(frozen=True)
class Divergence:
    """Divergence of what the model says of one view from what it says of another, KL(p(from) || p(to))."""

    source: str
    to: str
    labelless: ClassVar[bool] = True

    @property
    def views(self) -> tuple[str, ...]:
        return (self.source, self.to)

    def __call__(self, views: Views) -> Scores:
        return divergence(views.logits(self.source), views.logits(self.to))

    def __str__(self) -> str:
        return f"KL({self.source} || {self.to})"


@final
@dataclass(frozen=True)
class Squared:
    """Squared distance between the logits of two views."""

    one: str
    other: str
    labelless: ClassVar[bool] = True

    @property
    def views(self) -> tuple[str, ...]:
        return (self.one, self.other)

    def __call__(self, views: Views) -> Scores:
        return (views.logits(self.one) - views.logits(self.other)).square().sum(1)

    def __str__(self) -> str:
        return f"||f({self.one}) - f({self.other})||^2"


@final
@dataclass(frozen=True)
class Times:
    """A multiple of a term; the multiple may follow a knob."""

    weight: float
    term: Outer
    by: Knob = Constant()

    @property
    def terms(self) -> tuple[Outer, ...]:
        return (self.term,)

    def __call__(self, views: Views) -> Scores:
        return self.weight * self.by(views.done) * self.term(views)

    def __str__(self) -> str:
        return f"{self.weight:g}{'' if self.by == Constant() else '(t)'} {self.term}"


@final
@dataclass(frozen=True)
class Balanced:
    """`first` plus a weight times `second`, the weight set anew for every batch.

    The weight makes the second term the given share of the sum: weight = share / (1 - share) x first / second, as
    numbers without gradient. So a lambda that was right at the start stays right as the two losses drift apart.
    """

    first: Outer
    second: Outer
    share: float = 0.5

    @property
    def terms(self) -> tuple[Outer, ...]:
        return (self.first, self.second)

    def __call__(self, views: Views) -> Scores:
        first, second = self.first(views), self.second(views)
        odds = self.share / (1 - self.share)
        weight = odds * views.mean(first) / views.mean(second).clamp_min(1e-12)
        return first + weight * second

    def __str__(self) -> str:
        return f"{self.first} + lambda_t {self.second}, lambda_t so that the second is {self.share:.0%} of the sum"


@final
@dataclass(frozen=True, init=False)
class Sum:
    """The sum of several terms."""

    terms: tuple[Outer, ...]

    def __init__(self, *terms: Outer) -> None:
        object.__setattr__(self, "terms", terms)

    def __repr__(self) -> str:
        return f"Sum({', '.join(map(repr, self.terms))})"

    def __call__(self, views: Views) -> Scores:
        total: Tensor = self.terms[0](views)
        for term in self.terms[1:]:
            total = total + term(views)
        return total

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))


@final
@dataclass(frozen=True, init=False)
class Worst:
    """The largest of several terms, row by row."""

    terms: tuple[Outer, ...]

    def __init__(self, *terms: Outer) -> None:
        object.__setattr__(self, "terms", terms)

    def __repr__(self) -> str:
        return f"Worst({', '.join(map(repr, self.terms))})"

    def __call__(self, views: Views) -> Scores:
        return torch.stack([term(views) for term in self.terms]).amax(0)

    def __str__(self) -> str:
        return f"max({', '.join(map(str, self.terms))})"


CATALOGUE: tuple[type, ...] = (CE, Divergence, Squared, Times, Balanced, Sum, Worst)
