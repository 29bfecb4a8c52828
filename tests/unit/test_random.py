"""Counter-based randomness: the published algorithm, independence of rows and reasons, and fair draws."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from adamant.batch import take
from adamant.random import Rng, _mix, permutation, sealed

MASK = (1 << 64) - 1


def splitmix64(state: int) -> tuple[int, int]:
    """next() of Steele, Lea & Flood (2014), as in Vigna's splitmix64.c, on Python's integers: (state, output)."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return state, z ^ (z >> 31)


def unsigned(values: torch.Tensor) -> list[int]:
    return [v & MASK for v in values.flatten().tolist()]


def test_the_reference_here_is_the_published_one() -> None:
    """The first outputs for the seed 1234567, as published with the Java and C sources."""
    state, outputs = 1234567, []
    for _ in range(5):
        state, output = splitmix64(state)
        outputs.append(output)
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("seed", [0, 1, 1234567, 2**63, 2**64 - 1])
def test_the_bits_are_those_of_splitmix64(seed) -> None:
    key = torch.tensor([seed - (1 << 64) if seed >> 63 else seed])
    expected, state = [], seed
    for _ in range(64):
        state, output = splitmix64(state)
        expected.append(output)
    assert unsigned(Rng(key)._bits((4, 16))) == expected
    assert Rng(key).uniform(64, dtype=torch.float64)[0].tolist() == [(e >> 11) / 2**53 for e in expected]
    assert Rng(key).uniform(64)[0].tolist() == [(e >> 40) / 2**24 for e in expected]
    assert Rng(key).sign(64)[0].tolist() == [(e >> 63) * 2.0 - 1 for e in expected]


def test_mixing_is_a_bijection_and_leaves_its_input_alone() -> None:
    words = torch.arange(-5000, 5000)
    kept = words.clone()
    assert len(_mix(words).unique()) == 10000
    assert torch.equal(words, kept)


DRAWS = {
    "uniform": lambda r: r.uniform(3, 2),
    "uniform64": lambda r: r.uniform(3, 2, dtype=torch.float64),
    "normal": lambda r: r.normal(5),
    "sign": lambda r: r.sign(5),
    "integers": lambda r: r.integers(7, 5),
    "scalar": lambda r: r.uniform(),
    "fold": lambda r: r.fold("a").fold(3).normal(2),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_row_draws_the_same_alone_in_any_order_and_in_any_batch(draw) -> None:
    whole = draw(Rng.of(3, 40))
    order = torch.tensor([7, 39, 0, 8])
    assert torch.equal(draw(Rng.of(3, order)), whole[order])
    assert torch.equal(draw(take(Rng.of(3, 40), order)), whole[order])
    assert torch.equal(draw(Rng.of(3, 10)), whole[:10])
    assert torch.equal(draw(Rng.of(3, torch.tensor([7]))), whole[7:8])
    assert torch.equal(draw(Rng.of(3, 40)), whole)  # a pure function


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_other_seeds_rows_and_reasons_draw_otherwise(draw) -> None:
    here = draw(Rng.of(3, 40))
    for other in (Rng.of(4, 40), Rng.of(-3, 40), Rng.of(3, torch.arange(40, 80)), Rng.of(3, 40).fold("x")):
        assert (draw(other) == here).double().mean() < 0.7


def test_reasons_give_unrelated_streams() -> None:
    root = Rng.of(0, 5000)
    folds = [root.fold(r).uniform(dtype=torch.float64) for r in (0, 1, 2, "0", "start", "radius", -1)]
    folds.append(root.fold(0).fold(1).uniform(dtype=torch.float64))
    folds.append(root.fold(1).fold(0).uniform(dtype=torch.float64))
    related = np.corrcoef(torch.stack([root.uniform(dtype=torch.float64), *folds]).numpy())
    assert abs(related - np.eye(len(related))).max() < 0.06
    neighbours = np.corrcoef(root.uniform(6, dtype=torch.float64).numpy().T)
    assert abs(neighbours - np.eye(6)).max() < 0.06
    rows = Rng.of(0, 6).uniform(5000, dtype=torch.float64).numpy()
    assert abs(np.corrcoef(rows) - np.eye(6)).max() < 0.06


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_on_the_half_open_interval(dtype) -> None:
    u = Rng.of(1, 100).uniform(1000, dtype=dtype)
    assert u.dtype == dtype
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u.flatten().numpy().astype(float), "uniform").pvalue > 1e-3
    assert stats.kstest(Rng.of(1, 20000).uniform(dtype=dtype).numpy().astype(float), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_is_standard(dtype) -> None:
    v = Rng.of(2, 100).normal(1000, dtype=dtype)
    assert v.dtype == dtype
    flat = v.flatten().double().numpy()
    assert np.isfinite(flat).all()
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert abs(flat.mean()) < 0.015
    assert abs(flat.std() - 1) < 0.01
    assert abs((flat**4).mean() - 3) < 0.1


def test_signs_are_balanced() -> None:
    s = Rng.of(3, 100).sign(1000)
    assert set(s.unique().tolist()) == {-1.0, 1.0}
    assert abs(s.mean()) < 0.012


@pytest.mark.parametrize("high", [1, 2, 7, 1000])
def test_integers_cover_their_range_evenly(high) -> None:
    v = Rng.of(4, 100).integers(high, 1000)
    assert v.dtype == torch.int64
    assert v.min() == 0
    assert v.max() == high - 1
    if high > 1:
        assert stats.chisquare(np.bincount(v.flatten().numpy(), minlength=high)).pvalue > 1e-3


def test_a_permutation_is_one_and_depends_on_seed_and_reason() -> None:
    p = permutation(500, 1, "epoch 0")
    assert p.sort().values.tolist() == list(range(500))
    assert torch.equal(p, permutation(500, 1, "epoch 0"))
    for other in (permutation(500, 2, "epoch 0"), permutation(500, 1, "epoch 1"), torch.arange(500)):
        assert (p == other).double().mean() < 0.05
    firsts = torch.stack([permutation(5, 0, i)[0] for i in range(500)])
    assert stats.chisquare(np.bincount(firsts.numpy())).pvalue > 1e-3


@pytest.mark.parametrize("seed", [0, 7, -1, 2**70])
def test_sealed_code_draws_the_same_and_leaves_no_trace(seed) -> None:
    drop, x = nn.Dropout(0.5), torch.ones(100)
    before = torch.get_rng_state()
    with sealed(seed):
        first = drop(x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    with sealed(seed):
        assert torch.equal(drop(x), first)
    with sealed(seed + 1):
        assert not torch.equal(drop(x), first)


def test_the_seal_holds_when_something_breaks() -> None:
    before = torch.get_rng_state()

    def fail() -> None:
        with sealed(1):
            torch.rand(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_drawing_does_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    Rng.of(0, 3).normal(4)
    permutation(9, 0, "x")
    assert torch.equal(torch.get_rng_state(), before)
