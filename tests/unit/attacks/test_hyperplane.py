"""The shortest way onto a hyperplane in the box, against linear and quadratic programmes."""

import math

import pytest
import torch
from scipy.optimize import linprog, minimize

import adamant as am
from adamant.attacks.hyperplane import Boundaries, nearest, onto
from adamant.goals import Targeted, Untargeted
from adamant.losses import Margin
from adamant.random import Rng

NORMS = (am.Linf, am.L2, am.L1)


def problem(seed, n=12, d=7, low=-1.0, high=2.0):
    rng = Rng.of(seed, n)
    z = low + (high - low) * (rng.fold("z").uniform(d, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)  # some at edges
    w = rng.fold("w").normal(d, dtype=torch.float64)
    w = w * (rng.fold("zero").uniform(d) > 0.2)
    reach = (w * torch.where(w > 0, high - z, low - z)).sum(1), (w * torch.where(w < 0, high - z, low - z)).sum(1)
    share = rng.fold("gap").uniform(dtype=torch.float64) * 0.95
    gap = torch.where(rng.fold("side").sign() > 0, reach[0] * share, reach[1] * share)
    return z, w, gap


def least(norm, z, w, gap, low, high):
    """The length of the smallest change, by a linear or a quadratic programme."""
    z, w, d = z.numpy(), w.numpy(), len(z)
    bounds = list(zip(low - z, high - z, strict=True))
    if norm is am.L1:  # change = up - down
        both = [(0, b) for _, b in bounds] + [(0, -a) for a, _ in bounds]
        return linprog([1.0] * (2 * d), A_eq=[[*w, *-w]], b_eq=[gap], bounds=both).fun
    if norm is am.Linf:  # -t <= change <= t
        eye = torch.eye(d).numpy()
        above = [[*row, -1] for row in eye] + [[*-row, -1] for row in eye]
        cost = [0.0] * d + [1.0]
        return linprog(
            cost, A_ub=above, b_ub=[0.0] * (2 * d), A_eq=[[*w, 0]], b_eq=[gap], bounds=[*bounds, (0, None)]
        ).fun
    found = minimize(
        lambda v: (v @ v) / 2,
        [0.0] * d,
        jac=lambda v: v,
        bounds=bounds,
        constraints={"type": "eq", "fun": lambda v: v @ w - gap, "jac": lambda v: w},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return math.sqrt(2 * found.fun)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_as_short_as_a_programme_finds_and_on_the_hyperplane_and_in_the_box(norm, seed):
    z, w, gap = problem(seed)
    threat = norm(box=(-1.0, 2.0))
    d = onto(threat, z, w, gap)
    torch.testing.assert_close((w * d).sum(1), gap, rtol=1e-9, atol=1e-10)
    assert ((z + d >= -1 - 1e-12) & (z + d <= 2 + 1e-12)).all()
    assert (d[w == 0] == 0).all()
    want = torch.tensor([least(norm, *row, -1.0, 2.0) for row in zip(z, w, gap.tolist(), strict=True)])
    torch.testing.assert_close(threat.size(d, torch.zeros_like(d)), want.double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_box_the_length_is_the_gap_over_the_dual_norm(norm):
    _, w, gap = problem(1, d=30)
    threat = norm(box=(-math.inf, math.inf))
    d = onto(threat, torch.zeros_like(w), w, gap)
    torch.testing.assert_close(threat.size(d, torch.zeros_like(d)), gap.abs() / threat.dual(w))


@pytest.mark.parametrize("norm", [*NORMS, am.L0])
def test_where_the_box_is_too_narrow_every_entry_goes_to_its_end(norm):
    z, w, _ = problem(2)
    for sign in (1.0, -1.0):
        gap = torch.full((len(z),), 1e3 * sign, dtype=z.dtype)
        end = torch.where(sign * w > 0, 2.0, -1.0)
        torch.testing.assert_close(z + onto(norm(box=(-1.0, 2.0)), z, w, gap), torch.where(w == 0, z, end.to(z)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_the_scale_of_the_gradient_does_not_matter_and_neither_does_the_batch(norm, scale):
    z, w, gap = problem(3, d=40)
    z, w, gap = z.float(), w.float(), gap.float()
    threat = norm(box=(-1.0, 2.0))
    d = onto(threat, z, w, gap)
    torch.testing.assert_close(onto(threat, z, w * scale, gap * scale), d, rtol=1e-4, atol=1e-5)
    for i in range(len(z)):
        assert torch.equal(onto(threat, z[i : i + 1], w[i : i + 1], gap[i : i + 1])[0], d[i])


@pytest.mark.parametrize("norm", NORMS)
def test_zeros_and_nan_do_no_harm(norm):
    z, w, gap = problem(4)
    threat = norm(box=(-1.0, 2.0))
    assert (onto(threat, z, w * 0, gap) == 0).all()
    assert (onto(threat, z, w, gap * 0) == 0).all()
    w[0] = math.nan
    gap[1] = math.nan
    gap[2] = math.inf
    assert onto(threat, z, w, gap)[2:].isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_is_the_one_of_least_margin_over_dual_norm(norm):
    rng = Rng.of(5, 6)
    slopes, margins = rng.fold("w").normal(4, 3, 2, 2), -rng.fold("m").uniform(4)
    w, margin = nearest(norm(), margins, slopes)
    for i in range(6):
        away = [float(margins[i, j].abs() / norm().dual(slopes[i, j][None])) for j in range(4)]
        j = away.index(min(away))
        assert torch.equal(w[i], slopes[i, j])
        assert margin[i] == margins[i, j]


def test_boundaries_are_those_of_the_likeliest_others_and_of_a_target_the_one():
    logits = Rng.of(6, 5).normal(4)
    label, target = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 2, 3, 0, 2])
    seen = Boundaries(2)(logits, Untargeted(label))
    assert seen.shape == (5, 2)
    torch.testing.assert_close(seen[:, 0], Margin()(logits, Untargeted(label)))
    goal = Targeted(label, target)
    assert torch.equal(Boundaries(2)(logits, goal), Margin()(logits, goal)[:, None])
