"""APGD and APGDL1 against the published algorithm, the authors' code, and the bugs of other libraries."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import adamant as am
from adamant.access import WhiteBox
from adamant.attacks.apgd import APGD, APGDL1
from adamant.attacks.composites import EachTarget, Restarts
from adamant.batch import take
from adamant.calling import Caller, Settings
from adamant.engine import Blind, Problem, Status, perturb, run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.losses import DLR, CrossEntropy, Margin
from adamant.random import Rng
from adamant.testing import Affine, Bent
from adamant.threats import L1, L2, Linf

SHAPE, CLASSES, ROWS = (1, 6, 6), 5, 12
# No shorter than the last phase of APGDL1 needs to check more than once.
LONG = 100


def setting(dtype=torch.float32, classes=CLASSES):
    net = Bent(SHAPE, classes, seed=2, dtype=dtype).eval().requires_grad_(False)
    x = (Rng.of(11, ROWS).uniform(*SHAPE, dtype=dtype) * 1.5 - 0.25).clamp(0, 1)
    with torch.no_grad():
        label = net(x).argmax(1)
    return net, x, label


def walk(attack, net, x, goal, threat, seed=0):
    """Every place that the attack looks at, with nothing to stop it: points (t, n, *d), losses and logits."""
    desk = Blind(Caller(net, Settings(lanes=1)))
    p = Problem(x, goal, goal, threat, WhiteBox(), Rng.of(seed, len(x)), torch.arange(len(x)), desk)
    s, points, looks = attack.init(p), [], []
    for t in range(attack.steps + 1):
        seen = p.look(s.z, attack.loss, grad=True)
        points.append(s.z)
        looks.append(seen)
        if t < attack.steps:
            s = attack.step(p, s, seen, t)
    return torch.stack(points), torch.stack([k.loss for k in looks]), torch.stack([k.logits for k in looks])


def ascend(net, loss, goal, z):
    """Loss and gradient at z (1, *d)."""
    z = z.clone().requires_grad_(True)
    value = loss(net(z), goal)
    return value.item(), torch.autograd.grad(value.sum(), z)[0]


# --- the paper's algorithm, row by row, in plain words -----------------------------------------------------------------


def plain_apgd(net, loss, goal, threat, x, z0, steps):
    """Algorithm 1 of arXiv:2003.01690 for one row; condition 1 with <= as in the authors' code."""
    eps, marks, p = float(threat.eps), [0.0, 0.22], 0.22
    while p < 1:
        p, before = round(p + max(p - marks[-2] - 0.03, 0.06), 10), p
        marks.append(p)
    checks = [-int(-(round(m * steps, 6)) // 1) for m in marks]
    unit = torch.sign if isinstance(threat, Linf) else lambda g: g / g.norm().clamp_min(1e-300)
    f0, g = ascend(net, loss, goal, z0)
    points, values = [z0], [f0]
    best, best_g, best_f, eta, last, here = z0, g, f0, 2 * eps, z0, z0
    f_mark, halved_before = best_f, True
    for k in range(steps):
        y = threat.project(here + eta * unit(g), x)
        new = y if k == 0 else threat.project(here + 0.75 * (y - here) + 0.25 * (here - last), x)
        last, here = here, new
        f, g = ascend(net, loss, goal, here)
        points.append(here)
        values.append(f)
        if f > best_f:
            best, best_g, best_f = here, g, f
        if k + 1 in checks:
            w = checks[checks.index(k + 1) - 1]
            rises = sum(values[i + 1] > values[i] for i in range(w, k + 1))
            halve = rises <= 0.75 * (k + 1 - w) or (not halved_before and f_mark == best_f)
            f_mark, halved_before = best_f, halve
            if halve:
                eta, here, g = eta / 2, best, best_g
    return torch.cat(points), torch.tensor(values)


@pytest.mark.parametrize("threat", [Linf(0.08), L2(0.5)], ids=["Linf", "L2"])
@pytest.mark.parametrize("steps", [25, 100])
def test_apgd_goes_where_the_paper_goes(threat, steps):
    net, x, label = setting(torch.float64)
    points, losses, _ = walk(APGD(steps=steps), net, x, Untargeted(label), threat)
    for i in range(ROWS):
        goal = Untargeted(label[i : i + 1])
        want, values = plain_apgd(net, CrossEntropy(), goal, threat, x[i : i + 1], points[0, i : i + 1], steps)
        torch.testing.assert_close(points[:, i], want, rtol=0, atol=1e-7)
        torch.testing.assert_close(losses[:, i], values.double(), rtol=0, atol=1e-5)


def plain_l1(net, loss, goal, threat, x, z0, steps, balls):
    """The l1-APGD of arXiv:2103.01208 for one row, with the schedule of shrinking balls of AutoAttack."""
    low, high = threat.box
    lengths = [3 * steps // 10, 3 * steps // 10] if len(balls) == 3 else []
    lengths.append(steps - sum(lengths))
    points, here = [], z0
    for n, (ball, length) in enumerate(zip(balls, lengths, strict=True)):
        inside = threat.at(threat.eps * ball)
        f, g = ascend(net, loss, goal, here)
        points.append(here)
        best, best_g, best_f, rate = here, g, f, ball * threat.eps
        sparse = before = int((here != x).sum())
        for k in range(1, length + (n == len(balls) - 1)):
            can = torch.where(g > 0, here < high, here > low)
            size = (g * can).abs().flatten()
            least = size.sort(descending=True).values[min(-int(-sparse // 1.5), len(size)) - 1 if sparse else 0]
            d = torch.sign(g) * (size >= least).view_as(g) * can
            here = inside.project(here + rate * d / d.abs().sum().clamp_min(1), x)
            f, g = ascend(net, loss, goal, here)
            points.append(here)
            if f > best_f:
                best, best_g, best_f = here, g, f
            if k % max(1, length // 25) == 0:
                sparse, before = int((best != x).sum()), sparse
                if sparse < 0.95 * before:
                    here, g, rate = best, best_g, ball * threat.eps
                else:
                    rate = max(rate / 1.5, 0.1 * ball * threat.eps)
        if n + 1 < len(balls):
            here = threat.at(threat.eps * balls[n + 1]).project(best, x)
    return torch.cat(points)


@pytest.mark.parametrize("wide", [3.0, 1.0])
def test_apgd_l1_goes_where_the_papers_rules_go(wide):
    net, x, label = setting(torch.float64)
    threat = L1(1.0)
    points, _, _ = walk(APGDL1(wide=wide), net, x, Untargeted(label), threat)
    balls = (3, 2, 1) if wide > 1 else (1,)
    for i in range(ROWS):
        goal = Untargeted(label[i : i + 1])
        want = plain_l1(net, CrossEntropy(), goal, threat, x[i : i + 1], points[0, i : i + 1], LONG, balls)
        torch.testing.assert_close(points[:, i], want, rtol=0, atol=1e-6)


def test_checkpoints_are_those_of_the_paper():
    from adamant.attacks.apgd import _checkpoints

    assert list(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(_checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    for n in range(1, 300):
        found = _checkpoints(n)
        assert sum(found.values()) == max(found) <= n
        assert list(found) == sorted(found)
        assert min(found.values()) >= 1


# --- the authors' code -------------------------------------------------------------------------------------------------

