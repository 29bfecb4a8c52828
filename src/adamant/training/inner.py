"""Where the adversarial views of a batch come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import nn

from adamant._types import Inputs, Labels
from adamant.adversary import Attack
from adamant.engine import perturb
from adamant.goals import Diverge, Untargeted
from adamant.random import Rng
from adamant.threats import Projectable
from adamant.training.parts import Batch, Inner, Memory, attacked, grown, passes, scaled, stronger


@final
@dataclass(frozen=True)
class Keep:
    """No adversary: the clean view alone."""

    labelless: ClassVar[bool] = True

    @property
    def cost(self) -> int:
        return 0

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        return {}


@final
@dataclass(frozen=True)
class Ascend:
    """A view: the last point of an attack on the model as it is at this step."""

    attack: Attack
    view: str = "adv"

    @property
    def cost(self) -> int:
        return passes(self.attack)

    def stronger(self) -> Inner:
        return replace(self, attack=stronger(self.attack))

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        return {self.view: attacked(self.attack, model, batch, Untargeted(batch.y), threat)}


@final
@dataclass(frozen=True)
class Stray:
    """A view: where an attack leads the model furthest away from its own answer to the clean input; uses no label.

    The attack climbs `KL()`, and begins beside the input (`Near()`), where that has no gradient.
    """

    attack: Attack
    view: str = "adv"
    labelless: ClassVar[bool] = True

    @property
    def cost(self) -> int:
        return passes(self.attack) + 1

    def stronger(self) -> Inner:
        return replace(self, attack=stronger(self.attack))

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        with torch.no_grad():
            goal = Diverge(model(batch.x))
        return {self.view: attacked(self.attack, model, batch, goal, threat)}


@final
@dataclass(frozen=True)
class Pool:
    """The view `adv`: from a set of adversarial examples that grows by one generation before every epoch.

    The first defence (Szegedy et al., 2014, arXiv:1312.6199): generate, add to the training set, train on, repeat.
    The last `keep` generations stay in the set; each time a row is drawn, one of its generations is.
    """

    attack: Attack
    keep: int = 3

    @property
    def cost(self) -> int:
        return passes(self.attack)  # once per row and epoch, as in `Ascend`, but all at one moment

    def refresh(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng, memory: Memory) -> None:
        parts = [
            perturb(self.attack, model, x[r], Untargeted(y[r]), threat, rng=Rng(rng.key[r]))
            for r in torch.arange(len(x), device=x.device).split(256)
        ]
        older = memory.get("pool")
        fresh = torch.cat(parts)[None]
        memory["pool"] = fresh if older is None else torch.cat([fresh, older])[: self.keep]

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        pool = memory["pool"]
        generation = batch.rng.fold("generation").integers(len(pool))
        return {"adv": pool[generation, batch.places]}


@final
@dataclass(frozen=True)
class Under:
    """An inner part within a threat model of its own; the run's schedule of the budget applies to it, too."""

    threat: Projectable
    inner: Inner
    labelless: ClassVar[bool] = True  # if its part is

    @property
    def cost(self) -> int:
        return self.inner.cost

    @property
    def parts(self) -> tuple[Inner, ...]:
        return (self.inner,)

    @property
    def threats(self) -> tuple[Projectable, ...]:
        return (self.threat,)

    def stronger(self) -> Inner:
        return replace(self, inner=grown(self.inner))

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        return self.inner(model, batch, scaled(self.threat, batch.scale), memory)


@final
@dataclass(frozen=True, init=False)
class Together:
    """The views of several inner parts."""

    parts: tuple[Inner, ...]
    labelless: ClassVar[bool] = True  # if its parts are

    def __init__(self, *parts: Inner) -> None:
        object.__setattr__(self, "parts", parts)

    def __repr__(self) -> str:
        return f"Together({', '.join(map(repr, self.parts))})"

    @property
    def cost(self) -> int:
        return sum(part.cost for part in self.parts)

    def stronger(self) -> Inner:
        return Together(*map(grown, self.parts))

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        views: dict[str, Inputs] = {}
        for part in self.parts:
            views |= part(model, batch, threat, memory)
        return views


@final
@dataclass(frozen=True)
class Stages:
    """One inner part after another, as the run goes on: a curriculum; each with the share of the run where it ends."""

    stages: tuple[tuple[float, Inner], ...]
    labelless: ClassVar[bool] = True  # if its stages are

    @property
    def parts(self) -> tuple[Inner, ...]:
        return tuple(inner for _, inner in self.stages)

    @property
    def cost(self) -> int:
        """On average over the run, rounded up."""
        ends = [0.0, *(min(1.0, until) for until, _ in self.stages)]
        ends[-1] = 1.0
        mean = sum((b - a) * s.cost for a, b, s in zip(ends, ends[1:], self.parts, strict=False))
        return round(mean + 0.499)

    def stronger(self) -> Inner:
        return Stages(tuple((until, grown(inner)) for until, inner in self.stages))

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        now = next((inner for until, inner in self.stages if batch.done < until), self.stages[-1][1])
        return now(model, batch, threat, memory)


CATALOGUE: tuple[type, ...] = (Keep, Ascend, Stray, Pool, Under, Together, Stages)
