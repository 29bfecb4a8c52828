"""All parts that recipes and plans are made of, by kind: what the command line can read."""

from __future__ import annotations

from typing import Any

from adamant.training import (
    augment,
    average,
    guards,
    inner,
    knobs,
    outer,
    pairs,
    several,
    slopes,
    teacher,
    virtual,
    weights,
)
from adamant.training.recipes import Recipe

INNERS: tuple[type, ...] = (*inner.CATALOGUE, *several.CATALOGUE, teacher.Depart, slopes.Bend, virtual.Virtual)
OUTERS: tuple[type, ...] = (*outer.CATALOGUE, *pairs.CATALOGUE, teacher.Taught, *slopes.CATALOGUE)
AUGMENTS: tuple[type, ...] = augment.CATALOGUE
PARTS: tuple[type, ...] = (
    *INNERS,
    *OUTERS,
    *average.CATALOGUE,
    *guards.CATALOGUE,
    *knobs.CATALOGUE,
    *weights.CATALOGUE,
    teacher.Teacher,
    Recipe,
)
# Protocols of one call look alike: whoever is in the catalogue is meant.
MEMBERS: dict[type, tuple[Any, ...]] = {
    inner.Inner: INNERS,
    outer.Outer: OUTERS,
    knobs.Knob: knobs.CATALOGUE,
    augment.Augment: AUGMENTS,
    augment.Mixing: AUGMENTS,
}
