"""Suites: which attacks an audit runs, in which order. A released suite is never edited: a better one is renamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from adamant.attacks import FGSM, PGD, EachTarget, RandomSearch, Restarts
from adamant.engine import Attack, Composite
from adamant.losses import Margin


@final
@dataclass(frozen=True)
class Suite:
    """Attacks from cheap to dear; each runs only on the rows that the ones before it left standing."""

    name: str
    attacks: tuple[Attack | Composite, ...]
    when: str = ""


# Version 0: made of the attacks that exist so far, for every norm. None of them is as strong as AutoAttack.
QUICK = Suite("quick_v0", (FGSM(), PGD(steps=20)), "seconds; a first look, and an optimistic one")
STANDARD = Suite(
    "standard_v0",
    (FGSM(), PGD(steps=40), EachTarget(PGD(steps=20, loss=Margin()), 3), RandomSearch(steps=300)),
    "the default: gradients of two losses, three targets, and a search without gradients",
)
FULL = Suite(
    "full_v0",
    (FGSM(), Restarts(PGD(steps=40), 5), EachTarget(PGD(steps=40, loss=Margin()), 9), RandomSearch(steps=2000)),
    "minutes to hours; the most that this version has",
)
CATALOGUE: tuple[Suite, ...] = (QUICK, STANDARD, FULL)
