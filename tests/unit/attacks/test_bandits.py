"""Bandits: the guess moves as the authors have it, two looks a step, and it learns the gradient."""

import pytest
import torch
from torch import nn

import adamant as am
from adamant.adversary import Status
from adamant.attacks.bandits import Bandits
from adamant.engine import run
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.testing import Affine, Bent

SHAPE = (2, 6, 6)


class Spy(nn.Module):
    """Answers as the network does, and keeps what it was asked."""

    def __init__(self, net):
        super().__init__()
        self.net, self.asked = net, []

    def forward(self, z):
        self.asked.append(z.clone())
        return self.net(z)


def labels(net, x):
    with torch.no_grad():
        return net(x).argmax(1)


def unit(v):
    return v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def authors(net, x, label, steps, norm, eps, rate, learning, explore, apart, tiles):
    """Algorithms 1 and 2 of arXiv:1807.07978: exponentiated gradient on (-1, 1) for Linf, plain for L2; all queries."""
    up = lambda v: v.repeat_interleave(6 // tiles, 2).repeat_interleave(6 // tiles, 3)  # noqa: E731
    loss = lambda z: nn.functional.cross_entropy(net(z), label, reduction="none").view(-1, 1, 1, 1)  # noqa: E731
    guess = torch.zeros(len(x), 2, tiles, tiles, dtype=x.dtype)
    z, asked = x, []
    for t in range(steps):
        noise = Rng.of(0, len(x)).fold("turn").fold(t).normal(2, tiles, tiles, dtype=x.dtype)
        noise = explore * noise / (2 * tiles * tiles) ** 0.5
        a, b = z + apart * unit(up(guess + noise)), z + apart * unit(up(guess - noise))
        asked += [a, b]
        g = (loss(a) - loss(b)) / (apart * explore) * noise
        if norm == "Linf":
            share = (guess + 1) / 2
            more, less = share * (learning * g).exp(), (1 - share) * (-learning * g).exp()
            guess = 2 * more / (more + less) - 1
            z = x + (z + eps * rate * up(guess).sign() - x).clamp(-eps, eps)
        else:
            guess = guess + learning * g
            z = z + eps * rate * unit(up(guess))
            z = x + (z - x) * (eps / (z - x).flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(max=1)
    return asked, z


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("tiles", [6, 3])
def test_every_query_is_the_authors(norm, tiles):
    """Steps too few to meet the edge of the budget, where the authors' queries would leave it."""
    net = Bent(SHAPE, 4, seed=5, dtype=torch.float64).eval()
    x = 0.3 + 0.4 * Rng.of(7, 8).uniform(*SHAPE, dtype=torch.float64)
    label, steps = labels(net, x), 6
    settings = {"rate": 0.1, "learning": 0.8, "explore": 0.3, "apart": 0.02}
    eps = 0.05 if norm == "Linf" else 0.3
    attack, spy = Bandits(steps=steps, tiles=tiles, **settings), Spy(net)
    out = run(attack, spy, x, Untargeted(label), getattr(am, norm)(eps), settings=am.Settings(lanes=1))
    with torch.no_grad():
        asked, last = authors(net, x, label, steps, norm, eps, tiles=tiles, **settings)
    stood = out.status == Status.ROBUST
    assert stood.all()
    for got, want in zip(spy.asked[1:], [*asked, last], strict=True):
        torch.testing.assert_close(got, want, atol=1e-9, rtol=0)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_two_looks_a_step_and_the_last_point_inside_the_budget(norm):
    net = Affine(SHAPE, 4, seed=1)
    x = Rng.of(7, 30).uniform(*SHAPE)
    threat = getattr(am, norm)(0.002)
    spy = Spy(net)
    out = run(Bandits(steps=20), spy, x, Untargeted(labels(net, x)), threat, settings=am.Settings(lanes=1))
    stood = out.status == Status.ROBUST
    assert stood.any()
    assert (out.forwards[stood] == 41).all()
    assert sum(len(z) for z in spy.asked) == int((out.forwards + out.checks).sum())
    whole = [z for z in spy.asked if len(z) == 30]
    assert all(threat.contains(z, x).all() for z in whole)
    for most in (7, 8):
        short = run(Bandits(steps=20), net, x, Untargeted(labels(net, x)), threat, settings=am.Settings(max_looks=most))
        assert (short.forwards <= most).all()
        assert (short.forwards[short.status == Status.OUT_OF_BUDGET] == most).all()


@pytest.mark.parametrize(("norm", "close"), [("Linf", 0.5), ("L2", 0.6)])
def test_the_guess_comes_to_point_along_the_gradient(norm, close):
    net = Affine(SHAPE, 2, seed=1, dtype=torch.float64)
    x = 0.3 + 0.4 * Rng.of(7, 10).uniform(*SHAPE, dtype=torch.float64)
    label = labels(net, x)
    w = (net.weight[1 - label] - net.weight[label]).view_as(x).detach()
    guesses = {}

    class Watched(Bandits):
        def step(self, p, s, seen, t):
            guesses[t] = super().step(p, s, seen, t)
            return guesses[t]

    run(Watched(steps=300), net, x, Untargeted(label), getattr(am, norm)(1e-6))
    early, late = (torch.cosine_similarity(guesses[t].guess.flatten(1), w.flatten(1)).mean() for t in (2, 299))
    assert late > close
    assert late > 2 * early
