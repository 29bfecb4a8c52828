"""SimBA: query by query as the paper has it, in entries and in cosine waves."""

import math

import pytest
import torch
from torch import nn

import adamant as am
from adamant.access import ScoresOnly
from adamant.adversary import Status
from adamant.attacks.pictures import cosines
from adamant.attacks.simba import SimBA, _haste, _wave
from adamant.batch import Shared
from adamant.desk import Problem
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.random import Rng
from adamant.testing import Affine, Bent


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


def order_of(attack, x, threat, row):
    """The directions of a row, as the attack draws them."""
    n = len(x)
    goal = Untargeted(torch.zeros(n, dtype=torch.long))
    s = attack.init(Problem(x, goal, goal, threat, ScoresOnly(), Rng.of(0, n), torch.arange(n), None))
    return s.order[row].tolist()


def paper(net, x, label, target, directions, eps, looks):
    """Algorithm 1 of arXiv:1905.07121 for one picture: every query, but those that repeat the last point."""

    def score(z):
        logp = net(z[None]).log_softmax(1)[0]
        return float(-logp[label] if target is None else logp[target])

    asked, best, now = [x], x, score(x)
    for q in directions:
        for step in (eps * q, -eps * q):
            z = (best + step).clamp(0, 1)
            if len(asked) > looks or (z - best).abs().max() < 1e-9:
                continue
            asked.append(z)
            if score(z) > now:
                best, now = z, score(z)
                break
    return asked[: looks + 1]


@pytest.mark.parametrize("low", [None, 0.5])
@pytest.mark.parametrize("targeted", [False, True])
def test_every_query_is_the_papers(low, targeted):
    shape, steps = (2, 4, 5), 45
    net = Bent(shape, 4, seed=5, dtype=torch.float64).eval()
    x = (Rng.of(7, 6).uniform(*shape, dtype=torch.float64) * 1.5 - 0.25).clamp(0, 1)
    label, threat, attack = labels(net, x), am.L2(50.0), SimBA(steps=steps, rate=0.02, low=low)
    target = (label + 1) % 4
    spy = Spy(net)
    goal = Targeted(label, target) if targeted else Untargeted(label)
    for i in range(6):
        spy.asked.clear()
        row = torch.tensor([i])
        out = run(
            attack, spy, x[i : i + 1], Targeted(label[row], target[row]) if targeted else Untargeted(label[row]),
            threat, rng=Rng.of(0, row), settings=am.Settings(lanes=1),
        )  # fmt: skip
        order = order_of(attack, x, threat, i)
        eye = torch.eye(40, dtype=torch.float64).view(40, *shape)
        basis = eye if low is None else _wave(torch.zeros(40, *shape, dtype=torch.float64), torch.arange(40))
        with torch.no_grad():
            to, directions = (int(target[i]) if targeted else None), [basis[k] for k in order * 3]
            want = paper(net, x[i], int(label[i]), to, directions, 0.02, steps)
        got = torch.cat(spy.asked[1:])[: int(out.forwards[0])]
        torch.testing.assert_close(got, torch.stack(want)[: len(got)], atol=1e-9, rtol=0)
        assert len(got) > 10
    whole = run(attack, net, x, goal, threat, settings=am.Settings(lanes=1))
    assert torch.equal(whole.forwards[-1:], out.forwards)


def test_waves_are_an_orthonormal_basis_and_slow_ones_come_first():
    shape = (2, 4, 6)
    waves = _wave(torch.zeros(48, *shape, dtype=torch.float64), torch.arange(48)).flatten(1)
    torch.testing.assert_close(waves @ waves.T, torch.eye(48, dtype=torch.float64))
    torch.testing.assert_close(waves[0, :24], torch.full((24,), 1 / math.sqrt(24), dtype=torch.float64))
    one = cosines(8, torch.float64, torch.device("cpu"))
    k, i = 3, 5
    assert one[k, i].item() == pytest.approx(math.sqrt(2 / 8) * math.cos(math.pi * (i + 0.5) * k / 8))
    rank = _haste(torch.zeros(1, 1, 8, 8), 0.25).view(8, 8)
    assert (rank[:2, :2] == 0).all()
    assert (rank == 0).sum() == 4
    assert (rank.diff(dim=0) >= 0).all()
    assert (rank.diff(dim=1) >= 0).all()
    assert _haste(torch.zeros(1, 1, 8, 8), 1.0).unique().numel() == 1
    x = torch.full((3, 1, 8, 8), 0.5)
    order = order_of(SimBA(low=0.25), x, am.L2(1.0), 0)
    assert sorted(order) == list(range(64))
    assert set(order[:4]) == {0, 1, 8, 9}


def test_each_row_has_an_order_of_its_own_without_replacement():
    x = torch.full((4, 1, 5, 5), 0.5)
    orders = [order_of(SimBA(), x, am.L2(1.0), i) for i in range(4)]
    assert all(sorted(o) == list(range(25)) for o in orders)
    assert len({tuple(o) for o in orders}) == 4


def test_entries_that_may_not_change_cost_no_look():
    x = torch.full((2, 1, 5, 5), 0.5)
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 1, :3] = True
    net = Affine((1, 5, 5), 3, seed=1)
    spy = Spy(net)
    out = run(SimBA(steps=30), spy, x, Untargeted(labels(net, x)), am.Linf(1e-4, mask=Shared(mask)))
    assert (out.status == Status.ROBUST).all()
    assert ((out.x_adv != x) == mask).all()


def test_on_an_affine_network_it_walks_to_the_best_corner():
    net = Affine((1, 5, 5), 2, seed=1, dtype=torch.float64)
    x = 0.3 + 0.4 * Rng.of(1, 8).uniform(1, 5, 5, dtype=torch.float64)
    label = labels(net, x)
    out = run(SimBA(steps=50), net, x, Untargeted(label), am.Linf(0.001))
    stood = out.status == Status.ROBUST
    assert stood.any()
    w = (net.weight[1 - label] - net.weight[label]).view_as(x).detach()
    torch.testing.assert_close((out.x_adv - x)[stood], 0.001 * w.sign()[stood], atol=1e-9, rtol=0)
    assert (out.forwards[stood] == 51).all()


def test_a_share_of_frequencies_is_a_share():
    x, net = torch.full((1, 1, 4, 4), 0.5), Affine((1, 4, 4), 2)
    for low in (0.0, -1.0, 1.5):
        with pytest.raises(InputError, match="low is a share"):
            run(SimBA(low=low), net, x, Untargeted(labels(net, x)), am.L2(1.0))


class Flat(nn.Module):
    """Scores that never change."""

    def forward(self, z):
        return torch.tensor([1.0, 0.0]).expand(len(z), -1) + 0 * z.flatten(1).sum(1, keepdim=True)


def test_what_does_not_help_is_not_kept():
    x, spy = torch.full((1, 1, 4, 4), 0.5), Spy(Flat())
    out = run(SimBA(steps=60), spy, x, Untargeted(torch.tensor([0])), am.L2(9.0), settings=am.Settings(lanes=1))
    assert out.forwards.item() == 61
    tries = torch.cat(spy.asked[2:])
    assert ((tries != x).flatten(1).sum(1) == 1).all()
    assert (tries[:32].flatten(1).sum(1) - 8).sum().abs() < 1e-5  # there and back along every entry
    assert len(tries[:32].unique(dim=0)) == 32
