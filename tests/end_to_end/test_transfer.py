"""adamant transfer: the matrix, its file, and what it refuses; and a minimum-norm attack from the command line."""

import json

import pytest
import safetensors.torch

from .conftest import command


def test_the_matrix_of_two_models(shelf, here):
    line = ("transfer", "odd_models:Good", "odd_models:Slow", "--data", shelf / "good.npz", "--threat", "linf:0.1")
    said = command(*line, "--attack", "MIFGSM(steps=5)", "--out", "t", "--quiet")
    assert said.code == 0, said.err
    assert "odd_models:Slow" in said.out
    result = json.loads((here / "t" / "result.json").read_text())
    rate = result["rate"]
    assert rate["odd_models:Good"]["odd_models:Good"]["correct"] > 0
    assert rate["odd_models:Good"]["odd_models:Slow"] == rate["odd_models:Good"]["odd_models:Good"]  # the same weights
    assert set(rate) == set(result["clean"]) == {"odd_models:Good", "odd_models:Slow"}
    again = command(*line, "--attack", "MIFGSM(steps=5)", "--out", "again", "--json")
    assert json.loads(again.out)["rate"] == rate


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["odd_models:Good"], "at least two models"),
        (["odd_models:Good", "odd_models:turned", "--attack", "Restarts(PGD(), 2)"], "made of several"),
        (["odd_models:Good", "odd_models:turned", "--arch", "a", "b", "c"], "--arch holds 3 names for 2 models"),
        (
            ["odd_models:Good", "odd_models:turned", "--access", "Varied((Resize(),))", "--threat", "l2"],
            "give a finite",
        ),
        (["odd_models:Good", "odd_models:turned", "--access", "Varied(n=0)"], "at least one copy"),
        (["odd_models:Good", "nowhere:Net"], "nowhere"),
    ],
)
def test_what_it_refuses(words, sentence, shelf, here):
    assert sentence in command("transfer", *words, "--data", shelf / "good.npz").sentence


def test_a_norm_without_a_budget_asks_for_the_smallest_change(shelf, here):
    line = ("attack", "odd_models:Good", "--data", shelf / "good.npz", "--threat", "l2", "--out", "a", "--quiet")
    said = command(*line, "--attack", "DDN(steps=50)")
    assert said.code == 0, said.err
    assert "The median size of the changes is" in said.out
    result = json.loads((here / "a" / "result.json").read_text())
    kept = safetensors.torch.load_file(here / "a" / "adversarial.safetensors")
    assert result["success_rate"] == 1
    assert result["median_size"] == pytest.approx(float(kept["size"][kept["status"] == 2].median()))
    assert "PGD works within a budget and L2 has none" in command(*line, "--attack", "PGD()").sentence
    assert "give a finite number" in command("audit", *line[1:4], "--threat", "l2", "--out", "b").sentence
