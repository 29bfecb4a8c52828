"""Ghost networks: what is dropped, where, by whom it is decided, and that rows stay apart."""

import pytest
import torch
from torch import nn

import adamant as am
from adamant.errors import InputError, ModelError
from adamant.models import Ensemble, Ghost
from adamant.models.ghost import _fingerprint
from adamant.random import Rng

SHAPE = (1, 6, 6)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 40), nn.ReLU(), nn.Linear(40, 4))


@pytest.fixture
def x():
    return Rng.of(1, 20).uniform(*SHAPE)


def taken_in(net, ghost, x):
    """What each layer took in."""
    seen = []
    handles = [
        m.register_forward_hook(lambda _m, args, _o: seen.append(args[0].detach()))
        for m in net if isinstance(m, (nn.Conv2d, nn.Linear))
    ]  # fmt: skip
    ghost(x)
    for handle in handles:
        handle.remove()
    return seen


def test_a_share_of_what_layers_after_the_first_take_in_is_dropped_and_the_rest_makes_up_for_it(net, x):
    first, second, third = taken_in(net, Ghost(net, 0.3), x)
    assert torch.equal(first, x)
    plain = net[:3](x)
    kept = second[plain > 0] != 0
    assert 0.68 < kept.double().mean() < 0.72
    torch.testing.assert_close(second[second != 0], plain[second != 0] / 0.7)
    below = net[3:5](second)
    assert 0.65 < (third[below > 0] != 0).double().mean() < 0.75


def test_without_a_drop_it_is_the_network(net, x):
    torch.testing.assert_close(Ghost(net, 0.0)(x), net(x))


def test_the_gradient_is_that_of_the_eroded_network(net, x):
    z = x.clone().requires_grad_(True)
    found = torch.autograd.grad(Ghost(net, 0.3)(z)[:, 0].sum(), z)[0]
    _, second, third = taken_in(net, Ghost(net, 0.3), x)
    masks = (second != 0) / 0.7, (third != 0) / 0.7
    by_hand = net[5](net[3:5](net[:3](z) * masks[0]) * masks[1])
    torch.testing.assert_close(found, torch.autograd.grad(by_hand[:, 0].sum(), z)[0])


def test_every_place_has_its_own_ghost_and_always_the_same(net, x):
    ghost = Ghost(net, 0.3)
    assert torch.equal(ghost(x), ghost(x))
    lacks = [taken_in(net, g, z)[1] == 0 for g, z in ((ghost, x), (ghost, x + 1e-7), (Ghost(net, 0.3, seed=1), x))]
    for other in lacks[1:]:
        assert ((lacks[0] != other).flatten(1).double().mean(1) > 0.1).all()
    among = taken_in(net, ghost, x[:1].expand(2, -1, -1, -1) + torch.tensor([0.0, 1e-6]).view(2, 1, 1, 1))[1] == 0
    assert (among[0] != among[1]).any()


def test_a_fingerprint_knows_every_bit_of_a_row_and_where_it_is(x):
    for dtype in (torch.float32, torch.float64):
        z = x.to(dtype).flatten(1)
        turned = z.roll(1, 1)
        nudged = z.clone()
        nudged[:, 7] = nudged[:, 7].nextafter(torch.ones(20, dtype=dtype))
        prints = torch.cat([_fingerprint(v) for v in (z, turned, nudged)])
        assert len(prints.unique()) == 60


@pytest.mark.parametrize("ghosts", [1, 3])
def test_a_row_meets_the_same_ghost_in_any_batch(net, x, ghosts):
    ghost = Ghost(net, 0.3, ghosts=ghosts)
    whole = ghost(x)
    for i in (0, 7, 19):
        torch.testing.assert_close(ghost(x[i : i + 1])[0], whole[i])
    y = net(x).argmax(1)
    settings = [am.Settings(batch_size=size) for size in (20, 3)]
    big, small = (am.attack(am.PGD(steps=5), ghost, x, y, am.Linf(0.05), settings=s) for s in settings)
    assert torch.equal(big.x_adv, small.x_adv)
    assert torch.equal(big.status, small.status)


def test_the_mean_of_many_ghosts_of_an_affine_network_is_the_network(x):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 30), nn.Linear(30, 3))
    torch.testing.assert_close(Ghost(net, 0.2, ghosts=2000)(x), net(x), rtol=0, atol=0.03)


def test_it_leaves_no_trace_and_is_a_part_like_any_other(net, x):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    ghost = Ghost(net, 0.3)
    ghost(x)
    assert all(not m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    out = am.attack(am.MIFGSM(), Ensemble(net, ghost), x, net(x).argmax(1), am.Linf(0.1))
    assert out.forwards.max() <= 11


def test_what_makes_no_ghost_is_refused(net, x):
    with pytest.raises(InputError, match="from 0 to below 1, got 1"):
        Ghost(net, 1.0)
    with pytest.raises(InputError, match="at least one ghost, got 0"):
        Ghost(net, ghosts=0)
    with pytest.raises(InputError, match="finds fewer than two"):
        Ghost(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)))

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, v):
            return self.two(self.one(v).flatten(0, 2)).view(len(v), 6, 3).mean(1)

    with pytest.raises(ModelError, match="20 came in and 120 reached a layer"):
        Ghost(Tokens())(x)
