"""PDPGD beside its paper's update written out for one row, its operators beside a grid, and adv_lib's figures."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import adamant as am
from adamant.attacks.pdpgd import PDPGD, shrunk
from adamant.batch import take
from adamant.engine import run
from adamant.goals import Targeted, Untargeted
from adamant.models import load_model
from adamant.random import Rng
from adamant.testing import Bent

SHARED = Path(__file__).parents[3].parent / "shared"
MODELS = Path(os.environ.get("ADAMANT_MODELS_DIR", SHARED / "models"))
DATA = Path(os.environ.get("ADAMANT_DATA_DIR", SHARED / "data"))
PAPER = PDPGD(steps=30, rate=0.1, ratio=0.01, dual=0.5, rounds=5, hard=True)
THREATS = (am.L2(), am.Linf(), am.L1(), am.L0())


@pytest.fixture
def net():
    return Bent((1, 8, 8), 4).eval()


@pytest.fixture
def x():
    """Many entries exactly at the edges of the box, as in real pictures."""
    return (Rng.of(7, 40).uniform(1, 8, 8) * 1.5 - 0.25).clamp(0, 1)


def goal_of(net, x):
    with torch.no_grad():
        return Untargeted(net(x).argmax(1))


def watched(attack, net, x, goal, threat):
    """The outcome, and every point that was looked at."""
    points, step = [], type(attack).step

    class Spy:
        needs, minimal, steps, loss = attack.needs, True, attack.steps, attack.loss

        def init(self, p):
            return attack.init(p)

        def step(self, p, s, seen, t):
            points.append(s.z)
            return step(attack, p, s, seen, t)

    return run(Spy(), net, x, goal, threat), points


def textbook(threat, v, much):
    """The proximal operator of one row, as in the paper's appendix."""
    if isinstance(threat, am.L0):
        return v * (v.abs() >= math.sqrt(2 * much))
    if isinstance(threat, am.L1):
        return v.sign() * (v.abs() - much).clamp_min(0)
    if isinstance(threat, am.L2):
        return v * max(0.0, 1 - much / float(v.norm().clamp_min(1e-300)))
    u = (v / much).abs().flatten()  # Moreau: v less `much` times the projection of v / much on the L1 ball
    if float(u.sum()) <= 1:
        return torch.zeros_like(v)
    low, high = 0.0, float(u.max())
    for _ in range(200):
        theta = (low + high) / 2
        low, high = (theta, high) if float((u - theta).clamp_min(0).sum()) > 1 else (low, theta)
    return v - much * (v / much).sign() * ((v / much).abs() - high).clamp_min(0)


def reference(net, x, label, threat, a):
    """Matyasko & Chau, algorithm 2, with Adam's metric, for one input: the points where the gradient was taken."""
    r, mean, square, lam, path = torch.zeros_like(x), 0.0, 0.0, -math.log(a.ratio), []
    share = a.ratio / (1 + a.ratio)
    for i in range(a.steps):
        r = r.detach().requires_grad_(True)
        path.append((x + r).detach())
        logits = net((x + r)[None])[0]
        gap = logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).max()
        g = torch.autograd.grad(F.softplus(gap), r)[0]
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        h = (square / (1 - 0.999 ** (i + 1))) ** 0.5 + 1e-8
        rate = a.rate * a.last ** (i / a.steps)
        goal = (x + r.detach() - rate * mean / (1 - 0.9 ** (i + 1)) / h).clamp(0, 1) - x
        much, r = float(rate / h.max() * share / (1 - share)), goal
        for _ in range(a.rounds):
            old, r = r, (x + textbook(threat, r - h / h.max() * (r - goal), much)).clamp(0, 1) - x
            if not (r - old).norm() > a.tolerance * r.norm():
                break
        step = a.dual * ((a.steps - 1 - i) / (a.steps - 1) * (1 - a.last_dual) + a.last_dual)
        lam = min(max(lam + step * float(gap.detach().sign()), math.log(a.least_ratio)), -math.log(a.least_ratio))
        share = 0.9 * share + 0.1 / (1 + math.exp(lam))
    return path


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: type(t).__name__)
def test_every_step_is_the_paper_s(net, x, threat):
    net, x = net.double(), x[:4].double()
    goal = goal_of(net, x)
    _, points = watched(PAPER, net, x, goal, threat)
    for i in range(len(x)):
        want = torch.stack(reference(net, x[i], int(goal.label[i]), threat, PAPER))
        assert torch.allclose(torch.stack([z[i] for z in points]), want, atol=1e-7)


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("much", [0.003, 0.05, 0.4])
def test_the_operators_do_what_they_promise(threat, much):
    """Nothing on a fine grid around it, nor far from it, has less of |u - v|^2 / 2 + much * norm(u)."""
    v = Rng.of(5, 6).normal(3, dtype=torch.float64)
    sizes = {am.L0: lambda u: (u.abs() + 1e-300) ** (2 / 3), am.L1: torch.abs}
    norm = {
        am.L2: lambda u: u.norm(dim=-1),
        am.Linf: lambda u: u.abs().amax(-1),
    }.get(type(threat), lambda u: sizes[type(threat)](u).sum(-1))
    cost = lambda u: (u - v).square().sum(-1) / 2 + much * norm(u)  # noqa: E731
    u = shrunk(threat, v, torch.full((6,), much, dtype=torch.float64))
    for scale in (1e-4, 1e-2, 0.3, 1.0):
        others = u + scale * Rng.of(9, 2000).normal(1, 3, dtype=torch.float64)
        assert (cost(others) >= cost(u) - 1e-9).all()
        assert (cost(others * (others.abs() > scale)) >= cost(u) - 1e-9).all()


def test_pixels_shrink_as_one():
    v = Rng.of(5, 2).normal(3, 4, 4)
    u = shrunk(am.L0(pixels=True), v, torch.tensor([0.3, 0.6]))
    zero = (u == 0).all(1)
    assert zero.any()
    assert ((u != 0).all(1) | zero).all()


def test_targets_are_reached(net, x):
    label = goal_of(net, x).label
    out = run(PDPGD(steps=60, ratio=1.0), net, x, Targeted(label, (label + 1) % 4), am.L2())
    assert out.broken.all()


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: type(t).__name__)
def test_a_row_does_not_know_its_batch(net, x, threat):
    """adv_lib ends the inner rounds when every row is near its own end."""
    goal, attack = goal_of(net, x), PDPGD(steps=30, ratio=1.0)
    out = run(attack, net, x, goal, threat)
    for i in range(3):
        one = run(attack, net, x[i : i + 1], take(goal, torch.tensor([i])), threat)
        assert torch.equal(one.x_adv[0], out.x_adv[i])


def test_two_classes_and_far_logits_do_no_harm(x):
    net = Bent((1, 8, 8), 2).eval()
    out = run(PDPGD(steps=40, ratio=1.0), louder(net, 1e4), x, goal_of(net, x), am.L2())
    assert out.x_adv.isfinite().all()


def louder(net, scale):
    """The same network with logits so large that exponentials overflow."""

    class Loud(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, z):
            return self.net(z) * scale

    return Loud()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threat", "theirs"), [(am.L2(), 2.941), (am.Linf(), 0.4771), (am.L1(), 4.422), (am.L0(), 120.0)]
)
def test_at_adv_lib_s_settings_the_medians_are_its(threat, theirs):
    """adv_lib 0.2.8, pdpgd(num_steps=200), the first 50 test images; all 50 found in each norm."""
    weights, data = MODELS / "mnist_cnn_pgd.safetensors", DATA / "mnist.npz"
    if not (weights.exists() and data.exists()):
        pytest.skip(f"needs {weights.name} (ADAMANT_MODELS_DIR) and mnist.npz (ADAMANT_DATA_DIR)")
    model = load_model(weights, arch="zoo:cnn", shape=(1, 28, 28), classes=10)
    with np.load(data, allow_pickle=False) as held:
        x, y = torch.from_numpy(held["x_test"][:50])[:, None].float() / 255, torch.from_numpy(held["y_test"][:50])
    attack = PDPGD(steps=200, rate=0.1, ratio=0.01, rounds=5, hard=True)
    out = run(attack, model, x, Untargeted(y.long()), threat)
    assert out.broken.all()
    assert float(out.size.median()) == pytest.approx(theirs, rel=2e-3)
