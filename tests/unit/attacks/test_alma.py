"""ALMA beside the paper's update written out, the figures of adv_lib, and its crashes."""

import math

import pytest
import torch

import adamant as am
from adamant.attacks.alma import ALMA, Share
from adamant.engine import run
from adamant.goals import Targeted, Untargeted
from adamant.random import Rng
from adamant.testing import Affine, Bent


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


def penalised(y, rho, mu):
    """P2 of the paper."""
    return mu * y + mu * rho * y**2 + rho**2 * y**3 / 6 if y >= 0 else mu * y / (1 - rho * y)


def reference(net, x, label, steps, rate):
    """Rony et al., algorithm 1, for one input in L2 on an unbounded box, derivatives by torch: the iterates."""
    d, square, momentum = torch.zeros_like(x), torch.ones_like(x), torch.zeros_like(x)
    mu, rho, found, before, path = torch.tensor(1.0).double(), 1.0, None, None, []
    for k in range(steps):
        d = d.detach().requires_grad_(True)
        logits = net((x + d)[None])[0]
        top = logits.sort(descending=True).values
        gap = logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).max()
        y = gap / (top[0] - top[2]) + 1e-4
        before = y.detach() if k == 0 else before
        if (k + 1) % 10 == 0:
            rho = rho if found is not None or y < 0.95 * before else 1.2 * rho
            before = y.detach()
        if k:
            v = y.detach().requires_grad_(True)
            mu = (0.9 * mu + 0.1 * torch.autograd.grad(penalised(v, rho, mu), v)[0]).clamp(1e-6, 1e12)
        g = torch.autograd.grad(penalised(y, rho, mu) + (d.norm() if k else 0), d)[0]
        rate = 0.1 / float(g.norm()) if k == 0 else rate
        found = k if found is None and gap < 0 else found
        share = 0.0 if found is None else (k - found) / (steps - found)
        square = 0.9 * square + 0.1 * g * g
        momentum = 0.9 * momentum + g / (square.sqrt() + 1e-8)
        d = d.detach() - rate * 0.01**share * momentum
        path.append(x + d)
    return path


def test_every_step_is_that_of_the_paper(net, x):
    net, x = net.double(), x[:6].double()
    goal, states, step = goal_of(net, x), [], ALMA.step
    attack = ALMA(steps=40)

    class Spy:
        needs, minimal, steps, loss = attack.needs, True, attack.steps, attack.loss

        def init(self, p):
            return attack.init(p)

        def step(self, p, s, seen, t):
            states.append(step(attack, p, s, seen, t))
            return states[-1]

    run(Spy(), net, x, goal, am.L2(box=(-math.inf, math.inf)))
    for i in range(len(x)):
        for ours, theirs in zip(states, reference(net, x[i], int(goal.label[i]), 40, 0.0), strict=True):
            assert torch.allclose(ours.z[i], theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("threat", "median", "mean"),
    # adv_lib 0.2.8, alma(num_steps=100, init_lr_distance=.1 and .5): all 40 rows.
    [(am.L2(), 0.3312, 0.4341), (am.L1(), 1.3499, 1.4041)],
)
def test_its_figures_are_adv_lib_s(net, x, threat, median, mean):
    out = run(ALMA(), net, x, goal_of(net, x), threat)
    assert out.broken.all()
    assert out.size.median() <= median * 1.01
    assert out.size.mean() <= mean * 1.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes_and_double_precision_are_no_trouble(dtype, targeted, classes):
    """adv_lib's crashes with two classes (targeted: three) and in float64."""
    net, x = Affine((6,), classes, dtype=dtype), Rng.of(0, 12).uniform(6, dtype=dtype)
    label = goal_of(net, x).label
    goal = Targeted(label, (label + 1) % classes) if targeted else Untargeted(label)
    out = run(ALMA(), net, x, goal, am.L2())
    assert out.broken.double().mean() > 0.5
    assert out.x_adv.dtype == dtype


def test_the_share_is_positive_exactly_where_the_goal_is_reached():
    logits = Rng.of(0, 200).normal(6)
    label, target = torch.zeros(200, dtype=torch.long), torch.ones(200, dtype=torch.long)
    for goal in (Untargeted(label), Targeted(label, target)):
        assert torch.equal(Share()(logits, goal) > 0, goal.reached(logits))
        assert torch.allclose(Share()(logits, goal), Share()(3 * logits + 7, goal), atol=1e-4)
