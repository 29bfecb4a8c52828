"""What an adversary may do to an input: a set around each x, its size and its geometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self, runtime_checkable

from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.batch import PerRow
from adamant.random import Rng


@runtime_checkable
class ThreatModel(Protocol):
    """The set around each x; `contains` is the one source of truth."""

    def check(self, x: Inputs) -> None:
        """Raise InputError where x itself is not in the set."""
        ...

    def contains(self, z: Inputs, x: Inputs) -> Mask:
        """Which rows of z are members, judged in float64; a NaN is in no set."""
        ...

    def size(self, z: Inputs, x: Inputs) -> Scores:
        """How far z is from x, in the unit that people quote, float64."""
        ...

    def sample(self, x: Inputs, rng: Rng) -> Inputs:
        """A random member for each row."""
        ...


@runtime_checkable
class Projectable(ThreatModel, Protocol):
    """A set that gradient attacks can walk in."""

    def budget(self, like: Inputs) -> Scores:
        """The budget of each row, in the unit of `size`; infinite where the question is how little suffices."""
        ...

    @property
    def width(self) -> float:
        """How far apart the ends of an entry's range are: the unit of steps that no budget measures."""
        ...

    def clip(self, z: Inputs) -> Inputs:
        """Into the valid range of inputs, whatever the budget: no query leaves it."""
        ...

    def free(self, values: Tensor) -> Tensor:
        """Zero where an entry may not change; for directions."""
        ...

    def move(self, z: Inputs, g: Inputs, rate: Scores | float) -> Inputs:
        """One step of steepest ascent in this geometry; the rate is in units of the budget."""
        ...

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        """The nearest member."""
        ...

    def at(self, eps: float | PerRow) -> Self:
        """The same threat with another budget, or with one for each row."""
        ...


@runtime_checkable
class Normed(Projectable, Protocol):
    """A set whose size is a norm of the change: it has a steepest direction and a dual norm."""

    def steepest(self, g: Inputs) -> Inputs:
        """The change of size one that gains most along g; zero where g is."""
        ...

    def dual(self, g: Inputs) -> Scores:
        """What it gains: the dual norm of g, (n,)."""
        ...


@runtime_checkable
class Anchored(Protocol):
    """A set whose projection has a part that depends on x alone; many steps around one x need it only once."""

    def around(self, x: Inputs) -> Callable[[Inputs], Inputs]:
        """`project` around this x."""
        ...
