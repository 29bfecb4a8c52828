"""Linf, L2 and L1: members, nearest points and fair draws, over shapes, dtypes, boxes, budgets and masks."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from torch import Tensor

from adamant.batch import PerRow, Shared, per_row, take
from adamant.random import Rng
from adamant.threats import L1, L2, Linf

INF = math.inf
KINDS = [Linf, L2, L1]
SHAPES = [(1, 1), (3, 1), (1, 7), (4, 6), (1, 1, 1, 1), (2, 3, 4, 2), (5, 1, 3, 3)]
BOXES = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-INF, INF), (0.0, INF)]
HAIR = 4e-6

some = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def uniform(shape, seed: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


@st.composite
def cases(draw, kinds=tuple(KINDS)):
    """A threat model, inputs in its box, and points anywhere: near, far, and beyond the box."""
    kind, shape = draw(st.sampled_from(kinds)), draw(st.sampled_from(SHAPES))
    dtype, seed = draw(st.sampled_from([torch.float32, torch.float64])), draw(st.integers(0, 10**6))
    box = draw(st.sampled_from(BOXES))
    low, high = (max(box[0], -50.0), min(box[1], 50.0))
    x = uniform(shape, seed, low, high).to(dtype)
    if draw(st.booleans()):  # exactly on the border of the box
        on = uniform(shape, seed + 1)
        x = torch.where(on < 0.3, low, torch.where(on > 0.7, high, x)).to(dtype)
    x = x.clamp(*box)
    size = draw(st.sampled_from([1e-3, 0.03, 0.3, 1.0, 3.0])) * (high - low) / 2
    eps: float | PerRow = size
    if draw(st.booleans()):
        eps = PerRow(size * (0.2 + uniform(shape[:1], seed + 2)))
    mask: Shared | PerRow | None = None
    match draw(st.integers(0, 3)):
        case 0:
            mask = Shared(uniform(shape[1:], seed + 3) > 0.4)
        case 1:
            mask = PerRow(uniform(shape, seed + 3) > 0.4)
    reach = draw(st.sampled_from([0.1, 1.0, 10.0]))
    z = x + (uniform(shape, seed + 4, -1, 1) * reach * size).to(dtype)
    z = torch.where(uniform(shape, seed + 5) < 0.2, x, z)
    layout = draw(st.integers(0, 2))
    if layout == 1 and len(shape) == 4:
        x, z = x.to(memory_format=torch.channels_last), z.to(memory_format=torch.channels_last)
    if layout == 2:
        x, z = (torch.stack([v, v], -1)[..., 0] for v in (x, z))  # a view with gaps
    return kind(eps, box=box, mask=mask), x, z


def nearest(threat, x: Tensor, z: Tensor) -> Tensor:
    """The projection, from the conditions of Karush, Kuhn and Tucker, by bisection in float64."""
    x, z = x.double(), z.double()
    low, high = threat.box
    d = z - x
    if threat.mask is not None:
        d = d * threat.mask.values
    eps = per_row(threat._limits(x), x)

    def change(t: Tensor) -> Tensor:
        t = per_row(t, x)
        raw = d / (1 + t) if isinstance(threat, L2) else d.sign() * (d.abs() - t).clamp_min(0)
        return raw.clamp(low - x, high - x)

    if isinstance(threat, Linf):
        return x + d.clamp(-eps, eps).clamp(low - x, high - x)
    measure = (lambda c: c.flatten(1).norm(dim=1)) if isinstance(threat, L2) else (lambda c: c.abs().flatten(1).sum(1))
    lower, upper = torch.zeros(len(x), dtype=torch.float64), torch.full((len(x),), 1e9, dtype=torch.float64)
    fits = measure(change(lower)) <= eps.flatten()
    for _ in range(200):
        middle = (lower + upper) / 2
        over = measure(change(middle)) > eps.flatten()
        lower, upper = torch.where(over, middle, lower), torch.where(over, upper, middle)
    return x + change(torch.where(fits, 0.0, upper))


def tolerance(threat, x: Tensor) -> Tensor:
    """What the hair and the rounding of x may cost, for each row."""
    return 2 * HAIR * threat._limits(x) + 4 * torch.finfo(x.dtype).eps * (x.abs().flatten(1).amax(1).double() + 1)


@given(cases())
@some
def test_a_projection_is_a_member_and_the_nearest_one(case) -> None:
    threat, x, z = case
    before = x.clone(), z.clone()
    p = threat.project(z, x)
    assert p.dtype == x.dtype
    assert p.shape == x.shape
    assert threat.contains(p, x).all()
    away = (p.double() - nearest(threat, x, z)).abs().flatten(1).amax(1)
    assert (away <= tolerance(threat, x)).all(), away
    assert torch.equal(x, before[0])
    assert torch.equal(z, before[1])


@given(cases())
@some
def test_projecting_twice_is_projecting_once(case) -> None:
    threat, x, z = case
    p = threat.project(z, x)
    assert torch.equal(threat.project(p, x), p)


@given(cases())
@some
def test_a_member_well_inside_stays_bit_for_bit(case) -> None:
    threat, x, z = case
    p = threat.project(z, x)
    halfway = threat._hold((x + (p - x) * 0.5).clamp(*threat.box), x)
    assert torch.equal(threat.project(halfway, x), halfway)
    assert torch.equal(threat.project(x, x), x)


@given(cases())
@some
def test_a_member_on_the_rim_moves_by_no_more_than_a_hair(case) -> None:
    threat, x, z = case
    rim = nearest(threat, x, z).to(x.dtype)
    member = threat.contains(rim, x)
    away = (threat.project(rim, x).double() - rim.double()).abs().flatten(1).amax(1)
    assert (away <= tolerance(threat, x))[member].all()


@given(cases())
@some
def test_rows_do_not_see_each_other(case) -> None:
    threat, x, z = case
    rng = Rng.of(3, len(x))
    p, drawn, moved = threat.project(z, x), threat.sample(x, rng), threat.move(z, z - x, 0.3)
    inside, size = threat.contains(z, x), threat.size(z, x)
    for row in range(len(x)):
        one = torch.tensor([row])
        t = take(threat, one)
        exact = isinstance(threat, Linf)
        for whole, alone in [
            (p, t.project(z[one], x[one])),
            (drawn, t.sample(x[one], take(rng, one))),
            (moved, t.move(z[one], (z - x)[one], 0.3)),
        ]:
            close = torch.finfo(x.dtype).eps * 8 * float(whole.abs().max() + 1)
            assert torch.allclose(whole[row], alone[0], rtol=0, atol=0.0 if exact else close)
        assert bool(inside[row]) == bool(t.contains(z[one], x[one]))
        assert float(size[row]) == pytest.approx(float(t.size(z[one], x[one])), rel=1e-12)


@given(cases())
@some
def test_a_draw_is_a_member_and_leaves_held_entries_alone(case) -> None:
    threat, x, _ = case
    drawn = threat.sample(x, Rng.of(11, len(x)))
    assert drawn.dtype == x.dtype
    assert threat.contains(drawn, x).all()
    if threat.mask is not None:
        held = ~threat.mask.values.expand(x.shape)
        assert torch.equal(drawn[held], x[held])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("box", "eps"), [((0.0, 1.0), 1e-3), ((0.0, 255.0), 1.0), ((-INF, INF), 10.0)])
def test_large_rows_with_small_budgets_are_still_members(kind, box, eps) -> None:
    """Rounding x + d may lengthen d by more than any fixed margin: sums over many entries show it."""
    high = min(box[1], 100.0)
    x = uniform((20, 3072), 1, 0, high).float()
    threat = kind(eps, box=box)
    z = x + eps * torch.randn(20, 3072, generator=torch.Generator().manual_seed(2))
    assert threat.contains(threat.project(z, x), x).all()
    assert threat.contains(threat.sample(x, Rng.of(0, 20)), x).all()


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_box_a_large_neighbour_changes_nothing(kind) -> None:
    x = torch.tensor([[0.1, 0.2, 0.3], [1e6, -1e6, 3.0]])
    z = x + torch.tensor([[1.0, -2.0, 0.3], [1.0, 1.0, 1.0]])
    threat = kind(0.5, box=(-INF, INF))
    assert torch.equal(threat.project(z, x)[:1], threat.project(z[:1], x[:1]))
    assert torch.equal(threat.sample(x, Rng.of(0, 2))[:1], threat.sample(x[:1], Rng.of(0, 1)))


@pytest.mark.parametrize("kind", [L2, L1])
@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_member_by_a_general_solver(kind, seed) -> None:
    """The same question to SLSQP, which knows nothing of thresholds."""
    x, z, eps = uniform((1, 5), seed), uniform((1, 5), seed + 50, -1, 2), 0.6
    found = kind(eps).project(z, x)[0].numpy()
    d = (z - x)[0].numpy()
    # Split in positive and negative parts, so that the length is smooth.
    n = len(d)
    length = (lambda v: (v**2).sum() - eps**2) if kind is L2 else (lambda v: v.sum() - eps)
    room_up, room_down = (1 - x)[0].numpy(), x[0].numpy()
    best = optimize.minimize(
        lambda v: ((v[:n] - v[n:] - d) ** 2).sum(),
        [0.01] * (2 * n),
        jac=lambda v: torch.cat(
            [torch.tensor(2 * (v[:n] - v[n:] - d)), torch.tensor(-2 * (v[:n] - v[n:] - d))]
        ).numpy(),
        bounds=[(0, r if e > 0 else 0) for r, e in zip(room_up, d, strict=True)]
        + [(0, r if e < 0 else 0) for r, e in zip(room_down, d, strict=True)],
        constraints={"type": "ineq", "fun": lambda v: -length(v)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    change = best.x[:n] - best.x[n:]
    assert abs(found - x[0].numpy() - change).max() < 2e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("far", [1e10, 1e30])
def test_points_very_far_away_come_back(kind, far) -> None:
    x = uniform((3, 2, 2, 2), 0).float()
    z = x + far * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    p = kind(0.3).project(z, x)
    assert kind(0.3).contains(p, x).all()
    if kind is not L1:  # whose threshold is as coarse as the point is far
        assert (kind(0.3).size(p, x) > 0.29).all()  # as far as the budget goes, not back at the start


# ---- steps


def climbed(threat, z: Tensor, g: Tensor, rate) -> Tensor:
    return threat.move(z, g, rate) - z


@given(st.integers(0, 10**6), st.sampled_from([(2, 5), (2, 1, 3, 2), (1, 1)]))
@some
def test_no_step_of_the_same_length_climbs_more(seed, shape) -> None:
    z = uniform(shape, seed, 0.3, 0.7)
    g = uniform(shape, seed + 1, -1, 1)
    for threat, dual in [
        (Linf(0.2), lambda v: v.abs().flatten(1).sum(1)),
        (L2(0.2), lambda v: v.flatten(1).norm(dim=1)),
        (L1(0.2, spread=0.0), lambda v: v.abs().flatten(1).amax(1)),
    ]:
        step = climbed(threat, z, g, 0.5)
        assert torch.allclose((g * step).flatten(1).sum(1), 0.1 * dual(g))
        assert torch.allclose(threat.size(z + step, z), torch.full(shape[:1], 0.1, dtype=torch.float64))


def test_the_l1_step_goes_where_there_is_room() -> None:
    z = torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.5, 0.0]])
    g = torch.tensor([[9.0, 1.0, -8.0], [-9.0, 1.0, 8.0]])
    step = climbed(L1(0.4, spread=0.0), z, g, 1.0)
    assert torch.allclose(step, torch.tensor([[0.0, 0.4, 0.0], [-0.4, 0.0, 0.0]]))


def test_the_l1_step_is_shared_among_the_largest() -> None:
    z, g = torch.full((1, 10), 0.5), torch.arange(1.0, 11.0)[None]
    step = climbed(L1(1.0, spread=0.4), z, g, 1.0)
    assert torch.allclose(step, torch.tensor([[0.0] * 6 + [0.25] * 4]))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_gradient_nothing_moves(kind) -> None:
    z = uniform((2, 4), 0).float()
    g = torch.tensor([[0.0] * 4, [1.0, 0, 0, 0]])
    step = climbed(kind(0.1), z, g, 1.0)
    assert (step[0] == 0).all()
    assert step[1].abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e-30, 1e-38, 1e30, 3e38])
def test_the_size_of_the_gradient_does_not_matter(kind, size) -> None:
    z, sign = torch.full((1, 4), 0.5), torch.tensor([[1.0, -0.5, 0.25, 0.1]])
    plain, odd = kind(0.2).move(z, sign, 1.0), kind(0.2).move(z, sign * size, 1.0)
    assert torch.allclose(plain, odd, atol=1e-6)
    assert kind(0.2).contains(kind(0.2).project(odd, z), z).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rate_and_budget_are_per_row(kind) -> None:
    z, g = torch.full((3, 4), 0.5), torch.tensor([[1.0, 2.0, -3.0, 4.0]]).expand(3, 4)
    threat = kind(PerRow([0.1, 0.2, 0.4]))
    step = climbed(threat, z, g, torch.tensor([1.0, 0.5, 0.5]))
    assert torch.allclose(threat.size(z + step, z).float(), torch.tensor([0.1, 0.1, 0.2]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_leaves_held_entries_alone(kind) -> None:
    z, g = torch.full((2, 3), 0.5), torch.tensor([[5.0, 1.0, 2.0]] * 2)
    threat = kind(0.1, mask=PerRow([[False, True, True], [True, False, False]]))
    step = climbed(threat, z, g, 1.0)
    assert (step[~threat.mask.values] == 0).all()
    assert (step.flatten(1).abs().sum(1) > 0.05).all()


# ---- draws


def test_linf_draws_are_uniform_also_beside_the_border() -> None:
    x = torch.tensor([[0.5, 0.02, 1.0]], dtype=torch.float64).expand(4000, 3)
    drawn = Linf(0.1).sample(x, Rng.of(5, 4000)).numpy()
    for entry, (low, high) in enumerate([(0.4, 0.6), (0.0, 0.12), (0.9, 1.0)]):
        assert stats.kstest(drawn[:, entry], stats.uniform(low, high - low).cdf).pvalue > 1e-3


@pytest.mark.parametrize("masked", [None, "shared", "per row"])
@pytest.mark.parametrize("kind", [L2, L1])
def test_ball_draws_have_the_radius_of_a_uniform_point(kind, masked) -> None:
    """P(size <= r) = (r / eps)^d where nothing is cut off, d the number of entries that may change."""
    n, d = 3000, 6
    x = torch.full((n, d), 0.5, dtype=torch.float64)
    keep = torch.arange(d) < 3
    mask = {None: None, "shared": Shared(keep), "per row": PerRow(keep.expand(n, d).clone())}[masked]
    free = d if mask is None else 3
    threat = kind(0.2, mask=mask)
    drawn = threat.sample(x, Rng.of(9, n))
    assert stats.kstest((threat.size(drawn, x) / 0.2).numpy() ** free, "uniform").pvalue > 1e-3
    moved = (drawn - x)[:, :free]
    assert (moved.mean(0).abs() < 0.01).all()
    assert ((moved**2).mean(0) / (moved**2).mean() - 1).abs().max() < 0.15  # no axis is favoured


def test_l1_draws_have_the_marginal_of_the_cross_polytope() -> None:
    """In d dimensions P(|v_1| > t eps) = (1 - t)^d."""
    n, d = 3000, 5
    x = torch.full((n, d), 0.5, dtype=torch.float64)
    first = ((L1(0.3).sample(x, Rng.of(2, n)) - x)[:, 0].abs() / 0.3).numpy()
    assert stats.kstest(first, lambda t: 1 - (1 - t) ** d).pvalue > 1e-3


def test_a_mask_smaller_than_the_input_counts_every_channel() -> None:
    n = 2000
    x = torch.full((n, 3, 1, 2), 0.5, dtype=torch.float64)
    threat = L2(0.2, mask=Shared([[True, False]]))
    drawn = threat.sample(x, Rng.of(9, n))
    assert stats.kstest((threat.size(drawn, x) / 0.2).numpy() ** 3, "uniform").pvalue > 1e-3


# ---- membership


def test_sizes_in_closed_form() -> None:
    x = torch.zeros(2, 1, 2, 2)
    z = torch.tensor([[3.0, -4.0, 0, 0], [1.0, 1.0, 1.0, 1.0]]).view(2, 1, 2, 2)
    assert Linf(9).size(z, x).tolist() == [4, 1]
    assert L2(9).size(z, x).tolist() == [5, 2]
    assert L1(9).size(z, x).tolist() == [7, 4]
    assert L2(9).size(z, x).dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_membership_is_strict(kind) -> None:
    x = torch.zeros(1, 2, dtype=torch.float64)
    on = torch.tensor([[0.25, 0.0]], dtype=torch.float64)
    threat = kind(0.25, box=(-1.0, 1.0))
    assert threat.contains(on, x).all()
    assert threat.contains(-on, x).all()
    assert not threat.contains(on.nextafter(torch.tensor(1.0, dtype=torch.float64)), x).any()
    assert not threat.contains(-on.nextafter(torch.tensor(1.0, dtype=torch.float64)), x).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", [math.nan, INF, -INF, 1.0000001, -1e-7])
def test_a_row_with_one_odd_entry_is_no_member(kind, odd) -> None:
    x = torch.tensor([[1.0, 0.0, 0.5]] * 2)
    z = x.clone()
    z[0, 0 if odd > 0.5 else 1] = odd
    assert kind(0.5).contains(z, x).tolist() == [False, True]
    if not math.isfinite(odd):
        assert kind(INF, box=(-INF, INF)).contains(z, x).tolist() == [False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_held_entry_is_no_member(kind) -> None:
    x = torch.full((2, 2), 0.5)
    threat = kind(0.5, mask=PerRow([[True, False], [False, True]]))
    z = x + torch.tensor([[1e-3, 0.0], [1e-3, 0.0]])
    assert threat.contains(z, x).tolist() == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_judged_by_its_own_budget(kind) -> None:
    x = torch.zeros(2, 1)
    assert kind(PerRow([0.1, 0.3])).contains(torch.tensor([[0.2], [0.2]]), x).tolist() == [False, True]


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.1), L1(0.1)])
def test_the_steepest_direction_has_size_one_and_gains_the_dual_norm(threat) -> None:
    g = torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g[0] = 0
    d = threat.steepest(g)
    free = type(threat)(0.1, box=(-9.0, 9.0))
    size = free.size(d, torch.zeros_like(d))
    torch.testing.assert_close(size[1:], torch.ones(19, dtype=torch.float64))
    assert not d[0].any()
    torch.testing.assert_close((d * g).flatten(1).sum(1), threat.dual(g))
    for seed in range(50):  # nothing of size one gains more
        other = torch.randn(g.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        other = other / free.size(other, torch.zeros_like(other)).view(-1, 1, 1, 1)
        assert ((other * g).flatten(1).sum(1) <= threat.dual(g) + 1e-9).all()


@pytest.mark.parametrize("threat", [L1(1.5), L2(0.6)])
def test_projections_in_float32_end_when_they_are_done(threat, monkeypatch):
    """A tolerance finer than the sums of float32 can tell apart would spend every round that there is."""
    x = (Rng.of(0, 32).uniform(3, 16, 16) * 1.5 - 0.25).clamp(0, 1)
    z, rounds, where = x + 0.5 * Rng.of(1, 32).normal(3, 16, 16), [], torch.where
    monkeypatch.setattr(torch, "where", lambda *given: rounds.append(1) or where(*given))
    threat.project(z, x)
    assert len(rounds) < 80  # four a round, and some before and after
