"""Bounds: what the logits of a network can be at most and at least, wherever in its set the input is."""

from adamant.bounds.initialise import initialise_for_bounds
from adamant.bounds.margins import margins, surest
from adamant.bounds.node import Bounded
from adamant.bounds.sets import Region
from adamant.bounds.ways import CATALOGUE, Bound, Intervals, Lines

__all__ = [
    "CATALOGUE",
    "Bound",
    "Bounded",
    "Intervals",
    "Lines",
    "Region",
    "initialise_for_bounds",
    "margins",
    "surest",
]
