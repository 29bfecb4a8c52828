"""Losses and penalties of a GAN: each against its formula, written out once more on plain numbers."""

import math

import pytest
import torch
from torch import Tensor, nn

from adamant.generation.losses import (
    LOSSES,
    PENALTIES,
    R1,
    R2,
    GradientPenalty,
    Hinge,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from adamant.random import Rng

REAL, MADE = [1.5, -0.3, 0.2], [-0.7, 2.0, 0.6]


def softplus(t: float) -> float:
    return math.log1p(math.exp(t))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


PAIRS = list(zip(REAL, MADE, strict=True))
BY_HAND = {
    NonSaturating: (mean([softplus(-a) + softplus(b) for a, b in PAIRS]), mean([softplus(-b) for b in MADE])),
    Hinge: (mean([max(0, 1 - a) + max(0, 1 + b) for a, b in PAIRS]), -mean(MADE)),
    Wasserstein: (mean(MADE) - mean(REAL), -mean(MADE)),
    Relativistic: (mean([softplus(b - a) for a, b in PAIRS]), mean([softplus(a - b) for a, b in PAIRS])),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_are_their_formulas(kind):
    discriminator, generator = BY_HAND[kind]
    real, made = torch.tensor(REAL), torch.tensor(MADE)
    assert kind().discriminator(real, made).item() == pytest.approx(discriminator, rel=1e-6)
    assert kind().generator(real, made).item() == pytest.approx(generator, rel=1e-6)


def test_the_non_saturating_loss_is_binary_cross_entropy():
    real, made, bce = torch.tensor(REAL), torch.tensor(MADE), nn.BCEWithLogitsLoss()
    both = bce(real, torch.ones(3)) + bce(made, torch.zeros(3))
    assert NonSaturating().discriminator(real, made).item() == pytest.approx(both.item())
    assert NonSaturating().generator(real, made).item() == pytest.approx(bce(made, torch.ones(3)).item())


@pytest.mark.parametrize("kind", LOSSES)
def test_the_players_pull_apart(kind):
    """A larger logit of a made row is good for the generator and bad for the discriminator."""
    real, made = torch.zeros(4), torch.zeros(4, requires_grad=True)
    (up,) = torch.autograd.grad(kind().generator(real, made), made)
    (down,) = torch.autograd.grad(kind().discriminator(real, made), made)
    assert (up < 0).all()
    assert (down > 0).all()


@pytest.mark.parametrize("kind", LOSSES)
def test_only_paired_losses_let_the_generator_see_real_rows(kind):
    made = torch.tensor(MADE)
    same = kind().generator(torch.zeros(3), made) == kind().generator(torch.ones(3), made)
    assert bool(same) is not kind.paired


W = torch.tensor([0.6, -0.8, 1.2])


def linear(x: Tensor) -> Tensor:
    return x @ W + 0.4


X, Z = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]]), torch.tensor([[0.5, 0.5, 0.5], [2.0, 0.0, 0.0]])
LUCK = Rng.of(0, 2)


@pytest.mark.parametrize("kind", [R1, R2])
def test_slopes_of_a_linear_discriminator(kind):
    """Its gradient is w everywhere: gamma / 2 |w|^2, |w|^2 = 0.36 + 0.64 + 1.44."""
    assert kind(gamma=3.0)(linear, X, Z, LUCK).item() == pytest.approx(1.5 * 2.44)


def test_the_gradient_penalty_of_a_linear_discriminator():
    assert GradientPenalty(weight=7.0)(linear, X, Z, LUCK).item() == pytest.approx(7 * (math.sqrt(2.44) - 1) ** 2)


def bowl(x: Tensor) -> Tensor:
    return 1.5 * x.square().sum(1)


def test_where_the_slopes_are_taken():
    """The gradient of 1.5 |x|^2 is 3 x: R1 asks at real rows, R2 at made ones."""
    assert R1(gamma=1.0)(bowl, X, Z, LUCK).item() == pytest.approx(0.5 * 9 * (14 + 1.25) / 2)
    assert R2(gamma=1.0)(bowl, X, Z, LUCK).item() == pytest.approx(0.5 * 9 * (0.75 + 4) / 2)


def test_the_gradient_penalty_is_taken_between_the_pairs():
    share = LUCK.fold("between").uniform(1)
    between = share * X + (1 - share) * Z
    slopes = 3 * between.norm(dim=1)
    assert GradientPenalty()(bowl, X, Z, LUCK).item() == pytest.approx(10 * (slopes - 1).square().mean().item())
    assert not torch.allclose(share[0], share[1])


@pytest.mark.parametrize("kind", PENALTIES)
def test_penalties_teach_the_discriminator(kind):
    """d/dw of gamma / 2 |w|^2 is gamma w; of weight (|w| - 1)^2 it is 2 weight (|w| - 1) w / |w|."""
    w = W.clone().requires_grad_()
    penalty = kind(2.0)
    (slope,) = torch.autograd.grad(penalty(lambda x: x @ w, X, Z, LUCK), w)
    length = W.norm()
    expected = 2 * 2.0 * (length - 1) * W / length if kind is GradientPenalty else 2.0 * W
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("kind", [*LOSSES, *PENALTIES])
def test_each_says_its_formula_and_source(kind):
    assert "D" in kind.formula
    assert "arXiv" in kind.source
    assert eval(repr(kind())) == kind()
