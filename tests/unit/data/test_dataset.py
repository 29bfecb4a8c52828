"""DataSet and split: rows keep their identity, classes their shares, and the fingerprint sees every change."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adamant.data import DataSet, load_data, split
from adamant.errors import InputError


def data(n: int = 20, classes: int = 2) -> DataSet:
    x = torch.arange(n * 4, dtype=torch.float32).view(n, 1, 2, 2) / (n * 4)
    names = tuple(map(str, range(classes)))
    return DataSet(
        x=x, y=torch.arange(n) % classes, classes=names, name="made", split="train", rows=torch.arange(n) + 100
    )


def test_taken_rows_keep_their_numbers() -> None:
    part = data().take(torch.tensor([3, 1]))
    assert part.rows.tolist() == [103, 101]
    assert torch.equal(part.x, data().x[[3, 1]])
    assert part.y.tolist() == [1, 1]
    assert part.take(part.rows == 101).rows.tolist() == [101]
    assert len(part) == 2


def test_the_fingerprint_sees_every_change() -> None:
    base = data()
    assert base.fingerprint() == data().fingerprint()
    other = data()
    other.x[7, 0, 1, 1] += 1e-7
    flipped = data()
    flipped.y[0] = 1
    reshaped = DataSet(
        x=data().x.flatten(1), y=base.y, classes=base.classes, name="made", split="train", rows=base.rows
    )
    prints = {d.fingerprint() for d in (base, other, flipped, reshaped, data(19), base.take(torch.arange(20).flip(0)))}
    assert len(prints) == 6


def test_the_repr_is_short() -> None:
    assert repr(data()) == "<DataSet made, train: 20 inputs of shape (1, 2, 2), 2 classes>"


@settings(deadline=None, max_examples=30)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=80),
    share=st.floats(0.05, 0.95),
    seed=st.integers(-5, 5),
)
def test_a_split_is_a_stratified_partition(labels: list[int], share: float, seed: int) -> None:
    y = torch.tensor(labels)
    n = len(y)
    whole = DataSet(
        x=torch.zeros(n, 3), y=y, classes=tuple("abcde"), name="made", split="train", rows=torch.arange(n) * 7
    )
    rest, part = split(whole, share, seed)
    assert sorted([*rest.rows.tolist(), *part.rows.tolist()]) == whole.rows.tolist()
    assert (rest.split, part.split) == ("train", "val")
    for label in set(labels):
        count, taken = labels.count(label), int((part.y == label).sum())
        assert taken == (0 if count == 1 else min(max(round(share * count), 1), count - 1))
    shuffled = whole.take(torch.arange(n).flip(0))
    assert set(split(shuffled, share, seed)[1].rows.tolist()) == set(part.rows.tolist())


def test_a_split_depends_on_its_seed() -> None:
    first, second = (split(data(200), 0.5, seed)[1].rows.tolist() for seed in (0, 1))
    assert first != second
    assert first == sorted(first)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_bad_share_is_named(share: float) -> None:
    with pytest.raises(InputError, match=f"share is {share}"):
        split(data(), share, 0)


def test_digits_are_split_in_three() -> None:
    parts = {name: load_data("digits", split=name, seed=seed) for seed, name in enumerate(("train", "val", "test"))}
    whole = load_data("digits", split="all")
    assert [len(p) for p in parts.values()] == [1079, 359, 359]
    assert sorted(r for p in parts.values() for r in p.rows.tolist()) == list(range(1797))
    test = parts["test"]
    assert torch.equal(whole.x[test.rows], test.x)
    assert torch.equal(whole.y[test.rows], test.y)
    assert test.x.shape[1:] == (1, 8, 8)
    assert (whole.x.min().item(), whole.x.max().item()) == (0, 1)
    for p in parts.values():
        share = p.y.bincount() / whole.y.bincount()
        assert (share - len(p) / 1797).abs().max() < 0.01
    assert load_data("digits", seed=9).fingerprint() == test.fingerprint()  # the split is fixed for good


def test_digits_do_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    load_data("digits")
    assert torch.equal(torch.get_rng_state(), before)


def test_limit_takes_the_first_rows() -> None:
    whole, few = load_data("digits"), load_data("digits", limit=7)
    assert torch.equal(few.x, whole.x[:7])
    assert torch.equal(few.rows, whole.rows[:7])
    assert len(load_data("digits", limit=10**6)) == 359
    for bad in (0, -1):
        with pytest.raises(InputError, match=f"limit is {bad}"):
            load_data("digits", limit=bad)


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(InputError, match="digits has no split 'valid'; it has train, val, test, all"):
        load_data("digits", split="valid")
