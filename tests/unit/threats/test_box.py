"""What every threat model refuses, and that it says which row and why."""

import math

import pytest
import torch

from adamant.batch import PerRow, Shared, take
from adamant.errors import InputError
from adamant.threats import L0, L1, L2, Linf

KINDS = [Linf, L2, L1, L0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("value", "shown"), [(1.5, "1.5"), (-0.25, "-0.25"), (math.nan, "nan"), (math.inf, "inf")])
def test_a_value_outside_the_box_is_named_with_its_row(kind, value, shown) -> None:
    x = torch.full((3, 1, 2, 2), 0.5)
    x[2, 0, 1, 0] = value
    with pytest.raises(InputError, match=rf"Row 2 holds {shown}, outside the box \[0, 1\] of {kind.__name__}"):
        kind(1.0).check(x)


def test_what_is_in_the_box_passes() -> None:
    for kind in KINDS:
        kind(1.0).check(torch.tensor([[0.0, 1.0]]))
    Linf(0.1, box=(-math.inf, math.inf)).check(torch.tensor([[-1e9, 1e9]]))
    with pytest.raises(InputError, match="Row 0 holds inf"):
        Linf(0.1, box=(-math.inf, math.inf)).check(torch.tensor([[math.inf]]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_not_inputs(dtype) -> None:
    with pytest.raises(InputError, match="convert them to floats"):
        Linf(0.1).check(torch.zeros(2, 3, dtype=dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan, PerRow([0.1, 0.0]), PerRow([math.nan])])
def test_a_budget_is_positive(kind, eps) -> None:
    with pytest.raises(InputError, match="The budget must be positive"):
        kind(eps)


def test_a_tiny_budget_is_a_budget() -> None:
    assert Linf(1e-60).eps == 1e-60


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", [(1.0, 0.0), (0.5, 0.5), (math.nan, 1.0)])
def test_a_box_goes_from_low_to_high(kind, box) -> None:
    with pytest.raises(InputError, match="low < high"):
        kind(1.0, box=box)


@pytest.mark.parametrize("box", [(-math.inf, math.inf), (0.0, math.inf)])
def test_l0_needs_a_finite_box(box) -> None:
    with pytest.raises(InputError, match="L0 needs a finite box"):
        L0(1, box=box)


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_as_many_budgets_as_rows(kind) -> None:
    with pytest.raises(InputError, match="2 budgets for 3 rows"):
        kind(PerRow([0.1, 0.2])).check(torch.zeros(3, 4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "mask",
    [
        Shared(torch.ones(5, dtype=torch.bool)),
        Shared(torch.ones(2, 3, 4, 4, 1, dtype=torch.bool)),
        PerRow(torch.ones(2, dtype=torch.bool)),
        PerRow(torch.ones(1, 3, 4, 4, dtype=torch.bool)),
        PerRow(torch.ones(3, 3, 4, 4, dtype=torch.bool)),
    ],
)
def test_a_mask_fits_the_inputs(kind, mask) -> None:
    with pytest.raises(InputError, match="The mask has shape"):
        kind(1.0, mask=mask).check(torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize("mask", [Shared(torch.ones(4, 4) > 0), Shared(torch.ones(1, 4, 1) > 0), Shared([True])])
def test_a_mask_may_be_smaller_than_the_inputs(mask) -> None:
    Linf(0.1, mask=mask).check(torch.zeros(2, 3, 4, 4))
    Linf(0.1, mask=PerRow(torch.ones(2, 1, 4, 4) > 0)).check(torch.zeros(2, 3, 4, 4))


def test_a_mask_holds_truth_values() -> None:
    with pytest.raises(InputError, match="True where an entry may change"):
        Linf(0.1, mask=Shared([1.0, 0.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_at_another_budget_all_else_stays(kind) -> None:
    threat = kind(0.5, box=(-1.0, 3.0), mask=Shared([True, False]))
    assert threat.at(2.0) == kind(2.0, box=(-1.0, 3.0), mask=Shared([True, False]))
    with pytest.raises(InputError, match="positive"):
        threat.at(0.0)


def test_the_budget_of_each_row() -> None:
    x = torch.zeros(3, 2)
    assert Linf(0.25).budget(x).tolist() == [0.25] * 3
    assert L2(PerRow([0.25, 0.5, 1.0])).budget(x).tolist() == [0.25, 0.5, 1.0]
    assert Linf(0.1).budget(x.double()).dtype == torch.float64


def test_rows_take_their_budgets_and_masks_along() -> None:
    threat = L1(PerRow([1.0, 2.0]), mask=PerRow([[True, False], [False, True]]))
    assert take(threat, torch.tensor([1])) == L1(PerRow([2.0]), mask=PerRow([[False, True]]))
    shared = L1(1.0, mask=Shared([True, False]))
    assert take(shared, torch.tensor([1])) is shared


def test_clipping_reaches_the_box_and_nothing_else() -> None:
    z = torch.tensor([[-2.0, 0.5, 7.0]])
    assert Linf(0.1, box=(-1.0, 3.0)).clip(z).tolist() == [[-1.0, 0.5, 3.0]]
