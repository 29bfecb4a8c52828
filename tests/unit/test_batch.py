"""Rows: what is taken with the batch, and what stays whole; tensors as values."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from adamant.batch import PerRow, Rows, Shared, cat, per_row, take, where


@dataclass(frozen=True)
class Inner(Rows):
    a: Tensor
    note: str = "kept"


@dataclass(frozen=True)
class Whole:
    """No rows of its own, but a record of rows inside."""

    table: Tensor
    inner: Inner
    pair: tuple[object, ...] = ()


@dataclass(frozen=True)
class Outer(Rows):
    z: Tensor
    whole: Whole
    parts: tuple[object, ...]
    nothing: None = None


def outer() -> Outer:
    n = torch.arange(4)
    whole = Whole(torch.arange(2), Inner(n * 10), (PerRow(n.double()), Shared([1.0, 2.0]), "x"))
    return Outer(n, whole, (n + 100, (n + 200, 7)))


@pytest.mark.parametrize("rows", [torch.tensor([2, 0]), torch.tensor([True, False, True, False])])
def test_rows_are_taken_at_every_depth_and_tables_stay_whole(rows) -> None:
    o = outer()
    taken = take(o, rows)
    picked = torch.arange(4)[rows]
    assert taken.z.tolist() == picked.tolist()
    assert taken.whole.table.tolist() == [0, 1]
    assert taken.whole.inner.a.tolist() == (picked * 10).tolist()
    assert taken.whole.inner.note == "kept"
    assert taken.whole.pair == (PerRow(picked.double()), Shared([1.0, 2.0]), "x")
    assert taken.parts[0].tolist() == (picked + 100).tolist()
    assert taken.parts[1][0].tolist() == (picked + 200).tolist()
    assert taken.parts[1][1] == 7
    assert taken.nothing is None
    assert o.z.tolist() == [0, 1, 2, 3]


def test_a_record_without_rows_is_the_very_same() -> None:
    @dataclass(frozen=True)
    class Plain:
        table: Tensor
        box: tuple[float, float] = (0.0, 1.0)

    p = Plain(torch.arange(3))
    assert take(p, torch.tensor([0])) is p


def test_a_record_is_built_again_with_its_own_checks() -> None:
    calls = []

    @dataclass(frozen=True)
    class Checked(Rows):
        a: Tensor

        def __post_init__(self) -> None:
            calls.append(len(self.a))

    take(Checked(torch.arange(3)), torch.tensor([1]))
    assert calls == [3, 1]


def test_where_chooses_whole_rows() -> None:
    mask = torch.tensor([True, False])
    a, b = torch.ones(2, 3, 2), torch.zeros(2, 3, 2)
    assert where(mask, a, b).flatten(1).tolist() == [[1.0] * 6, [0.0] * 6]

    @dataclass(frozen=True)
    class Two(Rows):
        p: Tensor
        q: Tensor

    chosen = where(mask, Two(a, b[:, 0, 0]), Two(b, a[:, 0, 0]))
    assert chosen.p[:, 0, 0].tolist() == [1.0, 0.0]
    assert chosen.q.tolist() == [0.0, 1.0]


def test_cat_puts_rows_one_after_another() -> None:
    @dataclass(frozen=True)
    class One(Rows):
        p: Tensor

    whole = One(torch.arange(5))
    assert cat([take(whole, torch.tensor([0, 1])), take(whole, torch.tensor([2, 3, 4]))]).p.tolist() == [0, 1, 2, 3, 4]
    assert cat([torch.zeros(1, 2), torch.ones(2, 2)]).shape == (3, 2)


def test_one_number_per_row_broadcasts_over_anything() -> None:
    assert per_row(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4)).shape == (2, 1, 1)
    assert per_row(torch.tensor([1.0, 2.0]), torch.zeros(2)).shape == (2,)


@pytest.mark.parametrize("kind", [Shared, PerRow])
@pytest.mark.parametrize(
    "held",
    [
        [0.1, 2.0],
        [8 / 255, 1e-30],
        [[True, False], [False, False]],
        [1, 2],
        torch.tensor([1, 2, 3]),
        torch.tensor([0.1, 0.2], dtype=torch.float32),
        torch.tensor([[True]]),
        torch.tensor([0.5], dtype=torch.float16),
    ],
)
def test_a_tensor_as_a_value_reads_back(kind, held) -> None:
    value = kind(held)
    again = eval(repr(value), {"Shared": Shared, "PerRow": PerRow})
    assert again == value
    assert hash(again) == hash(value)
    assert value.values.dtype in (torch.float64, torch.bool)


def test_values_differ_by_kind_shape_and_content() -> None:
    assert PerRow([1.0]) != Shared([1.0])
    assert PerRow([1.0]) != PerRow([[1.0]])
    assert PerRow([1.0]) != PerRow([1.0 + 1e-15])
    assert PerRow([True]) != PerRow([1.0])
    assert PerRow([1.0]) != 1.0
    assert len({PerRow([1.0, 2.0]), PerRow([1.0, 2.0]), Shared([1.0, 2.0])}) == 2


def test_a_budget_keeps_the_digits_it_was_given() -> None:
    assert PerRow([8 / 255]).values.item() == 8 / 255
    assert replace(Inner(torch.zeros(1)), note="n").note == "n"
