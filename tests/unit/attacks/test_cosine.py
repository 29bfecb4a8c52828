"""CosinePGD: the steps of the paper, one by one; and the wide ball, which is the budget again by the middle."""

import math

import pytest
import torch

import adamant as am
from adamant.attacks import CosinePGD
from adamant.attacks.starts import Here
from adamant.batch import PerRow
from adamant.calling import untouched
from adamant.engine import perturb, run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.random import Rng
from adamant.testing import Bent
from adamant.threats import L2, Linf

SHAPE, ROWS, CLASSES = (1, 5, 5), 24, 4


@pytest.fixture
def net():
    return Bent(SHAPE, CLASSES, dtype=torch.float64).eval().requires_grad_(False)


@pytest.fixture
def x():
    return Rng.of(3, ROWS).uniform(*SHAPE, dtype=torch.float64)


@pytest.fixture
def goal(net, x):
    return Untargeted(net(x).argmax(1))


def last(attack, net, x, goal, threat):
    with untouched(net):
        return perturb(attack, net, x, goal, threat, rng=Rng.of(0, len(x)))


def gradient(net, z, score):
    z = z.detach().requires_grad_()
    return torch.autograd.grad(score(net(z)).sum(), z)[0]


def margin(goal):
    """The best other logit less the label's; of a target, its logit less the best other."""
    own = goal.target if isinstance(goal, Targeted) else goal.label
    sign = -1 if isinstance(goal, Targeted) else 1

    def score(logits):
        held = torch.nn.functional.one_hot(own, CLASSES).bool()
        return sign * (logits.masked_fill(held, -math.inf).amax(1) - logits[held])

    return score


def sphere(z, x, eps):
    """To the ball around x; the box is made so large that it never matters."""
    d = (z - x).flatten(1)
    return x + (d * (eps / d.norm(dim=1, keepdim=True).clamp_min(eps))).view_as(x)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_on_linf_it_takes_the_steps_of_the_paper(net, x, goal, steps, targeted):
    """Liu et al., 2022: eta_t = (1 + cos(t pi / T)) / 2 of the budget, 0.75 of the step and 0.25 of the last move."""
    eps = 0.07
    goal = Targeted(goal.label, (goal.label + 1) % CLASSES) if targeted else goal
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    z = before = low + (high - low) * Rng.of(0, ROWS).fold("start").uniform(*SHAPE, dtype=x.dtype)
    for t in range(steps):
        rate = eps * (1 + math.cos(math.pi * t / steps)) / 2
        aside = (z + rate * gradient(net, z, margin(goal)).sign()).clamp(low, high)
        if t:
            aside = (z + 0.75 * (aside - z) + 0.25 * (z - before)).clamp(low, high)
        z, before = aside, z
    found = last(CosinePGD(steps=steps), net, x, goal, Linf(eps))
    torch.testing.assert_close(found, z, rtol=0, atol=1e-6)  # projections stop a hair inside


def test_the_first_step_is_the_whole_rate_and_the_middle_one_half_of_it(net, x, goal):
    """From the input, on a ball that never binds: how far it goes is the step itself."""
    threat = Linf(0.1, box=(-9.0, 9.0))
    one = last(CosinePGD(steps=1, rate=0.5, start=Here()), net, x, goal, threat)
    moved = (one - x).abs().flatten(1).amax(1)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.05), rtol=1e-4, atol=0)
    two = last(CosinePGD(steps=2, rate=0.5, momentum=0.0, start=Here()), net, x, goal, threat)
    far = (two - one).abs().flatten(1).amax(1)
    torch.testing.assert_close(far, torch.full_like(far, 0.025), rtol=1e-4, atol=0)


@pytest.mark.parametrize("wide", [1.0, 2.5])
def test_on_l2_the_ball_shrinks_along_a_cosine_until_the_middle(net, x, goal, wide):
    eps, steps, threat = 0.3, 8, L2(0.3, box=(-50.0, 50.0))
    z = before = threat.sample(x, Rng.of(0, ROWS).fold("start"))
    for t in range(steps):
        ball = eps * (1 + (wide - 1) * (1 + math.cos(math.pi * min(1, 2 * (t + 1) / steps))) / 2)
        g = gradient(net, z, margin(goal)).flatten(1)
        rate = eps * (1 + math.cos(math.pi * t / steps)) / 2
        aside = sphere(z + rate * (g / g.norm(dim=1, keepdim=True)).view_as(z), x, ball)
        if t:
            aside = sphere(z + 0.75 * (aside - z) + 0.25 * (z - before), x, ball)
        z, before = aside, z
    found = last(CosinePGD(steps=steps, wide=wide), net, x, goal, threat)
    torch.testing.assert_close(found, z, rtol=0, atol=1e-4)
    assert threat.contains(found, x).all()


class Watched(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, z):
        self.seen.append(z.detach().clone())
        return self.net(z)


def test_a_wide_ball_is_left_by_the_middle_and_only_points_inside_count(net, x, goal):
    eps, steps, threat = 0.05, 10, Linf(0.05)
    spy = Watched(net)
    with untouched(spy):
        perturb(CosinePGD(steps=steps, wide=3.0), spy, x, goal, threat, rng=Rng.of(0, len(x)))
    far = torch.stack([threat.size(z, x).max() for z in spy.seen])
    assert far[0] <= eps  # the start
    assert far[1] > 1.5 * eps  # then the wide ball
    assert (far[5:] <= eps).all()
    assert far.max() <= 3 * eps
    outcomes = {w: run(CosinePGD(steps=steps, wide=w), net, x, goal, threat) for w in (1.0, 3.0, 50.0)}
    for out in outcomes.values():
        assert threat.contains(out.x_adv, x).all()
        assert not (out.status == am.Status.INVALID).any()
        assert (out.size <= eps).all()
        assert not out.broken.all()
    assert not torch.equal(outcomes[1.0].x_adv, outcomes[3.0].x_adv)
    tiny = run(CosinePGD(steps=steps, wide=1000.0), net, x, goal, Linf(1e-6))  # the wide ball is full of successes
    assert not tiny.broken.any()


def test_budgets_of_rows_are_widened_each_by_itself(net, x, goal):
    eps = torch.linspace(0.01, 0.1, ROWS, dtype=torch.float64)
    mixed = last(CosinePGD(steps=6, wide=2.0), net, x, goal, Linf(PerRow(eps)))
    for i in (0, 11, 23):
        alone = perturb(
            CosinePGD(steps=6, wide=2.0), net, x[i : i + 1], Untargeted(goal.label[i : i + 1]), Linf(float(eps[i])),
            rng=Rng.of(0, torch.tensor([i])),
        )  # fmt: skip
        torch.testing.assert_close(mixed[i : i + 1], alone, rtol=0, atol=1e-9)


def test_what_it_costs_and_what_it_refuses(net, x, goal):
    out = run(CosinePGD(steps=9), net, x, goal, Linf(1e-6))
    assert out.forwards.unique().tolist() == [10]
    assert out.backwards.unique().tolist() == [9]
    for wide in (0.5, -1.0, math.nan):
        with pytest.raises(InputError, match="wide is at least 1"):
            run(CosinePGD(wide=wide), net, x, goal, Linf(0.1))
