"""L0: the budget counts entries, or pixels; the projection against every choice of entries."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adamant.batch import PerRow, Shared, take
from adamant.random import Rng
from adamant.threats import L0

some = settings(max_examples=40, deadline=None, derandomize=True)


def uniform(shape, seed: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def best_by_force(x: Tensor, z: Tensor, k: int, free: Tensor) -> float:
    """The least squared distance from z to a point in [0, 1] with at most k entries other than x."""
    entries = [i for i in range(len(x)) if free[i]]
    best = float("inf")
    for chosen in combinations(entries, min(k, len(entries))):
        y = x.clone()
        for i in chosen:
            y[i] = z[i].clamp(0, 1)
        best = min(best, float(((z - y) ** 2).sum()))
    return best


@given(st.integers(0, 10**6), st.integers(1, 7), st.sampled_from([1, 3, 6]), st.sampled_from([0, 1, 2]))
@some
def test_no_choice_of_entries_is_nearer(seed, k, d, masking) -> None:
    x, z = uniform((3, d), seed).round(decimals=1), uniform((3, d), seed + 1, -1.5, 2.5)
    z = torch.where(uniform((3, d), seed + 2) < 0.2, x, z)
    chance = uniform((3, d), seed + 3) < 0.7
    mask = (None, Shared(chance[0]), PerRow(chance))[masking]
    free = torch.ones_like(chance) if mask is None else mask.values.expand(3, d)
    threat = L0(k, mask=mask)
    p = threat.project(z, x)
    assert threat.contains(p, x).all()
    assert torch.equal(threat.project(p, x), p)
    for row in range(3):
        assert float(((z - p)[row] ** 2).sum()) == pytest.approx(best_by_force(x[row], z[row], k, free[row]), rel=1e-9)
        one = torch.tensor([row])
        assert torch.equal(take(threat, one).project(z[one], x[one])[0], p[row])


@given(st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64]))
@some
def test_with_pixels_no_choice_of_pixels_is_nearer(seed, dtype) -> None:
    x, z = uniform((2, 2, 2, 2), seed).to(dtype), uniform((2, 2, 2, 2), seed + 1, -1, 2).to(dtype)
    if seed % 2:
        x, z = x.to(memory_format=torch.channels_last), z.to(memory_format=torch.channels_last)
    threat = L0(2, pixels=True)
    p = threat.project(z, x)
    assert threat.contains(p, x).all()
    assert (threat.size(p, x) <= 2).all()
    for row in range(2):
        costs = []
        for a, b in combinations(range(4), 2):
            y = x[row].clone().contiguous()
            for place in (a, b):
                y[:, place // 2, place % 2] = z[row][:, place // 2, place % 2].clamp(0, 1)
            costs.append(float(((z[row] - y) ** 2).sum()))
        assert float(((z - p)[row] ** 2).sum()) == pytest.approx(min(costs), rel=1e-5)


@pytest.mark.parametrize("far", [1e8, 1e30])
def test_entries_far_outside_are_kept_and_clipped(far) -> None:
    """Their squares cancel, or are no numbers any more; which entry is farther still shows."""
    x = torch.full((1, 4), 0.5)
    z = x + torch.tensor([[far, 0.1, -far, 0.0]])
    assert L0(2).project(z, x).tolist() == [[1.0, 0.5, 0.0, 0.5]]


def test_the_budget_of_each_row_counts() -> None:
    x, z = torch.zeros(3, 4), torch.tensor([[0.4, 0.3, 0.2, 0.1]]).expand(3, 4)
    p = L0(PerRow([1, 2.9, 9])).project(z, x)
    assert (p != 0).sum(1).tolist() == [1, 2, 4]
    assert L0(PerRow([1, 2, 3])).contains(z, x).tolist() == [False, False, False]
    assert L0(PerRow([4, 3, 9])).contains(z, x).tolist() == [True, False, True]


def test_sizes_in_closed_form() -> None:
    x = torch.zeros(1, 3, 2, 2)
    z = x.clone()
    z[0, :, 0, 0], z[0, 1, 1, 1] = 0.5, 1e-30
    assert L0(1).size(z, x).tolist() == [4]
    assert L0(1, pixels=True).size(z, x).tolist() == [2]
    assert not L0(3).contains(z, x).any()
    assert L0(4).contains(z, x).all()
    assert not L0(1, pixels=True).contains(z, x).any()
    assert L0(2, pixels=True).contains(z, x).all()


def test_no_nan_and_nothing_outside_the_box_is_a_member() -> None:
    x = torch.full((4, 3), 0.5)
    z = x.clone()
    z[0, 0], z[1, 0], z[2, 0] = torch.nan, 1.1, torch.inf
    assert L0(3).contains(z, x).tolist() == [False, False, False, True]


@pytest.mark.parametrize("pixels", [False, True])
def test_a_draw_changes_as_many_as_it_may_and_each_as_often(pixels) -> None:
    n = 2000
    x = torch.full((n, 2, 2, 3), 0.5, dtype=torch.float64)
    threat = L0(2, pixels=pixels)
    drawn = threat.sample(x, Rng.of(4, n))
    assert (threat.size(drawn, x) == 2).all()
    assert threat.contains(drawn, x).all()
    share = (drawn != x).double().mean(0)
    assert (share - 2 / (6 if pixels else 12)).abs().max() < 0.04
    changed = drawn[drawn != x]
    assert changed.min() < 0.01
    assert changed.max() > 0.99


def test_a_draw_leaves_held_entries_alone() -> None:
    x = torch.full((50, 4), 0.5)
    drawn = L0(3, mask=Shared([True, False, True, False])).sample(x, Rng.of(0, 50))
    assert torch.equal(drawn[:, 1::2], x[:, 1::2])
    assert (drawn[:, ::2] != 0.5).all()


def test_a_step_follows_the_gradient_at_unit_length() -> None:
    z, g = torch.full((2, 4), 0.5), torch.tensor([[3.0, -1.0, 0.0, 0.0], [0.0] * 4])
    step = L0(2, box=(0.0, 2.0)).move(z, g, torch.tensor([0.5, 0.5])) - z
    assert torch.allclose(step, torch.tensor([[0.5 * 2 * 4 * 0.75, -0.5 * 2 * 4 * 0.25, 0, 0], [0.0] * 4]))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_size_of_the_gradient_does_not_matter(size) -> None:
    z, g = torch.full((1, 4), 0.5), torch.tensor([[3.0, -1.0, 0.5, 0.0]])
    assert torch.allclose(L0(2).move(z, g * size, 1.0), L0(2).move(z, g, 1.0))


def test_inputs_are_not_touched() -> None:
    x, z = uniform((3, 4), 0), uniform((3, 4), 1, -1, 2)
    kept = x.clone(), z.clone()
    threat = L0(2)
    threat.project(z, x), threat.move(z, z - x, 0.3), threat.sample(x, Rng.of(0, 3)), threat.contains(z, x)
    assert torch.equal(x, kept[0])
    assert torch.equal(z, kept[1])
