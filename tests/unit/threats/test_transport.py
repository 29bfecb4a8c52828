"""Flow between neighbours: the Wasserstein distance by a linear programme, mass, both edges of the box, and MNIST."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import adamant as am
from adamant.errors import InputError
from adamant.models import load_model
from adamant.random import Rng
from adamant.threats import Wasserstein

SHARED = Path(__file__).parents[3].parent / "shared"
MODELS = Path(os.environ.get("ADAMANT_MODELS_DIR", SHARED / "models"))
DATA = Path(os.environ.get("ADAMANT_DATA_DIR", SHARED / "data"))
H, W = 3, 4


def distance(a, b):
    """W1 with the L1 ground metric of two pictures (h, w) of equal mass: the cheapest plan of transport."""
    place = np.array([(i, j) for i in range(H) for j in range(W)])
    cost = np.abs(place[:, None] - place[None]).sum(2)
    n = len(place)
    leaves, comes = np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))
    kept = np.vstack([leaves, comes])
    # the last row follows from the others; rounding must not make the programme impossible
    end = b.flatten() * (a.sum() / b.sum()) if b.sum() else b.flatten()
    solved = linprog(cost.flatten(), A_eq=kept[:-1], b_eq=np.concatenate([a.flatten(), end])[:-1], method="highs")
    assert solved.status == 0, solved.message
    return solved.fun


def pictures(n, box):
    """In the box, a third of the entries at its edges."""
    u = Rng.of(1, n).uniform(2, H, W, dtype=torch.float64)
    return box[0] + (box[1] - box[0]) * (u * 1.5 - 0.25).clamp(0, 1)


@pytest.mark.parametrize("box", [(0.0, 1.0), (-1.0, 3.0)])
@pytest.mark.parametrize(("reach", "rounds"), [(0.1, 1), (0.4, 2), (3.0, 4)])
def test_no_member_is_further_than_the_reach_and_mass_is_kept(box, reach, rounds):
    threat, x = Wasserstein(reach=reach, rounds=rounds, box=box), pictures(12, box)
    theta = 2 * Rng.of(2, 12).uniform(*threat.parameters(x), dtype=torch.float64) - 1
    theta[6:] = theta[6:].sign()
    z = threat.apply(x, theta)
    assert z.min() >= box[0]
    assert z.max() <= box[1]
    torch.testing.assert_close(z.sum((2, 3)), x.sum((2, 3)), rtol=0, atol=1e-12)
    furthest = 0.0
    for a, b in zip((x - box[0]).numpy(), (z - box[0]).numpy(), strict=True):
        moved = sum(distance(a[c], b[c]) for c in range(2)) / a.sum()
        assert moved <= reach * (1 + 1e-9)
        furthest = max(furthest, moved)
    assert furthest > 0.5 * min(reach, 0.6)  # and the set is no empty promise


def spot(value, i=1, j=1):
    x = torch.zeros(1, 1, H, W, dtype=torch.float64)
    x[..., i, j] = value
    return x


def flow(rounds, across=0.0, down=0.0):
    theta = torch.zeros(1, rounds, 2, H, W, dtype=torch.float64)
    theta[:, :, 0], theta[:, :, 1] = across, down
    return theta.flatten(1, 2)


def test_a_spot_moves_as_it_is_told():
    x = spot(0.8)
    for across, down, i, j in ((1.0, 0.0, 1, 2), (-1.0, 0.0, 1, 0), (0.0, 1.0, 2, 1), (0.0, -1.0, 0, 1)):
        got = Wasserstein(reach=1.0, rounds=1).apply(x, flow(1, across, down))
        torch.testing.assert_close(got, spot(0.8, i, j))
    torch.testing.assert_close(
        Wasserstein(reach=0.25, rounds=1).apply(x, flow(1, 1.0)), spot(0.6) + spot(0.2, 1, 2)
    )  # no more than the reach
    torch.testing.assert_close(Wasserstein(reach=9.0, rounds=2).apply(x, flow(2, 1.0)), spot(0.8, 1, 3))
    torch.testing.assert_close(
        Wasserstein(reach=9.0, rounds=1).apply(x, flow(1, 1.0, 1.0)), spot(0.4, 1, 2) + spot(0.4, 2, 1)
    )  # no more than there is
    edge = spot(0.8, 1, 3)
    assert torch.equal(Wasserstein(reach=9.0, rounds=1).apply(edge, flow(1, 1.0)), edge)  # nothing falls off


def test_what_a_round_leaves_unspent_the_next_may_spend():
    theta = flow(2, 1.0)
    theta[:, :2] = 0
    torch.testing.assert_close(Wasserstein(reach=1.0, rounds=2).apply(spot(0.8), theta), spot(0.8, 1, 2))


def test_a_full_pixel_takes_nothing_and_a_nearly_full_one_what_fits():
    x = spot(0.8) + spot(0.9, 1, 2)
    theta = torch.zeros(1, 2, H, W, dtype=torch.float64)
    theta[0, 0, 1, 1] = 1.0
    torch.testing.assert_close(Wasserstein(reach=9.0, rounds=1).apply(x, theta), spot(0.7) + spot(1.0, 1, 2))
    full = spot(0.8) + spot(1.0, 1, 2)
    torch.testing.assert_close(Wasserstein(reach=9.0, rounds=1).apply(full, theta), full)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_nothing_can_move_nothing_does(value):
    x = torch.full((2, 1, H, W), value)
    threat = Wasserstein(reach=0.5)
    theta = torch.full((2, *threat.parameters(x)), 0.3, requires_grad=True)
    z = threat.apply(x, theta)
    assert torch.equal(z, x)
    (g,) = torch.autograd.grad(z.square().sum(), theta)
    assert g.isfinite().all()


def test_from_nothing_there_is_a_slope():
    x = spot(0.8)
    threat = Wasserstein(reach=0.5, rounds=1)
    theta = torch.zeros(1, *threat.parameters(x), dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(threat.apply(x, theta)[0, 0, 1, 2], theta)
    assert g[0, 0, 1, 1] > 0


def test_what_moves_nothing_is_refused():
    for settings, words in (
        ({"reach": 0.0}, "moves nothing"),
        ({"rounds": 0}, "moves nothing"),
        ({"reach": -1.0}, "from 0 on"),
        ({"reach": torch.inf}, "from 0 on"),
    ):
        with pytest.raises(InputError, match=words):
            Wasserstein(**settings)
    with pytest.raises(InputError, match="changes pictures"):
        Wasserstein().check(torch.zeros(2, 5))
    with pytest.raises(InputError, match="leave the box"):
        Wasserstein().check(torch.full((1, 1, 2, 2), 2.0))


@pytest.mark.slow
def test_it_breaks_an_undefended_network():
    """First 100 test images of MNIST: all fall where half a pixel is allowed, few to flows drawn at random."""
    weights, data = MODELS / "mnist_lenet5_clean.safetensors", DATA / "mnist.npz"
    if not (weights.exists() and data.exists()):
        pytest.skip(f"needs {weights.name} (ADAMANT_MODELS_DIR) and mnist.npz (ADAMANT_DATA_DIR)")
    model = load_model(weights, arch="zoo:lenet5", shape=(1, 28, 28), classes=10)
    with np.load(data, allow_pickle=False) as held:
        x, y = torch.from_numpy(held["x_test"][:100])[:, None].float() / 255, torch.from_numpy(held["y_test"][:100])
    threat = Wasserstein(reach=0.5)
    out = am.attack(am.PGD(), model, x, y.long(), threat)
    assert out.success_rate >= 0.98
    torch.testing.assert_close(out.x_adv.sum((1, 2, 3)), x.sum((1, 2, 3)), rtol=1e-5, atol=0)
    assert am.attack(am.Draws(steps=40), model, x, y.long(), threat).success_rate < 0.1
