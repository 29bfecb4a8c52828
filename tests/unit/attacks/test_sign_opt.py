"""Sign-OPT: the authors' algorithm in plain words, and closed forms on planes."""

import math

import pytest
import torch
from torch import nn

import adamant as am
from adamant.attacks import sign_opt
from adamant.attacks.sign_opt import SignOPT
from adamant.batch import per_row
from adamant.calling import Caller, Settings
from adamant.desk import Desk, Problem
from adamant.engine import run
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.testing import Affine

SHAPE = (1, 4, 5)
ROOM = (-math.inf, math.inf)


def affine(rows=12, seed=3):
    net = Affine(SHAPE, 2, seed=seed, dtype=torch.float64)
    x = Rng.of(1, rows).uniform(*SHAPE, dtype=torch.float64)
    with torch.no_grad():
        logits = net(x)
    label, n = logits.argmax(1), torch.arange(rows)
    w = (net.weight[1 - label] - net.weight[label]).detach()
    return net, x, Untargeted(label), w, logits[n, label] - logits[n, 1 - label]


def problem(net, x, goal, threat):
    desk = Desk(Caller(net, Settings()), x, 2, torch.zeros(len(x), dtype=torch.bool), 256, smallest=True)
    p = Problem(x, goal, goal, threat, am.LabelsOnly(), Rng.of(0, len(x)), torch.arange(len(x)), desk)
    desk.wake(p, roams=True)
    return p


def attack(member, net, x, goal, threat, **settings):
    return run(member, net, x, goal, threat, access=am.LabelsOnly(), settings=Settings(**settings))


def test_it_is_the_authors_algorithm():
    """A step of arXiv:1909.10773, row by row, with the distance to the plane in closed form."""
    net, x, goal, w, missing = affine()
    p = problem(net, x, goal, am.L2(box=ROOM))
    member = SignOPT(queries=70, around=0.01)
    s = member.init(p)

    def sized(v):
        return v / v.norm()

    for t in range(3):
        rng = p.rng.fold("signs").fold(t)
        noise = torch.cat([rng.fold(i).normal(k, *SHAPE, dtype=x.dtype) for i, k in ((0, 64), (64, 6))], 1)
        after = member.step(p, s, p.look(x, am.Margin()), t)
        for i in range(12):

            def g(theta, i=i):
                along = float((w[i] * theta.flatten()).sum())
                return float(missing[i]) / along if along > 0 else math.inf

            theta = sized(s.z[i] - x[i])
            far, alpha = float(p.threat.size(s.z, x)[i]), float(s.rate[i])
            gradient = torch.zeros_like(theta)
            for u in noise[i]:
                u = sized(u)
                gradient += u * (-1 if g(sized(theta + float(s.around[i]) * u)) <= far else 1) / 70
            best, helped, exact = far, False, float(s.around[i]) / (16 * math.sqrt(20))
            for _ in range(15):
                new = g(sized(theta - alpha * gradient))
                alpha *= 2
                if not new < best * (1 - exact):
                    break
                best, helped = new, True
            if not helped:
                for _ in range(15):
                    alpha /= 4
                    new = g(sized(theta - alpha * gradient))
                    if new < far * (1 - exact):
                        best = new
                        break
            assert p.threat.size(after.z, x)[i].item() == pytest.approx(best, rel=1e-3)
            assert after.rate[i].item() == pytest.approx(alpha if alpha >= 1e-4 else 1.0)
            assert after.around[i].item() == pytest.approx(float(s.around[i]) / (1 if alpha >= 1e-4 else 10))
        s = after


def test_it_comes_near_the_nearest_point_of_a_plane():
    net, x, goal, w, missing = affine()
    ratio = attack(SignOPT(steps=12, queries=200), net, x, goal, am.L2(box=ROOM)).size / (missing / w.norm(dim=1))
    assert (ratio > 1 - 1e-9).all()
    assert ratio.median() < 1.05


def test_a_step_never_ends_farther_and_stays_on_the_boundary():
    net, x, goal, *_ = affine()
    p = problem(net, x, goal, am.L2())
    member = SignOPT(queries=30)
    s = member.init(p)
    for t in range(4):
        before, s = p.threat.size(s.z, x), member.step(p, s, p.look(x, am.Margin()), t)
        assert (p.threat.size(s.z, x) <= before).all()
        with torch.no_grad():
            assert goal.reached(net(s.z)).all()
            assert not goal.reached(net(x + (s.z - x) * 0.995)).any()


def test_a_direction_that_is_no_nearer_costs_one_label():
    net, x, goal, w, missing = affine()
    p = problem(net, x, goal, am.L2(box=ROOM))
    best = x + per_row(1.001 * missing / (w**2).sum(1), x) * w.view_as(x)
    p.desk.settle()
    before, every = p.desk.forwards.clone(), torch.ones(12, dtype=torch.bool)
    around = torch.full((12,), 0.001, dtype=x.dtype)
    z, helps = SignOPT()._nearer(p, best, -w.view_as(x), around, every)
    p.desk.settle()
    assert not helps.any()
    assert torch.equal(z, best)
    assert (p.desk.forwards - before).eq(1).all()
    z, helps = SignOPT()._nearer(p, x + 3 * (best - x), w.view_as(x), around, every)
    assert helps.all()
    torch.testing.assert_close(p.threat.size(z, x), missing / w.norm(dim=1), rtol=1e-4, atol=0)


def test_directions_are_not_asked_nearer_than_numbers_can_tell():
    # In float32 the derivative beside the best is rounding where directions differ by less than this.
    net, x, goal, *_ = affine()
    p = problem(net.float(), x.float(), goal, am.L2())
    s = SignOPT(around=1e-9).init(p)
    assert s.around.min() == sign_opt._least(p) > 1e-5


def test_where_no_turn_helps_a_row_goes_on_with_finer_signs():
    class Hole(nn.Module):
        """The second class in one point alone, as far as directions can tell."""

        def forward(self, z):
            inside = (z > 0.999).all(1)
            return torch.stack([torch.full_like(z[:, 0], 0.5), inside.to(z)], 1)

    x = torch.full((2, 6), 0.1, dtype=torch.float64)
    examples = am.batch.Shared(torch.ones(1, 6))
    net, goal = Hole(), Untargeted(torch.zeros(2, dtype=torch.long))
    out = attack(SignOPT(steps=3, examples=examples, queries=10), net, x, goal, am.L2())
    assert out.broken.all()
    p = problem(net, x, goal, am.L2())
    member = SignOPT(queries=10, examples=examples)
    s = member.init(p)
    t = member.step(p, s, p.look(x, am.Margin()), 0)
    assert t.rate.isfinite().all()
    assert (t.around <= s.around).all()


def test_on_the_cube_a_turn_moves_every_entry_by_its_sign():
    """The same step within Linf, row by row: signs of points on the cube of the best, and turns that end on it."""
    net, x, goal, w, missing = affine()
    p = problem(net, x, goal, am.Linf(box=ROOM))
    member = SignOPT(queries=50, around=0.01)
    s = member.init(p)
    for t in range(3):
        noise = p.rng.fold("signs").fold(t).fold(0).normal(50, *SHAPE, dtype=x.dtype)
        after = member.step(p, s, p.look(x, am.Margin()), t)
        for i in range(12):

            def g(theta, i=i):
                along = float((w[i] * theta.flatten()).sum()) / float(theta.abs().max())
                return float(missing[i]) / along if along > 0 else math.inf

            theta, far, alpha = s.z[i] - x[i], float(p.threat.size(s.z, x)[i]), float(s.rate[i])
            theta = theta / theta.abs().max()
            gradient = torch.zeros_like(theta)
            for u in noise[i]:
                there = (theta + float(s.around[i]) * u).clamp(-1, 1)
                gradient += u * (-1 if far * float((w[i] * there.flatten()).sum()) >= float(missing[i]) else 1)
            best, helped, exact = far, False, float(s.around[i]) / (16 * math.sqrt(20))
            for _ in range(15):
                new = g((theta - alpha * gradient.sign()).clamp(-1, 1))
                alpha *= 2
                if not new < best * (1 - exact):
                    break
                best, helped = new, True
            while not helped and alpha > 1e-9:
                alpha /= 4
                new = g((theta - alpha * gradient.sign()).clamp(-1, 1))
                if new < far * (1 - exact):
                    best, helped = new, True
            assert p.threat.size(after.z, x)[i].item() == pytest.approx(best, rel=1e-3)
        s = after


def test_it_comes_near_the_nearest_corner_of_a_cube_in_any_units():
    net, x, goal, w, missing = affine()
    found = attack(SignOPT(steps=12, queries=200), net, x, goal, am.Linf(box=ROOM))
    ratio = found.size / (missing / w.abs().sum(dim=1))
    assert (ratio > 1 - 1e-9).all()
    assert ratio.median() < 1.1

    class Wide(nn.Module):
        def forward(self, z):
            return net(z / 256)

    boxed, wide = am.Linf(), am.Linf(box=(0.0, 256.0))
    small = attack(SignOPT(steps=4), net, x, goal, boxed)
    large = attack(SignOPT(steps=4), Wide(), x * 256, goal, wide)
    torch.testing.assert_close(small.size * 256, large.size, rtol=1e-6, atol=0)
    assert torch.equal(boxed.size(small.x_adv, x), small.size)  # in the largest change of an entry
