"""Paired differences and their tests, against published examples, closed forms and a search over the statistic."""

from math import comb, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from adamant.evaluation.counting import Z, mcnemar, paired, quantile, share, tango


def build(both, first, second, neither):
    one = [True] * both + [True] * first + [False] * second + [False] * neither
    other = [True] * both + [False] * first + [True] * second + [False] * neither
    return paired(one, other)


@pytest.mark.parametrize(
    ("table", "low", "high", "p"),
    [
        # Cavo et al., 2012, in Fagerland, Lydersen & Laake, "Statistical Analysis of Contingency Tables", 2017, ch. 8;
        # the digits are those that the tests of its R package, contingencytables, expect.
        ((59, 16, 6, 80), -0.1240, -0.0054, 0.052479),
        ((80, 6, 16, 59), 0.0054, 0.1240, 0.052479),
    ],
)
def test_published_examples(table, low, high, p):
    found = build(*table)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.p == pytest.approx(p, abs=5e-7)
    assert (found.both, found.only_first, found.only_second, found.neither) == table


def test_mcnemar_by_hand():
    # 1 against 5: 2 * (1 + 6) / 2^6
    assert build(10, 1, 5, 4).p == pytest.approx(14 / 64)
    assert mcnemar(3, 9) == pytest.approx(2 * sum(comb(12, k) for k in range(4)) / 2**12)
    assert mcnemar(4, 4) == 1
    assert build(10, 1, 5, 4).difference == pytest.approx(0.2)
    assert build(10, 1, 5, 4).rows == 20


def test_no_disagreement_is_no_evidence_and_not_certainty():
    found = build(5, 0, 0, 5)
    edge = Z * Z / (10 + Z * Z)  # where n d = Z sqrt(n d (1 - d))
    assert found.p == 1
    assert (found.low, found.high) == pytest.approx((-edge, edge), abs=1e-12)


def test_where_all_rows_disagree():
    low, high = tango(0, 30, 30)
    assert (low, high) == pytest.approx(((30 - Z * Z) / (30 + Z * Z), 1.0), abs=1e-12)
    assert tango(30, 0, 30) == (-high, -low)
    assert tango(0, 0, 0) == (-1, 1)


cells = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@given(cells)
def test_the_order_turns_the_sign(table):
    both, first, second, neither = table
    one, other = build(*table), build(both, second, first, neither)
    assert one.p == other.p
    assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)
    assert -1 <= one.low <= one.difference <= one.high <= 1


@given(cells)
def test_the_interval_holds_what_the_score_test_does_not_reject(table):
    """At each end the likelihood, maximised by trying, gives a statistic of Z."""
    found, (_, b, c, _), n = build(*table), table, sum(table)
    for end in (found.low, found.high):
        if abs(end) > 1 - 1e-9:
            continue
        q = _most_likely(b, c, n, end)
        deviation = sqrt(n * (2 * q + end - end * end))
        assert abs(c - b - n * end) == pytest.approx(Z * deviation, abs=1e-3 * n**0.5)


def _most_likely(b, c, n, d):
    """The share q of `only first` that makes counts most likely where `only second` has the share q + d."""
    lowest, highest = max(0.0, -d), (1 - d) / 2

    def slope(q):
        return b / max(q, 1e-300) + c / max(q + d, 1e-300) - 2 * (n - b - c) / max(1 - 2 * q - d, 1e-300)

    for _ in range(200):
        middle = (lowest + highest) / 2
        lowest, highest = (middle, highest) if slope(middle) > 0 else (lowest, middle)
    return lowest


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 500))
def test_zero_is_outside_where_mcnemars_statistic_says_so(b, c, rest):
    """At no difference the score test is McNemar's, without a correction."""
    low, high = tango(b, c, b + c + rest)
    statistic = (b - c) ** 2 / (b + c) if b + c else 0.0
    if abs(statistic - chi2.ppf(0.95, 1)) > 1e-6:
        assert (low > 0 or high < 0) == (statistic > chi2.ppf(0.95, 1))


def test_more_rows_are_a_shorter_interval():
    lengths = [high - low for low, high in (tango(3 * k, 8 * k, 100 * k) for k in (1, 4, 16))]
    assert lengths[0] > 1.8 * lengths[1] > 3.5 * lengths[2]


def test_a_quantile_counts_those_that_stand():
    fell = [0.1, 0.2, 0.3]
    assert quantile(fell, 4, 0.5) == 0.2
    assert quantile(fell, 5, 0.5) == 0.3
    assert quantile(fell, 6, 0.5) == 0.3
    assert quantile(fell, 7, 0.5) is None
    assert quantile([], 0, 0.5) is None


def test_a_share_of_all_is_not_certain():
    assert share(10, 10)["low"] == pytest.approx(10 / (10 + Z * Z))


def test_unequal_lists_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        paired([True], [])
