"""All parts that recipes and plans are made of, by kind: what the command line can read."""

from __future__ import annotations

from typing import Any

from adamant.training import augment, augmix, average, guards, inner, knobs, outer, weights
from adamant.training.recipes import Recipe

INNERS: tuple[type, ...] = inner.CATALOGUE
OUTERS: tuple[type, ...] = outer.CATALOGUE
AUGMENTS: tuple[type, ...] = (*augment.CATALOGUE, *augmix.CATALOGUE)
PARTS: tuple[type, ...] = (
    *INNERS,
    *OUTERS,
    *average.CATALOGUE,
    *guards.CATALOGUE,
    *knobs.CATALOGUE,
    *weights.CATALOGUE,
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
