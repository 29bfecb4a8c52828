"""What a training step minimises: an expression over named views of the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs, Labels, Logits, Scores


class Views:
    """The views of one batch: inputs by name, and their logits, computed once each and only when asked for."""

    def __init__(self, inputs: Mapping[str, Inputs], label: Labels, model: Callable[[Inputs], Logits]) -> None:
        self.inputs, self.label, self._model = inputs, label, model
        self._logits: dict[str, Logits] = {}

    def logits(self, view: str) -> Logits:
        """Logits of a view, in float32 or better."""
        if view not in self._logits:
            logits = self._model(self.inputs[view])
            self._logits[view] = logits if logits.dtype.itemsize >= 4 else logits.float()
        return self._logits[view]


@runtime_checkable
class Outer(Protocol):
    """A loss per row over the views of a batch."""

    @property
    def views(self) -> tuple[str, ...]:
        """The views that it reads."""
        ...

    def __call__(self, views: Views) -> Scores: ...

    def __str__(self) -> str: ...


@final
@dataclass(frozen=True)
class CE:
    """Cross-entropy of the label on a view, with label smoothing."""

    view: str
    smoothing: float = 0.0

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    def __call__(self, views: Views) -> Scores:
        logits = views.logits(self.view)
        return F.cross_entropy(logits, views.label, reduction="none", label_smoothing=self.smoothing)

    def __str__(self) -> str:
        return f"CE({self.view})"


@final
@dataclass(frozen=True)
class Times:
    """A multiple of a term."""

    weight: float
    term: Outer

    @property
    def views(self) -> tuple[str, ...]:
        return self.term.views

    def __call__(self, views: Views) -> Scores:
        return self.weight * self.term(views)

    def __str__(self) -> str:
        return f"{self.weight:g} {self.term}"


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
    def views(self) -> tuple[str, ...]:
        return (*self.first.views, *self.second.views)

    def __call__(self, views: Views) -> Scores:
        first, second = self.first(views), self.second(views)
        odds = self.share / (1 - self.share)
        weight = odds * first.detach().mean() / second.detach().mean().clamp_min(1e-12)
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

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(v for term in self.terms for v in term.views))

    def __call__(self, views: Views) -> Scores:
        total: Tensor = self.terms[0](views)
        for term in self.terms[1:]:
            total = total + term(views)
        return total

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))


CATALOGUE: tuple[type, ...] = (CE, Times, Balanced, Sum)
