"""Intervals and tests on counts, against closed forms and other people's code."""

import pytest
from scipy.stats import binomtest

from adamant.report.counting import paired, wilson


@pytest.mark.parametrize(
    ("correct", "rows"), [(0, 10), (10, 10), (1, 10), (49, 360), (349, 360), (0, 1), (5000, 10000)]
)
def test_wilson_equals_scipy(correct, rows):
    ends = binomtest(correct, rows).proportion_ci(method="wilson")
    assert wilson(correct, rows) == pytest.approx((ends.low, ends.high), abs=1e-12)


def test_wilson_without_rows_knows_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def build(both, first, second, neither):
    one = [True] * both + [True] * first + [False] * second + [False] * neither
    other = [True] * both + [False] * first + [True] * second + [False] * neither
    return paired(one, other)


def test_mcnemar_by_hand():
    # 1 against 5: 2 * (1 + 6) / 2^6
    result = build(10, 1, 5, 4)
    assert result.p == pytest.approx(14 / 64)
    assert (result.both, result.only_first, result.only_second, result.neither, result.rows) == (10, 1, 5, 4, 20)
    assert result.difference == pytest.approx(0.2)
    # b + 1/2 = 1.5, c + 1/2 = 5.5, n + 2 = 22: 4/22 +- 1.96 sqrt(7 - 16/22)/22
    assert (result.low, result.high) == pytest.approx((-0.0413, 0.4050), abs=2e-4)


def test_order_turns_the_sign():
    one, other = build(3, 2, 9, 1), build(3, 9, 2, 1)
    assert one.p == other.p
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))


def test_no_disagreement_is_no_evidence():
    assert build(5, 0, 0, 5).p == 1.0
    assert build(5, 0, 0, 5).low < 0 < build(5, 0, 0, 5).high


def test_unequal_lists_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        paired([True], [])
