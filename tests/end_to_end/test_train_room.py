"""adamant train: what it says before the first step, its settings, its log, and what it refuses."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import adamant as am
from adamant.errors import MissingExtraError
from adamant.runtime import to_mlflow, to_tensorboard
from adamant.training import Plan, Report
from adamant.training import fit as fit_job

from .conftest import command

WORDS = ("train", "zoo:small-cnn", "--data", "digits", "--threat", "linf:0.1", "--batch-size", "128", "--quiet")
SHORT = (*WORDS, "--recipe", "fast()", "--epochs", "1")


def test_cost_and_time_are_said_before_the_first_step(here, monkeypatch):
    def stop(job):
        raise KeyboardInterrupt

    monkeypatch.setattr("adamant.cli.train.fit", stop)
    said = command(*WORDS, "--recipe", "madry(attack=PGD(steps=3))", "--epochs", 2)
    assert said.code == 130
    assert "Costs 9 forwards per row and step" in said.out
    steps = 2 * (len(am.load_data("digits", split="train")) // 128)
    held = len(am.load_data("digits", split="val"))
    forwards = steps * 128 * 9 + 2 * held * 22
    assert (
        f"{steps} steps of 128 rows, 9 forwards per row and step, {forwards:,} with the validations: about" in said.out
    )


def test_every_setting_reaches_the_plan(here, monkeypatch):
    seen = []

    def stop(job):
        seen.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr("adamant.cli.train.fit", stop)
    command(
        *SHORT, "--shape", "Cosine()", "--clip", 2, "--augment", "Flip(), Crop(1)", "--extra-data", "digits",
        "--extra", 0.25, "--freeze", "0", "*.bias", "--probe", 0.5, "--select", "FGSM()", "--select-rows", 9,
        "--save-every", 5, "--channels-last", "--autocast",
    )  # fmt: skip
    plan = seen[0].plan
    assert repr(plan.shape) == "Cosine()"
    assert repr(plan.augment) == "(Flip(), Crop(margin=1))"
    assert (plan.clip, plan.extra, plan.freeze, plan.probe) == (2, 0.25, ("0", "*.bias"), 0.5)
    assert (type(plan.select).__name__, plan.select_rows, plan.save_every) == ("FGSM", 9, 5)
    assert plan.channels_last
    assert plan.autocast
    assert not plan.compile
    assert len(seen[0].extra) == len(seen[0].data)
    command(*SHORT)
    assert seen[1].plan == Plan(epochs=1)
    assert seen[1].extra is None


def test_a_run_with_everything_leaves_a_log(here):
    out = here / "run"
    said = command(*SHORT, "--augment", "Flip(), Crop(1)", "--clip", 1, "--freeze", "0", "--out", out)
    assert said.code == 0, said.err
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [e["what"] for e in lines] == ["start", "epoch", "end"]
    result = json.loads((out / "result.json").read_text())
    assert result["events"] == []
    assert lines[1]["clean"] == result["epochs"][0]["clean"]


def test_returns_are_in_the_result_the_report_and_the_last_words(here, monkeypatch):
    true = fit_job
    event = {"step": 7, "why": "the loss was no number, so the learning rate is halved", "back_to": 3}

    def fit(job):
        made = true(job)
        return Report(made.epochs, made.best_epoch, made.seconds, made.steps, (event,))

    monkeypatch.setattr("adamant.cli.train.fit", fit)
    said = command(*SHORT, "--out", here / "run")
    assert "At step 7 the loss was no number, so the learning rate is halved; the run went back to step 3." in said.out
    assert json.loads((here / "run" / "result.json").read_text())["events"] == [event]
    assert "so the learning rate is halved; the run went on from step 3" in (here / "run" / "report.html").read_text()


# ---- mistakes


REFUSED = {
    "no such augmentation": (["--augment", "Flop()"], ["'Flop'", "Flip"]),
    "no such schedule": (["--shape", "Cosne()"], ["'Cosne'", "Cosine"]),
    "clip": (["--clip", 0], ["longest gradient", "0"]),
    "freeze": (["--freeze", "nowhere.*"], ["Nothing in the model is named 'nowhere.*'"]),
    "probe": (["--probe", 1.5], ["Probe is a share"]),
    "extra": (["--extra-data", "digits", "--extra", 1.5], ["Extra is a share"]),
    "extra data": (["--extra-data", "nothing.npz"], ["nothing.npz"]),
    "select": (["--select", "FGS()"], ["'FGS'", "FGSM"]),
    "select rows": (["--select-rows", 0], ["--select-rows is 0"]),
    "no graphics card": (["--device", "cuda"], ["The device 'cuda' cannot be used", "--device cpu"]),
    "log": (["--log", "wandb"], ["wandb"]),
    "recipe and threat": (["--threat", "l0:9", "--recipe", "madry(attack=APGD(steps=2))"], ["APGD", "L0"]),
    "augmentation of what is no picture": (["--augment", "Crop('a')"], ["margin of Crop", "'a'"]),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_a_sentence(words, said, here):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is one")
    told = command(*SHORT, *words).sentence
    for part in said:
        assert part in told


def test_a_refusal_comes_before_the_recipe_is_told(here):
    said = command(*SHORT, "--threat", "Spatial()")
    assert "Spatial changes parameters of the picture" in said.sentence
    assert said.out == ""


def test_rows_without_labels_or_of_another_shape(here, shelf):
    x = np.zeros((40, 8, 8), np.float32)
    np.savez(here / "bare.npz", x_train=x, x_val=x)
    words = ("--threat", "linf:0.1", "--batch-size", 16, "--quiet")
    assert "bare.npz" in command("train", "zoo:small-cnn", "--data", "bare.npz", *words).sentence
    np.savez(here / "wide.npz", x_train=np.zeros((40, 8, 16), np.float32), y_train=np.arange(40) % 10)
    assert "must be alike" in command(*SHORT, "--extra-data", "wide.npz").sentence


@pytest.mark.parametrize(
    "other", [("--recipe", "madry()"), ("--data", "more.npz"), ("--clip", 1), ("--threat", "linf:0.2")], ids=str
)
def test_another_run_is_not_continued(other, here):
    data = am.load_data("digits", split="train").take(torch.arange(200))
    x, y = data.x.numpy(), data.y.numpy()
    for name, shift in (("some", 0), ("more", 1)):
        y_ = np.roll(y, shift)
        np.savez(here / f"{name}.npz", x_train=x[:160], y_train=y_[:160], x_val=x[160:], y_val=y_[160:])
    words = (*SHORT, "--data", "some.npz", "--out", here / "run")
    assert command(*words).code == 0
    before = {p.name: p.read_bytes() for p in (here / "run").iterdir()}
    assert "belongs to another run" in command(*words, *other, "--resume").sentence
    assert {p.name: p.read_bytes() for p in (here / "run").iterdir()} == before


def test_a_full_disk_is_a_sentence(here, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "cannot be written: No space left on device" in command(*SHORT, "--out", here / "run").sentence


# ---- who else reads the log


@pytest.mark.parametrize(
    ("name", "make", "extra"),
    [("tensorboard", lambda: to_tensorboard.reader("x"), "log"), ("mlflow", lambda: to_mlflow.reader("x"), "mlflow")],
)
def test_what_is_not_installed_names_its_extra(name, make, extra, monkeypatch, here):
    for module in ("tensorboard", "torch.utils.tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"adamant\[{extra}\]"):
        make()
    assert f"adamant[{extra}]" in command(*SHORT, "--log", name).sentence


def test_the_readers_are_told_what_the_log_says(here, monkeypatch):
    told = []
    monkeypatch.setattr(to_tensorboard, "reader", lambda folder: told.append)
    assert command(*SHORT, "--log", "tensorboard", "--out", here / "run").code == 0
    assert told == [json.loads(line) for line in (here / "run" / "log.jsonl").read_text().splitlines()]


def test_tensorboard_reads_the_curves(here):
    pytest.importorskip("tensorboard", reason="needs the extra log")
    out = here / "run"
    assert command(*SHORT, "--epochs", 2, "--out", out).code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = EventAccumulator(str(out))
    held.Reload()
    result = json.loads((out / "result.json").read_text())
    for name in ("loss", "rate", "clean", "robust"):
        assert [(e.step, e.value) for e in held.Scalars(name)] == [
            (e["step"], pytest.approx(e[name], rel=1e-5)) for e in result["epochs"]
        ]


# ---- several processes


@pytest.mark.slow
def test_two_processes_leave_one_folder(shelf, here):
    words = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone", "-m", "adamant"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    recipe = ("--recipe", "madry(attack=PGD(steps=2, rate=0.6))", "--epochs", "2")
    done = subprocess.run(
        [sys.executable, "-m", *words, *WORDS, *recipe, "--out", str(here / "two")],
        capture_output=True, text=True, env=env, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Best epoch") == done.stdout.count("Costs 7 forwards") == 1
    assert command(*WORDS, *recipe, "--out", here / "one").code == 0
    one, two = (load_file(here / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        assert float((two[name] - value).norm() / value.norm()) < 0.05, name
