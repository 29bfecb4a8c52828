"""ZOO: its steps by hand, near what the white box finds, and where another library's crashes or does nothing."""

import pytest
import torch

import adamant as am
from adamant.attacks.zoo import ZOO
from adamant.batch import Shared, take
from adamant.calling import Caller, Settings
from adamant.desk import Blind, Problem
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.losses import Margin
from adamant.random import Rng
from adamant.testing import Affine, Bent
from adamant.threats import L2

ROWS, SIZE = 8, 10


def scene(net, rows=ROWS):
    x = (Rng.of(4, rows).uniform(SIZE, dtype=torch.float64) * 1.5 - 0.25).clamp(0, 1)
    with torch.no_grad():
        return x, Untargeted(net(x).argmax(1))


def problem(net, x, goal):
    desk = Blind(Caller(net, Settings(lanes=1)))
    return Problem(x, goal, goal, L2(), am.ScoresOnly(), Rng.of(0, len(x)), torch.arange(len(x)), desk)


def attack(member, net, x, goal, threat=L2()):  # noqa: B008
    return run(member, net, x, goal, threat, access=am.ScoresOnly())


def test_it_is_adam_on_a_few_entries_with_the_slope_in_closed_form():
    """Chen et al., 2017, algorithms 1 and 2: on an affine network a difference is the slope itself."""
    net = Affine((SIZE,), 2, seed=3, dtype=torch.float64).requires_grad_(False)
    x, goal = scene(net)
    member = ZOO(rounds=2, each=30, entries=3, rate=0.02, weight=2.0)
    p = problem(net, x, goal)
    w = net.weight[1 - goal.label] - net.weight[goal.label]
    s = member.init(p)
    z, m, v, n = x.clone(), *(torch.zeros_like(x) for _ in range(3))
    for t in range(29):  # of the first round
        torch.testing.assert_close(s.z, z, rtol=0, atol=1e-7)
        short = (-Margin()(net(z), goal)).clamp_min(0)
        lottery = p.rng.fold("entries").fold(t).uniform(SIZE, dtype=torch.float64)
        for i in range(ROWS):
            for j in lottery[i].argsort(descending=True)[:3].tolist():
                g = float(2 * (z[i, j] - x[i, j]) - 2.0 * w[i, j] * (short[i] > 0))
                n[i, j] += 1
                m[i, j], v[i, j] = 0.9 * m[i, j] + 0.1 * g, 0.999 * v[i, j] + 0.001 * g * g
                along = m[i, j] / (1 - 0.9 ** n[i, j]) / ((v[i, j] / (1 - 0.999 ** n[i, j])).sqrt() + 1e-8)
                z[i, j] = (z[i, j] - 0.02 * (1 - 0.9 * t / 60) * along).clamp(0, 1)
        s = member.step(p, s, p.look(s.z, member.loss), t)
    assert (z != x).double().mean() > 0.8
    s = member.step(p, s, p.look(s.z, member.loss), 29)
    assert set(s.search.weight.tolist()) <= {1.0, 20.0}  # half where it was enough, else ten times as much
    assert not s.mean.any()
    assert not s.turns.any()


@pytest.mark.parametrize("shape", [(SIZE,), (1, 6, 6)])
def test_it_finds_nearly_what_the_white_box_finds(shape):
    net = Bent(shape, 4, seed=2, dtype=torch.float64).eval().requires_grad_(False)
    x = Rng.of(4, ROWS).uniform(*shape, dtype=torch.float64)
    goal = Untargeted(net(x).argmax(1))
    white = run(am.CarliniWagner(), net, x, goal, L2())
    found = attack(ZOO(each=60, entries=16), net, x, goal)
    assert torch.equal(found.broken, white.broken)
    assert (found.size / white.size)[white.broken].median() < 1.06
    assert not found.backwards.any()


def test_many_rows_at_once_are_as_each_alone():
    """ART raises for more than one row at a time."""
    net = Bent((SIZE,), 3, seed=2, dtype=torch.float64).eval()
    x, goal = scene(net)
    member = ZOO(rounds=2, each=20, entries=4, rate=0.05)
    whole = attack(member, net, x, goal)
    assert whole.broken.any()
    for i in range(0, ROWS, 3):
        rows = torch.tensor([i])
        alone = run(member, net, x[rows], take(goal, rows), L2(), access=am.ScoresOnly(), rng=Rng.of(0, rows))
        assert torch.equal(alone.x_adv[0], whole.x_adv[i])


@pytest.mark.parametrize("wide", [1.0, 1000.0])
def test_columns_move_in_units_of_their_range(wide):
    """In ART the steps have one length for all: columns on [0, 1] hardly move in the steps that it takes by default."""
    net = Bent((SIZE,), 3, seed=2, dtype=torch.float64).eval()
    x, goal = scene(net)

    class Table(torch.nn.Module):
        def forward(self, z):
            return net(z / wide)

    out = attack(ZOO(rounds=3, each=40, entries=5), Table(), x * wide, goal, L2(box=(0.0, wide)))
    assert out.broken.all()
    assert (out.size / wide).max() < 2


def test_queries_are_those_that_it_says():
    net = Affine((SIZE,), 2, seed=3, dtype=torch.float64)
    x, goal = scene(net)
    out = attack(ZOO(rounds=2, each=5, entries=4), net, x, goal, L2(1e-9))
    assert out.forwards.unique().tolist() == [2 * 5 * (2 * 4 + 1) + 1]


def test_entries_that_may_not_change_are_not_asked_first():
    net = Bent((SIZE,), 3, seed=2, dtype=torch.float64).eval()
    x, goal = scene(net)
    mask = Shared(torch.arange(SIZE) % 2 == 0)
    out = attack(ZOO(rounds=3, each=40, entries=5), net, x, goal, L2(mask=mask))
    assert out.broken.any()
    assert torch.equal(out.x_adv[:, 1::2], x[:, 1::2])


def test_bad_settings_are_refused():
    net = Affine((SIZE,), 2, seed=3, dtype=torch.float64)
    for member in (ZOO(entries=0), ZOO(apart=0.0)):
        with pytest.raises(InputError, match="at least one entry"):
            attack(member, net, *scene(net))
