"""Where an attack looks first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from adamant._types import Inputs
from adamant.batch import PerRow, where
from adamant.desk import Desk
from adamant.engine import Problem


@runtime_checkable
class Start(Protocol):
    """A first place to look, for every row."""

    def __call__(self, p: Problem) -> Inputs: ...


@final
@dataclass(frozen=True)
class Here:
    """The input itself."""

    def __call__(self, p: Problem) -> Inputs:
        return p.x


@final
@dataclass(frozen=True)
class Anywhere:
    """A random member of the threat model."""

    def __call__(self, p: Problem) -> Inputs:
        return p.threat.sample(p.x, p.rng.fold("start"))


@final
@dataclass(frozen=True)
class Near:
    """The input plus a little Gaussian noise, in units of the input (TRADES takes 0.001)."""

    sigma: float = 0.001

    def __call__(self, p: Problem) -> Inputs:
        noise = p.rng.fold("start").normal(*p.x.shape[1:], dtype=p.x.dtype)
        return p.threat.project(p.x + self.sigma * noise, p.x)


@final
@dataclass(frozen=True)
class Within:
    """A random point within half the budget, or half the smallest change found so far; with neither, the input itself.

    So a search for the smallest change begins at the input, and its restarts begin at random.
    """

    def __call__(self, p: Problem) -> Inputs:
        radius = p.threat.budget(p.x).double()
        if isinstance(p.desk, Desk):
            radius = radius.minimum(p.desk.size[p.index])
        some = p.threat.at(PerRow((radius.nan_to_num(posinf=1.0) / 2).clamp_min(1e-30))).sample(
            p.x, p.rng.fold("start")
        )
        return where(radius.isfinite(), some, p.x)


CATALOGUE: tuple[type, ...] = (Here, Anywhere, Near, Within)
