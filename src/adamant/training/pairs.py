"""Terms that hold two views of a row together, or count on the label in another way than cross-entropy does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Scores
from adamant.training.views import Views, divergence


@final
@dataclass(frozen=True)
class Boosted:
    """Cross-entropy, and beside it -log(1 - the largest probability of another class) (MART, ICLR 2020).

    In logits: logsumexp of all less logsumexp of all but that class, so that it is a number however sure the model is.
    """

    view: str

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    def __call__(self, views: Views) -> Scores:
        logits, label = views.logits(self.view), views.label
        other = logits.detach().scatter(1, label[:, None], -torch.inf).argmax(1)
        rest = logits.scatter(1, other[:, None], -torch.inf).logsumexp(1)
        return F.cross_entropy(logits, label, reduction="none") + logits.logsumexp(1) - rest

    def __str__(self) -> str:
        return f"BCE({self.view})"


@final
@dataclass(frozen=True)
class Doubted:
    """Divergence between two views, times how much of the label the model misses on the first (MART, ICLR 2020)."""

    source: str
    to: str

    @property
    def views(self) -> tuple[str, ...]:
        return (self.source, self.to)

    def __call__(self, views: Views) -> Scores:
        source, to = views.logits(self.source), views.logits(self.to)
        missing = -torch.expm1(-F.cross_entropy(source, views.label, reduction="none"))  # 1 - p of the label
        return missing * divergence(source, to)

    def __str__(self) -> str:
        return f"(1 - p_y({self.source})) KL({self.source} || {self.to})"


@final
@dataclass(frozen=True)
class Steady:
    """Divergence from what the model says of one view, held fixed, to what it says of another; uses no label."""

    source: str
    to: str
    labelless: ClassVar[bool] = True

    @property
    def views(self) -> tuple[str, ...]:
        return (self.source, self.to)

    def __call__(self, views: Views) -> Scores:
        return divergence(views.logits(self.source).detach(), views.logits(self.to))

    def __str__(self) -> str:
        return f"KL(fixed p({self.source}) || {self.to})"


@final
@dataclass(frozen=True)
class Paired:
    """Divergence from one view to another, where the first is answered rightly, and zero elsewhere (RAMP, 2024).

    The mean is over all rows, not over the right ones: the pairing gains weight as rows come right.
    """

    one: str
    other: str

    @property
    def views(self) -> tuple[str, ...]:
        return (self.one, self.other)

    def __call__(self, views: Views) -> Scores:
        one, other = views.logits(self.one), views.logits(self.other)
        right: Tensor = one.detach().argmax(1) == views.label
        return divergence(one, other) * right

    def __str__(self) -> str:
        return f"1({self.one} right) KL({self.one} || {self.other})"


CATALOGUE: tuple[type, ...] = (Boosted, Doubted, Steady, Paired)
