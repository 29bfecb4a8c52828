"""What is measured of made rows: closed forms, and the definitions written out row by row."""

import math

import pytest
import torch
from torch import Tensor

from adamant.errors import InputError
from adamant.generation.measures import copied, entropy, frechet, likeness, manifold, modes, nearest
from adamant.random import Rng


def normal(n: int, d: int, reason: str) -> Tensor:
    return Rng.of(0, n).fold(reason).normal(d, dtype=torch.float64)


def exactly(mean: Tensor, root: Tensor, reason: str) -> Tensor:
    """Rows whose mean and covariance are the given ones, to the last bits."""
    x = normal(300, len(mean), reason)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    white = x @ (vectors / values.sqrt()) @ vectors.T
    return white @ root.T + mean


def test_frechet_of_normal_laws_with_parallel_axes():
    """|difference|^2 + the squared differences of the standard deviations."""
    a = exactly(torch.tensor([0.0, 1.0, 2.0]).double(), torch.diag(torch.tensor([1.0, 2.0, 3.0])).double(), "a")
    b = exactly(torch.tensor([1.0, 1.0, 0.0]).double(), torch.diag(torch.tensor([2.0, 0.5, 3.0])).double(), "b")
    assert frechet(a, b) == pytest.approx(1 + 4 + 1 + 2.25, rel=1e-9)


def test_frechet_of_laws_whose_covariances_do_not_commute():
    """In the plane, the trace of the root of M is sqrt(trace M + 2 sqrt(det M))."""
    one, two = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double(), torch.tensor([[1.0, 0.0], [1.5, 1.0]]).double()
    a, b = exactly(torch.zeros(2).double(), one, "a"), exactly(torch.zeros(2).double(), two, "b")
    first, second = one @ one.T, two @ two.T
    product = first @ second
    shared = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    assert frechet(a, b) == pytest.approx(float(first.trace() + second.trace()) - 2 * shared, rel=1e-9)


def test_frechet_of_a_set_and_itself_is_nothing():
    x = normal(50, 80, "x")  # fewer rows than columns: the covariance has no inverse
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x.float(), x.float() + 2) == pytest.approx(320, rel=1e-4)


def by_rows(real: Tensor, made: Tensor, k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage as their papers define them, one row at a time."""

    def reach(x: Tensor, i: int) -> float:
        return sorted(float((x[i] - x[j]).norm()) for j in range(len(x)) if j != i)[k - 1]

    def near(a: Tensor, b: Tensor, radius: float) -> bool:
        return float((a - b).norm()) <= radius

    around_real, around_made = [reach(real, i) for i in range(len(real))], [reach(made, j) for j in range(len(made))]
    inside = [[near(real[i], made[j], around_real[i]) for j in range(len(made))] for i in range(len(real))]
    within = [[near(real[i], made[j], around_made[j]) for j in range(len(made))] for i in range(len(real))]
    n, m = len(real), len(made)
    return (
        sum(any(inside[i][j] for i in range(n)) for j in range(m)) / m,
        sum(any(within[i]) for i in range(n)) / n,
        sum(map(sum, inside)) / (k * m),
        sum(any(inside[i]) for i in range(n)) / n,
    )


def test_the_shares_are_those_of_the_definitions():
    real, made = normal(24, 3, "real"), 0.7 * normal(17, 3, "made") + 0.6
    found = manifold(real, made, k=3)
    expected = by_rows(real, made, 3)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected)
    assert len({*expected}) == 4
    assert all(0 < share < 1.2 for share in expected)


def test_shares_of_a_set_and_itself():
    x = normal(40, 4, "x")
    found = manifold(x, x)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(6 / 5)  # each neighbourhood holds its k neighbours, and the row itself


def test_shares_of_sets_far_apart():
    x = normal(40, 4, "x")
    assert vars(manifold(x, x + 100)) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_a_generator_of_one_kind_has_precision_and_no_coverage():
    one, other = normal(60, 2, "one"), normal(60, 2, "other") + 50
    found = manifold(torch.cat([one, other]), normal(120, 2, "made") * 0.5)
    assert found.precision > 0.95
    assert found.coverage <= 0.5


def test_all_of_it_at_once():
    x, y = normal(30, 3, "x"), normal(30, 3, "y")
    assert likeness(x, y).frechet == frechet(x, y)
    assert likeness(x, y).coverage == manifold(x, y).coverage


@pytest.mark.parametrize(
    ("real", "made", "words"),
    [
        (torch.zeros(9, 2), torch.zeros(9, 3), "at least two rows"),
        (torch.zeros(9, 2), torch.full((9, 2), math.nan), "no numbers"),
        (torch.zeros(9, 2), torch.zeros(4, 2), "more than 5 rows"),
    ],
)
def test_features_that_cannot_be_measured(real, made, words):
    with pytest.raises(InputError, match=words):
        manifold(real, made)


def test_spread_over_the_classes():
    assert entropy(torch.tensor([0, 1, 2, 3]), 4) == pytest.approx(1)
    assert entropy(torch.zeros(9).long(), 4) == 0
    assert entropy(torch.tensor([0, 1]), 4) == pytest.approx(0.5)
    assert modes(torch.tensor([0] * 300 + [1] * 300 + [2] * 2), 4) == 2
    assert modes(torch.tensor([0, 1, 2]), 3) == 3


def test_the_nearest_of_others():
    among = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(
        nearest(torch.tensor([[0.0, 1.0], [3.0, 2.0]]), among, chunk=1), torch.tensor([1.0, 2.0])
    )


def test_memorising_shows():
    train, held, fresh = normal(300, 8, "train"), normal(300, 8, "held"), normal(300, 8, "fresh")
    assert copied(train + 1e-4, train, held) == 1
    assert copied(fresh, train, held) < 0.05
    twice = torch.cat([held, train[: len(held) // 4]])  # a data set that repeats itself
    assert copied(train, train, twice) == 1
