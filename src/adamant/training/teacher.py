"""A teacher: another network, named by its file, that a model learns from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from torch import nn

from adamant._types import Inputs, Logits, Scores
from adamant.adversary import Attack
from adamant.errors import InputError
from adamant.files import sha256
from adamant.goals import Diverge
from adamant.models.load import kept_model
from adamant.threats import Projectable
from adamant.training.parts import Batch, Inner, Memory, attacked, parts_of, passes, stronger
from adamant.training.views import Outer, Views, leaves, wide


@final
@dataclass(frozen=True)
class Teacher:
    """A network named by its file, as `save_model` writes it (.safetensors) or exported (.pt2).

    It is read once, in eval mode, and never changes; a run is only resumed beside the same file.
    """

    path: str = "teacher.safetensors"

    def __call__(self, x: Inputs) -> Logits:
        """Its logits, without a graph; raises InputError where the file is missing or no model of ours."""
        with torch.no_grad():
            return wide(self._network(str(x.device))(x))

    @property
    def digest(self) -> str:
        """The sha256 of the file."""
        try:
            return sha256(self.path)
        except OSError:
            raise InputError(
                f"There is no teacher at {self.path}: give the file of a robust model, Teacher('robust.safetensors')."
            ) from None

    def _network(self, device: str) -> nn.Module:
        _ = self.digest  # says what is missing
        return kept_model(self.path, device)


def _fitting(said: Logits, ours: Logits, teacher: Teacher) -> Logits:
    if said.shape != ours.shape:
        raise InputError(
            f"The teacher {teacher.path} tells {said.shape[1]} classes apart and the model {ours.shape[1]}: "
            "take a teacher of the same task."
        )
    return said


@final
@dataclass(frozen=True)
class Taught:
    """Divergence of what the model says of a view from what a teacher says of the clean input.

    At temperature T both are softened, and the loss is multiplied by T^2 (Hinton et al., 2015, arXiv:1503.02531).
    """

    view: str
    teacher: Teacher = Teacher()
    temperature: float = 1.0
    labelless: ClassVar[bool] = True

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def passes(self) -> int:
        return 1

    def __call__(self, views: Views) -> Scores:
        ours, t = views.logits(self.view), self.temperature
        said = _fitting(self.teacher(views.inputs["clean"].detach()), ours, self.teacher)
        gap = (said / t).log_softmax(1) - (ours / t).log_softmax(1)
        return t * t * ((said / t).softmax(1) * gap).sum(1)

    def __str__(self) -> str:
        return f"KL(teacher(clean) || {self.view})"


@final
@dataclass(frozen=True)
class Depart:
    """A view: where an attack leads the model furthest from what a teacher says of the clean input; uses no label.

    The attack climbs `KL()`.
    """

    attack: Attack
    teacher: Teacher = Teacher()
    view: str = "adv"
    labelless: ClassVar[bool] = True

    @property
    def cost(self) -> int:
        return passes(self.attack) + 1

    def stronger(self) -> Inner:
        return replace(self, attack=stronger(self.attack))

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        goal = Diverge(self.teacher(batch.x))
        return {self.view: attacked(self.attack, model, batch, goal, threat)}


@runtime_checkable
class Pupil(Protocol):
    """A part that asks a teacher."""

    @property
    def teacher(self) -> Teacher: ...


def teachers_of(inner: Inner, outer: Outer) -> tuple[Teacher, ...]:
    """The teachers that a recipe asks, each once."""
    parts = (*parts_of(inner), *leaves(outer))
    return tuple(dict.fromkeys(part.teacher for part in parts if isinstance(part, Pupil)))
