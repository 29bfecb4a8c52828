"""Priors: what the codes of an autoencoder are to be distributed like, drawn by counters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from adamant.errors import InputError
from adamant.random import Rng


@runtime_checkable
class Prior(Protocol):
    """A distribution of vectors, some of which fall into numbered parts."""

    @property
    def dim(self) -> int:
        """The length of a vector."""
        ...

    @property
    def parts(self) -> int:
        """How many parts it has that a label can name; 0 where it has none."""
        ...

    def draw(self, rng: Rng, part: Tensor | None = None) -> Tensor:
        """One vector for each row (n, dim), from the part (n,) that it names; -1, or no part at all, means any."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Independent normal coordinates with mean 0."""

    dim: int = 8
    std: float = 1.0

    @property
    def parts(self) -> int:
        return 0

    def draw(self, rng: Rng, part: Tensor | None = None) -> Tensor:
        _whole(self, part)
        return rng.fold("prior").normal(self.dim).mul_(self.std)


@final
@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Independent coordinates, uniform on [-half, half)."""

    dim: int = 8
    half: float = 2.0

    @property
    def parts(self) -> int:
        return 0

    def draw(self, rng: Rng, part: Tensor | None = None) -> Tensor:
        _whole(self, part)
        return rng.fold("prior").uniform(self.dim).mul_(2).sub_(1).mul_(self.half)


@final
@dataclass(frozen=True, kw_only=True)
class Ring:
    """A mixture of Gaussians in the plane, like the petals of a flower (Makhzani et al., 2016, arXiv:1511.05644).

    Part k lies at the angle 2 pi k / parts, `radius` from the origin, with standard deviation `along` the radius and
    `across` it.
    """

    parts: int = 10
    radius: float = 4.0
    along: float = 1.0
    across: float = 0.3

    @property
    def dim(self) -> int:
        return 2

    def draw(self, rng: Rng, part: Tensor | None = None) -> Tensor:
        part = _parts(self.parts, rng, part)
        angle = part.float() * (2 * math.pi / self.parts)
        cos, sin = angle.cos(), angle.sin()
        out, aside = rng.fold("prior").normal(2).unbind(1)
        out, aside = out * self.along + self.radius, aside * self.across
        return torch.stack([out * cos - aside * sin, out * sin + aside * cos], 1)


@final
@dataclass(frozen=True, kw_only=True)
class SwissRoll:
    """A spiral from the origin to `radius`, nearly equally dense along its length; part k is the k-th piece of it."""

    parts: int = 10
    radius: float = 4.0
    turns: float = 2.0
    across: float = 0.05

    @property
    def dim(self) -> int:
        return 2

    def draw(self, rng: Rng, part: Tensor | None = None) -> Tensor:
        part = _parts(self.parts, rng, part)
        # The length of a spiral grows with the square of its angle.
        way = ((part + rng.fold("prior").uniform()) / self.parts).sqrt()
        angle = way * (2 * math.pi * self.turns)
        point = torch.stack([angle.cos(), angle.sin()], 1) * (way * self.radius)[:, None]
        return point + rng.fold("aside").normal(2).mul_(self.across)


@final
@dataclass(frozen=True, kw_only=True)
class Categorical:
    """One of so many classes, equally likely, as a one-hot vector."""

    classes: int = 10

    @property
    def dim(self) -> int:
        return self.classes

    @property
    def parts(self) -> int:
        return self.classes

    def draw(self, rng: Rng, part: Tensor | None = None) -> Tensor:
        return one_hot(_parts(self.classes, rng, part), self.classes).float()


def check(prior: Prior) -> None:
    """Raise InputError for a prior that nothing can be drawn from."""
    for name in ("dim", "classes", "parts"):
        value = getattr(prior, name, 1)
        if value < 1 and not (name == "parts" and isinstance(prior, (Gaussian, Uniform))):
            raise InputError(f"{prior!r} has {name}={value}; give a whole number from 1 on.")
    for name in ("std", "half", "radius", "along", "across", "turns"):
        value = getattr(prior, name, 1.0)
        if not 0 < value < math.inf:
            raise InputError(f"{prior!r} has {name}={value}; give a number above 0.")


def _parts(parts: int, rng: Rng, part: Tensor | None) -> Tensor:
    """The part of each row; where none is named, any."""
    anywhere = rng.fold("part").integers(parts)
    if part is None:
        return anywhere
    if len(part) and int(part.max()) >= parts:
        raise InputError(f"The prior has parts 0 to {parts - 1}, and part {int(part.max())} was asked for.")
    return torch.where(part < 0, anywhere, part)


def _whole(prior: Prior, part: Tensor | None) -> None:
    if part is not None and bool((part >= 0).any()):
        raise InputError(f"{prior!r} has no parts that a label could name: take Ring() or SwissRoll().")


CATALOGUE: tuple[type, ...] = (Gaussian, Uniform, Ring, SwissRoll, Categorical)
