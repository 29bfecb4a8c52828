"""The two-sample test: its number by hand, its floor, its power, and what it depends on."""

import pytest
import torch

from adamant.errors import InputError
from adamant.generation.twosample import energy_test
from adamant.random import Rng


def drawn(seed, n, dim=8):
    return Rng.of(seed, n).normal(dim)


def test_the_distance_is_the_formula():
    a, b = drawn(0, 6, 3).double(), drawn(1, 9, 3).double() + 1
    pairs = [[float((p - q).norm()) for p in one for q in other] for one, other in ((a, b), (a, a), (b, b))]
    across, within, beside = (sum(p) / len(p) for p in pairs)
    seen = energy_test(a, b)
    assert seen.distance == pytest.approx(2 * across - within - beside, rel=1e-12)
    assert seen.share == pytest.approx((2 * across - within - beside) / (2 * across), rel=1e-12)
    assert seen.rows == (6, 9)


def test_two_points_apart_are_as_far_as_they_can_be():
    seen = energy_test(torch.zeros(30, 1), torch.ones(30, 1))
    assert (seen.distance, seen.share, seen.p) == (pytest.approx(2), pytest.approx(1), 1 / 200)


def test_p_is_the_share_of_exchanges_that_are_as_far():
    """Of the 6 ways to share {0, 1, 10, 11} evenly, two are as far as the given one: it, and its mirror image."""
    seen = energy_test(torch.tensor([[0.0], [1]]), torch.tensor([[10.0], [11]]), permutations=3999)
    assert seen.p == pytest.approx(1 / 3, abs=0.03)


def test_equal_samples_pass_as_often_as_the_level_says():
    """300 tests at the level of 5 %: a right one rejects 5 to 28 times but for a chance of one in five hundred."""
    pairs = ((drawn(2 * s, 30), drawn(2 * s + 1, 30), s) for s in range(300))
    p = torch.tensor([energy_test(a, b, permutations=99, seed=s).p for a, b, s in pairs])
    assert 5 <= int((p <= 0.05).sum()) <= 28
    assert p.mean() == pytest.approx(0.505, abs=0.06)  # and p is uniform


@pytest.mark.parametrize(
    ("shift", "spread"), [((0.4,) + 7 * (0.0,), 1.0), (8 * (0.0,), 0.8), (8 * (0.0,), 1.2)], ids=str
)
def test_samples_that_differ_fail_at_the_size_that_is_used(shift, spread):
    for seed in range(5):
        other = drawn(2 * seed + 1, 500) * spread + torch.tensor(shift)
        assert not energy_test(drawn(2 * seed, 500), other, permutations=39, seed=seed).passed()


def test_a_hole_in_the_middle_is_seen():
    """Mean and covariance of the ring are those of the normal plane; only the shape differs."""
    plane = drawn(0, 500, 2)
    ring = torch.nn.functional.normalize(drawn(1, 500, 2)) * 2**0.5
    assert not energy_test(plane, ring).passed()


def test_parts_that_have_changed_places_are_seen_only_where_parts_count():
    part = torch.arange(200) % 2
    a, b = (drawn(s, 200, 2) + 5 * part[:, None] for s in (2, 3))
    assert energy_test(a, b, part=part).passed()
    assert energy_test(a, b.roll(1, 0)).passed()
    assert energy_test(a, b.roll(1, 0), part=part).p == 1 / 200
    within = [energy_test(a[part == k], b[part == k]).distance for k in (0, 1)]
    assert energy_test(a, b, part=part).distance == pytest.approx(sum(within) / 4)  # weights of one half, squared


def test_pairs_that_are_alike_pass_as_often_as_the_level_says():
    part = torch.arange(30) % 3
    pairs = ((drawn(2 * s, 30) + part[:, None], drawn(2 * s + 1, 30) + part[:, None], s) for s in range(200))
    p = torch.tensor([energy_test(a, b, part=part, permutations=99, seed=s).p for a, b, s in pairs])
    assert 2 <= int((p <= 0.05).sum()) <= 20
    assert p.mean() == pytest.approx(0.505, abs=0.07)


def test_constants_are_the_same_and_the_order_of_rows_does_not_matter():
    assert energy_test(torch.ones(20, 2), torch.ones(20, 2)).p == 1
    a, b = drawn(0, 50), drawn(1, 40)
    seen, turned = energy_test(a, b), energy_test(a.flip(0), b)
    assert turned.distance == pytest.approx(seen.distance)
    assert energy_test(a, b) == seen
    assert energy_test(a, b, seed=1).p != seen.p


def test_what_cannot_be_compared_is_refused():
    a = drawn(0, 20)
    hole = a.clone()
    hole[3, 1] = float("nan")
    for x, y, words in (
        (a, drawn(0, 20, 7), "rows of one length"),
        (a[:1], a, "at least 2 rows"),
        (torch.zeros(5000, 1), torch.zeros(5000, 1), "8000 of both"),
        (a, hole, "Row 3 of the second sample"),
    ):
        with pytest.raises(InputError, match=words):
            energy_test(x, y)
    with pytest.raises(InputError, match="stand in pairs"):
        energy_test(a, a[:10], part=torch.zeros(10))
    with pytest.raises(InputError, match="at least 19"):
        energy_test(a, a, permutations=10)
