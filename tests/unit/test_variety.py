"""Gradients averaged over changed copies: what each change does, that rows stay apart, and the chain rule."""

import pytest
import torch
from torch import nn

import adamant as am
from adamant.access import View, WhiteBox
from adamant.batch import Shared
from adamant.errors import InputError
from adamant.random import Rng
from adamant.testing import Member, cases, check
from adamant.variety import CATALOGUE, Jitter, Mix, Resize, Scale, Shuffle, Varied, _shuffled

SHAPE = (2, 6, 7)
POOL = Shared(Rng.of(9, 4).uniform(*SHAPE, dtype=torch.float64))
EVERY = (Resize(0.6, 1.0), Scale(3), Mix(POOL, 0.3), Shuffle(3), Jitter(0.1))


@pytest.fixture
def z():
    return Rng.of(0, 5).uniform(*SHAPE, dtype=torch.float64)


def view(model, rows):
    return View(model, lambda v: v[:, 0], lambda v: v.clamp(0, 1), lambda v: v, lambda: Rng.of(3, rows))


def test_every_change_is_tested():
    assert {type(c) for c in EVERY} == set(CATALOGUE)


@pytest.mark.parametrize("change", EVERY, ids=lambda c: type(c).__name__)
def test_a_row_is_changed_alike_in_any_batch(change, z):
    rng = Rng.of(1, 5)
    whole = change(z, rng, 1)
    assert whole.shape == z.shape
    for i in range(5):
        alone = change(z[i : i + 1], Rng(rng.key[i : i + 1]), 1)
        torch.testing.assert_close(alone[0], whole[i], rtol=0, atol=1e-12)
    assert not torch.equal(whole, z)


@pytest.mark.parametrize("change", [c for c in EVERY if not isinstance(c, Scale)], ids=lambda c: type(c).__name__)
def test_a_change_is_another_for_another_key(change, z):
    assert not torch.equal(change(z, Rng.of(1, 5), 0), change(z, Rng.of(2, 5), 0))


def test_resize_keeps_all_of_the_picture_on_an_empty_canvas():
    z = torch.ones(200, 1, 20, 20)
    out = Resize(0.5, 1.0)(z, Rng.of(0, 200), 0)
    share = out.flatten(1).mean(1).sqrt()  # of the side
    assert share.min() > 0.49
    assert share.max() < 1.01
    assert 0.7 < share.mean() < 0.8
    inside = (out.flatten(2).max(2).values > 0.99).all()
    assert inside
    places = (out[:, 0].sum(2) > 0).double().argmax(1)  # the first row that is not empty
    assert len(places.unique()) > 5
    untouched = Resize(0.5, 0.0)(z, Rng.of(0, 200), 0)
    assert torch.equal(untouched, z)
    half = (Resize(0.5, 0.3)(z, Rng.of(0, 200), 0) == z).flatten(1).all(1).double().mean()
    assert 0.6 < half < 0.8


def test_scale_halves_again_and_again(z):
    assert [float((Scale(3)(z, Rng.of(0, 5), i) / z).mean()) for i in range(4)] == [1.0, 0.5, 0.25, 1.0]


def test_mix_adds_a_picture_of_the_pool(z):
    added = (Mix(POOL, 0.3)(z, Rng.of(0, 5), 0) - z) / 0.3
    gap = (added[:, None] - POOL.values[None]).flatten(2).abs().amax(2).amin(1)
    assert gap.max() < 1e-12


def test_shuffle_moves_whole_blocks():
    order = _shuffled(Rng.of(0, 300), 10, 3)
    assert torch.equal(order.sort(dim=1).values, torch.arange(10).expand(300, -1))
    breaks = (order.diff(dim=1) != 1).sum(1)
    assert breaks.max() <= 2  # three blocks, each whole
    assert (breaks == 2).double().mean() > 0.3
    assert len({tuple(o.tolist()) for o in order}) > 50


@pytest.mark.parametrize("change", EVERY, ids=lambda c: type(c).__name__)
def test_the_gradient_is_that_of_the_mean_over_the_copies(change, z):
    net = nn.Sequential(nn.Flatten(), nn.Linear(84, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    access = Varied((change,), n=3)
    look = access.look(view(net, 5), z, grad=True)
    rng = Rng.of(3, 5)

    def mean(v):
        return torch.stack([net(change(v, rng.fold(i), i))[:, 0] for i in range(3)]).mean(0)

    step = 1e-6 * torch.sign(look.slope)
    rise = mean(z + step) - mean(z - step)
    torch.testing.assert_close(rise / 2e-6, look.slope.flatten(1).abs().sum(1), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(look.loss, mean(z).detach())
    assert access.cost(grad=True) == (3, 3)
    assert torch.equal(access.look(view(net, 5), z, grad=False).logits, net(z).detach())


def test_blur_is_a_convolution_with_a_gaussian(z):
    class Point(nn.Module):
        def forward(self, v):
            return v[:, :1, 3, 3] * torch.ones(1, 2, dtype=v.dtype)

    look = Varied(blur=5).look(view(Point(), 5), z, grad=True)
    kernel = look.slope[0, 0, 1:6, 1:6]
    assert torch.isclose(kernel.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert torch.allclose(kernel, kernel.T)
    ratio = kernel[2, 3] / kernel[2, 2]
    assert torch.isclose(ratio, torch.exp(torch.tensor(-1 / (2 * (5 / 3) ** 2), dtype=torch.float64)))
    assert not look.slope[:, 1].any()  # channels stay apart


def test_nothing_changed_is_the_white_box(z):
    net = nn.Sequential(nn.Flatten(), nn.Linear(84, 3)).double()
    a, b = Varied().look(view(net, 5), z, grad=True), WhiteBox().look(view(net, 5), z, grad=True)
    assert torch.equal(a.slope, b.slope)
    assert torch.equal(a.logits, b.logits)


def test_it_keeps_the_promises_of_the_engine():
    found = Member(
        attack=am.PGD(steps=4, rate=0.4), threats=(am.Linf(0.15),), access=Varied((Jitter(0.05), Scale(2)), n=2),
        reach=None, targeted=False,
    )  # fmt: skip
    for case in cases(found):
        if case.dtype == torch.float32:
            check(case)


def test_bad_settings_are_refused(z):
    with pytest.raises(InputError, match="at least one copy, got n=0"):
        Varied(n=0)
    with pytest.raises(InputError, match="an odd number, or 0 for none; got 4"):
        Varied(blur=4)
    flat = z.flatten(1)
    for change in (Resize(), Shuffle()):
        with pytest.raises(InputError, match="changes pictures"):
            change(flat, Rng.of(0, 5), 0)
    with pytest.raises(InputError, match="The pool of Mix holds"):
        Mix(POOL)(flat, Rng.of(0, 5), 0)
    with pytest.raises(InputError, match="cannot be cut into 9 blocks"):
        Shuffle(9)(z, Rng.of(0, 5), 0)


def test_it_reads_back_as_it_prints():
    from adamant.cli import words

    for change in EVERY:
        access = Varied((change,), n=2, blur=3)
        assert words.sight(repr(access)) == access
