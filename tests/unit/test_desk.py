"""The desk beside the conformance suite: several points at once, rows that rest, uneven budgets, smallest changes."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import adamant as am
from adamant.access import Sight
from adamant.adversary import Status
from adamant.attacks.gradient import At
from adamant.batch import PerRow, Rows, take
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.losses import Margin
from adamant.random import Rng
from adamant.testing import EVERY, ONCE, Affine, Bent, Member, cases

SHAPE, CLASSES = (1, 4, 4), 4


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Looks at several random members in a round, and goes on from the best; a row rests after its own last round."""

    steps: int = 4
    points: int = 5
    together: bool = True
    rests: bool = False
    loss: Margin = Margin()
    needs: ClassVar[Sight] = Sight.LABELS

    @dataclass(frozen=True)
    class State(Rows):
        z: Tensor
        done: Tensor

    def init(self, p):
        return self.State(p.threat.sample(p.x, p.rng.fold("first")), torch.zeros(len(p.x), dtype=torch.bool))

    def step(self, p, s, seen, t):
        points = torch.stack([p.threat.sample(p.x, p.rng.fold(t).fold(i)) for i in range(self.points)])
        if self.together:
            looked = p.looks(points, self.loss)
        else:
            parts = [p.look(z, self.loss) for z in points]
            looked = am.access.Look(torch.stack([q.logits for q in parts]), torch.stack([q.loss for q in parts]), None)
        best = looked.loss.nan_to_num(-1e9).argmax(0)
        done = (p.rng.fold("end").integers(self.steps) <= t) if self.rests else s.done
        return self.State(points[best, torch.arange(len(best))], done)


@dataclass(frozen=True, kw_only=True)
class Some(Rounds):
    """Asks more of some rows than of others."""

    def step(self, p, s, seen, t):
        some = p.rng.fold("some").fold(t).uniform() < 0.5
        if bool(some.any()):
            q = take(p, some)
            q.look(q.threat.sample(q.x, q.rng.fold(t)), self.loss)
        return replace(s, z=p.threat.sample(p.x, p.rng.fold(t).fold("on")))


@pytest.fixture
def model():
    return Bent(SHAPE, CLASSES).eval()


@pytest.fixture
def x():
    return Rng.of(0, 40).uniform(*SHAPE)


def goal_of(model, x):
    with torch.no_grad():
        return Untargeted(model(x).argmax(1))


@pytest.mark.parametrize(
    "attack", [Rounds(), Rounds(rests=True), Some(), am.Restarts(Rounds(rests=True), 2), am.Union(Some(), Rounds())]
)
def test_attacks_with_a_loop_of_their_own_keep_every_promise(attack):
    found = Member(attack=attack, threats=(am.Linf(0.4),), access=am.ScoresOnly(), reach=None, targeted=False)
    for case in cases(found):
        for promise in (*EVERY, *ONCE):
            if case.dtype == torch.float32 and promise.__name__ != "repr_is_the_recipe":
                promise(case)


def test_a_round_is_so_many_looks(model, x):
    goal, threat = goal_of(model, x), am.Linf(0.02)
    a = run(Rounds(), model, x, goal, threat)
    b = run(Rounds(together=False), model, x, goal, threat)
    stood = a.status == Status.ROBUST
    assert stood.sum() > 20
    assert (a.status == b.status).all()
    assert (a.forwards[stood] == 1 + 4 * 6).all()
    assert torch.equal(a.forwards[stood], b.forwards[stood])
    assert torch.equal(a.x_adv, b.x_adv)
    assert torch.equal(a.first_success, b.first_success)


@pytest.mark.parametrize("attack", [Rounds(), Rounds(together=False), Some()])
@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_a_limit_holds_for_each_row_and_stops_no_other(model, x, attack, most):
    goal, threat = goal_of(model, x), am.Linf(0.02)
    full = run(attack, model, x, goal, threat)
    out = run(attack, model, x, goal, threat, settings=am.Settings(max_looks=most))
    assert (out.forwards <= most).all()
    early = full.broken & (full.first_success <= most)
    assert torch.equal(out.broken, early)
    assert (out.forwards[(out.status == Status.OUT_OF_BUDGET)] == most).all()
    alone = [
        run(
            attack, model, x[i : i + 1], take(goal, torch.tensor([i])), threat,
            rng=Rng.of(0, torch.tensor([i])), settings=am.Settings(max_looks=most),
        )
        for i in range(8)
    ]  # fmt: skip
    for i, one in enumerate(alone):
        assert torch.equal(one.forwards[0], out.forwards[i])
        assert torch.equal(one.status[0], out.status[i])


def test_a_row_that_rests_is_not_looked_at(model, x):
    goal, threat = goal_of(model, x), am.Linf(1e-4)
    out = run(Rounds(rests=True), model, x, goal, threat)
    last = Rng.of(0, 40).fold("end").integers(4)
    assert torch.equal(out.forwards, 1 + 6 * (last + 1) - 1)
    again = run(am.Restarts(Rounds(rests=True), 2), model, x, goal, threat)
    assert (again.forwards >= 12).all()  # the second restart woke every row


class Hesitant(nn.Module):
    """Asked about one row alone it keeps to its label a little longer than in a batch."""

    def __init__(self, net, label):
        super().__init__()
        self.net, self.label = net, label

    def forward(self, z):
        out = self.net(z)
        return out + 1e-3 * nn.functional.one_hot(self.label[:1], CLASSES) if len(z) == 1 else out


def test_a_smallest_change_that_does_not_hold_alone_is_pushed_on(x):
    net = Affine(SHAPE, CLASSES)
    with torch.no_grad():
        label = net(x).argmax(1)
    same = label == label[0]
    x, label = x[same], label[same]
    free = run(am.DDN(), net, x, Untargeted(label), am.L2())
    held = run(am.DDN(), Hesitant(net, label), x, Untargeted(label), am.L2())
    assert free.broken.all()
    assert held.broken.all()
    assert (held.checks > 2).any()
    assert (held.size < free.size * 1.1).all()
    with torch.no_grad():
        for z in held.x_adv:
            assert Hesitant(net, label)(z[None]).argmax() != label[0]


def test_without_a_budget_the_smallest_success_is_kept_and_with_one_the_first_ends_the_row(model, x):
    goal = goal_of(model, x)
    least = run(am.DDN(), model, x, goal, am.L2())
    assert least.broken.all()
    assert (least.forwards == 101).all()
    within = run(am.DDN(), model, x, goal, am.L2(PerRow(least.size * 2)))
    assert within.broken.all()
    assert (within.forwards < 101).all()
    assert (within.size >= least.size - 1e-9).all()
    assert torch.equal(within.first_success, within.forwards)


def test_a_threat_without_a_budget_asks_for_attacks_of_minimum_norm(model, x):
    goal = goal_of(model, x)
    with pytest.raises(InputError, match=r"PGD works within a budget and L2 has none"):
        run(am.Union(am.DDN(), am.PGD()), model, x, goal, am.L2())
    with pytest.raises(InputError, match=r"DDN works within L2, not within Linf"):
        run(am.Restarts(am.DDN(), 2), model, x, goal, am.Linf(0.1))
    with pytest.raises(InputError, match="Some rows have a budget and some have none"):
        run(am.DDN(), model, x, goal, am.L2(PerRow(torch.tensor([1.0, torch.inf]).repeat(20))))


def test_several_scores_have_a_gradient_each(x):
    net = Affine(SHAPE, CLASSES)
    goal = goal_of(net, x)
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Watches:
        steps: int = 1
        loss: am.Margins = am.Margins()
        needs: ClassVar[Sight] = Sight.GRADIENT

        def init(self, p):
            return At(p.x)

        def step(self, p, s, look, t):
            seen.append(look)
            return s

    mask = am.batch.Shared(Rng.of(3, 1).uniform(*SHAPE)[0] < 0.5)
    out = run(Watches(), net, x, goal, am.Linf(1e-6, mask=mask))
    look = seen[0]
    assert look.loss.shape == (40, 3)
    assert (look.loss.diff(dim=1) <= 0).all()
    assert out.backwards.eq(3).all()
    weight = net.weight.detach()
    with torch.no_grad():
        ranked = net(x).argsort(1, descending=True)
    for i in range(40):
        for j in range(3):
            w = (weight[ranked[i, j + 1]] - weight[goal.label[i]]).view(SHAPE)
            torch.testing.assert_close(look.slope[i, j], w * mask.values)


def test_a_later_success_that_is_larger_does_not_take_the_place_of_the_smallest():
    net, x = Affine(SHAPE, 2), Rng.of(0, 20).uniform(*SHAPE) * 0.2 + 0.4
    goal, lengths = goal_of(net, x), (1.0, 0.5, 0.9)

    @dataclass(frozen=True, kw_only=True)
    class Wanders:
        steps: int = 2
        loss: Margin = Margin()
        needs: ClassVar[Sight] = Sight.GRADIENT
        minimal: ClassVar[bool] = True

        def init(self, p):
            w = (net.weight[1] - net.weight[0]).detach().view(SHAPE) * (1 - 2 * p.goal.label).view(-1, 1, 1, 1)
            self.seen.append(w)
            return At(p.threat.clip(p.x + lengths[0] * w.sign()))

        seen: ClassVar[list[Tensor]] = []

        def step(self, p, s, look, t):
            return At(p.threat.clip(p.x + lengths[t + 1] * self.seen[-1].sign()[: len(p.x)]))

    out = run(Wanders(), net, x, goal, am.Linf(), settings=am.Settings(lanes=20))
    assert out.broken.all()
    assert (out.size <= 0.5 + 1e-6).all()


def test_a_limit_of_looks_for_each_row() -> None:
    """Each row ends as under its own limit alone; none at all for a row that may not look."""
    model = Affine(SHAPE, CLASSES)
    x = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    goal = Untargeted(model(x).argmax(1))
    limits = [0, 1, 4, 7, 100]
    most = torch.tensor(limits).repeat(-(-len(x) // 5))[: len(x)]
    attack, threat = am.PGD(steps=10), am.Linf(1e-4)
    both = run(attack, model, x, goal, threat, settings=am.Settings(max_looks=PerRow(most), batch_size=7))
    for limit in limits[1:]:
        alone = run(attack, model, x, goal, threat, settings=am.Settings(max_looks=limit))
        rows = (most == limit) & (both.status != Status.WRONG_ALREADY)
        assert rows.any()
        for name in ("forwards", "status", "x_adv"):
            assert torch.equal(getattr(both, name)[rows], getattr(alone, name)[rows])
    assert not both.forwards[most == 0].any()
    assert both.forwards[most == 7].max() == 7
    with pytest.raises(InputError, match="2 limits of looks for"):
        run(attack, model, x, goal, threat, settings=am.Settings(max_looks=PerRow([1, 2])))
