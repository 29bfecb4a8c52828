"""Priors: the distributions that they say they are, drawn by row and by nothing else."""

import math

import pytest
import torch
from scipy import stats

from adamant.errors import InputError
from adamant.generation import priors
from adamant.generation.priors import Categorical, Gaussian, Ring, SwissRoll, Uniform
from adamant.random import Rng

MANY = Rng.of(3, 20_000)
ALL = (Gaussian(dim=3, std=2.0), Uniform(dim=3, half=1.5), Ring(parts=5), SwissRoll(parts=4), Categorical(classes=6))


@pytest.mark.parametrize("prior", ALL, ids=repr)
def test_draws_depend_on_the_row_alone(prior):
    rng = Rng.of(7, 40)
    whole = prior.draw(rng)
    assert whole.shape == (40, prior.dim)
    some = torch.tensor([31, 2, 17])
    assert torch.equal(prior.draw(Rng(rng.key[some])), whole[some])
    assert not torch.equal(prior.draw(rng.fold("other")), whole)
    assert eval(repr(prior)) == prior


def test_gaussian_and_uniform_have_the_distributions_of_their_names():
    for prior, law in (
        (Gaussian(dim=2, std=2.0), stats.norm(0, 2)),
        (Uniform(dim=2, half=1.5), stats.uniform(-1.5, 3.0)),
    ):
        z = prior.draw(MANY)
        assert all(stats.kstest(column.numpy(), law.cdf).pvalue > 0.001 for column in z.T)
        assert abs(float(torch.corrcoef(z.T)[0, 1])) < 0.03


def test_a_petal_lies_where_it_says_and_is_as_long_and_as_wide():
    prior = Ring(parts=8, radius=3.0, along=0.5, across=0.2)
    z = prior.draw(MANY, torch.full((20_000,), 2))  # a quarter of the way round: straight up
    assert z.mean(0).tolist() == pytest.approx([0, 3], abs=0.02)
    assert z.std(0).tolist() == pytest.approx([0.2, 0.5], rel=0.03)


def test_without_a_part_all_petals_are_drawn_alike_and_minus_one_means_any():
    prior = Ring(parts=10)
    for z in (prior.draw(MANY), prior.draw(MANY, torch.full((20_000,), -1))):
        part = torch.atan2(z[:, 1], z[:, 0]).mul(10 / (2 * math.pi)).round().long() % 10
        assert stats.chisquare(torch.bincount(part, minlength=10)).pvalue > 0.001
    named = torch.arange(20_000) % 11 - 1
    z = prior.draw(MANY, named)
    assert torch.equal(z[named >= 0], prior.draw(MANY, named.clamp_min(0))[named >= 0])


def test_the_swiss_roll_is_nearly_equally_dense_along_its_length():
    prior = SwissRoll(parts=10, radius=4.0, turns=2.0, across=1e-6)
    way = (prior.draw(MANY).norm(dim=1) / 4).double()  # the share of the angle, and of the radius
    angle = (way * 4 * math.pi).numpy()
    long = 0.5 * (angle * (1 + angle**2) ** 0.5 + torch.asinh(torch.from_numpy(angle)).numpy())
    assert (
        stats.kstest(long / long.max(), stats.uniform.cdf).statistic < 0.03
    )  # nearly: at the origin a spiral is shorter
    pieces = prior.draw(MANY, torch.arange(20_000) % 10).norm(dim=1)
    assert all(pieces[torch.arange(20_000) % 10 == k].max() <= 4 * math.sqrt((k + 1) / 10) + 1e-3 for k in range(10))


def test_categories_are_one_hot_and_alike():
    z = Categorical(classes=6).draw(MANY)
    assert torch.equal(z.sum(1), torch.ones(20_000))
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert stats.chisquare(z.sum(0)).pvalue > 0.001
    assert Categorical(classes=6).draw(Rng.of(0, 2), torch.tensor([4, 0])).argmax(1).tolist() == [4, 0]


def test_parts_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="parts 0 to 4, and part 5"):
        Ring(parts=5).draw(Rng.of(0, 2), torch.tensor([0, 5]))
    with pytest.raises(InputError, match="has no parts"):
        Gaussian().draw(Rng.of(0, 1), torch.tensor([1]))
    for bad, words in (
        (Gaussian(dim=0), "dim=0"),
        (Gaussian(std=0.0), "std=0.0"),
        (Ring(parts=0), "parts=0"),
        (Uniform(half=float("nan")), "half=nan"),
        (Categorical(classes=0), "classes=0"),
    ):
        with pytest.raises(InputError, match=words):
            priors.check(bad)
    for good in ALL:
        priors.check(good)
