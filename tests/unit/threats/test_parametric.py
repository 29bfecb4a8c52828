"""Turning, shifting, bending and recolouring: what each does to a picture whose answer is known, and as a threat."""

import pytest
import torch

import adamant as am
from adamant.adversary import Status
from adamant.batch import Shared
from adamant.engine import perturb, run
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.testing import Bent
from adamant.threats import Flow, Parametric, Pasted, Recolour, Spatial, Wasserstein

STICKER = Pasted(picture=Shared(Rng.of(9, 3).uniform(3, 2)))
MASS = Wasserstein(reach=0.5, rounds=2)
EVERY = (Spatial(degrees=40, shift=0.2, zoom=0.3), Flow(reach=1.5, grid=3), Recolour(reach=0.2, grid=4), STICKER, MASS)


@pytest.fixture
def x():
    return Rng.of(0, 6).uniform(3, 9, 9, dtype=torch.float64)


def at(threat, x, *values):
    theta = torch.zeros(len(x), *threat.parameters(x), dtype=x.dtype)
    theta.view(len(x), -1)[:, : len(values)] = torch.tensor(values, dtype=x.dtype)
    return threat.apply(x, theta)


@pytest.mark.parametrize("threat", EVERY)
def test_zero_changes_nothing_and_everything_stays_in_the_box(threat, x):
    assert isinstance(threat, Parametric)
    torch.testing.assert_close(at(threat, x), x, rtol=0, atol=1e-9)
    for seed in range(5):
        theta = 2 * Rng.of(seed, 6).uniform(*threat.parameters(x), dtype=x.dtype) - 1
        z = threat.apply(x, theta)
        assert z.shape == x.shape
        assert z.min() >= 0
        assert z.max() <= 1
        assert not torch.allclose(z, x, atol=1e-3)


@pytest.mark.parametrize("threat", EVERY)
def test_a_row_is_changed_alike_in_any_batch_and_has_a_gradient(threat, x):
    theta = (2 * Rng.of(1, 6).uniform(*threat.parameters(x), dtype=x.dtype) - 1) * 0.7
    whole = threat.apply(x, theta)
    for i in range(6):
        torch.testing.assert_close(threat.apply(x[i : i + 1], theta[i : i + 1])[0], whole[i], rtol=0, atol=1e-12)
    weight = Rng.of(2, 6).uniform(*x.shape[1:], dtype=x.dtype)
    theta.requires_grad_(True)
    (g,) = torch.autograd.grad((threat.apply(x, theta) * weight).sum(), theta)
    for i in range(min(5, g[0].numel())):
        step = torch.zeros_like(theta.detach())
        step.view(6, -1)[:, i] = 1e-7
        up = (threat.apply(x, theta.detach() + step) * weight).flatten(1).sum(1)
        down = (threat.apply(x, theta.detach() - step) * weight).flatten(1).sum(1)
        torch.testing.assert_close((up - down) / 2e-7, g.reshape(6, -1)[:, i], rtol=1e-4, atol=1e-4)


def test_a_quarter_turn_is_a_quarter_turn(x):
    turned = at(Spatial(degrees=90), x, 1.0)
    assert torch.allclose(turned, x.rot90(1, (2, 3)), atol=1e-9) or torch.allclose(
        turned, x.rot90(-1, (2, 3)), atol=1e-9
    )


def test_a_turn_of_an_oblong_keeps_its_angles():
    """A small disc off the centre stays a disc, where a turn in stretched coordinates would make it an ellipse."""
    h, w = 40, 80
    row, column = torch.meshgrid(torch.arange(h) - 19.5, torch.arange(w) - 39.5, indexing="ij")
    disc = (((column - 10) ** 2 + row**2) < 25).double()[None, None]
    turned = at(Spatial(degrees=45), disc, 1.0)[0, 0]
    mass = turned.sum()
    assert torch.isclose(mass, disc.sum(), rtol=0.05)
    centre = torch.stack([(turned * row).sum(), (turned * column).sum()]) / mass
    assert torch.isclose(centre.norm(), torch.tensor(10.0, dtype=torch.float64), rtol=0.02)
    assert torch.isclose(centre[0].abs(), centre[1].abs(), rtol=0.05)


def test_a_shift_by_whole_pixels_is_a_shift(x):
    two = at(Spatial(degrees=0, shift=2 / 9), x, 0.0, 1.0)
    torch.testing.assert_close(two[..., :-2], x[..., 2:])
    assert not two[..., -2:].any()
    up = at(Spatial(degrees=0, shift=2 / 9), x, 0.0, 0.0, 1.0)
    torch.testing.assert_close(up[..., :-2, :], x[..., 2:, :])
    dark = at(Spatial(degrees=0, shift=2 / 9, box=(-1.0, 1.0)), x, 0.0, 1.0)
    assert (dark[..., -2:] == -1).all()  # the empty canvas is the low end of the box


def test_a_flow_that_is_the_same_everywhere_is_a_shift(x):
    theta = torch.zeros(6, 2, 3, 3, dtype=x.dtype)
    theta[:, 0] = 1.0
    moved = Flow(reach=2.0, grid=3).apply(x, theta)
    torch.testing.assert_close(moved[..., :-2], x[..., 2:])
    torch.testing.assert_close(moved[..., -1], x[..., -1])  # the edge repeats


@pytest.mark.parametrize("channels", [1, 3])
def test_one_function_of_the_colour(x, channels):
    x = x[:, :channels]
    threat = Recolour(reach=0.2, grid=4)
    theta = 2 * Rng.of(3, 6).uniform(*threat.parameters(x), dtype=x.dtype) - 1
    same = x.clone()
    same[:, :, 0, 0] = same[:, :, 5, 7]
    z = threat.apply(same, theta)
    torch.testing.assert_close(z[:, :, 0, 0], z[:, :, 5, 7])
    assert (z - same).abs().max() <= 0.2 + 1e-12
    knot = torch.zeros_like(x)  # the darkest colour is the first knot, whatever the order of the axes
    first = theta.flatten(2)[:, :, 0]
    torch.testing.assert_close(threat.apply(knot, theta)[:, :, 4, 4], (0.2 * first).clamp_min(0))
    if channels == 3:
        red = torch.zeros_like(x)
        red[:, 0] = 1.0
        want = theta[:, :, -1, 0, 0]
        got = threat.apply(red, theta)[:, :, 4, 4]
        torch.testing.assert_close(got[:, 1:], (0.2 * want[:, 1:]).clamp_min(0))


@pytest.mark.parametrize("threat", EVERY)
@pytest.mark.parametrize("attack", [am.PGD(steps=5, rate=0.3), am.RandomSearch(steps=10), am.Restarts(am.FGSM(), 2)])
def test_the_engine_keeps_its_promises(threat, attack):
    model, x = Bent((3, 5, 6), 10).eval(), Rng.of(0, 40).uniform(3, 5, 6)
    with torch.no_grad():
        label = model(x).argmax(1)
    label[0] = (label[0] + 1) % 10
    out = run(attack, model, x, Untargeted(label), threat)
    assert 0 < out.broken.sum() < 40
    assert out.status[0] == Status.WRONG_ALREADY
    assert torch.equal(out.x_adv[0], x[0])
    with torch.no_grad():
        for i in out.broken.nonzero().flatten():
            assert model(out.x_adv[i : i + 1]).argmax() != label[i]
    assert (out.size <= 1).all()
    small = run(attack, model, x, Untargeted(label), threat, settings=am.Settings(batch_size=7))
    assert torch.equal(out.x_adv, small.x_adv)
    assert torch.equal(out.forwards, small.forwards)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(run(attack, model, last, Untargeted(label), threat).x_adv, out.x_adv)


def test_what_is_no_picture_is_refused(x):
    model = Bent((12,), 3).eval()
    label = torch.zeros(6, dtype=torch.long)
    with pytest.raises(InputError, match="Spatial changes pictures"):
        run(am.PGD(), model, x.flatten(1), Untargeted(label), Spatial())
    with pytest.raises(InputError, match="leave the box"):
        run(am.PGD(), model, x * 3, Untargeted(label), Flow())
    with pytest.raises(InputError, match="neither trained with nor transferred"):
        perturb(am.PGD(), model, x, Untargeted(label), Spatial(), rng=Rng.of(0, 6))
    with pytest.raises(InputError, match="1 or 3 channels, got 2"):
        run(am.PGD(), model, x[:, :2], Untargeted(label), Recolour())
