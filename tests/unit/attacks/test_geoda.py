"""GeoDA: the paper's algorithm in plain words, closed forms on planes, and what went wrong elsewhere."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import adamant as am
from adamant.adversary import Status
from adamant.attacks.decision import begin, to_boundary
from adamant.attacks.geoda import GeoDA, _waves
from adamant.attacks.pictures import cosines
from adamant.batch import per_row
from adamant.calling import Caller, Settings
from adamant.desk import Desk, Problem
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.testing import Affine

SHAPE = (2, 4, 5)
ROOM = (-math.inf, math.inf)


def affine(rows=12, seed=3):
    net = Affine(SHAPE, 2, seed=seed, dtype=torch.float64)
    x = Rng.of(1, rows).uniform(*SHAPE, dtype=torch.float64)
    with torch.no_grad():
        logits = net(x)
    label, n = logits.argmax(1), torch.arange(rows)
    w = (net.weight[1 - label] - net.weight[label]).detach()
    return net, x, Untargeted(label), w, logits[n, label] - logits[n, 1 - label]


def problem(net, x, goal, threat):
    desk = Desk(Caller(net, Settings()), x, 2, torch.zeros(len(x), dtype=torch.bool), 256, smallest=True)
    p = Problem(x, goal, goal, threat, am.LabelsOnly(), Rng.of(0, len(x)), torch.arange(len(x)), desk)
    desk.wake(p, roams=True)
    return p


def attack(member, net, x, goal, threat, **settings):
    return run(member, net, x, goal, threat, access=am.LabelsOnly(), settings=Settings(**settings))


@pytest.mark.parametrize("kind", [am.L2, am.Linf])
def test_it_is_the_papers_algorithm(kind):
    """Arxiv:2003.06468, algorithms 1 and 2, row by row: signs around the boundary, then from x along their sum."""
    net, x, goal, w, missing = affine()
    p = problem(net, x, goal, kind(box=ROOM))
    member = GeoDA(queries=70, low=None, around=0.01)
    s = member.init(p)
    seen, total = p.look(x, am.Margin()), torch.zeros_like(x)
    for t, count in enumerate((70, 98, 138)):
        rng, noise = p.rng.fold("normal").fold(t), []
        for i in range(0, count, 64):
            noise.append(rng.fold(i).normal(min(64, count - i), *SHAPE, dtype=x.dtype))
        eta = torch.cat(noise, 1)
        with torch.no_grad():
            for i in range(12):
                fooled = net(s.z[i] + 0.01 * eta[i]).argmax(1) != goal.label[i]
                total[i] += torch.where(per_row(fooled, eta[i]), eta[i], -eta[i]).sum(0)
        s = member.step(p, s, seen, t)
        torch.testing.assert_close(s.normal, total)
        v = total.sign() if kind is am.Linf else total / total.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        r = missing / (w * v.flatten(1)).sum(1)  # where the way meets the plane
        exact = 0.01 / 4 / (math.sqrt(40) if kind is am.Linf else 1)
        assert (p.threat.size(s.z, x) - r).clamp_min(0).max() <= exact
        torch.testing.assert_close(s.z, x + per_row(p.threat.size(s.z, x), x) * v)
        with torch.no_grad():
            assert goal.reached(net(s.z)).all()


def test_each_normal_takes_more_queries_by_the_papers_ratio():
    # lambda^(-2/3) from one to the next; the authors' split of 900 queries at 0.6 begins 78, 110, 154.
    member = GeoDA(queries=78)
    assert [member.count(t) for t in range(3)] == [78, 110, 154]
    assert [GeoDA(ratio=1.0).count(t) for t in (0, 5)] == [60, 60]
    assert replace(member, most=100).count(1) == 100
    net, x, goal, *_ = affine(rows=1)
    steps = [attack(GeoDA(steps=k, low=None), net, x, goal, am.L2()).forwards.item() for k in (2, 3)]
    assert 119 < steps[1] - steps[0] < 119 + 16


@pytest.mark.parametrize("kind", [am.L2, am.Linf])
def test_it_comes_near_the_nearest_point_of_a_plane(kind):
    net, x, goal, w, missing = affine()
    dual = w.norm(dim=1) if kind is am.L2 else w.abs().sum(1)
    member = GeoDA(steps=8, low=None)
    ratio = attack(member, net, x, goal, kind(box=ROOM)).size / (missing / dual)
    assert (ratio > 1 - 1e-9).all()
    queries = sum(member.count(t) for t in range(8))
    # The sum of n signed directions has cosine sqrt(2n / (2n + pi (d - 1))), about, in d dimensions.
    want = math.sqrt(1 + math.pi * 39 / (2 * queries))
    assert ratio.mean() < (want * 1.02 if kind is am.L2 else 1.3)
    fewer = attack(replace(member, steps=3), net, x, goal, kind(box=ROOM)).size / (missing / dual)
    assert ratio.mean() < fewer.mean()


def test_the_boundary_is_found_more_exactly_than_queries_spread():
    # ART 1.20.1 ends its search at 0.1 and spreads its queries by 0.0002: all fool, and their sum says nothing.
    net, x, goal, w, missing = affine()
    p = problem(net, x, goal, am.L2(box=ROOM))
    member = GeoDA(low=None)
    s = member.init(p)
    for t in range(3):
        beyond = ((s.z - x).flatten(1) * w).sum(1) - missing
        assert (beyond >= 0).all()
        assert (beyond / w.norm(dim=1)).max() < member.around / 2
        s = member.step(p, s, p.look(x, am.Margin()), t)
    cosine = nn.functional.cosine_similarity(s.normal.flatten(1), w)
    assert cosine.mean() > 0.88  # sqrt(2n / (2n + pi (d - 1))) with n = 263, d = 40 is 0.9


def test_directions_are_slow_waves():
    net, x, goal, *_ = affine(rows=200)
    p = problem(net, x, goal, am.L2())
    v = _waves(p, p.rng, 8, 0.5)
    found = cosines(4, x.dtype, x.device) @ v @ cosines(5, x.dtype, x.device).T
    slow = torch.zeros(4, 5, dtype=torch.bool)
    slow[:2, :2] = True
    assert found[..., ~slow].abs().max() < 1e-9
    assert found[..., slow].std() == pytest.approx(1, abs=0.03)
    seen = []
    member = GeoDA(steps=1, queries=5, low=0.5, around=0.01)
    z = to_boundary(p, begin(p, None, 50)[0], 1e-3, torch.ones(200, dtype=torch.bool))
    p.desk.looks = lambda p, zs, loss, real=p.desk.looks: (seen.append(zs), real(p, zs, loss))[1]
    inner = z.clamp(0.2, 0.8)  # where no query is clipped
    member._normal(p, inner, 0)
    torch.testing.assert_close(
        (seen[0] - inner).flatten(2).norm(dim=2).mean(), torch.tensor(0.01 * 2.74).to(x), rtol=0.05, atol=0
    )


def test_flat_inputs_and_pictures_of_one_pixel_work():
    for shape in ((30,), (3, 1, 1)):
        net = Affine(shape, 2, dtype=torch.float64)
        x = Rng.of(1, 6).uniform(*shape, dtype=torch.float64)
        with torch.no_grad():
            goal = Untargeted(net(x).argmax(1))
        out = attack(GeoDA(steps=3), net, x, goal, am.L2(box=ROOM))
        assert out.broken.all()


def test_a_normal_that_leads_nowhere_leaves_the_best_and_ends():
    class Hole(nn.Module):
        """The first class everywhere but in one corner of the square."""

        def forward(self, z):
            inside = (z > 0.9).all(1)
            return torch.stack([torch.full_like(z[:, 0], 0.5), inside.to(z)], 1)

    x = torch.full((8, 2), 0.1)
    x[4:, 0] = 0.85
    out = attack(GeoDA(steps=4), Hole(), x, Untargeted(torch.zeros(8, dtype=torch.long)), am.L2())
    assert out.broken.all()
    assert out.x_adv.isfinite().all()
    assert out.status.eq(Status.BROKEN).all()


def test_settings_that_mean_nothing_are_refused():
    net, x, goal, *_ = affine(rows=1)
    for member in (GeoDA(low=0.0), GeoDA(low=1.5), GeoDA(ratio=0.0), GeoDA(ratio=1.2)):
        with pytest.raises(InputError):
            attack(member, net, x, goal, am.L2())
