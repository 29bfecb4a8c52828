"""A pasted picture: where each parameter puts it, that it is wholly there, and what is refused."""

import itertools

import pytest
import torch

import adamant as am
from adamant.batch import Shared
from adamant.errors import InputError
from adamant.random import Rng
from adamant.threats import Pasted

PRINT = Rng.of(3, 2).uniform(3, 5, dtype=torch.float64)  # two channels, 3 by 5 pixels


@pytest.fixture
def x():
    return Rng.of(0, 4).uniform(2, 9, 11, dtype=torch.float64)


def at(threat, x, turn=0.0, across=0.0, down=0.0, size=0.0):
    return threat.apply(x, torch.tensor([[turn, across, down, size]], dtype=x.dtype).expand(len(x), 4))


def test_at_whole_pixels_the_picture_covers_the_input_and_nothing_else(x):
    threat = Pasted(picture=Shared(PRINT))
    for right, below in itertools.product(range(-3, 4), range(-3, 4)):
        if right or below:
            want = x.clone()
            want[..., 3 + below : 6 + below, 3 + right : 8 + right] = PRINT
            torch.testing.assert_close(at(threat, x, across=right / 3, down=below / 3), want)
    assert torch.equal(at(threat, x), x)  # theta 0: nothing is pasted


def test_what_the_mask_cuts_away_shows_the_input(x):
    shape = torch.tensor([[False, True, True, True, False], [True] * 5, [False, True, True, True, False]])
    got = at(Pasted(picture=Shared(PRINT), mask=Shared(shape)), x, across=1.0, down=1.0)
    want = x.clone()
    want[..., 6:9, 6:11] = torch.where(shape, PRINT, want[..., 6:9, 6:11])
    torch.testing.assert_close(got, want)


def test_a_quarter_turn_turns_the_print(x):
    got = at(Pasted(picture=Shared(PRINT), degrees=90.0), x, turn=1.0, across=-1.0)
    want = x.clone()
    turned = [PRINT.rot90(k, (1, 2)) for k in (1, -1)]
    for k in turned:
        want[..., 2:7, 0:3] = k
        if torch.allclose(got, want):
            return
    pytest.fail("not a quarter turn of the print at the left edge")


def test_its_size_is_the_factor_in_both_directions():
    x, white = torch.zeros(1, 1, 40, 40, dtype=torch.float64), Shared(torch.ones(1, 8, 6))
    threat = Pasted(picture=white, zoom=1.0, degrees=0.0)
    for size, factor in ((1.0, 2.0), (-1.0, 0.5), (0.5, 2**0.5)):
        covered = at(threat, x, size=size).sum()
        torch.testing.assert_close(covered, torch.tensor(48 * factor**2, dtype=torch.float64), rtol=0.02, atol=0)


def test_it_is_wholly_on_the_input_wherever_it_is():
    n = 300
    x, white = torch.zeros(n, 1, 14, 13, dtype=torch.float64), Shared(torch.ones(1, 4, 6))
    theta = 2 * Rng.of(5, n).uniform(4, dtype=torch.float64) - 1
    threat = Pasted(picture=white, zoom=0.5, degrees=180.0)
    covered = threat.apply(x, theta).flatten(1).sum(1) / (24 * 1.5 ** (2 * theta[:, 3]))
    assert covered.min() > 0.9  # at the very edge its soft rim hangs over
    assert covered.max() < 1.1


def test_from_nothing_the_slope_is_that_of_the_picture_in_the_middle(x):
    # two by four pixels, so that nothing sits on whole pixels, where the slopes to both sides differ
    threat, weight = Pasted(picture=Shared(PRINT[:, :2, :4])), Rng.of(2, 4).uniform(2, 9, 11, dtype=torch.float64)
    slopes: list[torch.Tensor] = []
    for start in (0.0, 1e-9):
        theta = torch.full((4, 4), start, dtype=torch.float64, requires_grad=True)
        slopes += torch.autograd.grad((threat.apply(x, theta) * weight).sum(), theta)
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-3)
    assert slopes[0].abs().amin() > 0


def test_the_gradient_by_the_print_is_what_it_covers(x):
    threat = Pasted(picture=Shared(PRINT))
    picture = PRINT.clone().requires_grad_(True)
    theta = torch.tensor([[0.0, 1.0, 1.0, 0.0]], dtype=x.dtype).expand(4, 4)
    (g,) = torch.autograd.grad(threat.paste(x, theta, picture).sum(), picture)
    torch.testing.assert_close(g, torch.full_like(g, 4.0))


def test_bad_pictures_are_refused(x):
    picture = Shared(PRINT)
    for make, words in (
        (lambda: Pasted(picture=Shared(PRINT[0])), "channels, height, width"),
        (lambda: Pasted(picture=Shared(PRINT * 3)), "leaves the box"),
        (lambda: Pasted(picture=Shared(PRINT * torch.nan)), "leaves the box"),
        (lambda: Pasted(picture=picture, mask=Shared(torch.ones(3, 4, dtype=torch.bool))), "one for each pixel"),
        (lambda: Pasted(picture=picture, mask=Shared(torch.ones(3, 5))), "one for each pixel"),
        (lambda: Pasted(picture=picture, mask=Shared(torch.zeros(3, 5, dtype=torch.bool))), "whole picture away"),
        (lambda: Pasted(picture=picture, zoom=-0.1), "from 0 on"),
        (lambda: Pasted(picture=picture).check(x[:, :1]), "2 channels, the inputs 1"),
        (lambda: Pasted(picture=picture).check(x.flatten(1)), "changes pictures"),
        (lambda: Pasted(picture=picture).check(x[..., :5]), "does not fit"),
        (lambda: Pasted(picture=Shared(torch.ones(2, 7, 7)), degrees=90.0, zoom=0.0).check(x), "does not fit"),
    ):
        with pytest.raises(InputError, match=words):
            make()
    assert am.Pasted is Pasted
