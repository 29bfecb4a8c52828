"""adamant tune: sweeps, models between two models, what is taken, and that finished trials are kept."""

import json

import pytest

from .conftest import command

SWEEP = (
    "tune", "zoo:cnn", "--data", "digits", "--threat", "linf:0.1", "--recipe",
    "trades(beta={beta}, attack=PGD(steps=2, rate=0.6, start=Near(), loss=KL()))", "--epochs", "10",
    "--batch-size", "64", "--optimizer", "Adam(0.004)", "--rows", "80",
)  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("tune")
    done = command(*SWEEP, "--over", "beta=0,12", "--out", str(out), "--json")
    assert done.code == 0, done.err
    return out, json.loads(done.out)


def test_beta_buys_robust_with_clean_accuracy(swept) -> None:
    out, result = swept
    plain, tough = result["trials"]
    assert [t["values"]["beta"] for t in (plain, tough)] == [0.0, 12.0]
    assert tough["robust"]["accuracy"] > plain["robust"]["accuracy"] + 0.1
    assert result["schema"] == "adamant.tuning/1"
    assert sum(t["taken"] for t in result["trials"]) == 1
    assert all(t["clean"]["rows"] == 80 for t in result["trials"])
    page = (out / "report.html").read_text()
    assert "Take beta" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_finished_trials_are_kept(swept) -> None:
    out, result = swept
    before = (out / "trial-000" / "model.safetensors").stat().st_mtime_ns
    done = command(*SWEEP, "--over", "beta=0,12", "--out", str(out), "--json", "--resume")
    again = json.loads(done.out)
    assert again["trials"] == result["trials"]
    assert (out / "trial-000" / "model.safetensors").stat().st_mtime_ns == before


def test_models_between_two(swept, tmp_path) -> None:
    out, result = swept
    files = [str(out / f"trial-00{i}" / "model.safetensors") for i in (0, 1)]
    done = command(
        "tune", files[0], "--to", files[1], "--points", "3", "--data", "digits", "--threat", "linf:0.1", "--rows", "80",
        "--out", str(tmp_path), "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    mixed = json.loads(done.out)["trials"]
    for end, trial in ((mixed[0], result["trials"][0]), (mixed[2], result["trials"][1])):
        assert end["clean"] == trial["clean"]
        assert end["robust"] == trial["robust"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--over", "beta"), "write a name and its values"),
        (("--over", "gamma=1,2"), "has no {gamma} in it"),
        (("--over", "beta=1..x"), "write a name and its values"),
    ],
)
def test_bad_words(words, said, tmp_path) -> None:
    done = command(*SWEEP[:6], "--epochs", "1", "--out", str(tmp_path), *words)
    assert done.code == 2
    assert said in done.err
