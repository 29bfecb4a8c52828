"""Accuracy under corruptions: counted by hand, and the means by their definition."""

import json

import pytest
import torch
from torch import nn

from adamant.corruptions import ALL15, Brightness, Contrast, GaussianNoise
from adamant.data import load_data
from adamant.errors import InputError
from adamant.evaluation import Corrupted, corrupted
from adamant.evaluation.corrupted import ALEXNET
from adamant.random import Rng


class Shade(nn.Module):
    """Class 1 where the mean is above a half."""

    def forward(self, z):
        m = z.mean((1, 2, 3))
        return torch.stack([0.5 - m, m - 0.5], 1)


@pytest.fixture
def digits():
    return load_data("digits", split="test", limit=60)


def made(accuracies, clean=0.9, size=(224, 224), classes=1000):
    shares = {k: {s: {"accuracy": a} for s in (1, 2, 3, 4, 5)} for k, a in accuracies.items()}
    return Corrupted({"accuracy": clean}, shares, size, classes, 0)


def test_counts_are_those_of_a_plain_loop_and_of_any_batch(digits):
    from adamant.calling import Settings

    kinds, model = (GaussianNoise, Brightness), Shade()
    found = corrupted(model, digits, kinds=kinds, severities=(1, 5), seed=3)
    for kind in kinds:
        for severity in (1, 5):
            y = kind(severity=severity)(digits.x, Rng.of(3, digits.rows))
            right = int((model(y).argmax(1) == digits.y).sum())
            assert found.shares[kind.__name__][severity]["correct"] == right
    assert found.clean["correct"] == int((model(digits.x).argmax(1) == digits.y).sum())
    small = corrupted(model, digits, kinds=kinds, severities=(1, 5), seed=3, settings=Settings(batch_size=7))
    assert small == found
    json.dumps(found.summary())


def test_the_model_stays_as_it_was(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout()).train()
    before = torch.get_rng_state()
    corrupted(model, digits, kinds=(Contrast,), severities=(3,))
    assert model.training
    assert model[2].training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_nan_is_wrong(digits):
    class Nothing(nn.Module):
        def forward(self, z):
            return torch.full((len(z), 10), torch.nan)

    assert corrupted(Nothing(), digits, kinds=(Contrast,), severities=(1,)).mean == 0


def test_means_by_hand():
    found, base = made({"Fog": 0.8, "Snow": 0.5}, clean=0.9), made({"Fog": 0.6, "Snow": 0.4}, clean=0.8)
    assert found.mean == pytest.approx(0.65)
    assert found.mce(base) == pytest.approx((0.2 / 0.4 + 0.5 / 0.6) / 2)
    assert found.mce({"Fog": 0.4, "Snow": 0.6}) == pytest.approx((0.2 / 0.4 + 0.5 / 0.6) / 2)
    assert found.relative_mce(base) == pytest.approx((0.1 / 0.2 + 0.4 / 0.4) / 2)
    assert found.summary()["mean_relative_error"] == pytest.approx(0.25)


def test_alexnet_has_an_mce_of_one_and_only_where_it_was_measured():
    alexnet = {kind: 1 - error for kind, error in ALEXNET.items()}
    assert list(ALEXNET) == [kind.__name__ for kind in ALL15]
    assert made(alexnet).mce() == pytest.approx(1)
    assert made(alexnet, size=(32, 32)).mce() is None
    assert made(alexnet, classes=10).mce() is None


def test_a_baseline_that_cannot_serve_is_refused():
    found = made({"Fog": 0.8, "Snow": 0.5})
    with pytest.raises(InputError, match="no error for Snow"):
        found.mce({"Fog": 0.3})
    with pytest.raises(InputError, match="makes no error under Fog"):
        found.mce({"Fog": 0.0, "Snow": 0.1})
    with pytest.raises(InputError, match="same severities of Snow"):
        found.mce(made({"Fog": 0.5}))
    with pytest.raises(InputError, match="loses nothing"):
        found.relative_mce(made({"Fog": 0.9, "Snow": 0.9}))
