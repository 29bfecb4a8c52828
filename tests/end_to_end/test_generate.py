"""adamant generate: the folder, the page, going on, two processes, and what it refuses."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

from adamant.data import load_data
from adamant.generation.files import load

from .conftest import command

SHORT = (
    "generate", "--data", "digits", "--model", "gan(nets=Dense(4, 16), labels=Projection())", "--steps", 30,
    "--measures", 2, "--samples", 60, "--quiet",
)  # fmt: skip


def test_a_run_on_digits(here):
    said = command(*SHORT, "--out", "g")
    assert said.code == 0, said.err
    assert "Frechet distance of real rows (the floor)" in said.out
    result = json.loads((here / "g" / "result.json").read_text())
    assert result["game"] == "GAN(nets=Dense(4, wide=16), labels=Projection())"
    assert [one["step"] for one in result["measured"]] == [15, 30]
    assert result["test"]["floor"]["frechet"] < result["test"]["figures"]["frechet"] < 200
    assert result["test"]["rows"] == 359
    page = (here / "g" / "report.html").read_text()
    assert page.count("<img ") == 3 + 2
    assert "http" not in page.replace("http-equiv", "")
    assert load(here / "g" / "game.safetensors").classes == load_data("digits").classes
    with np.load(here / "g" / "samples.npz") as held:
        assert np.bincount(held["y_train"]).tolist() == [6] * 10
    again = command(*SHORT, "--resume", "--json", "--out", "g")
    assert json.loads(again.out)["test"] == result["test"]
    trained = command(
        "train", "zoo:small-cnn", "--data", "digits", "--recipe", "standard()", "--threat", "linf:0.1", "--epochs", 1,
        "--extra-data", "g/samples.npz", "--extra", 0.25, "--quiet", "--out", "t",
    )  # fmt: skip
    assert trained.code == 0, trained.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--threat", "linf:0.1"], "GAN attacks no model"),
        (["--model", "gam"], "There is no game named 'gam'. Did you mean"),
        (["--model", "Dense()"], "is a Dense, not a game"),
        (["--model", "gan(rate=-1)"], "not above zero"),
        (["--model", "gan(nets=DCGAN())"], "DCGAN makes pictures with sides that 4 divides"),
        (["--steps", "0"], "--steps is 0"),
        (["--samples", "0"], "--samples is 0"),
        (["--batch-size", "2000"], "fewer than one batch of 2000"),
    ],
)
def test_what_it_refuses(words, sentence, here):
    assert sentence in command("generate", "--data", "digits", *words).sentence


def test_pictures_of_four_channels_are_made_and_not_shown(here):
    x, y = np.random.default_rng(0).random((100, 4, 8, 8)).astype("float32"), np.arange(100) % 2
    np.savez(here / "four.npz", x_train=x, y_train=y, x_val=x, y_val=y, x_test=x, y_test=y)
    for game in ("gan(nets=Dense(4, 16))", "aae(nets=Dense(4, 16))"):
        said = command(
            "generate", "--data", "four.npz", "--model", game, "--steps", 5, "--measures", 2, "--samples", 10,
            "--batch-size", 20, "--out", "four",
        )  # fmt: skip
        assert said.code == 0, said.err
        assert json.loads((here / "four" / "result.json").read_text())["steps"] == 4  # two measurements of two
        assert "image/png" not in (here / "four" / "report.html").read_text()


def test_one_class_and_rows_that_are_no_numbers(here):
    x = np.random.default_rng(0).random((60, 8, 8)).astype("float32")
    np.savez(here / "one.npz", x_train=x, y_train=np.zeros(60, int), x_test=x, y_test=np.zeros(60, int))
    assert "a classifier needs at least two classes" in command("generate", "--data", "one.npz").sentence
    x[3, 0, 0] = np.nan
    np.savez(here / "nan.npz", x_train=x, y_train=np.arange(60) % 2, x_test=x, y_test=np.arange(60) % 2)
    assert "row 3 holds nan" in command("generate", "--data", "nan.npz").sentence


@pytest.mark.slow
def test_two_processes_play_as_one(here):
    words = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone", "-m", "adamant"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-m", *words, *map(str, SHORT), "--out", str(here / "two")],
        capture_output=True, text=True, env=env, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Best step") == 1
    assert command(*SHORT, "--out", here / "one").code == 0
    one, two = (load_file(here / name / "game.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        assert float((two[name] - value).norm() / value.norm().clamp_min(1e-9)) < 0.05, name
