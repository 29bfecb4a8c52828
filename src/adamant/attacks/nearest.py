"""Effort where it pays: attacks only for the rows that are nearly broken, or that still gain.

Every row is judged by itself, by the share of its own clean margin that the best point so far leaves. No row's result
depends on the others, so none of this depends on batches, order or workers; and no scale of the logits matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor

from adamant.access import Sight
from adamant.adversary import Attack, Composite
from adamant.batch import take
from adamant.desk import Desk, Problem
from adamant.errors import InputError


def _left(p: Problem, who: str) -> Tensor:
    if p.yardstick is None or not isinstance(p.desk, Desk):
        raise InputError(f"{who} judges what other attacks came to: give it as a part of Union(...), after the first.")
    return p.desk.left(p)


@final
@dataclass(frozen=True)
class Nearest:
    """The attack on the rows of which no more than the share `left` of their clean margin is left."""

    attack: Attack | Composite
    left: float = 0.5

    @property
    def parts(self) -> tuple[Attack | Composite, ...]:
        return (self.attack,)

    @property
    def needs(self) -> Sight:
        return max(self.attack.needs, Sight.SCORES)

    def unfold(self, p: Problem) -> Iterator[tuple[Attack | Composite, Problem]]:
        if not self.left > 0:
            raise InputError(f"left is a share of the clean margin, above 0, got {self.left}.")
        near = ~(_left(p, "Nearest") > self.left)  # a row of which nothing is known is near
        if bool(near.any()):
            yield self.attack, take(p, near)


@final
@dataclass(frozen=True, init=False)
class Insist:
    """Several attacks in turn, each on the rows that the one before brought nearer.

    A row goes on while an attack takes at least the share `gain` of what was left.
    """

    attacks: tuple[Attack | Composite, ...]
    gain: float = 0.1

    def __init__(self, *attacks: Attack | Composite, gain: float = 0.1) -> None:
        if not attacks:
            raise InputError("Insist needs at least one attack.")
        object.__setattr__(self, "attacks", attacks)
        object.__setattr__(self, "gain", gain)

    def __repr__(self) -> str:
        return f"Insist({', '.join(map(repr, self.attacks))}, gain={self.gain!r})"

    @property
    def parts(self) -> tuple[Attack | Composite, ...]:
        return self.attacks

    @property
    def needs(self) -> Sight:
        return max(Sight.SCORES, *(a.needs for a in self.attacks))

    def unfold(self, p: Problem) -> Iterator[tuple[Attack | Composite, Problem]]:
        if not 0 <= self.gain < 1:
            raise InputError(f"gain is a share of what is left, from 0 to below 1, got {self.gain}.")
        for i, attack in enumerate(self.attacks):
            before = _left(p, "Insist")
            yield attack, replace(p, rng=p.rng.fold("insist").fold(i))
            gains = ~(_left(p, "Insist") > (1 - self.gain) * before)
            if not bool(gains.any()):
                return
            p = take(p, gains)
