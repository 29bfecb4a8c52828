"""NIFGSM, AdamPGD, FrankWolfe and momentum against their formulas, and the bugs of other libraries."""

import pytest
import torch
from torch import nn

import adamant as am
from adamant.access import WhiteBox
from adamant.attacks.gradient import MIFGSM, NIFGSM, PGD, AdamPGD, FrankWolfe, _farthest
from adamant.attacks.starts import Here, Near
from adamant.batch import Shared
from adamant.calling import Caller, Settings
from adamant.desk import Blind, Problem
from adamant.engine import perturb, run
from adamant.goals import Diverge, Untargeted
from adamant.losses import KL, CrossEntropy
from adamant.random import Rng
from adamant.testing import Bent
from adamant.testing.oracles import _gain
from adamant.threats import L1, L2, Linf

SHAPE, CLASSES, ROWS = (1, 6, 6), 5, 12


@pytest.fixture
def net():
    return Bent(SHAPE, CLASSES, seed=2, dtype=torch.float64).eval().requires_grad_(False)


@pytest.fixture
def x():
    return (Rng.of(11, ROWS).uniform(*SHAPE, dtype=torch.float64) * 1.5 - 0.25).clamp(0, 1)


@pytest.fixture
def goal(net, x):
    return Untargeted(net(x).argmax(1))


def problem(net, x, goal, threat):
    desk = Blind(Caller(net, Settings(lanes=1)))
    return Problem(x, goal, goal, threat, WhiteBox(), Rng.of(0, len(x)), torch.arange(len(x)), desk)


def gradient(net, z, goal):
    z = z.clone().requires_grad_(True)
    return torch.autograd.grad(CrossEntropy()(net(z), goal).sum(), z)[0]


def row_sums(v):
    return v.flatten(1).sum(1).view(-1, 1, 1, 1)


def last(attack, net, x, goal, threat):
    return perturb(attack, net, x, goal, threat, rng=Rng.of(0, len(x)))


def test_momentum_gathers_gradients_and_takes_their_sign_afterwards(net, x, goal):
    """Foolbox 3.3.4 takes the sign of each gradient before it enters the momentum."""
    z, m = x, torch.zeros_like(x)
    for _ in range(10):
        g = gradient(net, z, goal)
        m = m + g / row_sums(g.abs())
        z = (z + 0.008 * m.sign()).clamp(x - 0.08, x + 0.08).clamp(0, 1)
    torch.testing.assert_close(last(MIFGSM(), net, x, goal, Linf(0.08)), z, rtol=0, atol=1e-9)


def test_nesterov_looks_ahead(net, x, goal):
    """Lin et al., 2020, section 3.1; gradients at a mean of one as in the authors' code, the look ahead projected."""
    eps, alpha, mu = 0.08, 0.008, 0.9
    within = lambda z: z.clamp(x - eps, x + eps).clamp(0, 1)  # noqa: E731
    z, m = x, torch.zeros_like(x)
    for _ in range(10):
        g = gradient(net, within(z + alpha * mu * m), goal)
        m = mu * m + g / (row_sums(g.abs()) / x[0].numel())
        z = within(z + alpha * m.sign())
    found = last(NIFGSM(decay=mu), net, x, goal, Linf(eps))
    torch.testing.assert_close(found, z, rtol=0, atol=1e-9)
    assert not torch.allclose(found, last(MIFGSM(decay=mu), net, x, goal, Linf(eps)))


def test_adam_is_adam(net, x, goal):
    """torch.optim.Adam, followed by the projection."""
    z = x.clone().requires_grad_(True)
    adam = torch.optim.Adam([z], lr=0.005, betas=(0.9, 0.999), eps=0, maximize=True)
    for _ in range(20):
        z.grad = gradient(net, z.detach(), goal)
        adam.step()
        with torch.no_grad():
            z.copy_(z.clamp(x - 0.05, x + 0.05).clamp(0, 1))
    found = last(AdamPGD(steps=20, start=Here()), net, x, goal, Linf(0.05))
    torch.testing.assert_close(found, z.detach(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_adam_knows_no_unit_of_the_loss(x, goal, scale):
    """Losses so flat that the square of their gradient is zero in float32, or so steep that it is infinite."""

    class Steep(nn.Module):
        def forward(self, z):
            out = z.flatten(1)[:, :CLASSES] * scale
            return out - out.detach()[:, :1] + torch.arange(CLASSES, 0, -1) * scale

    label = torch.zeros(ROWS, dtype=torch.long)
    z = last(AdamPGD(steps=5, loss=am.Margin()), Steep(), x.float(), Untargeted(label), Linf(0.05))
    assert z.isfinite().all()
    assert Linf(0.05).contains(z, x.float()).all()


@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.8), L1(2.0)], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_oracle_of_frank_wolfe_is_exact_within_ball_and_box(net, x, goal, threat, dtype):
    """Against the linear programmes of `adamant.testing`."""
    x, g = x.to(dtype), Rng.of(3, ROWS).normal(*SHAPE, dtype=dtype)
    v = _farthest(problem(net, x, goal, threat), g)
    assert threat.contains(v, x).all()
    won = ((v - x).double() * g.double()).flatten(1).sum(1)
    eps = threat.budget(x).double()[:, None]
    best = _gain(g.double().flatten(1), x.double().flatten(1), eps, threat)
    torch.testing.assert_close(won, best, rtol=2e-3, atol=0)


def test_frank_wolfe_goes_part_of_the_way_to_the_corner(net, x, goal):
    """Chen et al., 2020, algorithm 1, with the sign as the solution of its linear programme."""
    z, m = x, gradient(net, x, goal)
    for _ in range(15):
        m = 0.9 * m + 0.1 * gradient(net, z, goal)
        v = (x + 0.08 * m.sign()).clamp(0, 1)
        z = z + 0.1 * (v - z)
    found = last(FrankWolfe(steps=15), net, x, goal, Linf(0.08))
    off = (found - z).abs()
    assert (off > 1e-9).double().mean() < 0.02  # an entry whose momentum is nearly zero is not sent all the way
    assert off.max() < 0.008


@pytest.mark.parametrize("attack", [MIFGSM(), NIFGSM(), AdamPGD(steps=10), FrankWolfe(steps=10)], ids=repr)
def test_one_look_without_a_gradient_stops_no_row(net, x, goal, attack):
    """In torchattacks one zero gradient makes the momentum NaN, for good."""

    class Odd(nn.Module):
        calls = 0

        def forward(self, z):
            self.calls += 1
            return net(z) * {1: 0.0, 2: torch.nan}.get(self.calls, 1.0)

    z = last(attack, Odd(), x, goal, Linf(0.08))
    assert z.isfinite().all()
    assert (CrossEntropy()(net(z), goal) > CrossEntropy()(net(x), goal) - 1e-3).all()
    assert CrossEntropy()(net(z), goal).mean() > 2 * CrossEntropy()(net(x), goal).mean()


def test_entries_that_may_not_change_do_not(net, x, goal):
    mask = Shared(Rng.of(5, 1).uniform(*SHAPE)[0] < 0.5)
    for attack in (NIFGSM(), AdamPGD(), FrankWolfe()):
        z = last(attack, net, x, goal, Linf(0.08, mask=mask))
        assert torch.equal(z[:, ~mask.values], x[:, ~mask.values])
        assert (z != x).any()


def test_every_step_stays_among_the_members(net, x, goal):
    for attack, threat in ((NIFGSM(), L2(0.5)), (NIFGSM(), L1(1.0)), (FrankWolfe(), L1(1.0)), (AdamPGD(), Linf(0.1))):
        p = problem(net, x, goal, threat)
        s = attack.init(p)
        for t in range(attack.steps):
            s = attack.step(p, s, p.look(s.z, attack.loss, grad=True), t)
            assert threat.contains(s.z, x).all()


def test_frank_wolfe_and_nesterov_break_what_pgd_breaks(net, x, goal):
    for threat in (Linf(0.04), L2(0.25), L1(0.7)):
        want = run(PGD(), net, x, goal, threat).broken.sum()
        for attack in (NIFGSM(steps=40), FrankWolfe(rate=0.2)):
            assert run(attack, net, x, goal, threat).broken.sum() >= want - 1


def test_the_inner_problem_of_trades(net, x):
    """KL from the clean prediction, climbed from near the input: zero with zero slope there, and then it grows."""
    reference = net(x)
    goal, threat = Diverge(reference), Linf(0.05)
    assert gradient_of_kl(net, x, goal).abs().max() < 1e-9
    z = last(PGD(steps=10, rate=0.25, loss=KL(), start=Near()), net, x, goal, threat)
    assert threat.contains(z, x).all()
    random = threat.sample(x, Rng.of(1, ROWS))
    assert (KL()(net(z), goal) > KL()(net(random), goal)).all()
    one_long = last(PGD(steps=1, rate=1.0, loss=KL(), start=Near()), net, x, goal, threat)
    assert KL()(net(z), goal).mean() > KL()(net(one_long), goal).mean()


def gradient_of_kl(net, x, goal):
    z = x.clone().requires_grad_(True)
    return torch.autograd.grad(KL()(net(z), goal).sum(), z)[0]
