"""SparseRS against the authors' figures (fra31/sparse-rs at 21d8759) and schedule, and what each of its tries is."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from adamant.access import ScoresOnly, Sight
from adamant.adversary import Status
from adamant.attacks.sparse_rs import SparseRS
from adamant.batch import PerRow, Shared
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.losses import CrossEntropy
from adamant.random import Rng
from adamant.testing import Bent
from adamant.threats import L0, Linf


def net():
    return Bent((3, 8, 8), 10, seed=4).eval()


def inputs(rows=100, seed=8):
    return (1.5 * Rng.of(seed, rows).uniform(3, 8, 8) - 0.25).clamp(0, 1)


# Share of broken rows and mean queries (200 where unbroken) of the authors' code on this network, means of three seeds.
AUTHORS = {(1, False): (0.593, 95.8), (2, False): (0.803, 54.2), (4, False): (0.967, 23.5), (4, True): (0.150, 180.1)}


@pytest.mark.parametrize(("pixels", "targeted"), AUTHORS)
def test_as_many_fall_after_as_many_queries_as_with_the_authors_code(pixels, targeted):
    model, x = net(), inputs()
    label = model(x).argmax(1)
    goal = Targeted(label, (label + 1) % 10) if targeted else Untargeted(label)
    attack = SparseRS(steps=199, share=0.1, loss=CrossEntropy()) if targeted else SparseRS(steps=199)
    out = run(attack, model, x, goal, L0(pixels, pixels=True), access=ScoresOnly())
    share, queries = AUTHORS[pixels, targeted]
    assert out.success_rate == pytest.approx(share, abs=0.06)
    assert float(out.first_success.where(out.broken, 200).double().mean()) == pytest.approx(queries, abs=9)


def test_the_schedule_is_the_authors():
    """Queries of 10,000 at which their share changes, for one of 0.8; and the same stretched to other numbers."""
    theirs = ((1, 0.4), (50, 0.4), (51, 0.2), (200, 0.2), (201, 0.16), (501, 0.8 / 6), (1001, 0.1), (2001, 0.08),
              (4001, 0.8 / 12), (6001, 0.8 / 15), (8001, 0.04), (9999, 0.04))  # fmt: skip
    for query, share in theirs:
        assert SparseRS(steps=9999, share=0.8)._share(query) == pytest.approx(share)
        assert SparseRS(steps=999, share=0.8)._share(-(-query // 10)) == pytest.approx(
            SparseRS(steps=9999, share=0.8)._share(-(-query // 10) * 10)
        )


@dataclass(frozen=True)
class Recorded:
    """SparseRS, with a list of its states."""

    attack: SparseRS
    states: list
    needs: ClassVar[Sight] = Sight.SCORES

    @property
    def steps(self):
        return self.attack.steps

    @property
    def loss(self):
        return self.attack.loss

    def init(self, p):
        self.states.append(self.attack.init(p))
        return self.states[-1]

    def step(self, p, s, seen, t):
        self.states.append(self.attack.step(p, s, seen, t))
        return self.states[-1]


class Fixed(torch.nn.Module):
    """A random score by the input that never lets the label go: every row is searched to the end."""

    def forward(self, z):
        one = (z.flatten(1) * torch.linspace(-1, 1, z[0].numel(), dtype=z.dtype)).sum(1).sin()
        return torch.stack([one + 3, 0 * one], 1)


@pytest.mark.parametrize("pixels", [True, False])
def test_each_try_moves_what_the_schedule_says(pixels):
    x, states, attack = inputs(6), [], SparseRS(steps=300)
    count = torch.tensor([1, 2, 10, 30, 1, 40])
    threat = L0(PerRow(count.double()), pixels=pixels)
    run(Recorded(attack, states), Fixed(), x, Untargeted(torch.zeros(6, dtype=torch.long)), threat)
    shaped = x.view(6, 3, 64) if pixels else x.view(6, 1, 192)
    for t, s in enumerate(states):
        now, best = s.z.view_as(shaped), s.best.view_as(shaped)
        assert torch.equal(s.units.sum(1), count)
        assert torch.equal(torch.where(s.units[:, None], shaped, now), shaped)  # x where nothing is coloured
        corner = (now == 0) | (now == 1)
        assert bool((corner | ~s.units[:, None]).all())
        if t:
            moved = torch.tensor([max(int(attack._share(t) * int(k)), 1) for k in count])
            assert torch.equal((s.units & ~s.best_units).sum(1), moved)
            assert torch.equal((s.best_units & ~s.units).sum(1), moved)
            kept = s.units & s.best_units
            assert bool((now == best)[kept[:, None].expand_as(now)].all())
            one = moved == 1
            assert bool(((now != best) & (s.units & ~s.best_units)[:, None]).flatten(1).any(1)[one].all())
    scores = torch.stack([s.loss for s in states])
    assert bool((scores.diff(dim=0) >= 0)[1:].all())
    assert bool((scores[-1] > scores[1])[1:4].all())


def test_the_ends_of_every_row_and_column_are_reached():
    """All units take part, the last ones too (ART's Square draws never reach the last row or column)."""
    states = []
    run(
        Recorded(SparseRS(steps=150), states),
        Fixed(),
        inputs(4),
        Untargeted(torch.zeros(4, dtype=torch.long)),
        L0(6.0, pixels=True),
    )
    assert bool(torch.stack([s.units for s in states]).flatten(0, 1).any(0).all())
    colours = torch.cat([s.z.view(4, 3, 64).mT[s.units] for s in states]).unique(dim=0)
    assert len(colours) == 8


def test_a_budget_of_all_entries_recolours_what_it_holds():
    x, states = inputs(3), []
    run(
        Recorded(SparseRS(steps=40, share=0.02), states),
        Fixed(),
        x,
        Untargeted(torch.zeros(3, dtype=torch.long)),
        L0(500.0),
    )
    assert bool(torch.stack([s.units for s in states]).all())
    moved = torch.stack([(s.z != s.best).flatten(1).sum(1) for s in states[1:]])
    assert int(moved.min()) >= 0
    assert int(moved.max()) <= 3
    assert float(moved.double().mean()) > 0.5


def test_what_may_not_change_stays_and_rectangles_are_fine():
    model = Bent((3, 4, 9), 10, seed=4).eval()
    x = (1.5 * Rng.of(8, 20).uniform(3, 4, 9) - 0.25).clamp(0, 1)
    goal = Untargeted(model(x).argmax(1))
    mask = torch.arange(9) % 2 == 0
    for threat in (L0(4.0, pixels=True, mask=Shared(mask)), L0(6.0, mask=Shared(mask))):
        out = run(SparseRS(steps=60), model, x, goal, threat)
        assert bool(out.broken.any())
        assert bool((out.x_adv == x)[..., ~mask].all())
        assert not bool((out.status == Status.INVALID).any())


def test_rows_with_budgets_of_their_own_do_not_depend_on_their_batch():
    model, x = net(), inputs(12)
    goal = Untargeted(model(x).argmax(1))
    budgets = torch.tensor([1.0, 2, 9, 3] * 3)
    whole = run(SparseRS(steps=50), model, x, goal, L0(PerRow(budgets), pixels=True))
    for i in (0, 5):
        row = slice(i, i + 1)
        alone = run(
            SparseRS(steps=50), model, x[row], Untargeted(goal.label[row]), L0(PerRow(budgets[row]), pixels=True),
            rng=Rng.of(0, torch.tensor([i])),
        )  # fmt: skip
        assert torch.equal(alone.x_adv, whole.x_adv[row])
        assert torch.equal(alone.forwards, whole.forwards[row])


def test_no_budget_no_share_and_no_other_threat():
    model, x = net(), inputs(4)
    goal = Untargeted(model(x).argmax(1))
    with pytest.raises(InputError, match="budget"):
        run(SparseRS(), model, x, goal, L0())
    with pytest.raises(InputError, match="share"):
        run(SparseRS(share=0.0), model, x, goal, L0(3.0))
    with pytest.raises(InputError, match="L0"):
        run(SparseRS(), model, x, goal, Linf(0.1))
