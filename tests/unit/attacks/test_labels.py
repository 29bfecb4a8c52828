"""Attacks by the predicted label: against closed forms, the authors' algorithms, and what went wrong elsewhere."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import adamant as am
from adamant.adversary import Status
from adamant.attacks import boundary, decision
from adamant.attacks.boundary import BoundaryAttack
from adamant.attacks.decision import begin, to_boundary
from adamant.attacks.geoda import GeoDA
from adamant.attacks.hopskipjump import HopSkipJump
from adamant.attacks.rays import RayS
from adamant.attacks.sign_opt import SignOPT
from adamant.attacks.surfree import SurFree
from adamant.batch import Shared, per_row
from adamant.calling import Caller, Settings
from adamant.desk import Desk, Problem
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.random import Rng
from adamant.testing import Affine, Bent

SHAPE = (1, 4, 5)
ROOM = (-math.inf, math.inf)
EVERY = [
    (HopSkipJump(steps=4, queries=20), am.L2),
    (HopSkipJump(steps=4, queries=20), am.Linf),
    (BoundaryAttack(steps=100, around=0.1, toward=0.1), am.L2),
    (SurFree(steps=30), am.L2),
    (RayS(steps=150), am.Linf),
    (GeoDA(steps=4, queries=20), am.L2),
    (GeoDA(steps=4, queries=20), am.Linf),
    (SignOPT(steps=3, queries=20), am.L2),
]


def problem(net, x, goal, threat, *, max_looks=None):
    """What the engine hands to an attack."""
    with torch.no_grad():
        wrong = goal.reached(net(x))
    desk = Desk(Caller(net, Settings(max_looks=max_looks)), x, net(x).shape[1], wrong, 256, smallest=True)
    p = Problem(x, goal, goal, threat, am.LabelsOnly(), Rng.of(0, len(x)), torch.arange(len(x)), desk)
    desk.wake(p, roams=True)
    return p


def affine(classes=2, rows=12, dtype=torch.float64, seed=3):
    net = Affine(SHAPE, classes, seed=seed, dtype=dtype)
    x = Rng.of(1, rows).uniform(*SHAPE, dtype=dtype)
    with torch.no_grad():
        return net, x, Untargeted(net(x).argmax(1))


def plane(net, x, goal):
    """Of two classes: the normal towards the other one, and how much is missing to it."""
    w = (net.weight[1 - goal.label] - net.weight[goal.label]).detach()
    with torch.no_grad():
        logits = net(x)
    rows = torch.arange(len(x))
    return w, logits[rows, goal.label] - logits[rows, 1 - goal.label]


def attack(member, net, x, goal, threat, **settings):
    return run(member, net, x, goal, threat, access=am.LabelsOnly(), settings=Settings(**settings))


# --- what they share --------------------------------------------------------------------------------------------------


def test_the_way_back_ends_on_the_plane():
    net, x, goal = affine()
    w, missing = plane(net, x, goal)
    p = problem(net, x, goal, am.L2(box=ROOM))
    far = x + 5 * w.view_as(x) + Rng.of(9, len(x)).normal(*SHAPE, dtype=x.dtype)
    z = to_boundary(p, far, 1e-7, torch.ones(len(x), dtype=torch.bool))
    share = missing / ((far - x).flatten(1) * w).sum(1)
    torch.testing.assert_close(z, x + per_row(share, x) * (far - x), rtol=0, atol=1e-5)
    assert goal.reached(net(z)).all()  # never on the wrong side of it
    inside = x + per_row(share * (1 - 1e-6), x) * (far - x)
    assert not goal.reached(net(inside)).any()


def test_the_way_back_on_linf_shortens_the_longest_first():
    net, x, goal = affine()
    p = problem(net, x, goal, am.Linf(box=ROOM))
    w, _ = plane(net, x, goal)
    far = x + 5 * w.view_as(x)
    z = to_boundary(p, far, 1e-7, torch.ones(len(x), dtype=torch.bool))
    change, most = (far - x).flatten(1), (z - x).flatten(1).abs().amax(1, keepdim=True)
    torch.testing.assert_close((z - x).flatten(1), change.clamp(-most, most))
    nearer = x + change.clamp(-most * (1 - 1e-5), most * (1 - 1e-5)).view_as(x)
    assert goal.reached(net(z)).all()
    assert not goal.reached(net(nearer)).any()


def test_rows_that_have_arrived_and_rows_that_never_began_are_not_looked_at():
    net, x, goal = affine()
    p = problem(net, x, goal, am.L2())
    z, found = begin(p, None, 100)
    assert found.all()
    p.desk.settle()
    before = p.desk.forwards.clone()
    to_boundary(p, z, 2.0**-6, torch.arange(len(x)) % 2 == 0)
    p.desk.settle()
    assert torch.equal(p.desk.forwards - before, torch.tensor([6, 0] * 6))


def test_a_start_is_sought_in_the_box_and_within_so_many_tries():
    class Flat(nn.Module):
        def forward(self, z):
            assert ((z >= 0) & (z <= 1)).all()
            return torch.tensor([1.0, 0.0], dtype=z.dtype).expand(len(z), -1)

    _, x, _ = affine()
    for member, threat in [*EVERY[:4], *EVERY[5:]]:
        out = attack(replace(member, tries=7), Flat(), x, Untargeted(torch.zeros(12, dtype=torch.long)), threat())
        assert (out.status == Status.ROBUST).all()
        assert out.forwards.eq(7).all()


def test_a_mask_holds_from_the_start():
    net, x, goal = affine(dtype=torch.float32)
    mask = Shared(Rng.of(3, 1).uniform(*SHAPE)[0] < 0.7)
    for member, threat in EVERY:
        out = attack(member, net, x, goal, threat(mask=mask))
        assert out.broken.any()
        assert torch.equal(out.x_adv[:, ~mask.values], x[:, ~mask.values])


def test_a_target_needs_examples_and_takes_the_nearest_that_will_do():
    net, x, goal = affine(classes=4, rows=30)
    target = (goal.label + 1) % 4
    goal = Targeted(goal.label, target)
    for member, threat in EVERY:
        with pytest.raises(InputError, match="examples="):
            attack(member, net, x, goal, threat())
    pool = Rng.of(5, 400).uniform(*SHAPE, dtype=x.dtype).round()  # corners lie on every side
    with torch.no_grad():
        known = net(pool).argmax(1)
    pool = torch.cat([pool[known == k][:3] for k in range(4)])
    p = problem(net, x, goal, am.L2())
    z, found = begin(p, Shared(pool), 1)
    assert found.all()
    with torch.no_grad():
        fits = net(pool).argmax(1) == target[:, None]
    far = (pool[None] - x[:, None]).flatten(2).norm(dim=2).masked_fill(~fits, torch.inf)
    assert torch.equal(z, pool[far.argmin(1)])
    for member, threat in [*EVERY[:4], *EVERY[5:]]:
        z, _ = begin(problem(net, x, goal, threat()), Shared(pool), 1)
        out = attack(replace(member, examples=Shared(pool)), net, x, goal, threat())
        assert out.broken.all()
        with torch.no_grad():
            assert torch.equal(net(out.x_adv).argmax(1), target)
        assert (out.size <= threat().size(z, x)).all()
    with pytest.raises(InputError, match="do not fit"):
        attack(HopSkipJump(examples=Shared(pool[:, :, 0])), net, x, goal, am.L2())


@pytest.mark.parametrize(("member", "threat"), EVERY)
def test_the_label_alone_is_enough_and_no_score_is_used(member, threat):
    net, x, goal = affine(classes=3, dtype=torch.float32)
    a = run(member, net, x, goal, threat())
    b = attack(member, net, x, goal, threat())
    assert torch.equal(a.x_adv, b.x_adv)
    assert torch.equal(a.forwards, b.forwards)


@pytest.mark.parametrize(("member", "threat"), EVERY)
def test_when_the_budget_of_looks_ends_the_best_so_far_stands(member, threat):
    net, x, goal = affine(rows=1)
    seen = []

    class Notes(nn.Module):
        def forward(self, z):
            seen.extend(z.clone())
            return net(z)

    for most in (1, 12, 40, 73):
        seen.clear()
        out = attack(member, Notes(), x, goal, threat(), max_looks=most, lanes=1)
        assert out.forwards.item() == most
        tried = torch.stack(seen[1 : 1 + most])  # the first look is the clean one
        with torch.no_grad():
            fooled = goal.label != net(tried).argmax(1)
        sizes = threat().size(tried, x.expand_as(tried))[fooled]
        assert bool(out.broken) == bool(fooled.any())
        if fooled.any():
            assert out.size.item() == sizes.min().item()


@pytest.mark.parametrize(("member", "threat"), EVERY)
def test_within_a_budget_a_row_ends_at_its_first_success(member, threat):
    net, x, goal = affine()
    free = attack(member, net, x, goal, threat())
    out = attack(member, net, x, goal, threat(am.batch.PerRow(free.size * 1.01)))
    assert out.broken.all()
    late = out.forwards - out.first_success
    assert (
        (late < 64).all() if isinstance(member, (HopSkipJump, GeoDA, SignOPT)) else not late.any()
    )  # a round of labels is not cut short
    assert (out.forwards < free.forwards).any()


@pytest.mark.parametrize(("member", "threat"), EVERY)
def test_other_units_change_nothing(member, threat):
    # Foolbox clips HopSkipJump's queries to [0, 1] whatever the box. A power of two keeps every digit.
    net, x, goal = affine()

    class Scaled(nn.Module):
        def forward(self, z):
            return net(z / 256)

    a, b = attack(member, net, x, goal, threat()), attack(member, Scaled(), x * 256, goal, threat(box=(0.0, 256.0)))
    torch.testing.assert_close(b.size, a.size * 256, rtol=1e-9, atol=0)
    assert torch.equal(a.forwards, b.forwards)


@pytest.mark.parametrize(("member", "threat"), EVERY)
def test_a_row_that_cannot_be_broken_and_one_that_is_wrong_hold_up_no_other(member, threat):
    # Foolbox's search for a step loops until every row of the batch has one; a row that is wrong already gave NaN.
    net, x, goal = affine()

    class Odd(nn.Module):
        """Answers NaN, or its first class, where the first entry says so."""

        def forward(self, z):
            out, key = net(z), z.flatten(1)[:, :1]
            out = torch.where(key < -0.5, torch.nan, out)
            return torch.where(key > 1.5, torch.tensor([1.0, 0.0]).to(out), out)

    hold = Shared(torch.ones(SHAPE, dtype=torch.bool).flatten().index_fill(0, torch.tensor(0), False).view(SHAPE))
    threat = threat(box=(-1.0, 2.0), mask=hold)
    odd, label = x.clone(), goal.label.clone()
    odd[3, 0, 0, 0], label[3] = 2.0, 0  # never fooled
    label[5] = 1 - label[5]  # wrong already
    a = attack(member, Odd(), x, goal, threat)
    b = attack(member, Odd(), odd, Untargeted(label), threat)
    assert b.status[3] == Status.ROBUST
    assert b.status[5] == Status.WRONG_ALREADY
    assert b.x_adv.isfinite().all()
    others = torch.tensor([i for i in range(12) if i not in (3, 5)])
    assert torch.equal(a.x_adv[others], b.x_adv[others])


# --- HopSkipJump ------------------------------------------------------------------------------------------------------


def test_hopskipjump_estimates_the_normal_as_the_paper_does():
    """The estimate of arXiv:1904.02144, row by row, with its baseline and the directions as the box leaves them."""
    net, x, goal = affine()
    p = problem(net, x, goal, am.L2())
    z, _ = begin(p, None, 100)
    z = to_boundary(p, z, 1e-9, torch.ones(12, dtype=torch.bool))
    member, around = HopSkipJump(queries=90), torch.full((12,), 0.05, dtype=x.dtype)
    t, count = 3, 180
    got = member._normal(p, z, around, t)
    rng = p.rng.fold("normal").fold(t)
    noise = torch.cat([rng.fold(i).normal(k, *SHAPE, dtype=x.dtype) for i, k in ((0, 64), (64, 64), (128, 52))], 1)
    for i in range(12):
        u = noise[i] / noise[i].flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        u = ((z[i] + 0.05 * u).clamp(0, 1) - z[i]) / 0.05
        with torch.no_grad():
            phi = 2.0 * (net(z[i] + 0.05 * u).argmax(1) != goal.label[i]).double() - 1
        want = ((phi - phi.mean()).view(-1, 1, 1, 1) * u).sum(0)
        torch.testing.assert_close(got[i], want, rtol=1e-9, atol=1e-9)
    assert count == int(90 * math.sqrt(t + 1))


@pytest.mark.parametrize("threat", [am.L2(box=ROOM), am.Linf(box=ROOM)])
def test_hopskipjump_finds_the_normal_of_a_plane(threat):
    # Foolbox divided the directions by 2, not by the radius (its pull request 612), and normalised over the batch.
    net, x, goal = affine(rows=40)
    w, missing = plane(net, x, goal)
    p = problem(net, x, goal, threat)
    on = x + per_row(missing / (w**2).sum(1), x) * w.view_as(x)
    v = HopSkipJump(queries=400)._normal(p, on, torch.full((40,), 0.01, dtype=x.dtype), 0)
    cosine = nn.functional.cosine_similarity(v.flatten(1), w)
    # The mean of n signed directions has cosine sqrt(2n / (2n + pi (d - 1))), about, in d dimensions.
    assert cosine.mean() == pytest.approx(math.sqrt(800 / (800 + math.pi * 19)), abs=0.01)


def test_hopskipjump_far_from_the_boundary_follows_the_only_sign_it_sees():
    net, x, goal = affine()
    w, _ = plane(net, x, goal)
    p = problem(net, x, goal, am.L2(box=ROOM))
    small = torch.full((12,), 1e-3, dtype=x.dtype)
    inside, outside = (HopSkipJump(queries=20)._normal(p, x + k * w.view_as(x), small, 0) for k in (-9, 9))
    torch.testing.assert_close(inside, -outside)
    assert (outside.flatten(1).norm(dim=1) > 0).all()


def test_hopskipjump_takes_more_labels_by_the_root_of_the_step(monkeypatch):
    net, x, goal = affine()
    asked = []
    monkeypatch.setattr(
        decision, "fooled_at", lambda p, zs, real=decision.fooled_at: (asked.append(len(zs)), real(p, zs))[1]
    )
    attack(HopSkipJump(steps=5, queries=20, most=40), net, x, goal, am.L2())
    assert asked == [20, 28, 34, 40, 40]


@pytest.mark.parametrize(("kind", "bound"), [(am.L2, 1.06), (am.Linf, 1.15)])
def test_hopskipjump_reaches_the_nearest_point_of_a_plane(kind, bound):
    net, x, goal = affine(rows=6)
    w, missing = plane(net, x, goal)
    norm = w.norm(dim=1) if kind is am.L2 else w.abs().sum(1)
    out = attack(HopSkipJump(steps=12), net, x, goal, kind(box=ROOM))
    ratio = out.size / (missing / norm)
    assert (ratio > 1 - 1e-9).all()
    assert ratio.max() < bound


def test_hopskipjump_means_the_norm_that_it_is_given():
    # Foolbox issue 494 and CleverHans: `norm` or `constraint` was ignored.
    net, x, goal = affine(rows=6)
    two, most = (attack(HopSkipJump(steps=6), net, x, goal, threat) for threat in (am.L2(box=ROOM), am.Linf(box=ROOM)))
    assert (am.Linf().size(most.x_adv, x) < am.Linf().size(two.x_adv, x)).all()
    assert (am.L2().size(two.x_adv, x) < am.L2().size(most.x_adv, x)).all()


@pytest.mark.parametrize("kind", [am.L2, am.Linf])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_hopskipjump_keeps_the_point_after_its_last_way_back(kind, steps):
    # ART hands out the point before it: up to 40 % larger (1.54 for 1.09).
    net, x, goal = affine(classes=3)
    out = attack(HopSkipJump(steps=steps, queries=20), net, x, goal, kind())
    p = problem(net, x, goal, kind())
    nearer = to_boundary(p, out.x_adv, 1e-4, torch.ones(12, dtype=torch.bool))
    assert (kind().size(nearer, x) > out.size * 0.97).all()  # a search ends at 20^-1.5 or 20^-2 of its way


def test_hopskipjump_halves_its_step_until_it_fools():
    net, x, goal = affine()
    w, missing = plane(net, x, goal)
    p = problem(net, x, goal, am.L2(box=ROOM))
    unit = (w / w.norm(dim=1, keepdim=True)).view_as(x)
    here = x + per_row(missing / w.norm(dim=1) + 1.0, x) * unit  # one beyond the plane
    z = HopSkipJump()._hop(p, here, -unit, torch.full((12,), 6.0, dtype=x.dtype), torch.ones(12, dtype=torch.bool))
    torch.testing.assert_close(z, here - 0.75 * unit)


# --- RayS -------------------------------------------------------------------------------------------------------------


def rays(net, x, label, queries, exact):
    """The algorithm of arXiv:2006.12792 for one input in [0, 1], in plain words: signs, radius and how many queries."""
    signs, best, asked, n = [1.0] * x.numel(), None, 0, x.numel()

    def fools(s, r):
        nonlocal asked
        asked += 1
        with torch.no_grad():
            return (
                asked <= queries and net((x + r * torch.tensor(s).to(x).view_as(x)).clamp(0, 1)[None]).argmax() != label
            )

    level = 0
    while asked < queries:
        length = math.ceil(n / 2**level)
        for start in range(0, n, length):
            tried = [-s if start <= i < start + length else s for i, s in enumerate(signs)]
            if not fools(tried, best or 1.0):
                if best is None:
                    return None
                continue
            low, high = 0.0, best or 1.0
            while high - low > exact and asked < queries:
                middle = (low + high) / 2
                low, high = (low, middle) if fools(tried, middle) else (middle, high)
            if best is None or (high < best and high - low <= exact):
                signs, best = tried, high
        level += 1
    return best


@pytest.mark.parametrize("build", [Affine, Bent])
def test_rays_is_the_papers_algorithm(build):
    net = build(SHAPE, 4, seed=2, dtype=torch.float64).eval()
    x = Rng.of(1, 24).uniform(*SHAPE, dtype=torch.float64)
    with torch.no_grad():
        label = net(x).argmax(1)
    exact = 1e-3
    for queries in (60, 250):
        out = attack(RayS(steps=1000, exact=exact), net, x, Untargeted(label), am.Linf(), max_looks=queries)
        compared = 0
        for i in range(24):
            want = rays(net, x[i], int(label[i]), queries, exact / math.sqrt(20))
            if want is not None:
                compared += 1
                assert out.size[i].item() <= want + 1e-12
                # the paper's code ends a search that it began; here the last one may be cut short, half way
                assert out.size[i].item() == pytest.approx(want, abs=1e-12) or out.forwards[i] == queries
        assert compared > 10


def test_rays_stops_when_no_single_sign_helps():
    net, x, goal = affine()
    out = attack(RayS(steps=5000), net, x, goal, am.Linf(box=ROOM))
    w, missing = plane(net, x, goal)
    ratio = out.size / (missing / w.abs().sum(1))
    assert (ratio > 1 - 1e-9).all()
    assert ratio.max() < 1.01
    assert out.forwards.max() < 600


def test_rays_looks_elsewhere_where_signs_all_alike_meet_no_boundary():
    net = Affine(SHAPE, 2, dtype=torch.float64)
    with torch.no_grad():
        net.weight[0] = torch.tensor([1.0, -1.0] * 10)
        net.weight[1] = 0
        net.bias[:] = torch.tensor([2.0, 0.0])
    x = torch.full((6, *SHAPE), 0.5, dtype=torch.float64)
    goal = Untargeted(torch.zeros(6, dtype=torch.long))
    out = attack(RayS(steps=600), net, x, goal, am.Linf())
    assert out.broken.all()
    assert (out.size < 0.1 * 1.02).all()  # two of 20, a tenth of each


# --- BoundaryAttack ---------------------------------------------------------------------------------------------------


def test_boundary_walks_on_the_sphere_and_then_towards_x():
    """As arXiv:1712.04248 draws its proposals."""
    net, x, goal = affine()
    p = problem(net, x, goal, am.L2(box=ROOM))
    best = x + Rng.of(4, 12).normal(*SHAPE, dtype=x.dtype)
    around, toward = torch.full((12,), 0.2, dtype=x.dtype), torch.full((12,), 0.05, dtype=x.dtype)
    none = torch.zeros(12, 2)
    s = BoundaryAttack()._walk(p, best, around, toward, none, none, none[:, 0].bool(), 1)
    far = am.L2().size(best, x)
    torch.testing.assert_close(am.L2().size(s.sphere, x), far)
    torch.testing.assert_close(am.L2().size(s.z, x), far * 0.95)
    cosine = nn.functional.cosine_similarity((s.sphere - x).flatten(1), (best - x).flatten(1))
    torch.testing.assert_close(cosine, torch.full_like(cosine, 1 / math.sqrt(1.04)))  # at a right angle
    straight = nn.functional.cosine_similarity((s.sphere - x).flatten(1), (s.z - x).flatten(1))
    torch.testing.assert_close(straight, torch.ones_like(straight))


def test_boundary_adapts_its_steps_to_how_often_they_are_kept():
    one = torch.ones(5)
    kept = torch.tensor([[20.0, 9], [1, 5], [5, 1], [20, 1], [29, 9]])
    made = torch.tensor([[30.0, 10], [30, 10], [30, 10], [29, 10], [29, 9]])
    around, toward, kept_now, made_now = boundary._adapted(one, one, kept, made)
    torch.testing.assert_close(around, torch.tensor([1.5, 1, 1 / 1.5, 1 / 1.5, 1]))
    torch.testing.assert_close(toward, torch.tensor([2.25, 1 / 1.5, 1 / 1.5, 1 / 1.5, 1]))
    assert made_now.tolist() == [[0, 0], [0, 0], [0, 0], [29, 0], [29, 9]]
    assert kept_now.tolist() == [[0, 0], [0, 0], [0, 0], [20, 0], [29, 9]]


def test_boundary_comes_near_the_nearest_point_of_a_plane():
    net, x, goal = affine(rows=8)
    w, missing = plane(net, x, goal)
    out = attack(BoundaryAttack(steps=700, around=0.1, toward=0.1), net, x, goal, am.L2(box=ROOM))
    ratio = out.size / (missing / w.norm(dim=1))
    assert (ratio > 1 - 1e-9).all()
    assert ratio.median() < 1.1
    assert out.forwards.max() <= 700 * 1.1 + 1 + 10 + 100


# --- SurFree ----------------------------------------------------------------------------------------------------------


def test_surfree_looks_on_the_circle_through_x_and_its_best():
    """As in arXiv:2011.12807: at the angle a the distance is d cos a, in the plane of a direction orthogonal."""
    net, x, goal = affine()
    threat, seen = am.L2(box=ROOM), []
    p = problem(net, x, goal, threat)
    s = SurFree(angle=40).init(p)
    real, looked = p.desk._ask, p.look(x, am.Margin())
    p.desk._ask = lambda p, z, *a, **k: (seen.append((p.index, z)), real(p, z, *a, **k))[1]
    after = SurFree(angle=40).step(p, s, looked, 0)
    far = threat.size(s.z, x)
    for index, z in seen:
        size = threat.size(z, x[index])
        # Thales: the angle at z, between x and the best, is a right one.
        torch.testing.assert_close(threat.size(s.z[index], z) ** 2 + size**2, far[index] ** 2)
    first = threat.size(seen[0][1], x) / far
    torch.testing.assert_close(first, torch.full_like(first, math.cos(math.radians(40))))
    fooled = goal.reached(net(seen[0][1]))
    rest = ~fooled
    fooled[rest] = goal.label[rest] != net(seen[1][1]).argmax(1)
    assert (threat.size(after.z, x) <= far * math.cos(math.radians(40)) + 1e-9)[fooled].all()
    torch.testing.assert_close(after.angle, s.angle * torch.where(fooled, 1 / 0.95, 0.95))
    assert torch.equal(after.z[~fooled], s.z[~fooled])


@pytest.mark.parametrize("low", [0.0, 0.5])
def test_surfree_takes_directions_at_right_angles_to_the_last(low):
    net, x, goal = affine()
    p = problem(net, x, goal, am.L2(box=ROOM))
    member, seen = SurFree(memory=4, low=low), p.look(x, am.Margin())
    s = member.init(p)
    for t in range(6):
        v = member._direction(p, s, torch.zeros_like(x), t).flatten(1)
        torch.testing.assert_close((s.last * v[:, None]).sum(2), torch.zeros(12, min(t, 4), dtype=x.dtype))
        s = replace(s, last=torch.cat([s.last, v[:, None]], 1)[:, -4:])
    change = s.z - x
    v = member._direction(p, s, change, 7)
    torch.testing.assert_close((v * change).flatten(1).sum(1), torch.zeros(12, dtype=x.dtype))
    assert member.step(p, member.step(p, s, seen, 8), seen, 9).last.shape == (12, 4, 20)
    assert SurFree(memory=0).step(p, SurFree().init(p), seen, 0).last.shape == (12, 0, 20)


def test_surfree_makes_directions_of_the_low_frequencies_that_the_image_has():
    x = torch.zeros(3, 1, 6, 8, dtype=torch.float64)
    wave = (math.pi / 8 * 2 * (torch.arange(8, dtype=x.dtype) + 0.5)).cos()
    x[0] = 0.5 + 0.4 * wave  # one wave across, besides the mean
    x[1] = 0.5 + 0.4 * (math.pi / 8 * 7 * (torch.arange(8) + 0.5)).cos()  # too high
    net = Affine((1, 6, 8), 2, dtype=torch.float64)
    with torch.no_grad():
        goal = Untargeted(net(x).argmax(1))
    p = problem(net, x, goal, am.L2())
    member = SurFree(low=0.2)
    s = SurFree.State(x, x[:, 0, 0, 0], member._spectrum(p), x.new_zeros(3, 0, 48), goal.label > 5)
    for t in range(4):
        v = member._direction(p, s, torch.zeros_like(x), t)
        rest = v[0] - v[0].mean()
        rest = rest - wave * (rest @ wave / wave.square().sum())[..., None]
        assert v[0, 0].std(dim=0).max() < 1e-9  # nothing down the columns
        assert rest.abs().max() < 1e-9 or v[0].std() > 0.1  # white noise where all signs were zero
        assert v[2].std() > 0.1  # a black image has no frequencies: white noise
    first = [member._direction(p, s, torch.zeros_like(x), t)[1] for t in range(8)]
    assert sum(bool(f.std() < 1e-9) for f in first) >= 3


@pytest.mark.parametrize("low", [0.0, 1.0])
def test_surfree_comes_near_the_nearest_point_of_a_plane(low):
    net, x, goal = affine(rows=8)
    w, missing = plane(net, x, goal)
    out = attack(SurFree(steps=100, low=low), net, x, goal, am.L2(box=ROOM))
    ratio = out.size / (missing / w.norm(dim=1))
    assert (ratio > 1 - 1e-9).all()
    assert ratio.max() < 1.05
