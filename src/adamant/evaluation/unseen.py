"""The suites for models of which no gradient is seen: scores_v1 and labels_v1."""

from __future__ import annotations

from typing import cast

from adamant.attacks import (
    Bandits,
    Best,
    Draws,
    HopSkipJump,
    Insist,
    RandomSearch,
    RayS,
    SignOPT,
    SimBA,
    SparseRS,
    Square,
    SurFree,
)
from adamant.evaluation.course import Course, Part, Suite

# The parts fail on different models: of the digits, squares broke 50 points more of a random forest on Linf than
# estimated gradients did, and 15 points fewer of an MLP on L2. What stands gets more squares from its best point on,
# while they gain.


def _squares(steps: int) -> Square:
    return Square(steps=steps, start=Best())


_NOISE = Draws(steps=29)
_MORE = Insist(_squares(200), _squares(500), _squares(800), gain=0.05)
_NAMES = ("noise", "squares", "entry by entry", "a random search", "estimated gradients", "more squares")

SCORES = Suite(
    "scores_v1",
    when="the default where scores are all that is seen: squares, entries, random search, estimated gradients",
    others=(
        Course(
            (_NOISE, Square(steps=300), SimBA(steps=500), RandomSearch(steps=500), Bandits(steps=100), _MORE),
            _NAMES,
            ("Linf", "L2"),
        ),
        Course(
            (_NOISE, Square(steps=500), SimBA(steps=500), RandomSearch(steps=500), _MORE),
            (*_NAMES[:4], _NAMES[5]),
            ("L1",),
        ),
        Course((_NOISE, SparseRS(steps=1500)), ("noise", "Sparse-RS"), ("L0",)),
        Course(
            (Draws(steps=99), RandomSearch(steps=500), RandomSearch(steps=1500)),
            ("random members", "a random search", "a longer one"),
        ),
    ),
)

# Attacks by labels climb no loss of their choosing, so that theirs is no setting.
_WALKS = cast("tuple[Part, ...]", (RayS(steps=1000), HopSkipJump(steps=8), SurFree(steps=200), SignOPT(steps=5)))

LABELS = Suite(
    "labels_v1",
    when="the default where labels are all that is seen: noise, then walks along the boundary",
    others=(
        Course((Draws(steps=99), *_WALKS[:2]), ("noise", "RayS", "HopSkipJump"), ("Linf",)),
        Course((Draws(steps=99), *_WALKS[1:]), ("noise", "HopSkipJump", "SurFree", "Sign-OPT"), ("L2",)),
        Course((Draws(steps=499),), ("noise",)),
    ),
)
