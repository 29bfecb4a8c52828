"""Carlini and Wagner's L0 attack: its rounds step by step, and what it finds where the answer is known."""

import pytest
import torch

import adamant as am
from adamant.attacks.carlini_l0 import CarliniWagnerL0
from adamant.batch import PerRow, Shared, take
from adamant.calling import Caller, Settings
from adamant.desk import Blind, Problem
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.losses import Margin
from adamant.random import Rng
from adamant.testing import Affine, Bent
from adamant.threats import L0

SHAPE, ROWS = (2, 4, 4), 10


@pytest.fixture
def net():
    return Bent(SHAPE, 4, seed=2, dtype=torch.float64).eval().requires_grad_(False)


@pytest.fixture
def x():
    return (Rng.of(11, ROWS).uniform(*SHAPE, dtype=torch.float64) * 1.5 - 0.25).clamp(0, 1)


@pytest.fixture
def goal(net, x):
    return Untargeted(net(x).argmax(1))


def problem(net, x, goal, threat):
    desk = Blind(Caller(net, Settings(lanes=1)))
    return Problem(x, goal, goal, threat, am.WhiteBox(), Rng.of(0, len(x)), torch.arange(len(x)), desk)


def reference(net, x, goal, member, steps):
    """Section VI.B for one row, with torch's Adam: entries put back are named one after another in a plain loop."""
    inset, box = 1e-6, lambda w: (w.tanh() + 1) / 2
    start = torch.atanh((2 * x - 1) * (1 - inset))
    free, weight, age = [True] * x.numel(), member.weight, 0
    w, z, trace = start.clone().requires_grad_(True), x.clone(), []
    adam = torch.optim.Adam([w], lr=member.rate)
    for _ in range(steps):
        trace.append((z, sum(free), weight))
        at = z.clone().requires_grad_(True)
        margin = Margin()(net(at), goal)
        slope = torch.autograd.grad(margin.sum(), at)[0]
        fooled = bool(goal.reached(net(z)))
        if fooled:
            change = (z - x).flatten()
            useful = (change * slope.flatten()).tolist()
            for i in range(x.numel()):
                if free[i] and change[i] == 0:
                    free[i] = False
            total, gone = sum(max(useful[i], 0) for i in range(x.numel()) if free[i]), 0.0
            for turn, i in enumerate(sorted((i for i in range(x.numel()) if free[i]), key=useful.__getitem__)):
                gone += max(useful[i], 0)
                if turn and gone > member.drop * total:
                    break
                free[i] = False
        elif age >= member.each:
            weight *= 10
        if fooled or age >= member.each:
            adam, age = torch.optim.Adam([w], lr=member.rate), 0
        age += 1
        mask = torch.tensor(free).view_as(x)
        with torch.no_grad():
            w.copy_(torch.where(mask, w, start))
        whole = (2 * (z - x) - weight * float(margin < 0) * slope) * mask
        w.grad = whole * (1 - w.detach().tanh() ** 2) / 2
        adam.step()
        with torch.no_grad():
            w.copy_(torch.where(mask, w, start))
            z = torch.where(mask, (x + box(w) - box(start)).clamp(0, 1), x).detach()
    return trace


@pytest.mark.parametrize("drop", [0.0, 0.1])
def test_it_is_the_algorithm_of_the_paper(net, x, goal, drop):
    member = CarliniWagnerL0(rate=0.3, drop=drop, each=12, most=1e9)
    p = problem(net, x, goal, L0())
    s, states = member.init(p), []
    for t in range(60):
        states.append(s)
        s = member.step(p, s, p.look(s.z, member.loss, grad=True), t)
    for i in range(ROWS):
        rows = torch.tensor([i])
        trace = reference(net, x[rows], take(goal, rows), member, 60)
        for s, (z, free, weight) in zip(states, trace, strict=True):
            torch.testing.assert_close(s.z[i], z[0], rtol=0, atol=1e-7)
            assert int(s.open[i].sum()) == free
            assert float(s.weight[i]) == weight


def test_an_entry_that_was_put_back_stays_as_it_was(net, x, goal):
    for threat in (L0(), L0(pixels=True)):
        p, member = problem(net, x, goal, threat), CarliniWagnerL0()
        s, before = member.init(p), torch.full((ROWS,), 33.0)
        for t in range(60):
            s = member.step(p, s, p.look(s.z, member.loss, grad=True), t)
            assert torch.equal(s.z[s.open == 0], x[s.open == 0])
            free = s.open.flatten(1).sum(1)
            assert (free <= before).all()
            before = free
            if threat.pixels:  # all channels of a pixel together
                assert torch.equal(s.open[:, 0], s.open[:, 1])
        assert (before < 20).any()


def test_it_needs_few_entries_where_the_fewest_are_known():
    """On an affine network the fewest are those that gain most: it needs no more than half again as many."""
    net = Affine(SHAPE, 2, seed=1, dtype=torch.float64).requires_grad_(False)
    x = Rng.of(0, 40).uniform(*SHAPE, dtype=torch.float64)
    label = net(x).argmax(1)
    w = (net.weight[1 - label] - net.weight[label]).view_as(x)
    gain = torch.where(w > 0, w * (1 - x), -w * x).flatten(1).sort(dim=1, descending=True).values.cumsum(1)
    missing = -Margin()(net(x), Untargeted(label))
    fewest = (gain <= missing[:, None]).sum(1) + 1
    out = run(CarliniWagnerL0(), net, x, Untargeted(label), L0())
    assert out.broken.all()
    assert (out.size >= fewest).all()
    assert (out.size / fewest).max() <= 1.5
    assert (out.size == fewest).double().mean() > 0.5


def test_masked_entries_stay_and_targets_are_reached(net, x, goal):
    mask = Shared(Rng.of(5, 1).uniform(*SHAPE)[0] < 0.7)
    target = (goal.label + 1) % 4
    out = run(CarliniWagnerL0(), net, x, Targeted(goal.label, target), L0(mask=mask))
    assert torch.equal(out.x_adv[:, ~mask.values], x[:, ~mask.values])
    assert out.broken.double().mean() > 0.5
    assert torch.equal(net(out.x_adv).argmax(1)[out.broken], target[out.broken])


def test_within_a_budget_a_row_is_done_when_it_is_met(net, x, goal):
    free = run(CarliniWagnerL0(), net, x, goal, L0())
    met = run(CarliniWagnerL0(), net, x, goal, L0(PerRow(free.size.clamp_min(1))))
    assert torch.equal(met.broken, free.broken)
    assert (met.forwards <= free.forwards).all()
    assert (free.forwards < 2001).any()  # rows whose weight has grown to the most are done


def test_a_threat_of_another_kind_is_refused(net, x, goal):
    with pytest.raises(InputError, match="works within L0"):
        run(CarliniWagnerL0(), net, x, goal, am.L2())
