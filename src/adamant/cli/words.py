"""The words that the command line reads: every member of every catalogue."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin, get_type_hints

from adamant import access, losses, threats, variety
from adamant.adversary import Attack, Composite
from adamant.attacks import starts
from adamant.attacks.catalogue import CATALOGUE
from adamant.batch import PerRow, Shared
from adamant.errors import InputError
from adamant.evaluation import CATALOGUE as SUITES
from adamant.evaluation import Suite
from adamant.generation import catalogue as generation
from adamant.generation.base import Game
from adamant.runtime import knobs, optimizers
from adamant.runtime.augment import Augment, Mixing
from adamant.runtime.knobs import Knob
from adamant.threats import L0, Projectable
from adamant.training import Recipe, catalogue, recipes
from adamant.values import brief, read
from adamant.variety import Varied

Words = dict[str, Callable[..., Any]]


def _named(members: tuple[Any, ...]) -> Words:
    return {m.__name__: m for m in members}


PARTS: Words = _named((*losses.CATALOGUE, *starts.CATALOGUE, PerRow, Shared))
ATTACKS: Words = {**{e.name: e.member for e in CATALOGUE}}
THREATS: Words = _named(threats.CATALOGUE)
ACCESS: Words = _named((*access.CATALOGUE, Varied))
_CHANGES: Words = _named((*variety.CATALOGUE, Shared))
RECIPES: Words = _named(recipes.CATALOGUE)
_TRAINING: Words = _named(catalogue.PARTS)
AUGMENTS: Words = _named(catalogue.AUGMENTS)
KNOBS: Words = _named(knobs.CATALOGUE)
OPTIMIZERS: Words = _named(optimizers.CATALOGUE)


def threat(text: str, *, budget: bool = True) -> Projectable:
    """`linf:8/255` or `Linf(8/255, mask=...)`; where a budget is no must, `l2` alone asks for the smallest change."""
    made = _expect(read(text, {**THREATS, **PARTS}, kind="threat model"), THREATS, text, "threat model")
    eps = getattr(made, "eps", None)
    if isinstance(eps, bool) or (budget and isinstance(eps, (int, float)) and not math.isfinite(eps)):
        raise InputError(f"The budget of {text!r} is {eps}: give a finite number, such as linf:8/255.")
    if isinstance(made, L0) and isinstance(eps, (int, float)) and eps < 1:
        raise InputError(f"The budget of {text!r} is {eps:g} entries: give the number of entries that may change.")
    return _sound(made, text)


def attack(text: str) -> Attack | Composite:
    """`PGD(steps=40, loss=DLR())`."""
    return _sound(_expect(read(text, {**ATTACKS, **PARTS}, kind="attack"), ATTACKS, text, "attack"), text)


def sight(text: str) -> access.Access:
    """`NES(n=100)`."""
    return _sound(_expect(read(text, {**ACCESS, **_CHANGES}, kind="access"), ACCESS, text, "access"), text)


def recipe(text: str) -> Recipe:
    """`madry(attack=PGD(steps=7))`."""
    made = read(text, {**RECIPES, **_TRAINING, **ATTACKS, **THREATS, **PARTS}, kind="recipe")
    if not isinstance(made, Recipe):
        raise InputError(f"{text!r} is no recipe: choose among {', '.join(RECIPES)}.")
    return _sound(made, text)


def optimizer(text: str) -> optimizers.Optimizer:
    """`SGD(rate=0.1)`."""
    return _sound(_expect(read(text, OPTIMIZERS, kind="optimizer"), OPTIMIZERS, text, "optimizer"), text)


def shape(text: str) -> Knob:
    """`Cosine()`: the learning rate over the run."""
    return _sound(_expect(read(text, KNOBS, kind="schedule"), KNOBS, text, "schedule"), text)


def game(text: str) -> Game:
    """`gan(labels=Projection())`."""
    games = _named(generation.GAMES)
    made = _expect(read(text, generation.vocabulary(), kind="game"), games, text, "game")
    return _sound(made, text)


def augments(text: str) -> tuple[Augment | Mixing, ...]:
    """`Flip(), Crop(4)`: one after another."""
    made = read(f"({text},)", AUGMENTS, kind="augmentation") if text.strip() else ()
    return tuple(_sound(_expect(one, AUGMENTS, text, "augmentation"), text) for one in made)


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


# Settings only store, so that what Python is given is Python's affair; what a person typed is checked here.
_POSITIVE = ("steps", "n", "keep", "rate", "sigma", "span")
# Protocols of one call look alike: whoever is in the catalogue is meant.
_MEMBERS: dict[type, tuple[Any, ...]] = {
    losses.Loss: losses.CATALOGUE, starts.Start: starts.CATALOGUE, variety.Change: variety.CATALOGUE,
    **catalogue.MEMBERS,
}  # fmt: skip


def _sound(value: Any, text: str) -> Any:
    """The value, when each of its settings is of the kind that it asks for; else InputError names the first odd one."""
    if not dataclasses.is_dataclass(value) or isinstance(value, (type, Shared, PerRow)):
        return value
    kinds = get_type_hints(type(value))
    for f in dataclasses.fields(value):
        held = getattr(value, f.name)
        odd = "" if fits(held, kinds[f.name]) else "not what belongs there"
        if not odd and isinstance(held, float) and not math.isfinite(held) and held != f.default:
            odd = "not a finite number"
        if not odd and f.name in _POSITIVE and isinstance(held, (int, float)) and not held > 0:
            odd = "not above zero"
        if not odd and held == () and f.default is dataclasses.MISSING:
            odd = "empty"
        if odd:
            raise InputError(
                f"The setting {f.name} of {type(value).__name__} in {text!r} is {held!r}, which is {odd}: "
                "adamant attacks, threats and recipes show how each is written."
            )
        for part in held if isinstance(held, tuple) else (held,):
            _sound(part, text)
    return value


def fits(value: Any, kind: Any) -> bool:
    """Whether a value that was read is of the kind that an annotation asks for; what cannot be told passes."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(value) == len(wanted) and all(map(fits, value, wanted))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(kind, type):
        return True
    if kind in _MEMBERS:
        return type(value) in _MEMBERS[kind]
    if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
        return dataclasses.is_dataclass(value)
    return isinstance(value, kind)
