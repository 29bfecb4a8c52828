"""Schedules against their formulas."""

import math

import pytest

from adamant.runtime.knobs import CATALOGUE, Constant, Cosine, OneCycle, Ramp


@pytest.mark.parametrize(
    ("knob", "expected"),
    [
        (Constant(), [1, 1, 1, 1, 1]),
        (Constant(0.3), [0.3] * 5),
        (Ramp(until=0.5), [0, 0.5, 1, 1, 1]),
        (Ramp(until=0.5, low=0.2), [0.2, 0.6, 1, 1, 1]),
        (Ramp(until=0.0), [1, 1, 1, 1, 1]),
        (OneCycle(peak=0.5, low=0.0), [0, 0.5, 1, 0.5, 0]),
        (OneCycle(peak=0.25, low=0.1), [0.1, 1, 2 / 3, 1 / 3, 0]),
        (OneCycle(peak=0.0), [1, 0.75, 0.5, 0.25, 0]),
        (OneCycle(peak=1.0, low=0.0), [0, 0.25, 0.5, 0.75, 1]),
        (Cosine(), [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0]),
    ],
    ids=repr,
)
def test_the_knob_at_each_quarter(knob, expected) -> None:
    assert [knob(i / 4) for i in range(5)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("make", CATALOGUE)
def test_knobs_stay_between_nothing_and_all(make) -> None:
    assert all(0 <= make()(i / 100) <= 1 for i in range(101))
