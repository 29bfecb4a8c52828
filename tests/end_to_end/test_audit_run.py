"""An audit from the command line: its files, its evidence, and the same bytes whatever happens on the way."""

import json
import re
import shutil
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torch import nn

from adamant.report import schema

from .conftest import command, contents, started

TABLES = ("rows.parquet", "adversarial.safetensors")


def plain(folder):
    """The small network of a training run, built and filled with torch alone."""
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 9, 10))
    net.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    return net.eval()


def fits(value, rule, root):
    """Whether a value is what a JSON Schema asks for; the words that ours uses."""
    if "$ref" in rule and not fits(value, root["$defs"][rule["$ref"].rpartition("/")[2]], root):
        return False
    if "const" in rule and value != rule["const"]:
        return False
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}
    asked = rule.get("type", [])
    asked = [asked] if isinstance(asked, str) else asked
    if asked and not any(isinstance(value, kinds[k]) for k in asked):
        return False
    if isinstance(value, (int, float)) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        return False
    if isinstance(value, list):
        return all(fits(v, rule["items"], root) for v in value)
    if isinstance(value, dict) and "properties" in rule:
        there = all(fits(v, rule["properties"].get(k, {}), root) for k, v in value.items())
        return there and set(rule["required"]) <= set(value)
    return True


def test_files_are_there_and_parse(audited):
    folder, _ = audited
    names = {"config.toml", "result.json", "rows.parquet", "adversarial.safetensors", "report.html"}
    assert set(contents(folder)) == names
    assert not (folder / "parts").exists()
    result = json.loads((folder / "result.json").read_text())
    assert [fits(result, rule, schema()) for rule in schema()["oneOf"]] == [True, False]
    assert not fits({**result, "suite": 3}, schema()["oneOf"][0], schema())
    assert result["name"] == "tiny"
    rows = pq.read_table(folder / "rows.parquet").to_pylist()
    assert len(rows) == 40
    counted = {status: sum(r["status"] == status for r in rows) for status in result["statuses"]}
    assert counted == result["statuses"]
    assert result["robust"]["correct"] == counted["robust"]
    assert result["clean"]["correct"] == 40 - counted["wrong_already"]
    assert counted["broken"] > 3, "the network is too strong for this test to mean anything"


def test_json_is_one_document_and_nothing_else(audited):
    folder, said = audited
    assert said.err == ""
    assert json.loads(said.out) == json.loads((folder / "result.json").read_text())


def test_every_broken_row_fools_the_plain_network_alone_and_within_eps(audited, trained):
    folder, _ = audited
    net = plain(trained)
    kept = safetensors.torch.load_file(folder / "adversarial.safetensors")
    rows = {r["row"]: r for r in pq.read_table(folder / "rows.parquet").to_pylist()}
    broken = [r for r in rows.values() if r["status"] == "broken"]
    assert sorted(kept["row"].tolist()) == sorted(r["row"] for r in broken)
    for row, original, adversarial in zip(kept["row"].tolist(), kept["original"], kept["adversarial"], strict=True):
        line = rows[row]
        with torch.no_grad():
            assert int(net(original[None]).argmax()) == line["label"] == line["clean_prediction"]
            logits = net(adversarial[None])
        assert int(logits.argmax()) == line["adversarial_prediction"] != line["label"]
        assert float(logits.double().softmax(1).max()) == pytest.approx(line["adversarial_confidence"], abs=1e-5)
        size = float((adversarial.double() - original.double()).abs().max())
        assert size <= 0.1
        assert size == line["size"]
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1


def test_config_runs_it_again_to_the_same_bytes(audited, here):
    folder, _ = audited
    said = command("audit", "--config", folder, "--out", here / "b", "--quiet")
    assert said.code == 0, said.err
    for name in (*TABLES, "config.toml"):
        assert (folder / name).read_bytes() == (here / "b" / name).read_bytes()


def test_batches_and_chunks_do_not_matter(trained, here):
    words = ("--data", "digits", "--limit", 10, "--threat", "linf:0.1", "--suite", "PGD(steps=5)", "--quiet")
    tables = {}
    for size, chunk in ((1, 512), (7, 512), (256, 512), (256, 3)):
        out = here / f"{size}-{chunk}"
        more = ("--batch-size", size, "--chunk", chunk, "--out", out)
        said = command("audit", trained / "model.safetensors", *words, *more)
        assert said.code == 0, said.err
        tables[size, chunk] = [(out / name).read_bytes() for name in TABLES]
    assert all(held == tables[1, 512] for held in tables.values())


def test_seed_matters(trained, here):
    words = ("--data", "digits", "--limit", 10, "--threat", "linf:0.05", "--suite", "PGD(steps=3)", "--quiet")
    for seed in (0, 1):
        command("audit", trained / "model.safetensors", *words, "--seed", seed, "--out", here / str(seed))
    assert (here / "0" / TABLES[1]).read_bytes() != (here / "1" / TABLES[1]).read_bytes()


SLOWLY = ["audit", "odd_models:Slow", "--threat", "linf:0.02", "--suite", "PGD(steps=20)", "--quiet", "--chunk", "4"]


def kill_at(number, parts, out, cwd, shelf):
    """Start the audit, and send the signal when so many parts are on the disk."""
    line = [*SLOWLY, "--data", str(shelf / "good.npz"), "--out", str(out)]
    process = started(*line, cwd=cwd, path=shelf)
    deadline = time.monotonic() + 60
    while len(list((out / "parts").glob("0*.safetensors"))) < parts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    said, err = process.communicate(timeout=60)
    return process.returncode, said, err


@pytest.fixture(scope="module")
def uninterrupted(shelf, tmp_path_factory):
    """The tables of the same audit without a kill."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    said = command(*SLOWLY, "--data", shelf / "good.npz", "--out", out)
    assert said.code == 0, said.err
    return [(out / name).read_bytes() for name in TABLES]


@pytest.mark.parametrize(
    ("number", "parts"),
    [(signal.SIGKILL, 2), (signal.SIGINT, 3), pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow)],
)
def test_killed_audit_goes_on_to_the_same_bytes(number, parts, shelf, here, uninterrupted):
    out = here / "run"
    code, said, err = kill_at(number, parts, out, here, shelf)
    if number == signal.SIGKILL:
        assert code == -number
    else:
        assert code == 130
        assert err.startswith("adamant: stopped.")
        assert "--resume" in err
        assert err.count("\n") == 1
        assert "Traceback" not in said + err
    kept = contents(out)
    assert len(kept) >= parts
    assert "result.json" not in kept
    finished = command(*SLOWLY, "--data", shelf / "good.npz", "--out", out, "--resume")
    assert finished.code == 0, finished.err
    assert [(out / name).read_bytes() for name in TABLES] == uninterrupted
    assert not (out / "parts").exists()
    rows = json.loads((out / "result.json").read_text())["data"]["rows"]
    assert rows == 24


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 4])
def test_killed_twice(parts, shelf, here, uninterrupted):
    out = here / "run"
    kill_at(signal.SIGKILL, parts, out, here, shelf)
    SLOWLY.append("--resume")
    try:
        kill_at(signal.SIGKILL, min(parts + 1, 5), out, here, shelf)
    finally:
        SLOWLY.remove("--resume")
    assert command(*SLOWLY, "--data", shelf / "good.npz", "--out", out, "--resume").code == 0
    assert [(out / name).read_bytes() for name in TABLES] == uninterrupted


def test_a_command_that_cannot_go_on_does_not_promise_it(shelf, here):
    """adamant attack has no --resume."""
    line = ["attack", "odd_models:Slow", "--data", str(shelf / "good.npz"), "--threat", "linf:0.001"]
    process = started(*line, "--attack", "PGD(steps=100000)", "--out", str(here / "a"), "--quiet", cwd=here, path=shelf)
    deadline = time.monotonic() + 60
    while not (here / "a").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("adamant: stopped.")
    assert "--resume" not in err


def test_report_opens_in_a_browser(audited, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here: apt-get install chromium")
    folder, _ = audited
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    ran = subprocess.run([*line, (folder / "report.html").as_uri()], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-500:]
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", ran.stdout, flags=re.DOTALL)
    result = json.loads((folder / "result.json").read_text())
    for word in ("clean", "robust"):
        share = result[word]["accuracy"] * 100
        assert f"{share:.1f}" in text or f"{share:.0f} %" in text or f"{share:.0f}%" in text
    assert "tiny" in text
    assert "Linf(0.1)" in text


@pytest.mark.parametrize(
    ("threat", "words"),
    [("Spatial(degrees=20)", "turn the picture by up to 20 degrees"), ("Patch((3, 3))", "3 by 3 pixels")],
)
def test_a_threat_that_is_no_ball_is_audited_and_told_in_its_own_words(threat, words, shelf, here):
    line = ("audit", "odd_models:Good", "--data", shelf / "good.npz", "--threat", threat, "--suite", "quick")
    said = command(*line, "--out", "a", "--quiet")
    assert said.code == 0, said.err
    result = json.loads((here / "a" / "result.json").read_text())
    page = (here / "a" / "report.html").read_text()
    assert words in page
    assert result["robust"]["accuracy"] < result["clean"]["accuracy"] == 1
    assert "Accuracy over the budget" not in page
    kept = safetensors.torch.load_file(here / "a" / "adversarial.safetensors")
    broken = sum(r["status"] == "broken" for r in pq.read_table(here / "a" / "rows.parquet").to_pylist())
    assert broken == result["clean"]["correct"] - result["robust"]["correct"] == len(next(iter(kept.values())))
    assert command("audit", "--config", here / "a", "--out", "b", "--quiet").code == 0
    assert (here / "a" / "rows.parquet").read_bytes() == (here / "b" / "rows.parquet").read_bytes()


@pytest.mark.parametrize(
    ("threat", "suite", "words", "stages"),
    [
        ("spatial:degrees=30,shift=0.1", "spatial", "turn the picture by up to 30 degrees", 5),
        ("patch:(2, 2)", "patch", "put any picture of 2 by 2 pixels anywhere", 5),
    ],
)
def test_the_line_of_the_handbook_for_sets_beyond_norms(threat, suite, words, stages, trained, here):
    """At least as much falls as to the quick suite for all sets."""
    line = (
        "audit",
        trained / "model.safetensors",
        "--data",
        "digits",
        "--limit",
        30,
        "--threat",
        threat,
        "--no-doctor",
    )
    results = {}
    for name in (suite, "quick"):
        said = command(*line, "--suite", name, "--out", name, "--quiet", "--no-doctor")
        assert said.code == 0, said.err
        results[name] = json.loads((here / name / "result.json").read_text())
    ours = results[suite]
    assert ours["suite"] == f"{suite}_v1"
    assert words in (here / suite / "report.html").read_text()
    assert len(ours["stages"]) == stages
    assert ours["robust"]["correct"] <= results["quick"]["robust"]["correct"] < ours["clean"]["correct"]
    refused = command(*line[:6], "--threat", "linf:0.1", "--suite", suite, "--out", "no").sentence
    assert f"{suite}_v1 has no attack within Linf: it is for" in refused


def test_a_finished_audit_is_not_made_again(shelf, here, monkeypatch):
    line = ["audit", "odd_models:Good", "--data", shelf / "good.npz", "--threat", "linf:0.1", "--suite", "quick"]
    assert command(*line, "--out", "a", "--quiet").code == 0
    before, said = contents(here / "a"), command(*line, "--out", "a", "--quiet", "--resume", "--chunk", 5)

    def never(*a, **k):
        pytest.fail("the model was asked")

    monkeypatch.setattr("adamant.cli.audit.examine", never)
    monkeypatch.setattr("adamant.cli.audit.audit", never)
    monkeypatch.setattr("adamant.cli.audit.aftermath", never)
    again = command(*line, "--out", "a", "--quiet", "--resume")
    assert again.code == 0, again.err
    assert "it is finished: nothing is computed again" in again.out
    assert "all of them" in again.out
    assert "Diagnostics: " in again.out
    assert again.out == said.out
    assert contents(here / "a") == before
    document = command(*line, "--out", "a", "--json", "--resume")
    assert json.loads(document.out) == json.loads(before["result.json"])
    (here / "a" / "report.html").unlink()
    assert command(*line, "--out", "a", "--quiet", "--resume").code == 0
    assert contents(here / "a").keys() == before.keys()


def test_another_audit_does_not_take_a_finished_one_for_its_own(shelf, here):
    line = ["audit", "odd_models:Good", "--data", shelf / "good.npz", "--suite", "PGD(steps=2)", "--out", "a"]
    assert command(*line, "--threat", "linf:0.1", "--quiet", "--no-doctor").code == 0
    other = command(*line, "--threat", "linf:0.2", "--quiet", "--no-doctor", "--resume")
    assert "another audit, which is finished. It was made with Linf(eps=0.1" in other.err
    assert other.code == 2
    assert command(*line, "--threat", "linf:0.2", "--quiet", "--no-doctor").code == 0


@pytest.mark.slow
def test_an_audit_begun_anew_in_the_same_folder_goes_on_from_its_own_chunks(shelf, here, uninterrupted):
    """result.json of the first run is still there when the second is killed."""
    out = here / "run"
    assert command(*SLOWLY, "--data", shelf / "good.npz", "--out", out).code == 0
    kill_at(signal.SIGKILL, 2, out, here, shelf)
    assert (out / "result.json").exists()
    said = command(*SLOWLY, "--data", shelf / "good.npz", "--out", out, "--resume")
    assert said.code == 0, said.err
    assert "nothing is computed again" not in said.out
    assert [(out / name).read_bytes() for name in TABLES] == uninterrupted


def test_what_python_wrote_says_what_a_command_line_lacks(shelf, here):
    import odd_models  # pyright: ignore[reportMissingImports]

    from adamant import audit, load_data
    from adamant.attacks import PGD
    from adamant.calling import Settings
    from adamant.evaluation import Suite
    from adamant.threats import Linf

    data, suite = load_data(shelf / "good.npz"), Suite("PGD(steps=2)", (PGD(steps=2),))
    audit(odd_models.Good(), data, Linf(0.1), suite=suite, out="a", settings=Settings(max_looks=9))
    refused = command("audit", "--config", "a", "--out", "b", "--quiet").sentence
    for word in ("add the settings model and data", "odd_models.Good", "640", "24"):
        assert word in refused
    path = here / "a" / "config.toml"
    path.write_text(f'model = "odd_models:Good"\ndata = "{shelf / "good.npz"}"\n{path.read_text()}')
    said = command("audit", "--config", "a", "--out", "b", "--quiet")
    assert said.code == 0, said.err
    for name in TABLES:
        assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()


def test_rows_from_the_disk_and_from_memory_are_the_same_bytes(shelf, here):
    import odd_models  # pyright: ignore[reportMissingImports]

    from adamant import audit, load_data
    from adamant.data import open_data
    from adamant.evaluation import QUICK
    from adamant.threats import Linf

    whole, lazy = load_data(shelf / "good.npz"), open_data(shelf / "good.npz")
    for name, data in (("a", whole), ("b", lazy)):
        found = audit(odd_models.Good(), data, Linf(0.1), suite=QUICK, out=name)
        kept = safetensors.torch.load_file(here / name / TABLES[1])
        assert all(torch.equal(found.broken[k], kept[k]) for k in ("row", "original", "adversarial"))
    for name in TABLES:
        assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()


def test_a_row_outside_of_the_box_is_named_wherever_it_is(shelf, here, monkeypatch):
    """Before any work is done, and by its own number."""
    room = __import__("importlib").import_module("adamant.evaluation.audit")
    monkeypatch.setattr(room, "_GLANCE", 128)
    x = torch.zeros(24, 1, 8, 8).numpy()
    x[19, 0, 3, 3] = 0.75
    import numpy as np

    np.savez(here / "d.npz", x_test=x, y_test=np.arange(24) % 10)
    line = ("audit", "odd_models:Good", "--data", "d.npz", "--suite", "quick", "--quiet")
    refused = command(*line, "--threat", "Linf(0.1, box=(0, 0.5))", "--out", "a").sentence
    assert "Row 19 holds 0.75" in refused
    x[19, 0, 3, 3] = np.nan
    np.savez(here / "d.npz", x_test=x, y_test=np.arange(24) % 10)
    assert "row 19 holds nan" in command(*line, "--threat", "linf:0.1", "--out", "a").sentence
    assert not (here / "a" / "parts").exists()
