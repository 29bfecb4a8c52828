"""Carlini and Wagner's attack and EAD beside their formulas written out, other libraries' figures, and their bugs."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import adamant as am
from adamant.adversary import Status
from adamant.attacks.carlini import EAD, CarliniWagner, CarliniWagnerLinf, Search
from adamant.batch import take
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.models import load_model
from adamant.random import Rng
from adamant.testing import Affine, Bent

SHARED = Path(__file__).parents[3].parent / "shared"
MODELS = Path(os.environ.get("ADAMANT_MODELS_DIR", SHARED / "models"))
DATA = Path(os.environ.get("ADAMANT_DATA_DIR", SHARED / "data"))


def paper(**changes):
    """As published, but with fewer steps."""
    return CarliniWagner(
        **{"rounds": 9, "each": 200, "rate": 0.01, "last": 1.0, "weight": 0.001, "warm": False, **changes}
    )


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


def reference(net, x, label, rounds, each, rate, c):
    """Section V and VI of the paper for one input, Adam by torch: the smallest success, and every weight."""
    low, high, best, weights = 0.0, math.inf, math.inf, []
    start = ((2 * x - 1) * (1 - 1e-6)).atanh()
    for _ in range(rounds):
        weights.append(c)
        w, hit = start.clone().requires_grad_(True), False
        adam = torch.optim.Adam([w], lr=rate)
        for _ in range(each):
            z = (w.tanh() + 1) / 2
            logits = net(z[None])[0]
            gap = logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).max()
            square = (z - (start.tanh() + 1) / 2).square().sum()
            if gap < 0:
                hit, best = True, min(best, float(square.detach()) ** 0.5)
            adam.zero_grad()
            (square + c * gap.clamp_min(0)).backward()
            adam.step()
        low, high = (low, c) if hit else (c, high)
        c = c * 10 if high == math.inf else (low + high) / 2
    return best, weights


def test_it_finds_what_the_formula_of_the_paper_finds(net, x):
    net, x = net.double(), x[:3].double()
    goal = goal_of(net, x)
    out = run(paper(rounds=8, each=30, rate=0.05, weight=1.0), net, x, goal, am.L2())
    for i in range(len(x)):
        best, _ = reference(net, x[i], int(goal.label[i]), 8, 30, 0.05, 1.0)
        assert float(out.size[i]) == pytest.approx(best, rel=1e-4)


@pytest.mark.slow
def test_at_the_paper_s_settings_it_is_adv_lib_s(net, x):
    """adv_lib 0.2.8, carlini_wagner_l2(max_iterations=200, abort_early=False): 40 of 40, median .3744, mean .5016."""
    out = run(paper(), net, x, goal_of(net, x), am.L2())
    assert out.broken.all()
    assert float(out.size.median()) == pytest.approx(0.3744, abs=5e-4)
    assert float(out.size.mean()) == pytest.approx(0.5016, abs=1e-3)


def test_the_defaults_find_less_in_a_tenth_of_the_passes(net, x):
    out = run(CarliniWagner(), net, x, goal_of(net, x), am.L2())
    assert out.broken.all()
    assert (out.forwards <= 181).all()
    assert out.size.median() < 0.3744
    assert out.size.mean() < 0.5016


def test_the_weight_is_sought_for_each_row_by_itself():
    """CleverHans multiplies every row's weight with every row's loss, and its search freezes at the first success."""
    search, seen = Search.of(1.0, 9, torch.zeros(2, 3)), []
    for first, second in ((1, 0), (0, 0), (0, 1), (0, 1), (1, 0)):
        fooled = torch.tensor([first, second]).bool()
        search, over = search.after(fooled, torch.ones(2), each=1, abort=False)
        assert over.all()
        seen.append(search.weight.tolist())
    assert [a for a, _ in seen] == [0.5, 0.75, 0.875, 0.9375, 0.90625]
    assert [b for _, b in seen] == [10.0, 100.0, 55.0, 32.5, 43.75]


def test_rows_give_up_each_for_itself(net, x):
    """In other libraries a round ends when the sum over the batch, or every row, gains nothing any more."""
    goal = goal_of(net, x)
    attack = paper(rounds=3, each=60, rate=0.1, weight=1.0, abort=True)
    out = run(attack, net, x, goal, am.L2())
    assert out.broken.all()
    assert len(out.forwards.unique()) > 5
    assert (out.forwards < 181).any()
    for i in range(4):
        one = run(attack, net, x[i : i + 1], take(goal, torch.tensor([i])), am.L2())
        assert torch.equal(one.forwards[0], out.forwards[i])
        assert torch.equal(one.x_adv[0], out.x_adv[i])


class Shifted(nn.Module):
    """The same network, whose logits are all far below zero."""

    def __init__(self, net, by):
        super().__init__()
        self.net, self.by = net, by

    def forward(self, z):
        return self.net(z) - self.by


def test_the_height_of_the_logits_does_not_matter(net, x):
    """torchattacks takes the best other logit to be at least 0: no success where all are negative."""
    net, x = net.double(), x.double()
    goal = goal_of(net, x)
    plain, low = (run(CarliniWagner(), f, x, goal, am.L2()) for f in (net, Shifted(net, 100.0)))
    assert low.broken.all()
    assert torch.allclose(plain.size, low.size, rtol=0.02)


def test_entries_at_the_edges_of_the_box_move():
    """artanh is infinite there; in torchattacks such entries never move."""
    x = Rng.of(3, 12).uniform(1, 4, 4).round()
    net = Affine((1, 4, 4), 2)
    out = run(CarliniWagner(), net, x, goal_of(net, x), am.L2())
    assert out.broken.all()
    assert out.x_adv.isfinite().all()
    assert ((out.x_adv - x).abs() > 1e-3).any()


def test_a_row_that_stands_is_given_back_near_its_input(net, x):
    """Foolbox gives back a black picture."""
    out = run(paper(rounds=1, each=3), net, x, goal_of(net, x), am.L2())
    stands = out.status == Status.ROBUST
    assert stands.sum() > 30
    assert (out.size[stands] < 0.5).all()


def test_what_may_not_change_does_not(net, x):
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :, :4] = True
    out = run(CarliniWagner(), net, x, goal_of(net, x), am.L2(mask=am.batch.Shared(mask)))
    assert out.broken.any()
    assert torch.equal(out.x_adv[..., 4:], x[..., 4:])


def test_targets_are_reached(net, x):
    label = goal_of(net, x).label
    out = run(CarliniWagner(), net, x, Targeted(label, (label + 1) % 4), am.L2())
    assert out.broken.all()


def test_an_endless_box_is_refused(net, x):
    with pytest.raises(InputError, match="needs a finite box"):
        run(CarliniWagner(), net, x, goal_of(net, x), am.L2(box=(0.0, math.inf)))


@pytest.mark.slow
def test_on_a_defended_network_it_finds_less_than_the_peers_in_a_fifth_of_their_passes():
    """First 100 test images. Foolbox 3.3.4, 5 x 200: 922 passes, 91 rows, median 3.91; CleverHans 82 rows, 2.71."""
    weights, data = MODELS / "mnist_cnn_pgd.safetensors", DATA / "mnist.npz"
    if not (weights.exists() and data.exists()):
        pytest.skip(f"needs {weights.name} (ADAMANT_MODELS_DIR) and mnist.npz (ADAMANT_DATA_DIR)")
    model = load_model(weights, arch="zoo:cnn", shape=(1, 28, 28), classes=10)
    with np.load(data, allow_pickle=False) as held:
        x, y = torch.from_numpy(held["x_test"][:100])[:, None].float() / 255, torch.from_numpy(held["y_test"][:100])
    out = run(CarliniWagner(), model, x, Untargeted(y.long()), am.L2())
    assert out.broken.all()
    assert (out.forwards <= 922 / 5).all()
    assert out.size.median() < 2.45


# ---------------------------------------------------------------------------------------------------------------------
# The elastic net


def elastic(net, x, label, rounds, each, rate, beta, c):
    """Chen et al., section 4 (FISTA), for one input, judged where the gradient is taken: the smallest L1 success."""
    low, high, best = 0.0, math.inf, math.inf
    for _ in range(rounds):
        here, y, hit = x, x, False
        for k in range(each):
            y = y.detach().requires_grad_(True)
            logits = net(y[None])[0]
            gap = logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).max()
            g = torch.autograd.grad((y - x).square().sum() + c * gap.clamp_min(0), y)[0]
            if gap < 0:
                hit, best = True, min(best, float((y.detach() - x).abs().sum()))
            v = y.detach() - rate * (1 - k / each) ** 0.5 * g
            up, down = (v - beta).clamp(max=1), (v + beta).clamp(min=0)
            before, here = here, torch.where(v - x > beta, up, torch.where(v - x < -beta, down, x))
            y = (here + k / (k + 3) * (here - before)).clamp(0, 1)
        low, high = (low, c) if hit else (c, high)
        c = c * 10 if high == math.inf else (low + high) / 2
    return best


def test_the_elastic_net_finds_what_the_formula_of_its_paper_finds(net, x):
    net, x = net.double(), x[:4].double()
    goal = goal_of(net, x)
    before = x.clone()
    out = run(EAD(rounds=5, each=20, rate=0.05, weight=0.1), net, x, goal, am.L1())
    assert torch.equal(x, before)  # torchattacks writes into its input
    for i in range(len(x)):
        best = elastic(net, x[i], int(goal.label[i]), 5, 20, 0.05, 0.01, 0.1)
        assert float(out.size[i]) == pytest.approx(best, rel=1e-6)


@pytest.mark.slow
def test_the_figures_of_the_elastic_net_are_foolbox_s_at_half_its_forwards(net, x):
    """Foolbox 3.3.4, EADAttack(9 x 100, decision_rule="L1", abort_early=False): 1800 forwards, 1.0972, mean 1.3411."""
    out = run(EAD(), net, x, goal_of(net, x), am.L1())
    assert out.broken.all()
    assert (out.forwards <= 901).all()
    assert out.size.median() <= 1.0972 * 1.005
    assert out.size.mean() <= 1.3411 * 1.005


def test_a_row_of_the_elastic_net_does_not_know_its_batch(net, x):
    """In torchattacks the labels of all rows count for each."""
    goal, attack = goal_of(net, x), EAD(rounds=4, each=20, rate=0.05, weight=0.1, abort=True)
    out = run(attack, net, x, goal, am.L1())
    for i in range(4):
        one = run(attack, net, x[i : i + 1], take(goal, torch.tensor([i])), am.L1())
        assert torch.equal(one.x_adv[0], out.x_adv[i])
        assert torch.equal(one.forwards[0], out.forwards[i])


def test_where_the_elastic_net_fails_the_row_is_near_its_input(net, x):
    """Foolbox gives back a black picture."""
    out = run(EAD(rounds=1, each=3), net, x, goal_of(net, x), am.L1())
    assert (out.size[out.status == Status.ROBUST] < 0.5).all()


# ---------------------------------------------------------------------------------------------------------------------
# Linf


def falling(net, x, label, a):
    """Section VI.C for one input, Adam by torch: every point where the gradient was taken, until it is given up."""
    height, weight, w, path = 1.0, a.weight, ((2 * x - 1) * (1 - 1e-6)).atanh(), []
    start = w.clone()
    while height > a.least and weight <= a.most and len(path) < a.steps:
        w = w.detach().requires_grad_(True)
        adam, age = torch.optim.Adam([w], lr=a.rate), 0
        while len(path) < a.steps:
            d = (w.tanh() - start.tanh()) / 2
            logits = net((x + d).clamp(0, 1)[None])[0]
            gap = (logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).max()).clamp_min(0)
            over = (d.abs() - height).clamp_min(0).sum()
            if int(logits.argmax()) != label and float((over + weight * gap).detach()) < 1e-4 * weight:
                height = a.shrink * min(height, float(d.detach().abs().max()))
                break
            if age and age % a.each == 0:
                weight *= 2
                if weight > a.most:
                    return path
            path.append((x + d).detach().clamp(0, 1))
            adam.zero_grad()
            (over + weight * gap).backward()
            adam.step()
            age += 1
    return path


def test_linf_goes_where_the_formula_of_the_paper_goes(net, x):
    net, x = net.double(), x[:3].double()
    goal, attack, points = (
        goal_of(net, x),
        CarliniWagnerLinf(steps=100, each=20),
        [],
    )  # later, rounding near the edges grows

    class Spy:
        needs, minimal, steps, loss = attack.needs, True, attack.steps, attack.loss

        def init(self, p):
            return attack.init(p)

        def step(self, p, s, seen, t):
            points.append(s.z)
            return attack.step(p, s, seen, t)

    out = run(Spy(), net, x, goal, am.Linf())
    assert out.broken.all()
    for i in range(len(x)):
        want = torch.stack(falling(net, x[i], int(goal.label[i]), attack))
        assert len(want) > 60
        assert torch.allclose(torch.stack([z[i] for z in points[: len(want)]]), want, atol=1e-4)


@pytest.mark.slow
def test_linf_finds_what_adv_lib_finds():
    """adv_lib 0.2.8, one by one (rate .05, 50 steps, weight from .1): 17 of 20, median .5157, 535 forwards each."""
    weights, data = MODELS / "mnist_cnn_pgd.safetensors", DATA / "mnist.npz"
    if not (weights.exists() and data.exists()):
        pytest.skip(f"needs {weights.name} (ADAMANT_MODELS_DIR) and mnist.npz (ADAMANT_DATA_DIR)")
    model = load_model(weights, arch="zoo:cnn", shape=(1, 28, 28), classes=10)
    with np.load(data, allow_pickle=False) as held:
        x, y = torch.from_numpy(held["x_test"][:20])[:, None].float() / 255, torch.from_numpy(held["y_test"][:20])
    out = run(CarliniWagnerLinf(), model, x, Untargeted(y.long()), am.Linf())
    assert out.broken.all()
    assert out.forwards.double().mean() < 535
    assert out.size.median() < 0.5157


def test_a_row_of_linf_does_not_know_its_batch(net, x):
    """In adv_lib a round ends when all rows are solved (.317 apart); here each for itself."""
    goal, attack = goal_of(net, x), CarliniWagnerLinf(steps=120, each=10, weight=0.3)
    out = run(attack, net, x, goal, am.Linf())
    for i in range(4):
        one = run(attack, net, x[i : i + 1], take(goal, torch.tensor([i])), am.Linf())
        assert torch.equal(one.x_adv[0], out.x_adv[i])
        assert torch.equal(one.forwards[0], out.forwards[i])


def test_linf_stops_where_it_is_low_enough_or_the_weight_is_too_large(net, x):
    goal = goal_of(net, x)
    low = run(CarliniWagnerLinf(least=0.3), net, x, goal, am.Linf())
    hard = run(CarliniWagnerLinf(weight=1e-9, most=1e-8, each=5), net, x, goal, am.Linf())
    assert low.broken.all()
    assert (low.forwards < 400).all()
    assert (hard.forwards < 40).all()


def test_linf_reaches_targets_and_refuses_an_endless_box(net, x):
    label = goal_of(net, x).label
    goal = Targeted(label, (label + 1) % 4)
    assert run(CarliniWagnerLinf(), net, x, goal, am.Linf()).broken.all()
    with pytest.raises(InputError, match="needs a finite box"):
        run(CarliniWagnerLinf(), net, x, goal, am.Linf(box=(0.0, math.inf)))
