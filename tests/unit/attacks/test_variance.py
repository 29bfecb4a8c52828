"""VMI-FGSM and VNI-FGSM: against their formulas, and whether examples carry further."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import adamant as am
from adamant.attacks.variance import VMIFGSM
from adamant.batch import Shared
from adamant.engine import perturb, run
from adamant.errors import InputError
from adamant.evaluation import transfer
from adamant.goals import Untargeted
from adamant.losses import CrossEntropy
from adamant.models import Ensemble
from adamant.random import Rng
from adamant.testing import Affine, Bent
from adamant.threats import L2, Linf
from adamant.variety import Jitter, Varied

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


def gradient(net, z, goal):
    z = z.clone().requires_grad_(True)
    return torch.autograd.grad(CrossEntropy()(net(z), goal).sum(), z)[0]


def last(attack, net, x, goal, threat, access=None):
    return perturb(attack, net, x, goal, threat, rng=Rng.of(0, len(x)), access=access)


@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_the_formula_of_the_paper(net, x, goal, nesterov):
    """Wang & He, 2021, algorithm 1; gradients at a mean of one, and neighbours of where it is, as the authors' code.

    With Nesterov's look ahead projected, as that of NIFGSM is.
    """
    eps, alpha, mu, n, beta = 0.08, 0.008, 0.9, 4, 1.5
    within = lambda z: z.clamp(x - eps, x + eps).clamp(0, 1)  # noqa: E731
    z, m, v = x, torch.zeros_like(x), torch.zeros_like(x)
    for t in range(10):
        g = gradient(net, within(z + alpha * mu * m) if nesterov else z, goal)
        tuned = g + v
        m = mu * m + tuned / tuned.abs().mean((1, 2, 3), keepdim=True)
        low, high = (z - beta * eps).clamp(0, 1), (z + beta * eps).clamp(0, 1)
        draws = [Rng.of(0, ROWS).fold("neighbours").fold(t).fold(i) for i in range(n)]
        near = [low + (high - low) * draw.uniform(*SHAPE, dtype=x.dtype) for draw in draws]
        v = torch.stack([gradient(net, q, goal) for q in near]).mean(0) - g
        z = within(z + alpha * m.sign())
    found = last(VMIFGSM(decay=mu, neighbours=n, nesterov=nesterov), net, x, goal, Linf(eps))
    torch.testing.assert_close(found, z, rtol=0, atol=1e-7)  # the projection stops a hair inside
    other = am.NIFGSM(decay=mu) if nesterov else am.MIFGSM(decay=mu)
    assert not torch.allclose(found, last(other, net, x, goal, Linf(eps)), atol=1e-3)


def test_where_the_gradient_is_the_same_everywhere_there_is_nothing_to_tune(x):
    net = Affine(SHAPE, 2, seed=1, dtype=torch.float64).requires_grad_(False)
    goal = Untargeted(net(x).argmax(1))
    for threat in (Linf(0.01), L2(0.05)):
        plain, tuned = am.MIFGSM(loss=am.Margin()), VMIFGSM(neighbours=2, loss=am.Margin())
        torch.testing.assert_close(last(plain, net, x, goal, threat), last(tuned, net, x, goal, threat))


def test_passes_are_counted_and_the_last_step_asks_no_neighbour(net, x, goal):
    out = run(VMIFGSM(steps=3, neighbours=5), net, x, goal, Linf(1e-6))
    assert out.forwards.unique().tolist() == [3 + 1 + 2 * 5]
    assert out.backwards.unique().tolist() == [3 + 2 * 5]


def test_neighbours_outside_of_the_budget_are_no_successes(net, x, goal):
    """They reach half again as far as the budget: what they show there must not count."""
    out = run(VMIFGSM(steps=5, reach=20.0, neighbours=6), net, x, goal, Linf(0.02))
    assert Linf(0.02).contains(out.x_adv, x).all()
    assert not out.broken.all()


def test_entries_that_may_not_change_do_not(net, x, goal):
    mask = Shared(Rng.of(5, 1).uniform(*SHAPE)[0] < 0.5)
    z = last(VMIFGSM(neighbours=2), net, x, goal, Linf(0.08, mask=mask))
    assert torch.equal(z[:, ~mask.values], x[:, ~mask.values])
    assert (z != x).any()


def test_without_neighbours_it_is_refused(net, x, goal):
    for attack in (VMIFGSM(neighbours=0), VMIFGSM(reach=0.0)):
        with pytest.raises(InputError, match="Variance tuning needs neighbours"):
            last(attack, net, x, goal, Linf(0.1))


def _digits():
    held = load_digits()
    return torch.from_numpy(held.images).float()[:, None] / 16, torch.from_numpy(held.target).long()


def _trained(net, seed, x, y):
    draw = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        bound = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.0
        parameter.data.uniform_(-bound, bound, generator=draw)
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(300):
        rows = torch.randint(len(x), (128,), generator=draw)
        adam.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        adam.step()
    return net.eval()


@pytest.fixture(scope="module")
def digits():
    """A convolutional and a dense network that know the digits, and pictures that they did not see."""
    x, y = _digits()
    conv = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    return _trained(conv, 0, x[:1200], y[:1200]), _trained(dense, 1, x[:1200], y[:1200]), x[1400:1700], y[1400:1700]


def test_examples_carry_further(digits):
    """From a convolutional network to a dense one and back: more examples fool the other than those of MIFGSM."""
    conv, dense, x, y = digits
    nets = {"conv": conv, "dense": dense}
    rates = [
        transfer(attack, nets, nets, x, Untargeted(y), Linf(0.2)).rate
        for attack in (am.MIFGSM(), VMIFGSM(neighbours=10), am.NIFGSM(), VMIFGSM(neighbours=10, nesterov=True))
    ]
    carried = [r["conv"]["dense"]["accuracy"] + r["dense"]["conv"]["accuracy"] for r in rates]
    assert carried[1] > carried[0] + 0.02
    assert carried[3] > carried[2] + 0.02


def test_it_combines_with_changed_copies_and_ensembles(digits):
    conv, dense, x, y = digits
    attack, goal = VMIFGSM(steps=3, rate=0.3, neighbours=2), Untargeted(y[:40])
    both = Ensemble(conv, dense)
    z = last(attack, both, x[:40], goal, Linf(0.2), access=Varied((Jitter(0.05),), n=2))
    assert Linf(0.2).contains(z, x[:40]).all()
    assert (both(z).argmax(1) != goal.label).double().mean() > 0.8
