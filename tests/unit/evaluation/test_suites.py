"""The suites: which attacks, for which threat models and sights; and that each of them runs."""

from itertools import pairwise

import pytest
import torch

from adamant.access import LabelsOnly, ScoresOnly, Sight, WhiteBox
from adamant.adversary import check, leaves
from adamant.attacks import APGD, FAB, EachTarget, Restarts, Square
from adamant.errors import AccessError, InputError
from adamant.evaluation import AUTOATTACK, CATALOGUE, QUICK, STANDARD, STRICT, Order, audit
from adamant.evaluation.course import defined
from adamant.evaluation.suites import AUTOATTACK_RAND, seekers
from adamant.losses import DLR, CrossEntropy, Margin
from adamant.threats import L0, L1, L2, Linf, Patch, Spatial

from .conftest import shortened

BALLS = {"Linf": Linf(0.02), "L2": L2(0.1), "L1": L1(0.4), "L0": L0(1)}
OTHERS = {"Patch": Patch((2, 2)), "Spatial": Spatial(degrees=5.0)}
SUITES = {s.name: s for s in CATALOGUE}
OURS = {s.name: s for s in (QUICK, STANDARD, STRICT)}
BY_AUTHORS = [name for name in SUITES if name.startswith("autoattack")]
BEYOND = {"spatial_v1": ("Spatial", "Flow", "Recolour"), "patch_v1": ("Patch",)}
SEES = {"scores_v1": Sight.SCORES, "labels_v1": Sight.LABELS}  # the others: the gradient
MEANT = {**dict.fromkeys(BY_AUTHORS, ("Linf", "L2", "L1")), **BEYOND}


def held_together(found):
    """What must be true of every audit, whatever ran."""
    stages, n = found.stages, len(found.rows["row"])
    right = n - found.rows["status"].count("wrong_already")
    ran = [s for s in stages if not s.left_out]
    assert ran[0].entered == right
    for one, after in pairwise(ran):
        assert after.entered == one.entered - one.broke
    assert ran[-1].entered - ran[-1].broke == round(found.robust_accuracy * n)
    assert sum(s.broke for s in stages) == found.rows["status"].count("broken") == len(found.broken["row"])
    for name in ("forwards", "backwards"):
        assert sum(found.rows[name]) == sum(getattr(s, name) for s in stages)
    for status, attack, size, far in zip(
        *(found.rows[k] for k in ("status", "attack", "size", "distance")), strict=True
    ):
        assert (status == "broken") == (attack is not None) == (size is not None)
        assert status != "wrong_already" or far is None
        if size is not None:
            assert far is not None
            assert far <= size
    for line in found.summary()["curve"]:
        assert 0 <= line["accuracy"] <= 1


@pytest.mark.parametrize("threat", {**BALLS, **OTHERS}.values(), ids={**BALLS, **OTHERS}.keys())
@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_runs_where_it_has_a_course_with_every_sight(suite, threat, digits):
    net, data = digits(6)
    suite = shortened(SUITES[suite])
    for access in (WhiteBox(), ScoresOnly(), LabelsOnly()):
        order = Order(threat=threat, suite=suite, access=access)
        if type(threat).__name__ not in MEANT.get(suite.name, type(threat).__name__):
            with pytest.raises(InputError, match=f"{suite.name} has no attack within {type(threat).__name__}"):
                audit(net, data, order)
        elif suite.name not in (*OURS, *BEYOND) and access.gives < SEES.get(suite.name, Sight.GRADIENT):
            with pytest.raises(AccessError, match=r"gradient|scores"):
                audit(net, data, order)
        else:
            found = audit(net, data, order)
            held_together(found)
            assert not found.rows["status"].count("invalid")
            assert found.stages[0].entered > 0
            least = [s for s in found.stages if s.entered and s.forwards]
            assert len(least) >= 1
            assert all(s.needs <= access.gives for s in found.stages)
            curve = access.gives == Sight.GRADIENT and isinstance(threat, tuple(type(t) for t in BALLS.values()))
            assert (found.stages[-1].attack == "smallest change") == curve


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("suite", [name for name in SUITES if name not in BEYOND])
def test_with_few_classes_what_is_not_defined_is_left_out_and_said(suite, classes, digits):
    net, data = digits(8, classes)
    found = audit(net, data, Order(threat=Linf(0.02), suite=shortened(SUITES[suite])))
    held_together(found)
    missing = {
        "autoattack_v1": {"APGD-T"},
        "autoattack_plus_v1": {"APGD-T"} if classes == 3 else {"APGD-T", "APGD-DLR"},
        "autoattack_rand_v1": set() if classes == 3 else {"APGD-DLR"},
    }.get(suite, set())
    assert {s.attack for s in found.stages if s.left_out} == missing
    said = [w for w in found.summary()["warnings"] if "compares more classes than the model has" in w]
    assert len(said) == bool(missing)
    assert all(name in said[0] for name in missing)
    assert all(s.entered == s.forwards == 0 for s in found.stages if s.left_out)


def test_where_nothing_is_defined_it_is_refused(digits):
    net, data = digits(4, 2)
    from adamant.evaluation import Suite

    with pytest.raises(InputError, match="No attack of dlr can run on a model of 2 classes"):
        audit(net, data, Order(threat=Linf(0.02), suite=Suite("dlr", (APGD(loss=DLR()),))))
    assert defined(APGD(loss=DLR()), 3)
    assert not defined(EachTarget(APGD(loss=DLR())), 3)
    assert defined(EachTarget(APGD(loss=DLR())), 4)
    assert defined(EachTarget(APGD(loss=Margin())), 2)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)])
def test_autoattack_is_what_the_authors_run(threat):
    """Croce & Hein, 2020: APGD-CE, APGD-T and FAB-T of 100 steps on 9 targets, Square of 5000 unscaled queries."""
    course = AUTOATTACK.course(threat, WhiteBox())
    assert course.attacks == (
        APGD(steps=100, loss=CrossEntropy()),
        EachTarget(APGD(steps=100, loss=DLR()), 9),
        EachTarget(FAB(steps=100), 9),
        Square(steps=5000, share=0.8, span=10_000, loss=Margin()),
    )
    assert course.names == ("APGD-CE", "APGD-T", "FAB-T", "Square")
    rand = AUTOATTACK_RAND.course(threat, WhiteBox())
    assert rand.attacks == (APGD(steps=100, loss=CrossEntropy()), APGD(steps=100, loss=DLR()))


def test_autoattack_on_l1_has_five_restarts_and_five_targets():
    first, second, third, squares = AUTOATTACK.course(L1(1.0), WhiteBox()).attacks
    assert isinstance(first, Restarts)
    assert (first.n, second.n, third.n) == (5, 5, 9)
    assert [a.steps for part in (first, second, third) for a in leaves(part)] == [100, 100, 100]
    assert (squares.steps, squares.span) == (5000, 10_000)


def test_its_squares_shrink_as_if_there_were_ten_thousand(monkeypatch):
    """Autoattack calls Square with rescale_schedule=False: at query 11 the share halves, and at 5000 it is 0.8 / 64."""
    from adamant.attacks import square
    from adamant.engine import run
    from adamant.goals import Untargeted
    from adamant.random import Rng
    from adamant.testing import Affine

    shares = []

    def noted(p, best, share, rng):
        shares.append(share)
        return best

    monkeypatch.setattr(square, "_recolour", noted)
    net = Affine((1, 4, 4), 3).requires_grad_(False)
    x = Rng.of(0, 1).uniform(1, 4, 4)
    run(AUTOATTACK.course(Linf(1e-9), WhiteBox()).attacks[-1], net, x, Untargeted(net(x).argmax(1)), Linf(1e-9))
    bounds = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    assert shares == [0.8 / 2 ** sum(t > b for b in bounds) for t in range(5000)]


@pytest.mark.parametrize("suite", OURS.values(), ids=OURS.keys())
def test_ours_give_every_row_a_course_and_every_part_a_name(suite):
    for threat in (*BALLS.values(), *OTHERS.values()):
        for access in (WhiteBox(), ScoresOnly(), LabelsOnly()):
            course = suite.course(threat, access)
            assert course.needs <= access.gives
            assert not course.names or len(course.names) == len(course.attacks)
            x = torch.rand(1, 1, 8, 8)
            for part in course.attacks:  # the engine has nothing against any of them
                check(part, torch.nn.Linear(2, 2), x, threat, access)
    assert suite.course(Linf(0.1), LabelsOnly()) != suite.course(L1(0.1), LabelsOnly()) or suite is QUICK


def test_the_curve_needs_gradients_and_a_norm():
    for threat in BALLS.values():
        assert seekers(threat, WhiteBox())
        assert seekers(threat, ScoresOnly()) == ()
    assert seekers(Patch((2, 2)), WhiteBox()) == ()
    for threat, parts in ((BALLS["Linf"], 2), (BALLS["L0"], 1)):
        assert len(seekers(threat, WhiteBox())) == parts
