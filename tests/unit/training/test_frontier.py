"""The frontier: which models nothing beats, which is taken, and models between two models."""

import pytest
import torch
from torch import nn

from adamant.errors import InputError
from adamant.training.frontier import Point, between, choose, front

POINTS = [Point(0.9, 0.3), Point(0.8, 0.5), Point(0.85, 0.4), Point(0.8, 0.45), Point(0.7, 0.5), Point(0.9, 0.3)]


def test_the_front_holds_what_nothing_beats() -> None:
    assert front(POINTS) == (1, 2, 0, 5)  # by clean accuracy; equal points do not beat each other
    assert front([Point(0.5, 0.5)]) == (0,)


def test_the_choice_is_the_largest_sum_or_the_most_robust_that_is_clean_enough() -> None:
    assert choose(POINTS) == 1
    assert choose(POINTS, 0.85) == 2
    assert choose(POINTS, 0.9) == 0
    with pytest.raises(InputError, match=r"right on 95.0% of the clean rows: the best is right on 90.0%"):
        choose(POINTS, 0.95)


def net(seed: int) -> nn.Sequential:
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def test_between_two_models_are_the_mixed_weights_with_statistics_of_their_own() -> None:
    one, other, into = net(0), net(1), net(2)
    rows = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))
    kept = {k: v.clone() for k, v in one.state_dict().items()}
    between(one, other, 0.25, into, rows)
    for k in ("0.weight", "3.bias"):
        assert torch.allclose(into.state_dict()[k], 0.75 * one.state_dict()[k] + 0.25 * other.state_dict()[k])
    hidden = into[0](rows)
    means = torch.stack([part.mean(0) for part in hidden.split(256)]).mean(0)
    assert torch.allclose(into[1].running_mean, means, atol=1e-6)
    assert into[1].momentum == 0.1
    assert not any(m.training for m in into.modules())
    assert all(torch.equal(v, kept[k]) for k, v in one.state_dict().items())
    with pytest.raises(InputError, match="same architecture"):
        between(one, nn.Linear(4, 3), 0.5, into, rows)
