"""What an inner part is and may be asked, the batch that it sees, and what such parts share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Labels
from adamant.access import Access, Sight
from adamant.adversary import Attack
from adamant.attacks.gradient import FGSM, PGD
from adamant.attacks.starts import Here
from adamant.calling import Settings
from adamant.engine import perturb
from adamant.errors import InputError
from adamant.goals import Goal
from adamant.random import Rng
from adamant.shards import Shard
from adamant.threats import Projectable

Memory = dict[str, Tensor]  # what a recipe remembers of each training row; it travels in the checkpoint


@dataclass(frozen=True)
class Batch:
    """What an inner part may know of the batch at hand."""

    x: Inputs
    y: Labels
    places: Tensor  # the place of each row in the training set
    rng: Rng  # keyed by the training rows and the step
    done: float = 0.0  # how much of the run is over
    scale: float = 1.0  # of the budget, at this step; the threat that an inner part is given is scaled already
    settings: Settings = Settings(lanes=1)  # how the attack calls the model
    common: Rng = field(default_factory=lambda: Rng.of(0, 1))  # one stream for the step, the same in all processes
    shard: Shard = Shard()  # which process's share of the whole batch these rows are

    @property
    def seats(self) -> Tensor:
        """Where the rows sit in the whole batch."""
        return torch.arange(len(self.x), device=self.x.device) * self.shard.world + self.shard.rank


@runtime_checkable
class Inner(Protocol):
    """Makes the views of a batch, beside `clean`, which every batch has."""

    @property
    def cost(self) -> int:
        """Forward-equivalents per step and row: a forward is 1, a backward by the input is 1."""
        ...

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        """The views of this batch; called with the model in its attack mode and its weights frozen."""
        ...


@runtime_checkable
class Refreshed(Protocol):
    """An inner part that is called before every epoch, with the whole training set."""

    def refresh(
        self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng, memory: Memory
    ) -> None: ...


@runtime_checkable
class Learner(Protocol):
    """An inner part that learns from the training pass itself, without a pass of its own."""

    @property
    def learns(self) -> str:
        """The view by whose input it wants the gradient of the objective."""
        ...

    def learn(self, batch: Batch, gradient: Inputs, threat: Projectable, memory: Memory) -> None:
        """Called after the backward of every step."""
        ...


@runtime_checkable
class Labelless(Protocol):
    """A part that can do without the label of a row, which is then -1; marked, as most cannot."""

    labelless: ClassVar[bool]


@runtime_checkable
class Growing(Protocol):
    """An inner part that can be made stronger, where the model has learnt to answer it and nothing else."""

    def stronger(self) -> Inner: ...


@runtime_checkable
class Several(Protocol):
    """An inner part made of others."""

    @property
    def parts(self) -> tuple[Inner, ...]: ...


@runtime_checkable
class Elsewhere(Protocol):
    """An inner part within threat models of its own, instead of that of the run."""

    @property
    def threats(self) -> tuple[Projectable, ...]: ...


def parts_of(inner: Inner) -> Iterator[Inner]:
    """An inner part, and those that it is made of."""
    yield inner
    if isinstance(inner, Several):
        for part in inner.parts:
            yield from parts_of(part)


def threats_of(inner: Inner, threat: Projectable) -> tuple[Projectable, ...]:
    """The threat models that a recipe trains within: its own, or that of the run."""
    own = (threat for part in parts_of(inner) if isinstance(part, Elsewhere) for threat in part.threats)
    return tuple(dict.fromkeys(own)) or (threat,)


def scaled(threat: Projectable, by: float) -> Projectable:
    """The threat model with a share of its budget; never none at all, which no attack could use."""
    eps = float(getattr(threat, "eps", 1.0))
    return threat if by == 1 else threat.at(max(eps * by, 1e-12 * eps))


def passes(attack: Attack) -> int:
    """What an attack costs in training: a forward and a backward by the input for each step."""
    if attack.needs != Sight.GRADIENT:
        raise InputError(f"Training climbs gradients, and {type(attack).__name__} uses none: take PGD(...) or FGSM().")
    return 2 * attack.steps


def attacked(
    attack: Attack, model: nn.Module, batch: Batch, goal: Goal, threat: Projectable, *, access: Access | None = None
) -> Inputs:
    """The last point of an attack on the batch, with the luck of its rows."""
    return perturb(attack, model, batch.x, goal, threat, rng=batch.rng, access=access, settings=batch.settings)


def grown(inner: Inner) -> Inner:
    """The inner part made stronger, where it can be."""
    return inner.stronger() if isinstance(inner, Growing) else inner


class _Stepped(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int: ...

    @property
    def rate(self) -> float: ...


_S = TypeVar("_S", bound=_Stepped)


def finer(part: _S) -> _S:
    """The same path, of one step more."""
    return replace(part, steps=part.steps + 1, rate=part.rate * part.steps / (part.steps + 1))


def stronger(attack: Attack) -> Attack:
    """One step more on a path of the same length; a single step becomes two."""
    if isinstance(attack, FGSM):
        return PGD(steps=2, rate=0.6, start=Here(), loss=attack.loss)
    names = {f.name for f in fields(attack)} if hasattr(attack, "__dataclass_fields__") else set[str]()  # type: ignore[arg-type]
    if "steps" not in names:
        return attack
    more: dict[str, Any] = {"steps": attack.steps + 1}
    if "rate" in names:
        more["rate"] = attack.rate * attack.steps / (attack.steps + 1)  # type: ignore[attr-defined]
    return replace(attack, **more)  # type: ignore[type-var]
