"""FMN beside the paper's update written out, the figures of other libraries, and their bugs."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import adamant as am
from adamant.attacks.fmn import FMN
from adamant.engine import run
from adamant.goals import Targeted, Untargeted
from adamant.losses import Margin
from adamant.models import load_model
from adamant.random import Rng
from adamant.testing import Bent

SHARED = Path(__file__).parents[3].parent / "shared"
MODELS = Path(os.environ.get("ADAMANT_MODELS_DIR", SHARED / "models"))
DATA = Path(os.environ.get("ADAMANT_DATA_DIR", SHARED / "data"))
PAPER = FMN(steps=30, gamma=0.05, own=False, outward=False, loss=Margin())
ORDER = {am.L2: 2.0, am.L1: 1.0, am.Linf: torch.inf}


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
    """The outcome, and every state that the attack went through."""
    states, step = [], type(attack).step

    class Spy:
        needs, minimal, steps, loss = attack.needs, True, attack.steps, attack.loss

        def init(self, p):
            return attack.init(p)

        def step(self, p, s, seen, t):
            states.append(step(attack, p, s, seen, t))
            return states[-1]

    return run(Spy(), net, x, goal, threat), states


def near(d, order, radius):
    """The nearest point of a ball around zero, written as in a textbook, row by row."""
    if order == torch.inf:
        return d.clamp(-radius, radius)
    if order == 2:
        return d * min(1.0, radius / float(d.norm()))
    if float(d.abs().sum()) <= radius:
        return d
    u = d.abs().sort(descending=True).values
    theta = max((float(u[: k + 1].sum()) - radius) / (k + 1) for k in range(len(u)))
    return d.sign() * (d.abs() - theta).clamp_min(0)


def reference(net, x, label, order, steps):
    """Pintor et al., algorithm 1, for one input on an unbounded box: the iterates."""
    d, best, path = torch.zeros_like(x), math.inf, []
    dual = {2.0: 2.0, 1.0: torch.inf, torch.inf: 1.0}[order]
    radius = math.inf
    for k in range(steps):
        d.requires_grad_(True)
        logits = net((x + d)[None])[0]
        loss = torch.cat([logits[:label], logits[label + 1 :]]).max() - logits[label]
        g = torch.autograd.grad(loss, d)[0]
        d, loss, fall = d.detach(), float(loss.detach()), (1 + math.cos(math.pi * k / steps)) / 2
        gamma, alpha, size = 0.001 + 0.049 * fall, 0.01 + 0.99 * fall, float(d.flatten().norm(order))
        if loss > 0:
            best = min(best, size)
            radius = min(radius * (1 - gamma), best)
        elif best < math.inf:
            radius *= 1 + gamma
        else:
            radius = size + abs(loss) / float(g.flatten().norm(dual))
        # The radius aims at the boundary itself: a hair decides on which side of it a step ends, so ours is taken over.
        d = near((d + alpha * g / g.norm()).flatten(), order, radius * (1 - 4e-6 * (order < 3))).view_as(x)
        path.append(x + d)
    return path


@pytest.mark.parametrize("norm", [am.L2, am.L1, am.Linf])
def test_every_step_is_that_of_the_paper(net, x, norm):
    net, x = net.double(), x[:6].double()
    goal = goal_of(net, x)
    _, states = watched(PAPER, net, x, goal, norm(box=(-math.inf, math.inf)))
    for i in range(len(x)):
        paths = reference(net, x[i], int(goal.label[i]), ORDER[norm], PAPER.steps)
        for ours, theirs in zip(states, paths, strict=True):
            assert torch.allclose(ours.z[i], theirs, atol=2e-4)


# Medians at 100 steps. For Linf adv_lib 0.2.8's is .0584, for L0 Foolbox 3.3.4's is 2 (ours .0590 and 2); for L2 and
# L1 adv_lib broke 18 and 28 of the 40 rows only, and DDN's .3297 and ALMA's 1.3499 are to be met.
@pytest.mark.parametrize(
    ("threat", "theirs"), [(am.Linf(), 0.0584), (am.L2(), 0.3297), (am.L1(), 1.3499), (am.L0(), 2.0)]
)
def test_on_a_small_network_it_breaks_all_rows_with_small_changes(net, x, threat, theirs):
    out = run(FMN(), net, x, goal_of(net, x), threat)
    assert out.broken.all()
    assert out.size.median() <= theirs * 1.03


def test_in_l2_more_steps_find_less_and_no_step_leaves_its_ball(net, x):
    """A projection that does nothing (Foolbox) gives the same at 30, 100 and 300 steps."""
    goal = goal_of(net, x)
    sizes = [run(replace(PAPER, steps=n), net, x, goal, am.L2()).size.median() for n in (5, 20, 100)]
    assert sizes[0] > sizes[1] * 1.01 > sizes[2] * 1.01
    for attack in (PAPER, FMN(steps=30)):
        for norm in (am.L2, am.L1, am.Linf, am.L0):
            _, states = watched(attack, net, x, goal, norm())
            for s in states:
                assert (norm().size(s.z, x) <= s.radius * (1 + 1e-5)).all()


def test_a_step_that_stays_inside_the_ball_is_not_blown_up(net, x):
    """adv_lib puts every change on the sphere."""
    _, states = watched(replace(PAPER, rate=0.001), net, x, goal_of(net, x), am.L2())
    assert (am.L2().size(states[0].z, x) < 0.0011).all()
    assert (states[0].radius > 0.0011).all()


def test_in_l0_as_many_entries_move_as_the_radius_says(net, x):
    """Foolbox keeps one too many; adv_lib fails with none."""
    out, states = watched(FMN(steps=30), net, x, goal_of(net, x), am.L0())
    assert (states[0].radius == 2).all()
    for s in states:
        assert (s.radius >= 1).all()
        assert (am.L0().size(s.z, x) <= s.radius).all()
    assert (out.size[out.broken] >= 1).all()


def test_targets_are_reached(net, x):
    label = goal_of(net, x).label
    out = run(FMN(), net, x, Targeted(label, (label + 1) % 4), am.L2())
    assert out.broken.double().mean() >= 0.9
    with torch.no_grad():
        assert (net(out.x_adv).argmax(1) == (label + 1) % 4)[out.broken].all()


def test_an_unbounded_box_and_logits_without_end_do_no_harm(x):
    class Steep(torch.nn.Module):
        def forward(self, z):
            s = z.flatten(1).sum(1)
            return torch.stack([torch.zeros_like(s), torch.where(s > s.mean() + 100, torch.inf, s * 0)], 1)

    net = Bent((1, 8, 8), 4).eval()
    out = run(FMN(steps=5), net, x, goal_of(net, x), am.L2(box=(-math.inf, math.inf)))
    assert out.x_adv.isfinite().all()
    label = torch.zeros(len(x), dtype=torch.long)
    assert run(FMN(steps=5), Steep(), x, Untargeted(label), am.L2()).x_adv.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threat", "theirs"),
    # Medians of the first 100 test images, rows that stand counted as infinite, 100 steps: the best of adv_lib 0.2.8's
    # and Foolbox 3.3.4's FMN. Linf .6130 and L1 38.6 for both; L2 2.4808 for adv_lib.
    [(am.L2(), 2.4808), (am.Linf(), 0.6130), (am.L1(), 38.60)],
)
def test_on_a_defended_network_it_finds_less_than_the_peers(threat, theirs):
    weights, data = MODELS / "mnist_cnn_pgd.safetensors", DATA / "mnist.npz"
    if not (weights.exists() and data.exists()):
        pytest.skip(f"needs {weights.name} (ADAMANT_MODELS_DIR) and mnist.npz (ADAMANT_DATA_DIR)")
    model = load_model(weights, arch="zoo:cnn", shape=(1, 28, 28), classes=10)
    with np.load(data, allow_pickle=False) as held:
        x, y = torch.from_numpy(held["x_test"][:100])[:, None].float() / 255, torch.from_numpy(held["y_test"][:100])
    out = run(FMN(), model, x, Untargeted(y.long()), threat)
    assert out.broken.all()
    assert out.size.median() < theirs * 0.8
