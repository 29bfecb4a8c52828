"""All parts that recipes and plans are made of, by kind: what the command line can read."""

from __future__ import annotations

from typing import Any

from adamant import bounds
from adamant.runtime import augment, average, knobs
from adamant.training import (
    augmix,
    bounded,
    guards,
    inner,
    onestep,
    outer,
    paced,
    pairs,
    parts,
    randomised,
    several,
    slopes,
    teacher,
    terms,
    views,
    virtual,
    weights,
)
from adamant.training.recipes import Recipe

INNERS: tuple[type, ...] = (
    *inner.CATALOGUE, *onestep.CATALOGUE, *paced.CATALOGUE, *several.CATALOGUE, *randomised.INNERS, teacher.Depart,
    slopes.Bend, virtual.Virtual,
)  # fmt: skip
OUTERS: tuple[type, ...] = (
    *outer.CATALOGUE, *terms.CATALOGUE, *pairs.CATALOGUE, *slopes.CATALOGUE, *bounded.CATALOGUE,
    *randomised.CATALOGUE, teacher.Taught,
)  # fmt: skip
AUGMENTS: tuple[type, ...] = (*augment.CATALOGUE, *augmix.CATALOGUE)
PARTS: tuple[type, ...] = (
    *INNERS,
    *OUTERS,
    *average.CATALOGUE,
    *guards.CATALOGUE,
    *knobs.CATALOGUE,
    *weights.CATALOGUE,
    *bounds.CATALOGUE,
    teacher.Teacher,
    Recipe,
)
# Protocols of one call look alike: whoever is in the catalogue is meant.
MEMBERS: dict[type, tuple[Any, ...]] = {
    parts.Inner: INNERS,
    views.Outer: OUTERS,
    knobs.Knob: knobs.CATALOGUE,
    bounds.Bound: bounds.CATALOGUE,
    augment.Augment: AUGMENTS,
    augment.Mixing: AUGMENTS,
}
