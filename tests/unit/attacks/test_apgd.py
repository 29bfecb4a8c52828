"""APGD and APGDL1 against the published algorithm, the authors' code, and the bugs of other libraries."""

import math

import pytest
import torch
from torch import nn

import adamant as am
from adamant.access import WhiteBox
from adamant.adversary import Status
from adamant.attacks.apgd import APGD, APGDL1
from adamant.attacks.composites import EachTarget, Restarts
from adamant.batch import take
from adamant.calling import Caller, Settings
from adamant.desk import Blind, Problem
from adamant.engine import perturb, run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.losses import DLR, CrossEntropy, Margin
from adamant.random import Rng
from adamant.testing import Affine, Bent
from adamant.threats import L1, L2, Linf

SHAPE, CLASSES, ROWS = (1, 6, 6), 5, 12


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


# --- the paper's algorithm, row by row, in plain words ---------------------------------------------------------------


def plain_apgd(net, loss, goal, threat, x, z0, steps):
    """Algorithm 1 of arXiv:2003.01690 for one row; condition 1 with <= as in the authors' code."""
    eps, marks = float(threat.eps), [0.0, 0.22]
    while marks[-1] < 1:
        marks.append(marks[-1] + max(marks[-1] - marks[-2] - 0.03, 0.06))
    checks = [math.ceil(round(m * steps, 6)) for m in marks]
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
    for i in range(6):
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
        sparse = int((here != x).sum())
        for k in range(1, length + (n == len(balls) - 1)):
            can = torch.where(g > 0, here < high, here > low)
            for g_ in (g, g * can):
                least = g_.abs().flatten().sort(descending=True).values[max(0, math.ceil(sparse / 1.5) - 1)]
                d = torch.sign(g_) * (g_.abs() >= least)
                if (can & (d != 0)).any():
                    break
            here = inside.project(here + rate * d / d.abs().sum().clamp_min(1), x)
            f, g = ascend(net, loss, goal, here)
            points.append(here)
            if f > best_f:
                best, best_g, best_f = here, g, f
            if k % max(1, length // 25) == 0:
                before, sparse = sparse, int((best != x).sum())
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
    balls, same = (3, 2, 1) if wide > 1 else (1,), 0
    for i in range(6):
        goal = Untargeted(label[i : i + 1])
        want = plain_l1(net, CrossEntropy(), goal, threat, x[i : i + 1], points[0, i : i + 1], 100, balls)
        gap = (points[:, i] - want).abs().flatten(1).amax(1)
        assert gap[:15].max() < 1e-9
        same += bool(gap.max() < 1e-9)
    assert same >= 3  # in the others a point came up twice, and rounding decides which of the two was better


def test_checkpoints_are_those_of_the_paper():
    from adamant.attacks.apgd import _checkpoints

    assert list(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(_checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    for n in range(1, 300):
        found = _checkpoints(n)
        assert sum(found.values()) == max(found) <= n
        assert list(found) == sorted(found)
        assert min(found.values()) >= 1


# --- the authors' code -----------------------------------------------------------------------------------------------

# Highest loss of each row after 100 steps from the same start by fra31/auto-attack, commit a392200, with this network.
# fmt: off
THEIRS = {
    ("Linf", "CrossEntropy"): [
        4.4186, 0.3152, 3.6797, 4.0552, 1.1197, 3.5943, 0.0, 2.212, 2.0253, 0.5167, 2.415, 2.1876,
    ],
    ("Linf", "DLR"): [1.9633, -0.2105, 0.7918, 1.0, 0.3959, 0.6168, -0.7351, 0.1917, 1.0, -0.1449, 1.0, 1.0],
    ("Linf", "target"): [
        1.3006, -0.1303, 0.5351, 0.8003, 0.1624, 0.5403, -0.6945, 0.1496, 0.3424, -0.0764, 0.4355, 0.2359,
    ],
    ("L2", "CrossEntropy"): [
        7.2654, 0.7268, 6.1325, 6.3335, 1.7436, 5.9028, 0.0, 4.7106, 2.7718, 1.2231, 4.9003, 3.0304,
    ],
    ("L2", "DLR"): [1.0, 0.0121, 1.0, 1.0, 1.0, 1.0, -0.7159, 0.389, 1.0, 1.0, 1.0, 1.0],
    ("L1", "CrossEntropy"): [
        4.8544, 0.3292, 4.5709, 5.2538, 2.2132, 4.1069, 0.0, 5.0473, 2.143, 1.0183, 2.3561, 2.3312,
    ],
    ("L1", "DLR"): [2.0767, -0.2263, 0.6898, 1.0, 1.0, 0.5781, -0.7419, 0.325, 1.0, -0.0909, 1.0, 1.0],
    ("L1", "target"): [
        1.2136, -0.1642, 0.5721, 0.4074, 0.2733, 0.4985, -0.7047, 0.2618, 0.2798, -0.0628, 0.4366, 0.2303,
    ],
}
# fmt: on
BUDGETS = {"Linf": Linf(0.04), "L2": L2(0.25), "L1": L1(0.5)}


@pytest.mark.parametrize(("norm", "name"), THEIRS)
def test_reaches_the_loss_of_the_authors_code(norm, name):
    """Elsewhere than in Linf a row may end on another summit, as projections and lengths of phases differ."""
    net, x, label = setting()
    threat, loss = BUDGETS[norm], CrossEntropy() if name == "CrossEntropy" else DLR()
    with torch.no_grad():
        second = net(x).argsort(1, descending=True)[:, 1]
    goal = Targeted(label, second) if name == "target" else Untargeted(label)
    attack = APGDL1(loss=loss) if norm == "L1" else APGD(loss=loss)
    points, losses, _ = walk(attack, net, x, goal, threat)
    inside = torch.stack([threat.contains(z, x) for z in points])
    ours, theirs = torch.where(inside, losses, -torch.inf).amax(0), torch.tensor(THEIRS[norm, name])
    short = ours < theirs - 2e-3
    assert short.sum() <= (norm != "Linf")


# --- bugs of other libraries -----------------------------------------------------------------------------------------


def test_costs_a_hundred_and_one_forwards_and_a_hundred_backwards_by_default():
    """torchattacks runs 10 steps where 100 are expected; ART makes 203 forwards of 100 steps."""
    net, x, label = setting()
    for attack, threat in ((APGD(), Linf(1e-4)), (APGD(), L2(1e-4)), (APGDL1(), L1(1e-4))):
        out = run(attack, net, x, Untargeted(label), threat)
        stood = out.status == Status.ROBUST
        assert stood.sum() > ROWS // 2
        assert (out.forwards[stood] == 101).all()
        assert (out.backwards[stood] == 100).all()


def test_the_first_step_is_two_budgets_up_the_slope_and_for_a_target_towards_it():
    """ART starts with its step of 0.1 and, targeted, steps away from the target."""
    net = Affine(SHAPE, CLASSES)
    x = 0.5 + 0 * setting()[1]
    with torch.no_grad():
        label = net(x).argmax(1)
    target = (label + 1) % CLASSES
    for goal in (Untargeted(label), Targeted(label, target)):
        points, losses, _ = walk(APGD(loss=Margin(), steps=1), net, x, goal, Linf(0.01))
        assert (losses[1] > losses[0]).all()
        torch.testing.assert_close((points[1] - x).abs(), torch.full_like(x, 0.01), rtol=0, atol=1e-6)


def test_each_row_has_its_own_step_size():
    """torchattacks gives every row the step of the first in its targeted L2 attack."""
    net, x, label = setting()
    for attack, threat in ((EachTarget(APGD(loss=DLR(), steps=30), 3), L2(0.1)), (APGDL1(steps=40), L1(0.4))):
        whole = run(attack, net, x, Untargeted(label), threat)
        for i in range(4):
            row = torch.tensor([i])
            alone = run(attack, net, x[row], take(Untargeted(label), row), threat, rng=Rng.of(0, row))
            assert torch.equal(alone.x_adv[0], whole.x_adv[i])
            assert torch.equal(alone.forwards[0], whole.forwards[i])


def test_two_classes_are_refused_with_dlr_and_attacked_with_a_margin():
    """adv_lib fails in the middle of a sort."""
    net, x, label = setting(classes=2)
    with pytest.raises(InputError, match=r"DLR needs 3 classes .* use Margin\(\)"):
        run(APGD(loss=DLR()), net, x, Untargeted(label), Linf(0.1))
    assert run(APGD(loss=Margin()), net, x, Untargeted(label), Linf(0.3)).broken.any()


def test_a_look_without_a_gradient_stops_no_row():
    """One NaN in a momentum buffer ends a row for good in torchattacks."""

    class Odd(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.calls = net, 0

        def forward(self, z):
            self.calls += 1
            out = self.net(z)
            return out * torch.where(z.flatten(1).sum(1, keepdim=True) < 0, 1, torch.nan) if self.calls == 3 else out

    net, x, label = setting()
    for attack, threat in ((APGD(steps=30), L2(0.5)), (APGD(steps=30), Linf(0.1)), (APGDL1(steps=30), L1(1.5))):
        plain = run(attack, net, x, Untargeted(label), threat)
        odd = run(attack, Odd(net), x, Untargeted(label), threat)
        assert odd.x_adv.isfinite().all()
        assert odd.broken.sum() >= plain.broken.sum() - 1


def test_l1_needs_the_sparse_attack():
    """ART takes dense steps there."""
    net, x, label = setting()
    with pytest.raises(InputError, match="APGD works within Linf, L2, not within L1"):
        run(APGD(), net, x, Untargeted(label), L1(1.0))
    points, _, _ = walk(APGDL1(), net, x, Untargeted(label), L1(0.3))
    assert (points[-1] != x).flatten(1).sum(1).double().mean() < 0.4 * x[0].numel()


# --- the ball that shrinks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 10, 13, 100])
def test_the_wide_ball_shrinks_to_the_budget_in_time(steps):
    net, x, label = setting()
    threat = L1(0.8)
    points, _, _ = walk(APGDL1(steps=steps), net, x, Untargeted(label), threat)
    size = torch.stack([threat.size(z, x) for z in points])
    assert (size <= 2.4).all()
    assert threat.contains(points[-1], x).all()
    if steps >= 10:
        assert size[0].min() > 1.6
    z = perturb(APGDL1(steps=steps), net, x, Untargeted(label), threat, rng=Rng.of(0, ROWS))
    assert threat.contains(z, x).all()


def test_what_is_found_outside_of_the_budget_counts_for_nothing():
    net, x, label = setting()
    threat = L1(0.05)
    _, _, logits = walk(APGDL1(), net, x, Untargeted(label), threat)
    out = run(APGDL1(), net, x, Untargeted(label), threat)
    fooled = (logits.argmax(2) != label).any(0)
    assert (fooled & ~out.broken).any()
    assert not (out.status == Status.INVALID).any()
    assert threat.contains(out.x_adv, x).all()
    with torch.no_grad():
        held = CrossEntropy()(net(out.x_adv), Untargeted(label)).double()
    torch.testing.assert_close(out.loss, held, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="wide is at least 1"):
        run(APGDL1(wide=0.5), net, x, Untargeted(label), threat)


# --- what it is for --------------------------------------------------------------------------------------------------


def test_beats_pgd_at_equal_cost_where_the_rate_of_pgd_is_too_long():
    net, x, label = setting()
    goal, threat = Untargeted(label), L2(0.2)
    ours = run(APGD(steps=40), net, x, goal, threat)
    theirs = run(am.PGD(steps=40, rate=1.0), net, x, goal, threat)
    both = ~ours.broken & ~theirs.broken
    assert ours.broken.sum() >= theirs.broken.sum()
    assert (ours.loss >= theirs.loss - 1e-6)[both].all()


def test_as_an_inner_attack_its_last_point_is_a_member_and_worse_for_the_model():
    net, x, label = setting()
    goal = Untargeted(label)
    for attack, threat in ((APGD(steps=10), Linf(0.05)), (APGD(steps=10), L2(0.3)), (APGDL1(steps=10), L1(0.8))):
        z = perturb(attack, net, x, goal, threat, rng=Rng.of(0, ROWS))
        assert threat.contains(z, x).all()
        with torch.no_grad():
            assert (CrossEntropy()(net(z), goal) > CrossEntropy()(net(x), goal)).double().mean() > 0.9


def test_restarts_and_targets_break_no_less():
    net, x, label = setting()
    goal, threat = Untargeted(label), L1(0.3)
    once = run(APGDL1(), net, x, goal, threat).broken.sum()
    assert run(Restarts(APGDL1(), 3), net, x, goal, threat).broken.sum() >= once
