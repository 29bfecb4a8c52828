"""Attacks made of attacks: restarts, one target after another, several attacks in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from adamant.access import Sight
from adamant.adversary import Attack, Composite
from adamant.attacks.starts import Here, Start, Won
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.losses import Margin


@final
@dataclass(frozen=True)
class Restarts:
    """The same attack `n` times, each with fresh randomness."""

    attack: Attack | Composite
    n: int = 5

    @property
    def parts(self) -> tuple[Attack | Composite, ...]:
        return (self.attack,)

    @property
    def needs(self) -> Sight:
        return self.attack.needs

    def unfold(self, p: Problem) -> Iterator[tuple[Attack | Composite, Problem]]:
        if self.n < 1:
            raise InputError(f"Restarts needs n of at least 1, got {self.n}.")
        for i in range(self.n):
            yield self.attack, replace(p, rng=p.rng.fold("restart").fold(i))


@final
@dataclass(frozen=True)
class EachTarget:
    """The attack aimed at each of the `n` likeliest wrong classes in turn; any wrong class counts as success.

    The idea of MultiTargeted (Gowal et al., 2019, arXiv:1910.09338). The order is that of the logits at the input, or
    at another point, such as the best so far.
    """

    attack: Attack | Composite
    n: int = 9
    at: Start = Here()

    @property
    def parts(self) -> tuple[Attack | Composite, ...]:
        return (self.attack,)

    @property
    def needs(self) -> Sight:
        return max(self.attack.needs, Sight.SCORES)

    def unfold(self, p: Problem) -> Iterator[tuple[Attack | Composite, Problem]]:
        if not isinstance(p.goal, Untargeted):
            raise InputError(
                f"EachTarget chooses the targets itself, so its goal is Untargeted, not {type(p.goal).__name__}."
            )
        if self.n < 1:
            raise InputError(f"EachTarget needs n of at least 1, got {self.n}.")
        label = p.goal.label
        # A look to rank by: what it shows is not to be measured against the losses that the attack climbs.
        logits = replace(p, yardstick=p.yardstick or Won()).look(self.at(p), Margin()).logits
        ranked = logits.argsort(dim=1, descending=True, stable=True)
        others = (ranked != label[:, None]).int().argsort(dim=1, descending=True, stable=True)  # the label comes last
        ranked = ranked.gather(1, others)
        for i in range(min(self.n, logits.shape[1] - 1)):
            yield self.attack, replace(p, aim=Targeted(label, ranked[:, i]), rng=p.rng.fold("target").fold(i))


@final
@dataclass(frozen=True, init=False)
class Union:
    """Several attacks in turn: a row is broken if any of them breaks it.

    What they come to is measured by the margin, whatever each climbs, so that one can begin where another ended.
    """

    attacks: tuple[Attack | Composite, ...]

    def __init__(self, *attacks: Attack | Composite) -> None:
        if not attacks:
            raise InputError("Union needs at least one attack.")
        object.__setattr__(self, "attacks", attacks)

    def __repr__(self) -> str:
        return f"Union({', '.join(map(repr, self.attacks))})"

    @property
    def parts(self) -> tuple[Attack | Composite, ...]:
        return self.attacks

    @property
    def needs(self) -> Sight:
        return max(a.needs for a in self.attacks)

    def unfold(self, p: Problem) -> Iterator[tuple[Attack | Composite, Problem]]:
        for i, attack in enumerate(self.attacks):
            yield attack, replace(p, rng=p.rng.fold("union").fold(i), yardstick=p.yardstick or Margin())
