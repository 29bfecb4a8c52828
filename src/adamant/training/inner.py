"""Where the adversarial view of a batch comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Labels
from adamant.access import Sight
from adamant.adversary import Attack
from adamant.engine import perturb
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.threats import Projectable

Memory = dict[str, Tensor]  # what a recipe remembers of each training row; it travels in the checkpoint


@dataclass(frozen=True)
class Batch:
    """What an inner part may know of the batch at hand."""

    x: Inputs
    y: Labels
    places: Tensor  # the place of each row in the training set
    rng: Rng  # keyed by the training rows and the step


@runtime_checkable
class Inner(Protocol):
    """Makes the views of a batch, beside `clean`, which every batch has."""

    @property
    def cost(self) -> int:
        """Forward-equivalents per step and row: a forward is 1, a backward by the input is 1."""
        ...

    def refresh(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng, memory: Memory) -> None:
        """Called before every epoch, with the whole training set."""
        ...

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        """The views of this batch; called with the model in its attack mode and its weights frozen."""
        ...


def _passes(attack: Attack) -> int:
    if attack.needs != Sight.GRADIENT:
        raise InputError(f"Training climbs gradients, and {type(attack).__name__} uses none: take PGD(...) or FGSM().")
    return 2 * attack.steps


@final
@dataclass(frozen=True)
class Keep:
    """No adversary: the clean view alone."""

    @property
    def cost(self) -> int:
        return 0

    def refresh(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng, memory: Memory) -> None:
        return

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        return {}


@final
@dataclass(frozen=True)
class Ascend:
    """The view `adv`: the last point of an attack on the model as it is at this step."""

    attack: Attack

    @property
    def cost(self) -> int:
        return _passes(self.attack)

    def refresh(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng, memory: Memory) -> None:
        return

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        return {"adv": perturb(self.attack, model, batch.x, Untargeted(batch.y), threat, rng=batch.rng)}


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
        return _passes(self.attack)  # once per row and epoch, as in `Ascend`, but all at one moment

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


CATALOGUE: tuple[type, ...] = (Keep, Ascend, Pool)
