"""DeepFool, SuperDeepFool and SparseFool against their formulas and other people's code."""

import math

import pytest
import torch
from torch import nn

import adamant as am
from adamant.attacks.deepfool import DeepFool, SparseFool, SuperDeepFool
from adamant.engine import run
from adamant.goals import Targeted, Untargeted
from adamant.random import Rng
from adamant.testing import Affine, Bent

SHAPE, CLASSES = (1, 4, 4), 4

# On eight rows of `Bent`: DeepFool (50 steps) and SuperDeepFool (20 of 50) of adv_lib 0.2.8, SparseFool of its authors
# (LTS4/SparseFool with lambda 1, all four classes).
ADV_LIB = {
    am.L2: [0.0124, 0.4643, 0.0321, 0.6435, 0.2409, 0.9332, 0.5086, 0.0095],
    am.Linf: [0.0036, 0.1506, 0.0092, 0.1761, 0.0691, 0.259, 0.1493, 0.0029],
}
SUPER = [0.012, 0.4872, 0.0314, 0.618, 0.2501, 0.8646, 0.5133, 0.0092]
SPARSE = {
    am.L1: [0.0305, 1.7941, 0.0725, 1.9499, 0.8831, 2.3993, 1.5124, 0.02],
    am.L0: [1.0, 6.0, 1.0, 6.0, 5.0, 4.0, 5.0, 1.0],
}


def task(n=8, dtype=torch.float32):
    model, x = Bent(SHAPE, CLASSES, dtype=dtype).eval(), Rng.of(0, n).uniform(*SHAPE, dtype=dtype)
    with torch.no_grad():
        return model, x, Untargeted(model(x).argmax(1))


def ratios(out, figures):
    assert out.broken.all()
    return out.size / torch.tensor(figures, dtype=torch.float64)


@pytest.mark.parametrize("norm", ADV_LIB)
def test_no_longer_than_adv_libs(norm):
    model, x, goal = task()
    assert (ratios(run(DeepFool(), model, x, goal, norm()), ADV_LIB[norm]) < 1.01).all()
    whole = ratios(run(DeepFool(rate=1.0), model, x, goal, norm()), ADV_LIB[norm])
    assert ((whole > 0.94) & (whole < 1.01)).all()


@pytest.mark.parametrize("norm", ADV_LIB)
def test_without_a_box_and_with_whole_steps_it_is_the_papers_algorithm(norm):
    model, x, goal = task(dtype=torch.float64)
    dual = {am.L2: 2, am.Linf: 1}[norm]
    box = (-math.inf, math.inf)
    out = run(DeepFool(rate=1.0), model, x, goal, norm(box=box))
    for i in range(len(x)):
        x0, label = x[i].flatten(), int(goal.label[i])
        change = torch.zeros_like(x0)
        for _ in range(50):
            v = (x0 + 1.02 * change).requires_grad_(True)
            f = model(v.view(1, *SHAPE))[0]
            if int(f.argmax()) != label:
                break
            away = {}
            for k in set(range(CLASSES)) - {label}:
                w = torch.autograd.grad(f[k] - f[label], v, retain_graph=True)[0]
                away[k] = (float((f[k] - f[label]).detach().abs() + 1e-4) / float(w.norm(dual)), w)
            length, w = min(away.values(), key=lambda pair: pair[0])
            change = change + length * (w / w.norm() if norm is am.L2 else w.sign())
        torch.testing.assert_close(out.x_adv[i].flatten(), x0 + 1.02 * change, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("attack", [DeepFool(), SuperDeepFool(), SparseFool()])
def test_other_units_of_the_box_give_the_same_change(attack):
    """ART multiplies its step by the width of the box: a median ten times too long on [0, 255]."""

    class Scaled(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, z):
            return self.net(z / 256)

    model, x, goal = task()
    norm = attack.threats[0]
    plain = run(attack, model, x, goal, norm())
    wide = run(attack, Scaled(model), x * 256, goal, norm(box=(0.0, 256.0)))
    torch.testing.assert_close(wide.size / 256, plain.size, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("attack", [DeepFool(), SuperDeepFool(), SparseFool()])
def test_a_target_is_reached_through_all_other_classes(attack):
    model, x = Affine((48,), 10, seed=3), Rng.of(7, 20).uniform(48)
    with torch.no_grad():
        label = model(x).argmax(1)
    goal = Targeted(label, (label + 3) % 10)
    out = run(attack, model, x, goal, attack.threats[0]())
    assert out.broken.all()
    if attack.threats[0] is am.L2:
        best = run(am.DDN(steps=200), model, x, goal, am.L2())
        assert (out.size / best.size).median() < 1.03
        assert (out.size < best.size * 1.3).all()


def test_a_change_larger_than_the_budget_is_no_success():
    model, x, goal = task()
    out = run(DeepFool(), model, x, goal, am.Linf(0.1))
    want = torch.tensor(ADV_LIB[am.Linf]) < 0.1
    assert torch.equal(out.broken, want)
    assert (out.size <= 0.1).all()


def test_super_is_shorter_than_plain_and_about_as_short_as_adv_libs():
    model, x, goal = task()
    plain = run(DeepFool(rate=1.0), model, x, goal, am.L2()).size
    out = run(SuperDeepFool(), model, x, goal, am.L2())
    ratio = ratios(out, SUPER)
    assert (ratio < 1.04).all()
    assert ratio.mean() < 1.0
    assert (out.size <= plain * 1.001).all()
    assert out.size.sum() < 0.985 * plain.sum()


def test_super_ends_on_the_foot_of_the_perpendicular():
    """On an affine network the change is along the normal, and as short as can be."""
    model, x = Affine((12,), 2, dtype=torch.float64), Rng.of(1, 6).uniform(12, dtype=torch.float64)
    with torch.no_grad():
        logits = model(x)
    box = (-math.inf, math.inf)
    out = run(SuperDeepFool(), model, x, Untargeted(logits.argmax(1)), am.L2(box=box))
    w = (model.weight[1] - model.weight[0]).detach()
    best = (logits[:, 1] - logits[:, 0]).abs() / w.norm()
    assert ((out.size / best - 1).abs() < 1e-2).all()
    turn = ((out.x_adv - x) @ w).abs() / w.norm() / out.size
    torch.testing.assert_close(turn, torch.ones_like(turn))


@pytest.mark.parametrize("norm", SPARSE)
def test_sparse_is_no_larger_than_its_authors(norm):
    model, x, goal = task()
    ratio = ratios(run(SparseFool(), model, x, goal, norm()), SPARSE[norm])
    assert ratio.mean() < 1.06
    assert ratio.median() <= 1.0
    far = run(SparseFool(reach=3.0), model, x, goal, norm())
    near = run(SparseFool(), model, x, goal, norm())
    assert far.broken.all()
    assert far.forwards.sum() <= near.forwards.sum()
    assert far.size.sum() > near.size.sum()


def test_sparse_changes_the_dearest_entries_of_an_affine_network():
    model, x = Affine((30,), 2), Rng.of(1, 8).uniform(30)
    with torch.no_grad():
        logits = model(x)
    out = run(SparseFool(), model, x, Untargeted(logits.argmax(1)), am.L1())
    assert out.broken.all()
    w = (model.weight[1] - model.weight[0]).detach().abs()
    for i in range(8):
        changed = out.x_adv[i] != x[i]
        toward = (model.weight[1] - model.weight[0]) * (1 - 2 * float(logits[i].argmax()))
        full = torch.where(toward > 0, x[i] == 1, x[i] == 0) | (out.x_adv[i] == 0) | (out.x_adv[i] == 1)
        least = w[changed].min()
        assert (full | changed)[w > least].all()


def test_entries_at_their_edge_do_not_hold_the_step_up():
    model, x = Affine((30,), 2), (Rng.of(1, 8).uniform(30) > 0.5).float()
    with torch.no_grad():
        goal = Untargeted(model(x).argmax(1))
    out = run(DeepFool(rate=1.0, steps=4), model, x, goal, am.L2())
    best = run(am.DDN(steps=300), model, x, goal, am.L2())
    assert out.broken.all()
    assert (out.size < best.size * 1.03).all()
