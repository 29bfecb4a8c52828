"""What a game is: networks that learn against one another, what they learn from, and how one of its steps is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from adamant.data import DataSet
from adamant.errors import InputError
from adamant.generation.judge import Judge
from adamant.generation.reference import Reference
from adamant.random import Rng
from adamant.runtime.average import Average
from adamant.threats import Projectable

Shape = tuple[int, ...]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """What a game learns from and is measured on; networks in it are asked, and never changed.

    A label of -1 says that the row has none.
    """

    data: DataSet
    validation: DataSet
    judge: Judge | None = None  # a classifier of this house, whose features measure what is made
    target: nn.Module | None = None  # the model that is attacked, where the game attacks one
    threat: Projectable | None = None  # within which it is attacked

    @property
    def shape(self) -> Shape:
        """Of one input, without the batch."""
        return tuple(self.data.x.shape[1:])

    @property
    def classes(self) -> int:
        """How many the data know."""
        return len(self.data.classes)

    @cached_property
    def reference(self) -> Reference:
        """The real rows that made ones are measured against; raises InputError where there is no judge."""
        if self.judge is None:
            raise InputError("Nothing can be measured without a judge: give Material(judge=train_judge(data)).")
        return Reference.of(self.judge, self.data, self.validation)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """One step of a game: a batch, its luck, and the way to move a player.

    `rng` has one stream for each row of the batch, keyed by seed, training row and step, so that what is drawn depends
    on no neighbour, process or restart; every draw folds in a reason.
    """

    x: Tensor  # (n *d)
    y: Tensor  # (n,) int64; -1 for a row without a label
    rng: Rng
    step: int
    done: float  # the share of the run that lies behind, from 0 to 1
    material: Material
    # Takes the gradient of a loss by the weights of one player, and follows it. Nothing else gets a gradient.
    descend: Callable[[str, Tensor], None]


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """How well a game stands: the score decides which weights are kept, the figures are for people."""

    score: float  # larger is better
    figures: Mapping[str, float]
    warnings: tuple[str, ...] = ()  # sentences


@runtime_checkable
class Game(Protocol):
    """A frozen record that says how networks learn against one another; it holds no network."""

    @property
    def average(self) -> Average | None:
        """The mean of weights that is measured and saved in place of the live ones."""
        ...

    @property
    def averaged(self) -> tuple[str, ...]:
        """The children of the networks that the mean is of."""
        ...

    def check(self, material: Material) -> None:
        """Raise InputError where the game cannot be played over these rows: size, classes, labels, target."""
        ...

    def build(self, shape: Shape, classes: int, seed: int) -> nn.Module:
        """All networks as one module, a child for each, with weights that depend on the seed alone."""
        ...

    def players(self, networks: nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Who moves, by name, each with the optimiser of its weights; `Turn.descend` takes these names."""
        ...

    def update(self, networks: nn.Module, turn: Turn) -> dict[str, Tensor]:
        """One step: every player moves by `turn.descend`; returns the losses by name, each one number."""
        ...

    def measure(self, networks: nn.Module, material: Material, seed: int) -> Measured:
        """Look at the networks, in eval mode and without gradients, with rows of the validation set."""
        ...

    def show(self, networks: nn.Module, material: Material, seed: int) -> Tensor:
        """Pictures (n *d) in rows of ten for people, the same whenever it is asked, so that they can be followed."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """A game that draws inputs from nothing: one for each stream."""

    @property
    def conditional(self) -> bool:
        """Whether it takes labels."""
        ...

    def sample(self, networks: nn.Module, rng: Rng, y: Tensor | None = None) -> Tensor:
        """Inputs (n *d), of the classes y (n,) where the game is conditional, whose luck then is the label too."""
        ...


@runtime_checkable
class Outlined(Protocol):
    """A game whose generator an attack asks: its file says how to build that network alone."""

    def outline(self, networks: nn.Module) -> dict[str, Any]:
        """What `adamant.models.generators.load_changes` needs."""
        ...
