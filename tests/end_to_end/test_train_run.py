"""A training run from the command line: its files, its model, and the same weights after a kill."""

import json
import random
import signal
import time

import pytest
import safetensors.torch
import torch

import adamant as am

from .conftest import command, contents, started

WORDS = ("train", "zoo:cnn", "--data", "digits", "--threat", "linf:0.1", "--batch-size", "64", "--quiet")
HARDENED = (*WORDS, "--recipe", "madry(attack=PGD(steps=2, rate=0.6), average=EMA(0.9))", "--epochs", "4")


def test_files_are_there_and_parse(trained):
    others = {name for name in contents(trained) if name.startswith("events.out.")}  # where TensorBoard is installed
    assert set(contents(trained)) - others == {
        "config.toml", "result.json", "report.html", "model.safetensors", "checkpoint.safetensors", "log.jsonl",
    }  # fmt: skip
    result = json.loads((trained / "result.json").read_text())
    assert result["schema"] == "adamant.training/1"
    assert [e["epoch"] for e in result["epochs"]] == [1, 2, 3]
    assert result["best_epoch"] in (1, 2, 3)
    assert result["recipe"].startswith("Recipe(")
    assert "standard" in (trained / "report.html").read_text()


def test_saved_model_needs_no_architecture_and_is_the_best_one(trained):
    model = am.load_model(trained / "model.safetensors")
    held = am.load_data("digits", split="val")
    with torch.no_grad():
        accuracy = float((model(held.x).argmax(1) == held.y).double().mean())
    result = json.loads((trained / "result.json").read_text())
    assert result["validation_rows"] == len(held)
    assert accuracy == pytest.approx(result["epochs"][result["best_epoch"] - 1]["clean"], abs=1e-9)
    assert accuracy > 0.5
    kept = safetensors.torch.load_file(trained / "checkpoint.safetensors")
    state = model.state_dict()
    assert all(torch.equal(kept[f"best/{name}"], value) for name, value in state.items())


def test_same_command_same_bytes(trained, here):
    words = ("--data", "digits", "--threat", "linf:0.1", "--recipe", "standard()", "--epochs", 3, "--batch-size", 32)
    assert command("train", "zoo:small-cnn", *words, "--out", here / "again", "--quiet").code == 0
    name = "model.safetensors"
    assert (here / "again" / name).read_bytes() == (trained / name).read_bytes()


def test_resume_of_a_finished_run_changes_nothing(trained, here):
    before = (trained / "model.safetensors").read_bytes()
    (here / "run").mkdir()
    (here / "run" / "checkpoint.safetensors").write_bytes((trained / "checkpoint.safetensors").read_bytes())
    words = ("--data", "digits", "--threat", "linf:0.1", "--recipe", "standard()", "--epochs", 3, "--batch-size", 32)
    said = command("train", "zoo:small-cnn", *words, "--out", here / "run", "--resume", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["best_epoch"] in (1, 2, 3)
    assert (here / "run" / "model.safetensors").read_bytes() == before


def test_normalisation_travels_with_the_model(here):
    words = ("--recipe", "standard()", "--epochs", 1, "--mean", 0.3, "--std", 0.4, "--out", here / "n")
    said = command(*WORDS, *words)
    assert said.code == 0, said.err
    net = am.load_model(here / "n" / "model.safetensors")
    test = am.load_data("digits", limit=20)
    bare = am.load_model("zoo:cnn", shape=(1, 8, 8), classes=10)
    bare.load_state_dict(safetensors.torch.load_file(here / "n" / "model.safetensors"))
    with torch.no_grad():
        assert torch.allclose(net(test.x), bare((test.x - 0.3) / 0.4), atol=1e-5)
    audited = command(
        "audit", here / "n" / "model.safetensors", "--data", "digits", "--limit", 8, "--threat", "linf:0.05",
        "--suite", "FGSM()", "--out", here / "a", "--quiet",
    )  # fmt: skip
    assert audited.code == 0, audited.err


def test_train_audit_and_one_page_of_both(trained, audited, here):
    folder, _ = audited
    said = command("report", trained, folder, "--out", here / "both.html", "--title", "Side by side")
    assert said.code == 0, said.err
    assert "both.html" in said.out
    page = (here / "both.html").read_text()
    for word in ("Side by side", "tiny", "standard"):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    told = command("report", trained, "--out", here / "one.html", "--json")
    assert json.loads(told.out) == {"report": str(here / "one.html")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    said = command(*HARDENED, "--out", out)
    assert said.code == 0, said.err
    return (out / "model.safetensors").read_bytes()


def killed(number, seed, here, shelf):
    """Start, and send the signal at a random moment after the first checkpoint."""
    out = here / "run"
    process = started(*HARDENED, "--out", str(out), cwd=here, path=shelf)
    deadline = time.monotonic() + 90
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(random.Random(seed).random() * 0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return out, process.returncode, err


def test_killed_training_goes_on_to_the_same_weights(shelf, here, uninterrupted):
    out, code, _ = killed(signal.SIGKILL, 0, here, shelf)
    assert code == -signal.SIGKILL
    assert not (out / "model.safetensors").exists()
    assert command(*HARDENED, "--out", out, "--resume").code == 0
    assert (out / "model.safetensors").read_bytes() == uninterrupted
    epochs = json.loads((out / "result.json").read_text())["epochs"]
    assert [e["epoch"] for e in epochs] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "seed"), [(signal.SIGKILL, 1), (signal.SIGTERM, 2), (signal.SIGINT, 3)])
def test_killed_in_every_way(number, seed, shelf, here, uninterrupted):
    out, code, err = killed(number, seed, here, shelf)
    if number != signal.SIGKILL:
        assert code == 130
        assert err.startswith("adamant: stopped.")
        assert "--resume" in err
    assert command(*HARDENED, "--out", out, "--resume").code == 0
    assert (out / "model.safetensors").read_bytes() == uninterrupted
