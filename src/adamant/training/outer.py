"""What a training step minimises: an expression over named views of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant._types import Inputs, Labels, Logits, Mask, Scores
from adamant.random import Rng
from adamant.runtime.knobs import Constant, Knob
from adamant.threats import Projectable


class Views:
    """The views of one batch: inputs by name, and their logits, computed once each and only when asked for.

    Beside them what a term may need: the labels (`soft`: as probabilities, where rows were mixed), the model, the
    threat, randomness by row, and how much of the run is done. Inputs of the views in `sloped` can be differentiated.
    """

    def __init__(
        self,
        inputs: Mapping[str, Inputs],
        label: Labels,
        model: Callable[[Inputs], Logits],
        *,
        threat: Projectable | None = None,
        rng: Rng | None = None,
        done: float = 1.0,
        soft: Tensor | None = None,
        sloped: tuple[str, ...] = (),
        joint: tuple[str, ...] = (),
    ) -> None:
        self.inputs = {k: v.detach().requires_grad_() if k in sloped else v for k, v in inputs.items()}
        self.label, self.model, self.done, self.soft = label, model, done, soft
        self._threat, self._rng, self._joint = threat, rng, joint
        self._logits: dict[str, Logits] = {}

    @property
    def threat(self) -> Projectable:
        """The threat model, at the budget of this step."""
        assert self._threat is not None
        return self._threat

    @property
    def rng(self) -> Rng:
        """Randomness keyed by training row and step; fold in a reason."""
        assert self._rng is not None
        return self._rng

    def logits(self, view: str) -> Logits:
        """Logits of a view, in float32 or better; views of `joint` go through the model together, as one batch."""
        if view not in self._logits:
            names = self._joint if view in self._joint else (view,)
            together = self.inputs[view] if len(names) == 1 else torch.cat([self.inputs[n] for n in names])
            logits = wide(self.model(together))
            self._logits.update(zip(names, logits.chunk(len(names)), strict=True))
        return self._logits[view]

    def know(self, view: str, logits: Logits) -> None:
        """Logits of a view that a part came by on its own way, so that nobody asks for them again."""
        self._logits.setdefault(view, wide(logits))

    def slope(self, view: str, score: Scores) -> Inputs:
        """The gradient of a score per row by the input of the view, which can itself be differentiated."""
        return torch.autograd.grad(score.sum(), self.inputs[view], create_graph=True)[0]


def wide(logits: Logits) -> Logits:
    """In float32 or better: log-softmax and divergences lose too much in half precision."""
    return logits if logits.dtype.itemsize >= 4 else logits.float()


@runtime_checkable
class Outer(Protocol):
    """A loss per row over the views of a batch; either a leaf, which reads `views`, or made of `terms`."""

    def __call__(self, views: Views) -> Scores: ...

    def __str__(self) -> str: ...


@runtime_checkable
class Leaf(Protocol):
    """A term that reads views itself."""

    @property
    def views(self) -> tuple[str, ...]:
        """The views whose logits it reads."""
        ...


@runtime_checkable
class Made(Protocol):
    """A loss made of others."""

    @property
    def terms(self) -> tuple[Outer, ...]: ...


@runtime_checkable
class Costly(Protocol):
    """A term with passes of its own, beside the forward and backward of its views."""

    @property
    def passes(self) -> int:
        """Forward-equivalents per row."""
        ...


@runtime_checkable
class Sloped(Protocol):
    """A term with gradients by the input in it, so that training differentiates twice; it is never compiled."""

    @property
    def slopes(self) -> tuple[str, ...]:
        """The views whose inputs it differentiates by."""
        ...


@runtime_checkable
class Layered(Protocol):
    """A term that sees the layers of the model one by one, which a compiled model does not show."""

    layered: ClassVar[bool]


@runtime_checkable
class Sure(Protocol):
    """A term that can say which rows no member of the threat model changes."""

    def holds(self, model: nn.Module, x: Inputs, label: Labels, threat: Projectable) -> Mask:
        """Which rows hold; the model is asked in eval mode."""
        ...


def leaves(outer: Outer) -> Iterator[Outer]:
    """The terms that a loss is made of in the end, or the loss itself."""
    if isinstance(outer, Made):
        for term in outer.terms:
            yield from leaves(term)
    else:
        yield outer


def views_of(outer: Outer) -> tuple[str, ...]:
    """The views whose logits a loss reads, each once."""
    return tuple(dict.fromkeys(v for leaf in leaves(outer) if isinstance(leaf, Leaf) for v in leaf.views))


def slopes_of(outer: Outer) -> tuple[str, ...]:
    """The views by whose inputs a loss differentiates."""
    return tuple(dict.fromkeys(v for leaf in leaves(outer) if isinstance(leaf, Sloped) for v in leaf.slopes))


def cost_of(outer: Outer) -> int:
    """Forward-equivalents per row: each view a forward and a backward by the weights, and what terms add."""
    return 3 * len(views_of(outer)) + sum(leaf.passes for leaf in leaves(outer) if isinstance(leaf, Costly))


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
        label = views.label if views.soft is None else views.soft
        logits, off = views.logits(self.view), self.smoothing
        return F.cross_entropy(logits, label, reduction="none", label_smoothing=off, ignore_index=-1)

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
        reference, now = (views.logits(v).log_softmax(1) for v in (self.source, self.to))
        return F.kl_div(now, reference, reduction="none", log_target=True).sum(1)

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
