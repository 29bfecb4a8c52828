"""Starts that depend on what was seen: the best so far, and starts that differ in output."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from adamant.access import LabelsOnly, ScoresOnly, Sight
from adamant.attacks import PGD, CosinePGD, EachTarget, Square, Union
from adamant.attacks.gradient import At
from adamant.attacks.starts import Anywhere, Best, Diverse, Here
from adamant.calling import Settings, untouched
from adamant.engine import perturb, run
from adamant.errors import AccessError, InputError
from adamant.goals import Untargeted
from adamant.losses import DLR, CrossEntropy, Margin
from adamant.random import Rng
from adamant.testing import Bent
from adamant.threats import Linf

SHAPE, ROWS, CLASSES, EPS = (1, 5, 5), 24, 5, Linf(0.02)


@pytest.fixture
def net():
    return Bent(SHAPE, CLASSES, seed=4).eval().requires_grad_(False)


@pytest.fixture
def x():
    return Rng.of(1, ROWS).uniform(*SHAPE)


@pytest.fixture
def goal(net, x):
    return Untargeted(net(x).argmax(1))


@dataclass(frozen=True, kw_only=True)
class Begins:
    """Looks at its start and notes what it was, with the rows."""

    start: object
    seen: list = field(default_factory=list, compare=False, repr=False)
    steps: int = 0
    loss: Margin = Margin()
    needs = Sight.SCORES

    def init(self, p):
        z = self.start(p)
        self.seen.append((p.index.clone(), z.clone()))
        return At(z)

    def step(self, p, s, seen, t):
        raise AssertionError


class Watched(nn.Module):
    """Keeps every input that it was asked with."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, z):
        self.seen.append(z.detach().clone())
        return self.net(z)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_best_is_the_best_by_margin_whatever_the_attacks_climb(net, x, goal, order):
    """Cross-entropy is positive, DLR at most one and a margin at most zero: only one measure can compare them."""
    attacks = [PGD(steps=3, loss=CrossEntropy()), PGD(steps=3, loss=DLR()), PGD(steps=2, rate=0.3, loss=Margin())]
    attacks = attacks[order:] + attacks[:order]
    far = Margin()(net(x), goal) < -2  # so that all stand, and every look is of all rows
    x, goal = x[far], Untargeted(goal.label[far])
    begins, spy = Begins(start=Best()), Watched(net)
    out = run(Union(*attacks, begins), spy, x, goal, Linf(0.004), settings=Settings(lanes=1))
    assert not out.broken.any()
    assert len(spy.seen) == 1 + 4 + 4 + 3 + 1
    (index, z), best = begins.seen[0], torch.full((len(x),), -torch.inf)
    for seen in spy.seen[1:12]:
        best = best.maximum(Margin()(net(seen), goal))
    assert len(index) == len(x) > 10
    torch.testing.assert_close(Margin()(net(z), goal), best[index])
    torch.testing.assert_close(out.loss, best.double())


def test_best_before_anything_is_the_input_and_after_a_search_goes_on_from_there(net, x, goal):
    begins = Begins(start=Best())
    run(begins, net, x, goal, EPS)
    assert torch.equal(begins.seen[0][1], x)
    short = run(Union(PGD(steps=2), Square(steps=30)), net, x, goal, EPS)
    more = run(Union(PGD(steps=2), Square(steps=30, start=Best())), net, x, goal, EPS)
    assert not torch.equal(more.loss, short.loss)
    first = run(Union(PGD(steps=2)), net, x, goal, EPS)
    assert (more.loss >= first.loss)[~more.broken].all()


def test_targets_are_chosen_where_they_are_asked_to_be(net, x, goal):
    """The ranking of the wrong classes at the best point, not at the input; outside of a union the two are one."""
    far = Linf(0.3)
    before = run(Union(PGD(steps=1, rate=0.3)), net, x, goal, far)
    rows = (~before.broken).nonzero().squeeze(1)

    def second(z):
        return net(z).scatter(1, goal.label[:, None], -torch.inf).argmax(1)

    aims = {}

    @dataclass(frozen=True)
    class Aims:
        steps: int = 0
        loss: Margin = Margin()
        needs = Sight.SCORES

        def init(self, p):
            aims.setdefault("rows", p.index.clone())
            aims.setdefault("aim", p.aim.target.clone())
            return At(p.x)

        def step(self, p, s, seen, t):
            raise AssertionError

    run(Union(PGD(steps=1, rate=0.3), EachTarget(Aims(), 1, Best())), net, x, goal, far)
    assert torch.equal(aims["rows"], rows)
    assert torch.equal(aims["aim"], second(before.x_adv)[rows])
    assert not torch.equal(second(before.x_adv)[rows], second(x)[rows])
    outs = [run(EachTarget(CosinePGD(steps=3), 2, at), net, x, goal, EPS) for at in (Here(), Best())]
    assert torch.equal(outs[0].x_adv, outs[1].x_adv)


def test_diverse_takes_whole_steps_along_its_own_direction(net, x, goal):
    """Tashiro et al., 2020: w uniform on [-1, 1] by class, x + eps sign(grad of w f(x)), projected."""
    begins = Begins(start=Diverse(steps=3))
    run(begins, net, x, goal, EPS)
    low, high = (x - 0.02).clamp_min(0), (x + 0.02).clamp_max(1)
    w = Rng.of(0, ROWS).fold("direction").uniform(CLASSES) * 2 - 1
    z = low + (high - low) * Rng.of(0, ROWS).fold("start").uniform(*SHAPE)
    for _ in range(3):
        z = z.requires_grad_()
        g = torch.autograd.grad((net(z) * w).sum(), z)[0]
        z = (z.detach() + 0.02 * g.sign()).clamp(low, high)
    torch.testing.assert_close(begins.seen[0][1], z, rtol=0, atol=1e-6)
    gain = ((net(z) - net(x)) * w).sum(1)
    assert (gain > 0).all()


def test_the_direction_is_the_rows_own_and_new_in_every_part(net, x, goal):
    whole, some, twice = (Begins(start=Diverse()) for _ in range(3))
    run(whole, net, x, goal, EPS)
    rows = torch.tensor([20, 3, 11])
    run(some, net, x[rows], Untargeted(goal.label[rows]), EPS, rng=Rng.of(0, rows))
    assert torch.equal(some.seen[0][1], whole.seen[0][1][rows])
    run(Union(twice, twice), net, x, goal, EPS)
    assert not torch.equal(twice.seen[0][1], twice.seen[1][1])


def test_its_looks_are_in_the_books_and_a_success_on_the_way_counts(net, x, goal):
    out = run(PGD(steps=4, start=Diverse(steps=3)), net, x, goal, Linf(1e-6))
    assert out.forwards.unique().tolist() == [3 + 5]
    assert out.backwards.unique().tolist() == [3 + 4]
    found = run(Begins(start=Diverse(steps=6)), net, x, goal, Linf(0.4))
    early = found.broken & (found.first_success <= 6)
    assert early.any()
    assert (net(found.x_adv).argmax(1) != goal.label)[found.broken].all()
    torch.testing.assert_close(found.loss[early], Margin()(net(found.x_adv), goal).double()[early])
    limited = run(PGD(steps=4, start=Diverse(steps=3)), net, x, goal, Linf(1e-6), settings=Settings(max_looks=2))
    assert limited.forwards.unique().tolist() == [2]


@pytest.mark.parametrize("loss", [DLR(), CrossEntropy(), Margin()])
def test_what_it_climbs_on_the_way_is_not_mistaken_for_the_loss_of_the_attack(net, x, goal, loss):
    out = run(PGD(steps=3, start=Diverse(), loss=loss), net, x, goal, EPS)
    stood = ~out.broken
    assert stood.any()
    torch.testing.assert_close(out.loss[stood], loss(net(out.x_adv), goal).double()[stood], rtol=1e-4, atol=1e-5)


def test_no_steps_are_the_start_itself(net, x, goal):
    a, b = (Begins(start=s) for s in (Diverse(steps=0), Anywhere()))
    for one in (a, b):
        run(one, net, x, goal, EPS)
    assert torch.equal(a.seen[0][1], b.seen[0][1])


def test_without_gradients_and_in_training_it_is_refused(net, x, goal):
    for access in (ScoresOnly(), LabelsOnly()):
        with pytest.raises(AccessError, match=f"Diverse follows gradients and {type(access).__name__}"):
            run(Square(steps=3, start=Diverse()) if access.gives else Lazy(), net, x, goal, EPS, access=access)
    with untouched(net), pytest.raises(InputError, match="train with Anywhere"):
        perturb(PGD(start=Diverse()), net, x, goal, EPS, rng=Rng.of(0, ROWS))


@dataclass(frozen=True)
class Lazy:
    """Asks for labels only, and starts where it must not."""

    steps: int = 0
    loss: Margin = Margin()
    needs = Sight.LABELS

    def init(self, p):
        return At(Diverse()(p))

    def step(self, p, s, seen, t):
        raise AssertionError
