"""The patch: members, the nearest member against all windows, fair places, and attacks inside it."""

import itertools

import pytest
import torch

import adamant as am
from adamant.attacks import Draws
from adamant.errors import InputError
from adamant.random import Rng
from adamant.testing import EVERY, ONCE, Member, cases
from adamant.threats import Patch, Projectable

SHAPE = (2, 5, 6)


@pytest.fixture
def x():
    return Rng.of(0, 12).uniform(*SHAPE, dtype=torch.float64)


def covered(x, top, left, h, w, value):
    z = x.clone()
    z[..., top : top + h, left : left + w] = value
    return z


def test_members_differ_inside_one_rectangle(x):
    threat = Patch((2, 3))
    assert isinstance(threat, Projectable)
    assert threat.contains(x, x).all()
    for top, left in itertools.product(range(4), range(4)):
        assert threat.contains(covered(x, top, left, 2, 3, 0.5), x).all()
    assert not threat.contains(covered(x, 0, 0, 3, 3, 0.5), x).any()
    assert not threat.contains(covered(x, 0, 0, 2, 4, 0.5), x).any()
    two = covered(covered(x, 0, 0, 1, 1, 0.5), 4, 5, 1, 1, 0.5)
    assert not threat.contains(two, x).any()
    for bad in (torch.nan, torch.inf, -0.1, 1.1):
        assert not threat.contains(covered(x, 1, 1, 1, 1, bad), x).any()
    one_channel = x.clone()
    one_channel[:, 1, 4, 5] = 0.123
    assert threat.contains(one_channel, x).all()


def test_size_is_the_share_of_the_smallest_rectangle(x):
    threat = Patch((2, 3))
    assert (threat.size(x, x) == 0).all()
    torch.testing.assert_close(
        threat.size(covered(x, 1, 2, 2, 3, 0.5), x), torch.full((12,), 6 / 30, dtype=torch.float64)
    )
    two = covered(covered(x, 0, 0, 1, 1, 0.5), 4, 5, 1, 1, 0.5)
    torch.testing.assert_close(threat.size(two, x), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(threat.budget(x), torch.full((12,), 0.2, dtype=torch.float64))


def test_the_projection_is_the_nearest_member_of_all(x):
    threat = Patch((2, 3))
    z = x + 0.7 * Rng.of(3, 12).normal(*SHAPE, dtype=torch.float64)
    got = threat.project(z, x)
    assert threat.contains(got, x).all()
    gap = (got - z).flatten(1).norm(dim=1)
    for top, left in itertools.product(range(4), range(4)):
        other = x.clone()
        other[..., top : top + 2, left : left + 3] = z.clamp(0, 1)[..., top : top + 2, left : left + 3]
        assert (gap <= (other - z).flatten(1).norm(dim=1) + 1e-9).all()
    assert torch.equal(threat.project(got, x), got)


def test_samples_are_members_everywhere():
    x = torch.zeros(400, 1, 5, 6) + 0.5
    threat = Patch((2, 3))
    z = threat.sample(x, Rng.of(0, 400))
    assert threat.contains(z, x).all()
    place = (z != x).flatten(1).int().argmax(1)
    assert len(place.unique()) == 4 * 4


@pytest.mark.parametrize("threat", [Patch((2, 2)), Patch((3, 2), box=(-1.0, 2.0))])
@pytest.mark.parametrize(
    "attack", [am.PGD(steps=6), am.Restarts(am.PGD(steps=4), 2), am.RandomSearch(steps=20), Draws(steps=3)]
)
def test_attacks_keep_their_promises_inside_a_patch(attack, threat):
    """All but those that need the optimum of an affine network."""
    member = Member(attack=attack, threats=(threat,), reach=None, access=am.WhiteBox())
    for case in cases(member):
        if case.dtype == torch.float32 and len(case.shape) == 3:
            for promise in (*EVERY, *ONCE):
                if not promise.__name__.startswith(("finds_", "repr_is")):
                    promise(case)


def test_bad_patches_are_refused(x):
    with pytest.raises(InputError, match="from 1 on"):
        Patch((0, 3))
    with pytest.raises(InputError, match="does not fit"):
        Patch((6, 3)).check(x)
    with pytest.raises(InputError, match="covers pictures"):
        Patch((1, 1)).check(x.flatten(1))
    with pytest.raises(InputError, match="leave the box"):
        Patch((1, 1)).check(x * 3)
    with pytest.raises(InputError, match="box must be"):
        Patch((1, 1), box=(1.0, 0.0))
