"""Losses: closed forms, the sign, what they do not depend on, precision, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from adamant.errors import InputError
from adamant.goals import Diverge, Targeted, Untargeted
from adamant.losses import CATALOGUE, DLR, KL, CrossEntropy, Loss, Margin

LABEL, TARGET = torch.tensor([0, 3, 4, 1]), torch.tensor([2, 0, 1, 4])
UNTARGETED, TARGETED = Untargeted(LABEL), Targeted(LABEL, TARGET)
ALL = [(loss, goal) for loss in (CrossEntropy(), Margin(), DLR()) for goal in (UNTARGETED, TARGETED)]
names = [f"{type(loss).__name__}-{type(goal).__name__}" for loss, goal in ALL]


def logits(seed: int = 0) -> Tensor:
    return torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def by_hand(loss: Loss, goal, z: np.ndarray, row: int) -> float:
    """The formulas of the papers, one row at a time."""
    y = int(goal.label[row])
    t = int(goal.target[row]) if isinstance(goal, Targeted) else None
    log_p = z - math.log(np.exp(z).sum())
    down = np.sort(z)[::-1]
    others = lambda c: max(v for i, v in enumerate(z) if i != c)  # noqa: E731
    match loss, t:
        case CrossEntropy(), None:
            return -log_p[y]
        case CrossEntropy(), _:
            return log_p[t]
        case Margin(), None:
            return others(y) - z[y]
        case Margin(), _:
            return z[t] - others(t)
        case DLR(), None:  # Croce & Hein (2020), eq. 6
            return -(z[y] - others(y)) / (down[0] - down[2])
        case _:  # eq. 7
            return -(z[y] - z[t]) / (down[0] - (down[2] + down[3]) / 2)


@pytest.mark.parametrize(("loss", "goal"), ALL, ids=names)
@pytest.mark.parametrize("seed", range(3))
def test_the_formula(loss, goal, seed) -> None:
    z = logits(seed)
    expected = [by_hand(loss, goal, z[i].numpy(), i) for i in range(4)]
    assert loss(z, goal).tolist() == pytest.approx(expected, rel=1e-12)


def test_numbers_worked_out_on_paper() -> None:
    z = torch.tensor([[4.0, 1.0, 2.0, 0.0]])
    y, t = torch.tensor([0]), torch.tensor([1])
    assert Margin()(z, Untargeted(y)).item() == -2
    assert Margin()(z, Targeted(y, t)).item() == -3
    assert DLR()(z, Untargeted(y)).item() == pytest.approx(-2 / 3)
    assert DLR()(z, Targeted(y, t)).item() == pytest.approx(-3 / 3.5)
    even = torch.zeros(1, 4)
    assert CrossEntropy()(even, Untargeted(y)).item() == pytest.approx(math.log(4))
    assert CrossEntropy()(even, Targeted(y, t)).item() == pytest.approx(-math.log(4))
    reference = torch.tensor([[0.0, math.log(3.0)]])  # (1/4, 3/4)
    assert KL()(torch.zeros(1, 2), Diverge(reference)).item() == pytest.approx(
        0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    )


def test_the_divergence_is_from_the_reference_to_now() -> None:
    p, q = logits(1).softmax(1), logits(2).softmax(1)
    expected = (p * (p / q).log()).sum(1)
    assert torch.allclose(KL()(logits(2), Diverge(logits(1))), expected)
    assert (KL()(logits(1), Diverge(logits(1))).abs() < 1e-12).all()


@pytest.mark.parametrize(("loss", "goal"), ALL, ids=names)
def test_larger_is_worse_for_the_model(loss, goal) -> None:
    worse, better = torch.zeros(4, 5), torch.zeros(4, 5)
    better.scatter_(1, LABEL[:, None], 5.0)
    wanted = TARGET if isinstance(goal, Targeted) else (LABEL + 1) % 5
    worse.scatter_(1, wanted[:, None], 5.0)
    better[:, :] += torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    worse[:, :] += torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    assert (loss(worse, goal) > loss(better, goal)).all()
    if not isinstance(loss, CrossEntropy):
        assert (loss(worse, goal) > 0).all()
        assert (loss(better, goal) < 0).all()


@pytest.mark.parametrize("goal", [UNTARGETED, TARGETED])
def test_the_margin_is_positive_just_where_the_goal_is_reached(goal) -> None:
    for seed in range(20):
        z = logits(seed)
        assert torch.equal(Margin()(z, goal) > 0, goal.reached(z))
        assert torch.equal(DLR()(z, UNTARGETED) > 0, UNTARGETED.reached(z))


@pytest.mark.parametrize(("loss", "goal"), ALL, ids=names)
def test_a_constant_added_to_all_logits_changes_nothing(loss, goal) -> None:
    z = logits()
    for other in (z + 7, z - 100, z.log_softmax(1)):
        assert torch.allclose(loss(other, goal), loss(z, goal), atol=1e-9)


@pytest.mark.parametrize("goal", [UNTARGETED, TARGETED])
def test_dlr_does_not_depend_on_the_scale(goal) -> None:
    assert torch.allclose(DLR()(logits() * 50, goal), DLR()(logits(), goal))


def test_padding_with_hopeless_classes_changes_no_margin() -> None:
    """A maximum with zero instead of over the classes would show with logits far below zero."""
    z = logits() - 100
    more = torch.cat([z, torch.full((4, 2), -1e6, dtype=torch.float64)], 1)
    for goal in (UNTARGETED, TARGETED):
        assert torch.equal(Margin()(more, goal), Margin()(z, goal))


@pytest.mark.parametrize(("loss", "goal"), [*ALL, (KL(), Diverge(logits(1)))], ids=[*names, "KL"])
def test_one_number_per_row_that_its_neighbours_do_not_change(loss, goal) -> None:
    from adamant.batch import take

    z = logits()
    whole = loss(z, goal)
    assert whole.shape == (4,)
    for row in range(4):
        one = torch.tensor([row])
        assert torch.allclose(loss(z[one], take(goal, one)), whole[one], rtol=1e-14, atol=0)


@pytest.mark.parametrize(("loss", "goal"), [*ALL, (KL(), Diverge(logits(1)))], ids=[*names, "KL"])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.float64, torch.float64),
        (torch.float32,) * 2,
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_scores_are_float32_or_better(loss, goal, given, kept) -> None:
    if isinstance(goal, Diverge):
        goal = Diverge(goal.reference.to(given))
    assert loss(logits().to(given), goal).dtype == kept


@pytest.mark.parametrize(("loss", "goal"), ALL, ids=names)
def test_ties_give_numbers_and_a_gradient_without_nan(loss, goal) -> None:
    z = torch.zeros(4, 5, requires_grad=True)
    score = loss(z, goal)
    assert score.isfinite().all()
    if not isinstance(loss, CrossEntropy):
        assert (score == 0).all()
    (g,) = torch.autograd.grad(score.sum(), z)
    assert g.isfinite().all()


@pytest.mark.parametrize(("loss", "goal"), ALL, ids=names)
def test_the_gradient_climbs(loss, goal) -> None:
    z = logits().requires_grad_(True)
    score = loss(z, goal)
    (g,) = torch.autograd.grad(score.sum(), z)
    # DLR has no slope where the label and the best other are also the ends of its denominator
    assert (loss(z + 1e-5 * g, goal) >= score - 1e-12).all()
    assert torch.autograd.gradcheck(lambda v: loss(v, goal), z)


@pytest.mark.parametrize(("loss", "goal"), ALL, ids=names)
def test_a_nan_is_never_better_than_anything(loss, goal) -> None:
    z = logits()
    z[1, 2] = torch.nan
    score = loss(z, goal)
    assert not (score[1] > -math.inf)
    assert score[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("confident", [50.0, 200.0, 1e4])
def test_margins_do_not_saturate(confident) -> None:
    z = torch.tensor([[confident, 0.0, 1.0]], requires_grad=True)
    (g,) = torch.autograd.grad(Margin()(z, Untargeted(torch.tensor([0]))).sum(), z)
    assert g.tolist() == [[-1.0, 0.0, 1.0]]


def test_dlr_refuses_too_few_classes_and_says_what_to_take() -> None:
    y, t = torch.tensor([0]), torch.tensor([1])
    with pytest.raises(InputError, match=r"DLR needs 3 classes for this goal, the model has 2: use Margin\(\)"):
        DLR()(torch.zeros(1, 2), Untargeted(y))
    with pytest.raises(InputError, match="DLR needs 4 classes for this goal, the model has 3"):
        DLR()(torch.zeros(1, 3), Targeted(y, t))
    assert Margin()(torch.tensor([[1.0, 3.0]]), Untargeted(y)).item() == 2
    assert Margin()(torch.tensor([[1.0, 3.0]]), Targeted(y, t)).item() == 2


def test_kl_needs_a_reference() -> None:
    with pytest.raises(InputError, match=r"Untargeted has none: use Diverge\(logits\)"):
        KL()(logits(), UNTARGETED)


def test_the_catalogue_is_whole() -> None:
    assert {CrossEntropy, Margin, DLR, KL} <= set(CATALOGUE)
    assert all(isinstance(make(), Loss) for make in CATALOGUE)


def test_cross_entropy_of_a_limited_spread_keeps_its_gradient():
    z = (1e4 * torch.tensor([[1.0, 0.9, -0.3], [0.2, 0.15, -1.0]])).requires_grad_()
    goal = Untargeted(torch.tensor([0, 0]))
    (plain,) = torch.autograd.grad(CrossEntropy()(z, goal).sum(), z)
    (soft,) = torch.autograd.grad(CrossEntropy(spread=20.0)(z, goal).sum(), z)
    assert bool((plain == 0).all())
    assert bool((soft[:, 0] < 0).all())
    assert bool((soft[:, 1] > 0).all())
    small = torch.tensor([[1.0, 0.9, -0.3]])
    one = Untargeted(torch.tensor([0]))
    assert torch.equal(CrossEntropy(spread=20.0)(small, one), CrossEntropy()(small, one))
    scaled = CrossEntropy(spread=20.0)(z.detach()[:1], one)
    assert torch.allclose(scaled, CrossEntropy()(z.detach()[:1] * 20 / z.detach()[:1].std(1), one))
