"""The yardstick itself: passes counted, ratios, and a sentence where weights or data are missing."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    return importlib.import_module("common")


@pytest.fixture
def parity(common):
    return importlib.import_module("pgd_parity")


def test_counts_images_through_forward_and_backward(common):
    model, x = nn.Linear(3, 2), torch.ones(5, 3)
    with common.counted(model) as passes:
        z = x.clone().requires_grad_(True)
        torch.autograd.grad(model(z).sum(), z)
        with torch.no_grad():
            model(x[:2])
    assert (passes.forwards, passes.backwards) == (7, 5)
    model(x)
    assert passes.forwards == 7  # the hook is gone


def test_interleaved_runs_every_task_once_a_round_and_drops_the_first(common):
    ran: list[str] = []
    clocks = common.interleaved({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, rounds=2)
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(times) for name, times in clocks.items()} == {"a": 2, "b": 2}


def test_ratio_is_the_median_of_ratios_within_rounds(common):
    assert common.ratio([2.0, 3.0, 8.0], [1.0, 2.0, 2.0]) == "2.000 [1.500..4.000]"


@pytest.mark.parametrize("folder", [None, Path("nowhere")])
def test_missing_weights_and_data_are_one_sentence(common, folder):
    with pytest.raises(SystemExit, match="ADAMANT_MODELS_DIR"):
        common.network("mnist_cnn_pgd", folder)
    with pytest.raises(SystemExit, match="ADAMANT_DATA_DIR"):
        common.mnist(10, folder)


def test_a_point_outside_the_ball_or_the_box_breaks_nothing(parity):
    x, y = torch.full((4, 1), 0.5), torch.zeros(4, dtype=torch.long)
    z = torch.tensor([[0.8], [0.81], [0.2], [0.5]])
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
        model.bias.copy_(torch.tensor([0.6, 0.0]))
    # the first fools inside the ball; the second fools outside; the others do not fool
    assert parity.reverified(model, x, y, z).tolist() == [True, False, False, False]


def test_rates_are_written_as_fractions(parity):
    assert parity.fraction("1/30") == 1 / 30
    assert parity.fraction("0.1") == 0.1
