"""What the adversary may see of the model: one visit gives logits, loss and, if the access has it, a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Logits
from adamant.batch import Rows
from adamant.errors import InputError, ModelError
from adamant.goals import top_class
from adamant.random import Rng


class Sight(IntEnum):
    """How much a visit shows, from little to all."""

    LABELS = 0
    SCORES = 1
    GRADIENT = 2


@runtime_checkable
class Shows(Protocol):
    """A module that says how much it shows; one that says nothing shows its gradient."""

    @property
    def shows(self) -> Sight: ...


def sight(model: Any) -> Sight:
    """How much a model shows: the least of what its parts show."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    return min((m.shows for m in parts if isinstance(m, Shows)), default=Sight.GRADIENT)


class Cost(NamedTuple):
    """Passes of the model per row."""

    forwards: int
    backwards: int


@dataclass(frozen=True)
class Look(Rows):
    """What one visit showed of each row; the gradient is of the loss, by the input."""

    logits: Tensor  # (n, k)
    loss: Tensor  # (n,), or (n, m) where several scores were asked for
    grad: Tensor | None  # (n, *d), or (n, m, *d)

    @property
    def slope(self) -> Tensor:
        """The gradient, where it was asked for."""
        assert self.grad is not None
        return self.grad


@dataclass(frozen=True)
class View:
    """The model as an access may use it: logits of a batch, the score to climb, and where queries may be."""

    model: Callable[[Inputs], Logits]
    score: Callable[[Logits], Tensor]  # (n,) or (n, m)
    clip: Callable[[Inputs], Inputs]
    free: Callable[[Tensor], Tensor]  # zero where an entry may not change
    rng: Callable[[], Rng]  # fresh randomness for this visit


@runtime_checkable
class Access(Protocol):
    """One way of looking at a model."""

    gives: ClassVar[Sight]
    takes: ClassVar[Sight]  # what it must be shown by the model
    exact: ClassVar[bool]  # what it shows is the model's answer at z, and not at something like it

    def look(self, view: View, z: Inputs, *, grad: bool) -> Look:
        """Visit the model at z."""
        ...

    def cost(self, *, grad: bool) -> Cost:
        """What such a visit costs each row."""
        ...


def _glance(view: View, z: Inputs) -> Look:
    with torch.no_grad():
        logits = view.model(z)
        return Look(logits, view.score(logits), None)


@final
@dataclass(frozen=True)
class WhiteBox:
    """Logits and the exact gradient, from one and the same pass."""

    gives: ClassVar[Sight] = Sight.GRADIENT
    takes: ClassVar[Sight] = Sight.GRADIENT
    exact: ClassVar[bool] = True

    def look(self, view: View, z: Inputs, *, grad: bool) -> Look:
        if not grad:
            return _glance(view, z)
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            logits = view.model(z)
            loss = view.score(logits)
            if not loss.requires_grad:
                raise ModelError(
                    "No gradient reaches the input: the model detaches it, or computes outside torch. "
                    "Attack it with access=NES(...) or SPSA(...), which need scores only."
                )
            # A sum, so that no row's gradient depends on how many rows there are; by the input only, so that
            # the weights' gradients are never computed.
            if loss.ndim == 1:
                g = view.free(torch.autograd.grad(loss.sum(), z)[0])
            else:
                sums, last = loss.sum(0), loss.shape[1] - 1
                slopes = (torch.autograd.grad(s, z, retain_graph=i < last)[0] for i, s in enumerate(sums))
                g = torch.stack([view.free(slope) for slope in slopes], 1)
        # One overflowing row must not poison a momentum for good: where there is no number, there is no direction.
        # The sum tells in one reading whether there is such an entry. Not in place: a gradient may be one number seen
        # many times.
        if not math.isfinite(g.sum()):
            g = g.nan_to_num(0.0, 0.0, 0.0)
        return Look(logits.detach(), loss.detach(), g)

    def cost(self, *, grad: bool) -> Cost:
        return Cost(1, int(grad))


@final
@dataclass(frozen=True)
class EOT:
    """Expectation over a randomised model (Athalye et al., 2018, arXiv:1707.07397): the mean of n visits."""

    n: int = 20
    gives: ClassVar[Sight] = Sight.GRADIENT
    takes: ClassVar[Sight] = Sight.GRADIENT
    exact: ClassVar[bool] = False

    def look(self, view: View, z: Inputs, *, grad: bool) -> Look:
        _positive("EOT", self.n)
        looks = [WhiteBox().look(view, z, grad=grad) for _ in range(self.n)]
        grads = [look.grad for look in looks if look.grad is not None]
        mean_grad = torch.stack(grads).mean(0) if grads else None
        return Look(
            torch.stack([k.logits for k in looks]).mean(0), torch.stack([k.loss for k in looks]).mean(0), mean_grad
        )

    def cost(self, *, grad: bool) -> Cost:
        return Cost(self.n, self.n * grad)


@final
@dataclass(frozen=True)
class NES:
    """A gradient from scores: antithetic Gaussian directions (Ilyas et al., 2018, arXiv:1804.08598).

    `n` queries, an even number, beside the one at z itself; `sigma` in units of the input.
    """

    n: int = 50
    sigma: float = 0.001
    gives: ClassVar[Sight] = Sight.GRADIENT
    takes: ClassVar[Sight] = Sight.SCORES
    exact: ClassVar[bool] = True

    def look(self, view: View, z: Inputs, *, grad: bool) -> Look:
        return _estimate(view, z, self.n, self.sigma, view.rng().normal) if grad else _glance(view, z)

    def cost(self, *, grad: bool) -> Cost:
        return Cost(1 + _pairs(self.n) * 2 * grad, 0)


@final
@dataclass(frozen=True)
class SPSA:
    """A gradient from scores: simultaneous random signs (Uesato et al., 2018, arXiv:1802.05666).

    `n` queries, an even number, beside the one at z itself; `sigma` in units of the input.
    """

    n: int = 128
    sigma: float = 0.01
    gives: ClassVar[Sight] = Sight.GRADIENT
    takes: ClassVar[Sight] = Sight.SCORES
    exact: ClassVar[bool] = True

    def look(self, view: View, z: Inputs, *, grad: bool) -> Look:
        return _estimate(view, z, self.n, self.sigma, view.rng().sign) if grad else _glance(view, z)

    def cost(self, *, grad: bool) -> Cost:
        return Cost(1 + _pairs(self.n) * 2 * grad, 0)


@final
@dataclass(frozen=True)
class ScoresOnly:
    """Logits (or log probabilities) and nothing else."""

    gives: ClassVar[Sight] = Sight.SCORES
    takes: ClassVar[Sight] = Sight.SCORES
    exact: ClassVar[bool] = True

    def look(self, view: View, z: Inputs, *, grad: bool) -> Look:
        return _glance(view, z)

    def cost(self, *, grad: bool) -> Cost:
        return Cost(1, 0)


@final
@dataclass(frozen=True)
class LabelsOnly:
    """The predicted class and nothing else: logits come back one-hot, and the loss is NaN."""

    gives: ClassVar[Sight] = Sight.LABELS
    takes: ClassVar[Sight] = Sight.LABELS
    exact: ClassVar[bool] = True

    def look(self, view: View, z: Inputs, *, grad: bool) -> Look:
        with torch.no_grad():
            logits = view.model(z)
        top = top_class(logits)
        known = torch.zeros_like(logits).scatter(1, top.clamp_min(0)[:, None], 1.0)
        known[top < 0] = torch.nan
        return Look(known, torch.full_like(known[:, 0], torch.nan), None)

    def cost(self, *, grad: bool) -> Cost:
        return Cost(1, 0)


def plain(model: Any) -> Access:
    """The strongest access that a model allows without estimating anything."""
    return {Sight.GRADIENT: WhiteBox(), Sight.SCORES: ScoresOnly(), Sight.LABELS: LabelsOnly()}[sight(model)]


def _positive(name: str, n: int) -> None:
    if n < 1:
        raise InputError(f"{name} needs at least one visit, got n={n}.")


def _pairs(n: int) -> int:
    if n < 2 or n % 2:
        raise InputError(f"The number of queries must be even and at least 2 (they come in pairs), got n={n}.")
    return n // 2


def _estimate(view: View, z: Inputs, n: int, sigma: float, draw: Callable[..., Tensor]) -> Look:
    """Central differences along random directions; both ends of a pair stay inside the box."""
    if not sigma > 0:
        raise InputError(f"sigma is how far the queries are from the input, a positive number, got {sigma}.")
    here, pairs = _glance(view, z), _pairs(n)
    several = here.loss.ndim > 1
    grad = z.new_zeros(*here.loss.shape, *z.shape[1:])
    draws = draw(pairs, *z.shape[1:], dtype=z.dtype)
    for i in range(pairs):
        u = view.free(draws[:, i])
        rise = _glance(view, view.clip(z + sigma * u)).loss - _glance(view, view.clip(z - sigma * u)).loss
        grad += rise.to(z.dtype).view(*rise.shape, *(1,) * (z.ndim - 1)) * (u[:, None] if several else u)
    return Look(here.logits, here.loss, torch.nan_to_num(grad / (2 * sigma * pairs), 0.0, 0.0, 0.0))


CATALOGUE: tuple[type, ...] = (WhiteBox, EOT, NES, SPSA, ScoresOnly, LabelsOnly)
