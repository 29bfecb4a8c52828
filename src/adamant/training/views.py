"""Views of a batch, and what a loss over them is: the words that losses are written in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant._types import Inputs, Labels, Logits, Mask, Scores
from adamant.random import Rng
from adamant.runtime import together
from adamant.shards import Shard
from adamant.threats import Projectable


class Views:
    """The views of one batch: inputs by name, and their logits, computed once each and only when asked for.

    Beside them what a term may need: the labels (`soft`: as probabilities, where rows were mixed), the model, the
    threat, randomness by row, and how much of the run is done. Where several processes share the batch, these are the
    rows of one of them.
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
        joint: tuple[str, ...] = (),
        shard: Shard = Shard(),
    ) -> None:
        self.inputs = dict(inputs)
        self.label, self.model, self.done, self.soft = label, model, done, soft
        self._threat, self._rng, self._joint, self._shard = threat, rng, joint, shard
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

    def log_loss(self, logits: Logits, smoothing: float = 0.0) -> Scores:
        """Cross-entropy of the label, as probabilities where rows were mixed; zero for rows without one (-1)."""
        label = self.label if self.soft is None else self.soft
        return F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing, ignore_index=-1)

    def mean(self, score: Scores) -> Tensor:
        """The mean over the rows of all processes, as a number without gradient."""
        here = score.detach().mean()
        return here if self._shard.world == 1 else here.new_tensor(together.mean(float(here), self._shard))

    def slope(self, view: str, score: Scores) -> Inputs:
        """The gradient of a score per row by the input of the view, which can itself be differentiated."""
        return torch.autograd.grad(score.sum(), self.inputs[view], create_graph=True)[0]


def wide(logits: Logits) -> Logits:
    """In float32 or better: log-softmax and divergences lose too much in half precision."""
    return logits if logits.dtype.itemsize >= 4 else logits.float()


def sloped(inputs: Mapping[str, Inputs], views: Collection[str]) -> dict[str, Inputs]:
    """The inputs, of which those of some views can be differentiated."""
    return {k: v.detach().requires_grad_() if k in views else v for k, v in inputs.items()}


def divergence(source: Logits, to: Logits) -> Scores:
    """KL(p(source) || p(to)) by row, in log space."""
    return F.kl_div(to.log_softmax(1), source.log_softmax(1), reduction="none", log_target=True).sum(1)


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
