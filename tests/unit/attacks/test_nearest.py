"""Nearest and Insist: exactly the rows that their sentences name, each judged by itself."""

import math

import pytest
import torch
from torch import nn

import adamant as am
from adamant.access import LabelsOnly, ScoresOnly
from adamant.adversary import Status
from adamant.attacks import FAB, FMN, PGD, CosinePGD, EachTarget, Insist, Nearest, Restarts, Square, Union
from adamant.attacks.starts import Best
from adamant.calling import Settings
from adamant.engine import run
from adamant.errors import AccessError, InputError
from adamant.goals import Targeted, Untargeted
from adamant.losses import CrossEntropy, Margin
from adamant.random import Rng
from adamant.testing import Affine
from adamant.threats import L2, Linf, Spatial

SHAPE, ROWS, CLASSES, EPS = (1, 6, 6), 48, 4, Linf(0.02)
FIRST = CosinePGD(steps=2, rate=0.1)
ONE, TWO, FOUR = (CosinePGD(steps=k) for k in (1, 2, 4))


class Waves(nn.Module):
    """Wavy logits, so that steps of every kind have something to find; batches of it round alike."""

    def __init__(self):
        super().__init__()
        self.one = Affine(SHAPE, 24, seed=2)
        self.two = Affine((24,), CLASSES, seed=3)

    def forward(self, x):
        return self.two((self.one(x) * 1.5).sin())


@pytest.fixture
def net():
    return Waves().eval().requires_grad_(False)


@pytest.fixture
def x():
    return Rng.of(1, ROWS).uniform(*SHAPE)


@pytest.fixture
def goal(net, x):
    label = net(x).argmax(1)
    label[5] = (label[5] + 1) % CLASSES  # a row that is wrong already
    return Untargeted(label)


def share_left(net, x, goal, attack):
    """By the outcome alone: the margin at the best point, as a share of that at the input."""
    out = run(attack, net, x, goal, EPS)
    return out.loss / Margin()(net(x), goal).double(), out


def same(a, b):
    return all(torch.equal(v.nan_to_num(-9), getattr(b, k).nan_to_num(-9)) for k, v in vars(a).items())


def fell_or_wrong(out):
    return out.broken | (out.status == Status.WRONG_ALREADY)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("at", [3, 12, 30])
def test_nearest_takes_exactly_the_rows_that_have_no_more_left(net, x, goal, at, targeted):
    if targeted:
        goal = Targeted(goal.label, (net(x).argmax(1) + 1) % CLASSES)
        goal = Targeted((goal.target + 1) % CLASSES, goal.target)
    left, before = share_left(net, x, goal, Union(FIRST))
    stands = ~fell_or_wrong(before)
    threshold = float(left[stands].sort().values[min(at, int(stands.sum()) - 2)])  # one row is exactly there
    out = run(Union(FIRST, Nearest(TWO, threshold)), net, x, goal, EPS)
    ran = out.parts[:, 1, 0] > 0
    expected = stands & (left <= threshold)
    assert torch.equal(ran, expected)
    assert 0 < int(ran.sum()) < int(stands.sum())
    below = run(Union(FIRST, Nearest(TWO, math.nextafter(threshold, 0))), net, x, goal, EPS)
    assert int((below.parts[:, 1, 0] > 0).sum()) == int(ran.sum()) - 1


def test_it_is_the_row_that_decides_and_not_its_neighbours(net, x, goal):
    left = share_left(net, x, goal, Union(FIRST))[0]
    order = left.nan_to_num(9).argsort()
    suite = Union(FIRST, Nearest(TWO, 0.7))
    whole = run(suite, net, x, goal, EPS)
    for rows in (order[:10], order[-10:], order[::7]):  # only near ones, only far ones, some of both
        part = run(suite, net, x[rows], Untargeted(goal.label[rows]), EPS, rng=Rng.of(0, rows))
        most = part.parts.shape[1]
        assert torch.equal(part.parts, whole.parts[rows][:, :most])
        assert torch.equal(part.x_adv, whole.x_adv[rows])


def test_of_what_nobody_tried_everything_is_near_and_goes_on(net, x, goal):
    right = run(FIRST, net, x, goal, EPS).status != Status.WRONG_ALREADY
    for part in (Nearest(ONE, 1e-9), Insist(ONE, gain=0.9)):
        out = run(Union(part), net, x, goal, EPS)
        assert torch.equal(out.parts[:, 0, 0] > 0, right)


@pytest.mark.parametrize("gain", [0.0, 0.03, 0.1, 0.4])
def test_insist_goes_on_exactly_while_the_gain_is_reached(net, x, goal, gain):
    left, outs = [], []
    for parts in ((), (ONE,), (ONE, TWO), (ONE, TWO, FOUR)):
        more = (Insist(*parts, gain=0.0),) if parts else ()
        share, out = share_left(net, x, goal, Union(FIRST, *more))
        left.append(share)
        outs.append(out)
    goes = [~fell_or_wrong(outs[0])]
    for k in (1, 2):
        goes.append(goes[-1] & ~outs[k].broken & (left[k] <= (1 - gain) * left[k - 1]))
    spent = outs[3].forwards - outs[0].forwards
    costs = [ONE.steps + 1, TWO.steps + 1, FOUR.steps + 1]
    out = run(Union(FIRST, Insist(ONE, TWO, FOUR, gain=gain)), net, x, goal, EPS)
    wanted = sum(g.long() * c for g, c in zip(goes, costs, strict=True))
    whole = ~out.broken  # the last attack of a row that falls is shorter
    assert torch.equal((out.forwards - outs[0].forwards)[whole], wanted[whole])
    assert not (out.broken & ~outs[3].broken).any()
    if gain == 0.0:
        assert torch.equal(spent, out.forwards - outs[0].forwards)
    else:
        assert 0 < int(goes[1].sum()) < int(goes[0].sum())


def test_insist_draws_anew_for_each_of_its_attacks(net, x, goal):
    """The same attack thrice finds more than once: its starts differ."""
    once, thrice = (run(Union(Insist(*(ONE,) * k, gain=0.0)), net, x, goal, EPS) for k in (1, 3))
    stood = ~fell_or_wrong(thrice)
    assert (thrice.loss[stood] > once.loss[stood]).any()


NESTED = {
    "nearest in restarts in union": Union(FIRST, Restarts(Nearest(Restarts(ONE, 2), 0.8), 2)),
    "nearest in nearest": Union(FIRST, Nearest(Nearest(TWO, 0.6), 0.9)),
    "insist in insist": Union(FIRST, Insist(ONE, Insist(TWO, Square(steps=9, start=Best()), gain=0.02), gain=0.05)),
    "union in nearest in union": Union(FIRST, Nearest(Union(PGD(steps=2, loss=CrossEntropy()), Nearest(TWO, 0.5)))),
    "targets at the best": Union(FIRST, Nearest(EachTarget(TWO, 2, Best()), 0.8), Insist(Square(steps=5), ONE)),
    "union in restarts": Restarts(Union(ONE, Nearest(ONE, 0.8)), 2),
}


@pytest.mark.parametrize("attack", NESTED.values(), ids=NESTED.keys())
def test_batches_do_not_matter_however_deep(net, x, goal, attack):
    outs = [run(attack, net, x, goal, EPS, settings=Settings(batch_size=k)) for k in (1, 16, ROWS)]
    assert same(outs[0], outs[2])
    assert same(outs[1], outs[2])
    out = outs[2]
    assert torch.equal(out.parts[..., 0].sum(1), out.forwards)
    assert torch.equal(out.parts[..., 1].sum(1), out.backwards)
    assert torch.equal(out.part >= 0, out.broken)


def test_nearest_in_nearest_is_the_smaller_of_both(net, x, goal):
    outs = [run(Union(FIRST, part), net, x, goal, EPS) for part in (Nearest(Nearest(TWO, 0.6), 0.9), Nearest(TWO, 0.6))]
    assert same(*outs)


@pytest.mark.parametrize("most", [1, 3, 4, 6])
def test_a_limit_of_looks_in_the_middle_ends_the_row_and_is_said(net, x, goal, most):
    out = run(Union(FIRST, Nearest(FOUR, 0.9), Insist(TWO, TWO)), net, x, goal, EPS, settings=Settings(max_looks=most))
    assert int(out.forwards.max()) <= most
    ended = (out.status == Status.ROBUST) & (out.forwards >= most)
    assert not ended.any() or most == 3  # FIRST takes three looks, and the far rows are through then
    if most in (1, 4):
        assert (out.status == Status.OUT_OF_BUDGET).any()


def test_when_all_rows_fall_nothing_more_is_run(net, x, goal):
    out = run(Union(CosinePGD(steps=20), Nearest(ONE), Insist(TWO, TWO)), net, x, goal, Linf(0.9))
    assert fell_or_wrong(out).all()
    assert out.parts.shape[1] == 1
    again = run(Insist(TWO, TWO), net, x[5:6], Untargeted(goal.label[5:6]), EPS)  # wrong already: never asked
    assert again.status.tolist() == [Status.WRONG_ALREADY]


def test_without_a_budget_the_smallest_change_is_kept(net, x, goal):
    alone = run(Union(FMN(steps=10)), net, x, goal, L2())
    more = run(Union(FMN(steps=10), Nearest(FAB(steps=5), 0.5), Insist(FMN(steps=5), FMN(steps=5))), net, x, goal, L2())
    assert torch.equal(more.broken, alone.broken)
    assert (more.size <= alone.size * (1 + 1e-6)).all()
    assert (more.size < alone.size).any()


def test_a_turned_picture_has_a_share_left_too(net, x, goal):
    out = run(
        Union(FIRST, Nearest(TWO, 0.5), Insist(ONE, ONE, gain=0.2)), net, x, goal, Spatial(degrees=2.0, shift=0.01)
    )
    assert out.broken.any()
    assert 0 < int((out.parts[:, 1, 0] > 0).sum()) < ROWS


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_scale_of_the_logits_does_not_matter(net, x, goal, scale):
    class Scaled(nn.Module):
        def forward(self, z):
            return net(z) * scale

    suite = Union(FIRST, Nearest(TWO, 0.5), Insist(ONE, ONE, gain=0.05))
    plain, scaled = (run(suite, m, x, goal, EPS) for m in (net, Scaled()))
    assert torch.equal(plain.parts, scaled.parts)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_logits_that_are_infinite_stop_nobody(net, x, goal, value):
    class Odd(nn.Module):
        """A class that nobody can win or lose against, on touched rows or on all."""

        def forward(self, z):
            logits = net(z)
            touched = (z[:, 0, 0, 0] > 0.5)[:, None] & (torch.arange(CLASSES) == 0)
            return logits.masked_fill(touched, value)

    label = Odd()(x).argmax(1)
    suite = Union(FIRST, Nearest(TWO, 0.5), Insist(ONE, ONE, gain=0.05), Square(steps=5, start=Best()))
    outs = [run(suite, Odd(), x, Untargeted(label), EPS, settings=Settings(batch_size=k)) for k in (1, ROWS)]
    assert same(*outs)
    assert (Odd()(outs[0].x_adv).argmax(1) != label)[outs[0].broken].all()


def test_outside_of_a_union_they_say_so(net, x, goal):
    for attack in (Nearest(ONE), Insist(ONE, TWO), Restarts(Nearest(ONE), 2), EachTarget(Insist(ONE), 2)):
        with pytest.raises(InputError, match="as a part of Union"):
            run(attack, net, x, goal, EPS)


@pytest.mark.parametrize("left", [-1.0, 0.0, math.nan])
def test_a_share_that_is_none(net, x, goal, left):
    with pytest.raises(InputError, match="left is a share"):
        run(Union(ONE, Nearest(ONE, left)), net, x, goal, EPS)


@pytest.mark.parametrize("gain", [-0.1, 1.0, 2.0, math.nan])
def test_a_gain_that_is_none(net, x, goal, gain):
    with pytest.raises(InputError, match="gain is a share"):
        run(Union(ONE, Insist(ONE, gain=gain)), net, x, goal, EPS)
    with pytest.raises(InputError, match="at least one attack"):
        Insist()


def test_they_need_scores_whatever_they_run(net, x, goal):
    suite = Union(am.Draws(steps=3), Nearest(am.Draws(steps=3)))
    run(suite, net, x, goal, EPS, access=ScoresOnly())
    with pytest.raises(AccessError, match="scores"):
        run(suite, net, x, goal, EPS, access=LabelsOnly())
    assert repr(Insist(ONE, TWO, gain=0.3)) == f"Insist({ONE!r}, {TWO!r}, gain=0.3)"
