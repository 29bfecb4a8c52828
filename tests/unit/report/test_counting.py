"""The interval of a share, against other people's code."""

import pytest
from scipy.stats import binomtest

from adamant.report.counting import wilson


@pytest.mark.parametrize(
    ("correct", "rows"), [(0, 10), (10, 10), (1, 10), (49, 360), (349, 360), (0, 1), (5000, 10000)]
)
def test_wilson_equals_scipy(correct, rows):
    ends = binomtest(correct, rows).proportion_ci(method="wilson")
    assert wilson(correct, rows) == pytest.approx((ends.low, ends.high), abs=1e-12)


def test_wilson_without_rows_knows_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
