"""The words that the command line reads: every member of every catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adamant import access, attacks, losses, threats
from adamant.attacks import starts
from adamant.batch import PerRow, Shared
from adamant.engine import Attack, Composite
from adamant.errors import InputError
from adamant.evaluation import CATALOGUE as SUITES
from adamant.evaluation import Suite
from adamant.threats import Projectable
from adamant.training import Plan, Recipe, average, inner, knobs, outer, plan, recipes
from adamant.values import brief, read

Words = dict[str, Callable[..., Any]]


def _named(members: tuple[Any, ...]) -> Words:
    return {m.__name__: m for m in members}


PARTS: Words = _named((*losses.CATALOGUE, *starts.CATALOGUE, PerRow, Shared))
ATTACKS: Words = {**{e.name: e.member for e in attacks.CATALOGUE}}
THREATS: Words = _named(threats.CATALOGUE)
ACCESS: Words = _named(access.CATALOGUE)
RECIPES: Words = _named(recipes.CATALOGUE)
_TRAINING: Words = _named((*average.CATALOGUE, *inner.CATALOGUE, *knobs.CATALOGUE, *outer.CATALOGUE, Recipe))
OPTIMIZERS: Words = _named(tuple(m for m in plan.CATALOGUE if m is not Plan))


def threat(text: str) -> Projectable:
    """`linf:8/255` or `Linf(8/255, mask=...)`."""
    return _expect(read(text, {**THREATS, **PARTS}, kind="threat model"), THREATS, text, "threat model")


def attack(text: str) -> Attack | Composite:
    """`PGD(steps=40, loss=DLR())`."""
    return _expect(read(text, {**ATTACKS, **PARTS}, kind="attack"), ATTACKS, text, "attack")


def sight(text: str) -> access.Access:
    """`NES(n=100)`."""
    return read(text, ACCESS, kind="access")


def recipe(text: str) -> Recipe:
    """`madry(attack=PGD(steps=7))`."""
    made = read(text, {**RECIPES, **_TRAINING, **ATTACKS, **PARTS}, kind="recipe")
    if not isinstance(made, Recipe):
        raise InputError(f"{text!r} is no recipe: choose among {', '.join(RECIPES)}.")
    return made


def optimizer(text: str) -> plan.Optimizer:
    """`SGD(rate=0.1)`."""
    return read(text, OPTIMIZERS, kind="optimizer")


def suite(text: str) -> Suite:
    """The name of a suite, in full or without its version, or an attack to stand for one."""
    for known in SUITES:
        if text in (known.name, known.name.rpartition("_")[0]):
            return known
    if text.isidentifier() and text not in ATTACKS:
        names = ", ".join(s.name for s in SUITES)
        raise InputError(
            f"There is no suite named {text!r}: choose among {names}, or write an attack such as 'PGD(steps=40)'."
        )
    one = attack(text)
    return Suite(brief(one), (one,))


def _expect(value: Any, words: Words, text: str, kind: str) -> Any:
    if type(value) not in words.values():
        raise InputError(f"{text!r} is a {type(value).__name__}, not a {kind}: choose among {', '.join(words)}.")
    return value
