"""Suites: which attacks an audit runs, in which order. A released suite is never edited: a better one is renamed."""

from __future__ import annotations

from typing import cast

from torch import nn

from adamant.access import Access, Sight, plain, sight
from adamant.attacks import (
    APGD,
    APGDL1,
    FAB,
    FGSM,
    FMN,
    PDPGD,
    PGD,
    Best,
    CosinePGD,
    Diverse,
    Draws,
    EachTarget,
    HopSkipJump,
    Insist,
    Nearest,
    RandomSearch,
    RayS,
    Restarts,
    SigmaZero,
    SparseRS,
    Square,
    Union,
    Within,
)
from adamant.errors import InputError
from adamant.evaluation.course import Course, Part, Suite
from adamant.evaluation.unseen import LABELS, SCORES
from adamant.losses import DLR, CrossEntropy, Margin
from adamant.threats import L0, L1, L2, Linf, Projectable

# ---------------------------------------------------------------------------------------------------------------------
# AutoAttack (Croce & Hein, 2020, arXiv:2003.01690; on L1 2021, arXiv:2103.01208), for parity with published figures.

_CE, _DLR, _MARGIN = CrossEntropy(), DLR(), Margin()
_BOX = Square(steps=5000, span=10_000)  # their squares shrink as if there were 10,000 queries
_BALL = ("Linf", "L2")

AUTOATTACK = Suite(
    "autoattack_v1",
    when="parity with published figures: some 9,800 passes for every row that stands",
    others=(
        Course(
            (APGD(loss=_CE), EachTarget(APGD(loss=_DLR)), EachTarget(FAB()), _BOX),
            ("APGD-CE", "APGD-T", "FAB-T", "Square"),
            _BALL,
        ),
        Course(
            (Restarts(APGDL1(loss=_CE), 5), EachTarget(APGDL1(loss=_DLR), 5), EachTarget(FAB()), _BOX),
            ("APGD-CE", "APGD-T", "FAB-T", "Square"),
            ("L1",),
        ),
    ),
)
AUTOATTACK_PLUS = Suite(
    "autoattack_plus_v1",
    when="the longer sequence of AutoAttack",
    others=(
        Course(
            (
                Restarts(APGD(loss=_CE), 5), Restarts(APGD(loss=_DLR), 5), Restarts(FAB(start=Within()), 5), _BOX,
                EachTarget(APGD(loss=_DLR)), EachTarget(FAB()),
            ),
            ("APGD-CE", "APGD-DLR", "FAB", "Square", "APGD-T", "FAB-T"),
            _BALL,
        ),
        Course(
            (
                Restarts(APGDL1(loss=_CE), 5), Restarts(APGDL1(loss=_DLR), 5), Restarts(FAB(start=Within()), 5), _BOX,
                EachTarget(APGDL1(loss=_DLR), 5), EachTarget(FAB()),
            ),
            ("APGD-CE", "APGD-DLR", "FAB", "Square", "APGD-T", "FAB-T"),
            ("L1",),
        ),
    ),
)  # fmt: skip
AUTOATTACK_RAND = Suite(
    "autoattack_rand_v1",
    when="AutoAttack for randomised models, with --access 'EOT(20)' as the authors run it",
    others=(
        Course((APGD(loss=_CE), APGD(loss=_DLR)), ("APGD-CE", "APGD-DLR"), _BALL),
        Course((APGDL1(loss=_CE), APGDL1(loss=_DLR)), ("APGD-CE", "APGD-DLR"), ("L1",)),
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# Ours. A short sweep fells nearly all that will ever fall. After it a row gets effort by what its best point leaves of
# the margin: targets chosen there, starts that differ in output, and squares from there, which also tell whether the
# gradients can be trusted. Settings were chosen on rows and networks that no published table of ours uses
# (benchmarks/evaluation.py says which).


_SOFT = CrossEntropy(spread=20.0)  # large logits saturate the plain one


def _sweep(steps: int) -> CosinePGD:
    return CosinePGD(steps=steps)


def _entropy(steps: int) -> CosinePGD:
    return CosinePGD(steps=steps, loss=_SOFT)


def _targets(n: int, steps: int) -> EachTarget:
    return EachTarget(CosinePGD(steps=steps), n, Best())


def _fresh(steps: int) -> Union:
    return Union(_entropy(steps), CosinePGD(steps=steps, start=Diverse()))


def _squares(steps: int) -> Square:
    return Square(steps=steps, start=Best())


def _mixed(steps: int, gradient: int) -> Union:
    """Squares, then gradients from where they ended, and from afar."""
    return Union(_squares(steps), CosinePGD(steps=gradient, rate=0.5, start=Best()), _entropy(gradient))


def _sparse(steps: int) -> APGDL1:
    return APGDL1(steps=steps, loss=_MARGIN)


# Attacks by labels climb no loss of their choosing, so that theirs is no setting.
def _hops(steps: int) -> Part:
    return cast("Part", HopSkipJump(steps=steps))


def _rays(steps: int) -> Part:
    return cast("Part", RayS(steps=steps))


_LABELS = Course((Draws(steps=99),), ("noise",))
_SCORES = "a search without gradients"
_SEEKER = "by way of the smallest change"
_PROBE = (
    "ten steps", "cross-entropy", "targets", "fresh starts", "squares", "squares and gradients",
)  # fmt: skip

QUICK = Suite(
    "quick_v1",
    when="seconds: within a point of AutoAttack where gradients can be trusted",
    others=(
        Course(
            (
                _sweep(10),
                Nearest(_entropy(20), 0.5),
                Nearest(_targets(2, 10), 0.3),
                Nearest(_fresh(10), 0.15),
                Insist(_squares(10), Insist(_squares(60), _squares(300), gain=0.2), gain=0.06),
            ),
            _PROBE[:5],
            _BALL,
        ),
        Course(
            (_sparse(20), Nearest(APGDL1(steps=30, loss=_SOFT), 0.5), Insist(_squares(12), _squares(100), gain=0.1)),
            ("twenty steps", "cross-entropy", "squares"),
            ("L1",),
        ),
        Course((SigmaZero(steps=60), SparseRS(steps=60)), ("SigmaZero", "Sparse-RS"), ("L0",)),
        Course((Square(steps=200),), (_SCORES,), ("Linf", "L2", "L1")),
        Course((SparseRS(steps=200),), (_SCORES,), ("L0",)),
        Course((_sweep(10), RandomSearch(steps=50)), ("ten steps", _SCORES)),
        Course((RandomSearch(steps=200),), (_SCORES,)),
        _LABELS,
    ),
)
STANDARD = Suite(
    "standard_v1",
    when="the default: as strong as AutoAttack at a fiftieth of its passes",
    others=(
        Course(
            (
                _sweep(10),
                Nearest(_entropy(10), 0.6),
                Nearest(_targets(2, 20), 0.4),
                Nearest(Insist(*(_fresh(20),) * 3, gain=0.03), 0.3),
                Insist(_squares(30), Insist(_squares(150), _squares(500), _squares(1500), gain=0.25), gain=0.06),
                Nearest(Insist(_mixed(100, 10), _mixed(300, 20), _mixed(500, 20), gain=0.15), 0.25),
            ),
            _PROBE,
            ("Linf",),
        ),
        Course(
            (
                _sweep(10),
                Nearest(_entropy(10), 0.6),
                Nearest(_targets(2, 20), 0.4),
                Nearest(FMN(steps=40), 0.8),
                Insist(_squares(30), Insist(_squares(150), _squares(500), _squares(1500), gain=0.25), gain=0.06),
                Nearest(Insist(_mixed(100, 10), _mixed(300, 20), _mixed(500, 20), gain=0.15), 0.25),
            ),
            (*_PROBE[:3], _SEEKER, *_PROBE[4:]),
            ("L2",),
        ),
        Course(
            (
                _sparse(20),
                Nearest(APGDL1(steps=30, loss=_SOFT), 0.6),
                Nearest(EachTarget(_sparse(20), 2, Best()), 0.4),
                Nearest(PDPGD(steps=100), 0.6),
                Insist(_squares(30), Insist(_squares(150), _squares(500), _squares(1500), gain=0.25), gain=0.06),
            ),
            ("twenty steps", *_PROBE[1:3], _SEEKER, _PROBE[4]),
            ("L1",),
        ),
        Course(
            (SigmaZero(steps=150), Restarts(PGD(steps=20, loss=_MARGIN), 2), SparseRS(steps=400)),
            ("SigmaZero", "PGD", "Sparse-RS"),
            ("L0",),
        ),
        Course((Square(steps=1500),), (_SCORES,), ("Linf", "L2", "L1")),
        Course((SparseRS(steps=1500),), (_SCORES,), ("L0",)),
        Course(
            (_sweep(10), Restarts(_entropy(20), 2), Draws(steps=29), RandomSearch(steps=300)),
            ("ten steps", "cross-entropy", "random members", _SCORES),
        ),
        Course((Draws(steps=29), RandomSearch(steps=1500)), ("random members", _SCORES)),
        Course((*_LABELS.attacks, _rays(1000)), ("noise", "RayS"), ("Linf",)),
        Course((*_LABELS.attacks, _hops(20)), ("noise", "HopSkipJump"), ("L2",)),
        _LABELS,
    ),
)
STRICT = Suite(
    "strict_v1",
    when="for a safety case: stronger than AutoAttack at a twentieth of its passes",
    others=(
        Course(
            (
                _sweep(10),
                Nearest(_entropy(20), 0.7),
                Nearest(_targets(3, 20), 0.45),
                Nearest(Insist(*(_fresh(20),) * 4, gain=0.02), 0.45),
                Insist(
                    _squares(60),
                    Insist(_squares(200), Insist(_squares(600), _squares(2000), gain=0.3), gain=0.15),
                    gain=0.04,
                ),
                Nearest(Insist(_mixed(150, 20), _mixed(500, 20), _mixed(1500, 20), gain=0.1), 0.4),
            ),
            _PROBE,
            ("Linf",),
        ),
        Course(
            (
                _sweep(10),
                Nearest(_entropy(20), 0.7),
                Nearest(_targets(3, 20), 0.45),
                FMN(steps=60),
                FAB(classes=2),
                Insist(
                    _squares(60),
                    Insist(_squares(200), Insist(_squares(600), _squares(2000), gain=0.3), gain=0.15),
                    gain=0.04,
                ),
                Nearest(Insist(_mixed(150, 20), _mixed(500, 20), _mixed(1500, 20), gain=0.1), 0.4),
            ),
            (*_PROBE[:3], _SEEKER, "FAB", *_PROBE[4:]),
            ("L2",),
        ),
        Course(
            (
                _sparse(50),
                Nearest(APGDL1(steps=50, loss=_SOFT), 0.7),
                Nearest(EachTarget(_sparse(50), 3, Best()), 0.45),
                PDPGD(steps=150),
                Insist(
                    _squares(60),
                    Insist(_squares(200), Insist(_squares(600), _squares(2000), gain=0.3), gain=0.15),
                    gain=0.04,
                ),
                Nearest(Insist(_squares(500), _squares(1500), gain=0.1), 0.4),
            ),
            ("fifty steps", *_PROBE[1:3], _SEEKER, _PROBE[4], "more squares"),
            ("L1",),
        ),
        Course(
            (SigmaZero(steps=500), Restarts(PGD(steps=40, loss=_MARGIN), 5), SparseRS(steps=3000)),
            ("SigmaZero", "PGD", "Sparse-RS"),
            ("L0",),
        ),
        Course((Square(steps=5000),), (_SCORES,), ("Linf", "L2", "L1")),
        Course((SparseRS(steps=10_000),), (_SCORES,), ("L0",)),
        Course(
            (
                _sweep(10),
                Restarts(_entropy(40), 5),
                EachTarget(_sweep(20), 3),
                Draws(steps=99),
                RandomSearch(steps=2000),
            ),
            ("ten steps", "cross-entropy", "targets", "random members", _SCORES),
        ),
        Course((Draws(steps=99), RandomSearch(steps=5000)), ("random members", _SCORES)),
        Course((*_LABELS.attacks, _rays(5000)), ("noise", "RayS"), ("Linf",)),
        Course((*_LABELS.attacks, _hops(64)), ("noise", "HopSkipJump"), ("L2",)),
        _LABELS,
    ),
)

# For sets beyond norms. Gradients are poor guides there and go first because they are cheap; random members and a
# random search find most (on the digits, of all that fell: the search 98 to 100 %, a gradient attack 55 to 98 %, random
# members 27 to 95 %). 775 is the size of the grid of turns and shifts of Engstrom et al. (2019, arXiv:1712.02779).
_CHANGES = ("Spatial", "Flow", "Recolour")
_TURNS = Draws(steps=774)
_SEARCHED = ("random members", "a random search", "a longer one")

SPATIAL = Suite(
    "spatial_v1",
    when="turns and shifts, bends, colours (--threat spatial, flow, recolour): gradients, 775 random members, searches",
    others=(
        Course(
            (_sweep(10), Restarts(_entropy(20), 2), _TURNS, RandomSearch(steps=300), RandomSearch(steps=1500)),
            ("ten steps", "cross-entropy", *_SEARCHED),
            _CHANGES,
        ),
        Course((_TURNS, RandomSearch(steps=300), RandomSearch(steps=1500)), _SEARCHED, _CHANGES),
        Course((_TURNS,), _SEARCHED[:1], _CHANGES),
    ),
)
PATCH = Suite(
    "patch_v1",
    when="a patch anywhere (--threat 'patch:(5, 5)'): gradients, random patches, searches",
    others=(
        Course(
            (_sweep(10), EachTarget(_sweep(20), 3), Draws(steps=99), RandomSearch(steps=300), RandomSearch(steps=3000)),
            ("ten steps", "targets", *_SEARCHED),
            ("Patch",),
        ),
        Course((Draws(steps=99), RandomSearch(steps=300), RandomSearch(steps=3000)), _SEARCHED, ("Patch",)),
        Course((_TURNS,), _SEARCHED[:1], ("Patch",)),
    ),
)

# Version 0: what audits ran before there were better ones.
QUICK_0 = Suite("quick_v0", (FGSM(), PGD(steps=20)), "superseded by quick_v1")
STANDARD_0 = Suite(
    "standard_v0",
    (FGSM(), PGD(steps=40), EachTarget(PGD(steps=20, loss=Margin()), 3), RandomSearch(steps=300)),
    "superseded by standard_v1",
)
FULL_0 = Suite(
    "full_v0",
    (FGSM(), Restarts(PGD(steps=40), 5), EachTarget(PGD(steps=40, loss=Margin()), 9), RandomSearch(steps=2000)),
    "superseded by strict_v1",
)
CATALOGUE: tuple[Suite, ...] = (
    QUICK, STANDARD, STRICT, SPATIAL, PATCH, SCORES, LABELS,
    AUTOATTACK, AUTOATTACK_PLUS, AUTOATTACK_RAND, QUICK_0, STANDARD_0, FULL_0,
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------------
# The smallest change of each row: two seekers that fail on different networks, so that one run gives every budget.

CURVES: tuple[tuple[type, tuple[Part, ...]], ...] = (
    (Linf, (FAB(steps=5), FMN(steps=40))),
    (L2, (FAB(steps=5), FMN(steps=40))),
    (L1, (FAB(steps=5), PDPGD(steps=60))),
    (L0, (SigmaZero(steps=100),)),
)


def seekers(threat: object, access: Access) -> tuple[Part, ...]:
    """The attacks that look for the smallest change; none where the norm has none, or the access gives no gradient."""
    found = next((parts for kind, parts in CURVES if isinstance(threat, kind)), ())
    return tuple(a for a in found if a.needs <= access.gives)


def default_suite(access: Access) -> Suite:
    """What an audit runs where nobody asks for a suite, by what the access gives."""
    return {Sight.GRADIENT: STANDARD, Sight.SCORES: SCORES, Sight.LABELS: LABELS}[access.gives]


def check_shown(suite: Suite, threat: Projectable, access: Access, model: nn.Module) -> None:
    """Raise InputError where the suite is for models that show more than this one does."""
    shown = sight(model)
    courses = [c for c in suite.others if not c.threats or type(threat).__name__ in c.threats]
    if suite.attacks or not courses or courses[0].needs <= max(shown, access.gives):
        return
    named = {Sight.LABELS: "labels", Sight.SCORES: "scores", Sight.GRADIENT: "gradients"}
    more = ", or give access=NES(n=50), which estimates them from scores" if shown == Sight.SCORES else ""
    raise InputError(
        f"The suite {suite.name} needs {named[courses[0].needs]} and this model shows {named[shown]} only: leave the "
        f"suite out, which takes {default_suite(plain(model)).name}{more}."
    )
