"""FAB against its authors' code, against its formulas, and where other libraries go wrong."""

import math

import pytest
import torch
from torch import nn

import adamant as am
from adamant.attacks.fab import FAB, OverLabel
from adamant.attacks.starts import Within
from adamant.batch import PerRow
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.random import Rng
from adamant.testing import Affine, Bent

SHAPE, CLASSES = (1, 4, 4), 4

# Norms that the authors' code finds in 20 steps (fra31/auto-attack, commit a392200, targeted with one target class:
# the same to five digits as untargeted on this network).
PUBLISHED = {
    am.Linf: [0.00345, 0.14226, 0.00894, 0.17434, 0.0696, 0.26106, 0.14965, 0.00274],
    am.L2: [0.01207, 0.45273, 0.03154, 0.61284, 0.23905, 0.85173, 0.50186, 0.00926],
    am.L1: [0.02777, 1.03725, 0.06415, 1.67471, 0.70445, 2.19017, 1.35817, 0.01775],
}


def task(n=8, dtype=torch.float32):
    model, x = Bent(SHAPE, CLASSES, dtype=dtype).eval(), Rng.of(0, n).uniform(*SHAPE, dtype=dtype)
    with torch.no_grad():
        return model, x, Untargeted(model(x).argmax(1))


@pytest.mark.parametrize("norm", PUBLISHED)
@pytest.mark.parametrize("targeted", [False, True])
def test_the_norms_are_those_of_the_authors_code(norm, targeted):
    model, x, goal = task()
    wrap = (lambda a: am.EachTarget(a, 1)) if targeted else (lambda a: a)
    out = run(wrap(FAB(steps=20, search=0)), model, x, goal, norm())
    want = torch.tensor(PUBLISHED[norm], dtype=torch.float64)
    torch.testing.assert_close(out.size, want, rtol=1e-4, atol=6e-6)
    searched = run(wrap(FAB(steps=20)), model, x, goal, norm())
    assert (searched.size <= out.size * (1 + 1e-6)).all()
    assert (searched.size < out.size * 0.9999).any()


def box_point(x, w, gap, norm):
    """x moved onto {<w, d> = gap} in [0, 1], by bisection on how far each entry may go (paper, section 2.2)."""
    edge = torch.where(w * gap > 0, 1 - x, x)
    pace = {am.Linf: torch.ones_like(w), am.L2: w.abs(), am.L1: None}[norm]
    if norm is am.L1:  # the dearest entries first
        left, d = gap.abs(), torch.zeros_like(w)
        for i in w.abs().argsort(descending=True):
            d[i] = torch.minimum(left / w[i].abs(), edge[i])
            left = left - d[i] * w[i].abs()
        return d * (w * gap).sign()
    low, high = 0.0, 1e6
    for _ in range(200):
        s = (low + high) / 2
        low, high = (s, high) if (w.abs() * (s * pace).minimum(edge)).sum() < gap.abs() else (low, s)
    return (low * pace).minimum(edge) * (w * gap).sign()


@pytest.mark.parametrize("norm", PUBLISHED)
def test_ten_steps_are_those_of_the_paper(norm):
    model, x, goal = task(dtype=torch.float64)
    order = {am.Linf: math.inf, am.L2: 2, am.L1: 1}
    for i in range(len(x)):
        x0, label, best = x[i].flatten(), int(goal.label[i]), math.inf
        z = x0.clone()
        for _ in range(10):
            v = z.clone().requires_grad_(True)
            f = model(v.view(1, *SHAPE))[0]
            others = [k for k in range(CLASSES) if k != label]
            ws = [torch.autograd.grad(f[k] - f[label], v, retain_graph=True)[0] for k in others]
            dual = {am.Linf: 1, am.L2: 2, am.L1: math.inf}[norm]
            away = [float((f[k] - f[label]).detach().abs() / w.norm(dual)) for k, w in zip(others, ws, strict=True)]
            near = away.index(min(away))
            w, margin = ws[near], (f[others[near]] - f[label]).detach()
            one, two = box_point(z, w, -margin, norm), box_point(x0, w, w @ (z - x0) - margin, norm)
            a, b = one.norm(order[norm]).clamp_min(1e-8), two.norm(order[norm]).clamp_min(1e-8)
            alpha = min(float(a / (a + b)), 0.1)
            z = ((1 - alpha) * (z + 1.05 * one) + alpha * (x0 + 1.05 * two)).clamp(0, 1)
            if int(model(z.view(1, *SHAPE)).argmax()) != label:
                best = min(best, float((z - x0).norm(order[norm])))
                z = x0 + 0.9 * (z - x0)
        out = run(FAB(steps=10, search=0), model, x[i : i + 1], Untargeted(goal.label[i : i + 1]), norm())
        assert float(out.size) == pytest.approx(best, rel=1e-6)


def test_a_step_is_two_forwards_and_a_backward_for_each_class():
    model, x, goal = task()
    out = run(FAB(steps=20, search=0), model, x, goal, am.L2())
    assert (out.forwards == 41).all()
    assert (out.backwards == 20 * (CLASSES - 1)).all()
    out = run(am.EachTarget(FAB(steps=20, search=0), 9), model, x, goal, am.L2())
    assert (out.forwards == 1 + 41 * (CLASSES - 1)).all()
    assert (out.backwards == 20 * (CLASSES - 1)).all()  # one for each step of each of three targets


def test_with_a_budget_a_row_ends_at_its_first_success_inside():
    model, x, goal = task()
    least = run(FAB(), model, x, goal, am.Linf()).size
    out = run(am.EachTarget(FAB(), 9), model, x, goal, am.Linf(PerRow(least * 1.3)))
    assert out.broken.all()
    assert (out.forwards < 203).all()
    assert not run(am.EachTarget(FAB(), 9), model, x, goal, am.Linf(PerRow(least * 0.7))).broken.any()


def test_a_target_is_refused_and_the_score_of_a_part_aimed_at_one_is_over_the_label():
    model, x, goal = task()
    target = (goal.label + 1) % CLASSES
    with pytest.raises(InputError, match=r"EachTarget\(FAB\(\), 9\)"):
        run(FAB(), model, x, Targeted(goal.label, target), am.L2())
    logits, rows = model(x), torch.arange(len(x))
    seen = OverLabel()(logits, Targeted(goal.label, target))
    torch.testing.assert_close(seen, (logits[rows, target] - logits[rows, goal.label])[:, None])


@pytest.mark.parametrize("norm", PUBLISHED)
def test_no_row_minds_its_neighbours_and_no_layout_is_a_copy(norm):
    model, x, goal = task(12)
    whole = run(FAB(steps=8), model, x, goal, norm())
    for i in range(0, 12, 5):
        alone = run(FAB(steps=8), model, x[i : i + 1], Untargeted(goal.label[i : i + 1]), norm())
        torch.testing.assert_close(alone.size[0], whole.size[i], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", PUBLISHED)
def test_two_classes_shifted_logits_and_other_precisions(norm):
    class Shifted(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, z):
            return self.net(z) - 100

    for dtype in (torch.float32, torch.float64):
        net = Affine(SHAPE, 2, dtype=dtype)
        x = Rng.of(1, 6).uniform(*SHAPE, dtype=dtype)
        with torch.no_grad():
            goal = Untargeted(net(x).argmax(1))
        plain, shifted = (run(FAB(steps=15), m, x, goal, norm()) for m in (net, Shifted(net)))
        assert plain.broken.all()
        torch.testing.assert_close(plain.size, shifted.size, rtol=2e-2, atol=1e-4)


def test_restarts_begin_at_the_input_and_go_on_from_random_points_inside_the_smallest_distance():
    model, x, goal = task()
    begun = []

    def within(p):
        begun.append(Within()(p))
        return begun[-1]

    plain = run(FAB(steps=4), model, x, goal, am.L2())
    out = run(am.Restarts(FAB(steps=4, start=within), 3), model, x, goal, am.L2())
    assert torch.equal(begun[0], x)
    for z in begun[1:]:
        distance = am.L2().size(z, x)
        assert (distance <= plain.size / 2 + 1e-6).all()
        assert (distance > plain.size / 8).all()
    assert not torch.equal(begun[1], begun[2])
    assert (out.size <= plain.size).all()
    run(FAB(steps=1, start=within), model, x, goal, am.L2(0.4))
    assert (am.L2().size(begun[-1], x) <= 0.2 + 1e-6).all()
