"""Keras models hardened by the recipes of the house, killed and resumed, and from the command line."""

import contextlib
import io
import json

import pytest
import torch

import adamant as am
from adamant.cli.main import main
from adamant.training import AWP, Adam, Job, Plan, fit, recipes

from .nets import BACKEND, DIGITS, Twin, answers, cnn, fitted, k, lively

TRAIN = am.load_data("digits", split="train", limit=96)
VALIDATION = am.load_data("digits", split="val", limit=32)
PLAN = Plan(epochs=1, batch_size=32, optimizer=Adam(rate=3e-3), select=am.FGSM(), select_rows=32)
THREAT = am.Linf(0.1)
FEW = am.PGD(steps=2, rate=0.5)

RECIPES = {
    "standard": recipes.standard(),
    "mixed": recipes.mixed(lam=0.1),
    "madry": recipes.madry(attack=FEW),
    "trades": recipes.trades(attack=am.PGD(steps=2, rate=0.5, start=am.attacks.starts.Near(0.01), loss=am.KL())),
    "free": recipes.free(replay=2),
    "awp": recipes.madry(attack=FEW, weights=AWP()),
    "a penalty on the gradient": recipes.gradient_penalty(lam=0.3),
}


@pytest.fixture(scope="module")
def start():
    held = fitted(cnn(), steps=10)
    return held, Twin(held)


SOME = ("standard", "madry", "a penalty on the gradient")  # each compiled anew, for seconds


@pytest.mark.parametrize("name", SOME if BACKEND == "jax" else RECIPES)
def test_a_recipe_does_to_a_keras_model_what_it_does_to_the_same_in_torch(start, name):
    """Second order included; the two drift apart by rounding alone."""
    before, twin = start
    ours, theirs = (
        am.train(net, TRAIN, RECIPES[name], THREAT, validation=VALIDATION, plan=PLAN) for net in (before, twin)
    )
    learned, own, others = (torch.cat([p.detach().flatten() for p in net.parameters()]) for net in (theirs, twin, ours))
    moved = float((learned - own).abs().max())
    assert moved > 3e-3
    assert float((learned - others).abs().max()) < 0.02 * moved
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), twin.parameters(), strict=True))


# ---- killed and resumed

slow_to_compile = pytest.mark.skipif(BACKEND == "jax", reason="JAX compiles for it for long; it holds there as well")


@slow_to_compile
def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path):
    """With batch statistics and dropout, whose state is in the checkpoint; the other process has other weights."""
    plan = Plan(epochs=2, batch_size=32, optimizer=Adam(rate=3e-3), select=am.FGSM(), select_rows=32)

    class KilledError(Exception):
        pass

    def outcome(folder, seed=0, stop=None, resume=False):
        def watch(step, steps, words):
            if stop is not None and step >= stop:
                raise KilledError

        model = am.load_model(lively(seed))
        fit(
            Job(
                model=model, data=TRAIN, validation=VALIDATION, threat=THREAT, recipe=RECIPES["madry"], plan=plan,
                folder=folder, resume=resume, watch=watch,
            )
        )  # fmt: skip
        return model.state_dict()

    whole = outcome(tmp_path / "whole")
    with pytest.raises(KilledError):
        outcome(tmp_path / "killed", stop=4)
    resumed = outcome(tmp_path / "killed", seed=7, resume=True)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


# ---- the front door and the command line


def test_a_keras_object_goes_in_and_a_hardened_one_comes_out():
    model = cnn()
    before = answers(model, DIGITS.x[:16])
    hardened = am.train(model, TRAIN, RECIPES["standard"], THREAT, validation=VALIDATION, plan=PLAN)
    torch.testing.assert_close(answers(model, DIGITS.x[:16]), before)
    back = hardened.receive()
    assert back is model
    torch.testing.assert_close(answers(back, DIGITS.x[:16]), hardened(DIGITS.x[:16]).softmax(1), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(answers(back, DIGITS.x[:16]), before, atol=1e-3)


def _command(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(w) for w in words])
    assert left.value.code == 0, err.getvalue()
    return out.getvalue()


@slow_to_compile
def test_from_a_file_to_a_hardened_file_to_its_audit(tmp_path):
    cnn().save(tmp_path / "mine.keras")
    out = tmp_path / "run"
    common = ("--data", "digits", "--threat", "linf:0.1", "--limit", 64)
    _command(
        "train", tmp_path / "mine.keras", *common, "--recipe", "madry(attack=PGD(steps=1))", "--epochs", 1,
        "--batch-size", 32, "--select", "FGSM()", "--select-rows", 32, "--out", out, "--quiet",
    )  # fmt: skip
    assert (out / "model.keras").is_file()
    assert not (out / "model.safetensors").exists()
    assert json.loads((out / "result.json").read_text())["model"]["parameters"] == 6 * 9 + 6 + 54 * 10 + 10
    plain = k.models.load_model(out / "model.keras")
    held = am.load_model(out / "model.keras")
    torch.testing.assert_close(answers(plain, DIGITS.x[:8]), held(DIGITS.x[:8]).softmax(1), atol=1e-6, rtol=1e-5)
    _command("audit", out / "model.keras", *common, "--suite", "quick", "--out", tmp_path / "audit", "--quiet")
    result = json.loads((tmp_path / "audit" / "result.json").read_text())
    assert result["model"]["notes"] == list(held.notes)
    assert "ends in a softmax" in (tmp_path / "audit" / "report.html").read_text()
