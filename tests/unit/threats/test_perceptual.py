"""A distance through a network: against its formula, steps and projections, promises, and what it prints as."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import adamant as am
from adamant.attacks import Draws
from adamant.batch import PerRow, Shared, take
from adamant.cli import words
from adamant.errors import InputError
from adamant.random import Rng
from adamant.testing import EVERY, ONCE, Bent, Member, cases
from adamant.threats import Features, Normed, Perceptual, Projectable
from adamant.values import brief

SHAPE = (3, 4, 4)


def network(seed=0, bend=nn.Tanh):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), bend(), nn.Conv2d(6, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(20, 7)
    )


@pytest.fixture
def x():
    return Rng.of(0, 8).uniform(*SHAPE)


@pytest.fixture
def threat():
    return Perceptual(0.3, features=Features(network(), ("1", "3", "5")))


def by_hand(net, a, b):
    """The root of LPIPS without its learned weights (Zhang et al., 2018, equation 1), layer by layer."""
    total = 0.0
    for cut in (2, 4, 6):
        fa, fb = (net[:cut].double()(v.double()) for v in (a, b))
        fa, fb = (v / (v.square().sum(1, keepdim=True).sqrt() + 1e-10) for v in (fa, fb))
        apart = (fa - fb).square().sum(1)
        total += apart.flatten(1).mean(1) if apart.ndim > 1 else apart
    return total.sqrt()


def test_the_distance_is_that_of_its_formula(threat, x):
    z = Rng.of(1, 8).uniform(*SHAPE)
    net = network(bend=nn.ReLU)
    bent = Perceptual(features=Features(net, ("1", "3", "5")))
    torch.testing.assert_close(bent.size(z, x), by_hand(net, z, x).detach(), rtol=1e-7, atol=0)
    assert (threat.size(x, x) == 0).all()
    first = network(bend=lambda: nn.ReLU(inplace=True))  # which writes into what the layer before it gave
    plain, written = (Perceptual(features=Features(n, ("0",))) for n in (net, first))
    assert torch.equal(plain.size(z, x), written.size(z, x))
    assert len(threat.size(x[:0], x[:0])) == 0


def test_members_are_near_and_in_the_box(threat, x):
    assert isinstance(threat, Projectable)
    assert not isinstance(threat, Normed)
    z = Rng.of(1, 8).uniform(*SHAPE)
    sizes = threat.size(z, x)
    assert torch.equal(threat.at(float(sizes.median())).contains(z, x), sizes <= sizes.median())
    assert torch.equal(threat.at(PerRow(sizes)).contains(z, x), torch.ones(8, dtype=torch.bool))
    for bad in (torch.nan, torch.inf, -0.1, 1.1):
        out = x.clone()
        out[:, 0, 0, 0] = bad
        assert not threat.at(torch.inf).contains(out, x).any()


def test_a_projection_ends_at_the_edge_and_stays_there(threat, x):
    z = x + 0.7 * Rng.of(2, 8).normal(*SHAPE)
    got = threat.project(z, x)
    assert threat.contains(got, x).all()
    assert (threat.size(got, x) > 0.97 * 0.3).all()
    assert torch.equal(threat.project(got, x), got)
    assert torch.equal(threat.project(x, x), x)
    # on the straight line from x to the point in the box
    line = z.clamp(0, 1) - x
    share = ((got - x) * line).flatten(1).sum(1) / line.square().flatten(1).sum(1)
    torch.testing.assert_close(got, x + share.view(-1, 1, 1, 1) * line, rtol=0, atol=1e-5)
    for i in range(8):
        assert torch.equal(threat.project(z[i : i + 1], x[i : i + 1])[0], got[i])
    assert torch.equal(threat.project(torch.full_like(x, torch.nan), x)[0].isfinite().all(), torch.tensor(True))


def test_a_step_is_as_long_as_its_share_of_the_budget(threat):
    z, g = 0.4 + 0.2 * Rng.of(3, 8).uniform(*SHAPE), Rng.of(4, 8).normal(*SHAPE)
    for rate in (0.01, 0.3, torch.full((8,), 0.1, dtype=torch.float64)):
        moved = threat.move(z, g, rate)
        torch.testing.assert_close(
            threat.size(moved, z), torch.as_tensor(rate) * 0.3 * torch.ones(8).double(), rtol=0.06, atol=0
        )
        along = ((moved - z) * g).flatten(1).sum(1) / (moved - z).flatten(1).norm(dim=1) / g.flatten(1).norm(dim=1)
        torch.testing.assert_close(along, torch.ones(8), rtol=1e-3, atol=0)
    assert torch.equal(threat.move(z, torch.zeros_like(g), 0.1), z)


def test_samples_are_members_and_differ(threat, x):
    z = threat.sample(x, Rng.of(9, 8))
    assert threat.contains(z, x).all()
    sizes = threat.size(z, x)
    assert len(sizes.unique()) == 8
    assert sizes.max() > 0.2


def test_what_may_not_change_does_not(x, threat):
    held = replace(threat, mask=Shared(torch.arange(48).view(SHAPE) < 16))
    for z in (held.sample(x, Rng.of(9, 8)), held.project(x + 1, x), held.move(x, torch.ones_like(x), 0.5)):
        assert torch.equal(z[:, 1:], x[:, 1:])
        assert not torch.equal(z, x)


@pytest.mark.parametrize(
    "attack", [am.PGD(steps=4), am.Restarts(am.FGSM(), 2), am.RandomSearch(steps=6), Draws(steps=2)]
)
def test_attacks_keep_their_promises(attack, threat):
    """All but those that need the optimum of an affine network, a text to read back, or a network for other units."""
    member = Member(attack=attack, threats=(threat,), reach=None, random=not isinstance(attack, am.Restarts))
    for case in cases(member):
        if case.dtype == torch.float32 and len(case.shape) == 3 and case.classes == 10:
            for promise in (*EVERY, *ONCE):
                if not promise.__name__.startswith(("finds_", "repr_is", "units_do")):
                    promise(case)


def test_gradients_find_more_than_chance(threat):
    model, x = Bent(SHAPE, 4).eval(), Rng.of(5, 60).uniform(*SHAPE)
    with torch.no_grad():
        label = model(x).argmax(1)
    found, drawn = (am.attack(a, model, x, label, threat) for a in (am.PGD(steps=20), Draws(steps=20)))
    assert found.success_rate > drawn.success_rate + 0.1
    assert threat.contains(found.x_adv, x).all()


def test_the_record_says_what_it_is(threat):
    net = network()
    net.train()
    same, other = Features(net, ("1", "3", "5")), Features(network(1), ("1", "3", "5"))
    assert net.training  # the network that was given is as it was
    assert next(net.parameters()).dtype == torch.float32
    assert next(net.parameters()).requires_grad
    assert replace(threat, features=same) == threat
    assert hash(replace(threat, features=same)) == hash(threat)
    assert replace(threat, features=other) != threat
    assert replace(threat, features=Features(net, ("1",))) != threat
    assert take(threat, torch.tensor([0])) is threat
    for text in (repr(threat), brief(threat)):
        assert f"Features(Sequential, layers=('1', '3', '5'), weights='{same.weights}')" in text
        with pytest.raises(InputError, match="no threat model named 'Perceptual'"):
            words.threat(text)


def test_what_cannot_be_compared_is_refused(threat, x):
    for make, sentence in (
        (lambda: Features(network(), ("1", "9")), "no layers \\['9'\\]: choose among 0, 1, 2"),
        (lambda: Features(network(), ()), "Which layers of Sequential"),
        (lambda: Features(network(), ("",)), "no layers"),
        (lambda: Perceptual(0.0, features=threat.features), "must be positive"),
        (lambda: Perceptual(0.3, box=(0.0, torch.inf), features=threat.features), "finite box"),
        (lambda: threat.check(x[:, :2]), "cannot judge inputs of shape"),
        (lambda: threat.check(x * 3), "outside the box"),
        (lambda: Perceptual(0.3, features=Features(Pair(), ("two",))).check(x), "gives tuple"),
    ):
        with pytest.raises(InputError, match=sentence):
            make()


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.two = Two()

    def forward(self, x):
        return self.two(x)[0]


class Two(nn.Module):
    def forward(self, x):
        return x, x
