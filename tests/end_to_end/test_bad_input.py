"""Every mistake ends in one sentence that names the value and says what to do, and leaves finished work alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from .conftest import command, contents

GOOD = {"model": "odd_models:Good", "data": "good.npz", "threat": "linf:0.1", "suite": "PGD(steps=2)"}


def audit(shelf, out, *more, **changes):
    """The words of an audit that works, but for the changes."""
    asked = {**GOOD, **changes}
    model, data = asked.pop("model"), asked.pop("data")
    model = str(shelf / model) if (shelf / model).is_file() else model
    data = str(shelf / data) if (shelf / data).is_file() else data
    options = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
    return ["audit", model, "--data", data, *options, "--out", out, "--quiet", *more]


@pytest.fixture(scope="module")
def finished(shelf, tmp_path_factory):
    """The folder of an audit that went well."""
    out = tmp_path_factory.mktemp("finished") / "run"
    said = command(*audit(shelf, out))
    assert said.code == 0, said.err
    return out


MISTAKES = {
    "missing model file": ({"model": "nope.safetensors"}, ["nope.safetensors", "no file"]),
    "missing program": ({"model": "nope.pt2"}, ["nope.pt2", "no file"]),
    "unknown network": ({"model": "zoo:smal-cnn"}, ["smal-cnn", "did you mean small-cnn"]),
    "unknown module": ({"model": "odd_modls:x"}, ["odd_modls:x", "no Python module"]),
    "unknown callable": ({"model": "odd_models:God"}, ["'God'", "did you mean Good"]),
    "no model at all": ({"model": "odd_models:not_a_model"}, ["returned a int", "must return a torch module"]),
    "pickled module": ({"model": "whole_module.pt"}, ["whole_module.pt", "does not open it", "safetensors"]),
    "weights alone": ({"model": "weights.pt"}, ["weights.pt", "--arch"]),
    "weights of another": ({"model": "weights.pt", "arch": "zoo:cnn"}, ["weights.pt"]),
    "missing data file": ({"data": "nope.npz"}, ["nope.npz", "Give a path"]),
    "unknown data": ({"data": "digts"}, ["'digts'", "Did you mean digits?"]),
    "cut file": ({"data": "broken.npz"}, ["broken.npz"]),
    "unknown split": ({"split": "tset"}, ["'tset'", "it has"]),
    "wrong shape": ({"data": "wide.npz"}, ["(16, 1, 8, 16)", "Check that the data have the shape"]),
    "labels out of range": ({"data": "labels.npz"}, ["outside 0..9", "10 classes"]),
    "negative labels": ({"data": "negative.npz"}, ["classes are numbered from 0 on"]),
    "labels that are no whole numbers": ({"data": "fractions.npz"}, ["whole numbers"]),
    "fewer labels than rows": ({"data": "unequal.npz"}, ["23 labels for 24 inputs"]),
    "NaN in the data": ({"data": "nan.npz"}, ["row 3 holds nan", "mend or drop"]),
    "image outside of the box": ({"data": "bright.npz"}, ["outside of [0, 1]", "divide them by 255"]),
    "vector outside of the box": ({"data": "flat.npz"}, ["outside the box [0, 1]", "normalisation inside the model"]),
    "one class": ({"data": "one_class.npz"}, ["Every label", "at least two classes"]),
    "no rows": ({"data": "empty.npz"}, ["empty", "at least one row"]),
    "limit of none": ({"limit": 0}, ["limit is 0"]),
    "unknown attack": ({"suite": "PDG(steps=3)"}, ["'PDG'", "Did you mean PGD"]),
    "unknown suite": ({"suite": "standart"}, ["'standart'", "standard_v1"]),
    "unknown setting": ({"suite": "PGD(stepz=3)"}, ["stepz"]),
    "power": ({"suite": "2**9**9"}, ["2 ** 9 ** 9", "only names with their settings"]),
    "import": ({"suite": "__import__('os')"}, ["__import__"]),
    "attribute": ({"suite": "os.system('true')"}, ["os.system"]),
    "no steps": ({"suite": "PGD(steps=0)"}, ["steps of PGD", "is 0", "not above zero"]),
    "endless rate": ({"suite": "PGD(rate=inf)"}, ["rate of PGD", "not a finite number"]),
    "no restarts": ({"suite": "Restarts(PGD(), 0)"}, ["n of Restarts", "0"]),
    "a union of nothing": ({"suite": "Union()"}, ["Union needs at least one attack"]),
    "unknown threat": ({"threat": "lnf:0.1"}, ["'lnf'", "Did you mean Linf?"]),
    "an attack for a threat": ({"threat": "PGD()"}, ["'PGD'", "Known: Linf"]),
    "no budget": ({"threat": "linf:0"}, ["must be positive, got 0"]),
    "negative budget": ({"threat": "linf:-1"}, ["must be positive, got -1"]),
    "endless budget": ({"threat": "linf:inf"}, ["inf", "finite"]),
    "a budget of truth": ({"threat": "Linf(True)"}, ["True", "finite number"]),
    "a budget in words": ({"threat": "Linf('a')"}, ["Linf('a')"]),
    "half an entry": ({"threat": "l0:0.5"}, ["0.5 entries"]),
    "divided by nothing": ({"threat": "linf:8/0"}, ["divides by zero"]),
    "unknown access": ({"access": "WhteBox()"}, ["'WhteBox'", "Did you mean WhiteBox?"]),
    "access that is none": ({"access": "3"}, ["'3'", "choose among WhiteBox"]),
    "access without queries": ({"access": "NES(n=0)"}, ["n of NES", "0"]),
    "labels only with gradients": (
        {"access": "LabelsOnly()", "suite": "autoattack"},
        ["needs the gradient", "use access=NES"],
    ),
    "model that raises": ({"model": "odd_models:Raises"}, ["ValueError", "no such luck"]),
    "model that raises later": ({"model": "odd_models:RaisesUnderGradient"}, ["ValueError", "no gradients here"]),
    "model of NaN": ({"model": "odd_models:NaN"}, ["returned nan in row 0", "check the weights"]),
    "model of rank 3": ({"model": "odd_models:Rank3"}, ["(16, 10, 1)", "must return logits"]),
    "model of labels": ({"model": "odd_models:Labels"}, ["labels, not logits"]),
    "one logit for ten classes": ({"model": "odd_models:OneLogit"}, ["outside 0..1", "2 classes"]),
    "unknown device": ({"device": "gpu"}, ["'gpu'", "use --device cpu"]),
    "device that computes nothing": ({"device": "meta"}, ["'meta'", "use --device cpu"]),
    "no rows at a time": ({"batch_size": 0}, ["--batch-size is 0"]),
    "negative batch": ({"batch_size": -1}, ["--batch-size is -1"]),
    "no looks": ({"max_looks": 0}, ["--max-looks is 0"]),
    "no rows in a chunk": ({"chunk": 0}, ["--chunk is 0"]),
    "seed in words": ({"seed": "abc"}, ["--seed", "'abc'"]),
    "normalised by zero": ({"mean": 0.5, "std": 0}, ["std is (0.0,)", "must be positive"]),
    "half a normalisation": ({"mean": 0.5}, ["give both"]),
}


@pytest.mark.parametrize(("changes", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_one_sentence_and_the_folder_stays(changes, words, shelf, here, finished):
    before = contents(finished)
    said = command(*audit(shelf, finished, **changes)).sentence
    for word in words:
        assert word in said
    assert contents(finished) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a graphics card")
def test_device_that_is_not_there(shelf, here):
    assert "'cuda'" in command(*audit(shelf, here / "out", device="cuda")).sentence


LINES = {
    "nothing": ([], ["Which command?", "audit"]),
    "no command": (["--quiet"], ["--quiet is no command", "audit"]),
    "unknown command": (["adit"], ["'adit'", "Did you mean audit?"]),
    "far from every command": (["zzzzz"], ["'zzzzz'", "Choose among"]),
    "unknown option": (["audit", "--thret", "linf:1"], ["--thret", "Did you mean --threat"]),
    "option without its value": (["audit", "--limit"], ["--limit", "adamant audit --help"]),
    "word too many": (["audit", "a", "b"], ["b", "adamant audit --help"]),
    "no model": (["audit", "--data", "digits", "--threat", "linf:1"], ["Which model?"]),
    "no data": (["audit", "zoo:cnn", "--threat", "linf:1"], ["Which data?", "--data"]),
    "no threat": (["audit", "zoo:cnn", "--data", "digits"], ["Which threat?", "--threat"]),
    "attack on nothing": (["attack", "zoo:cnn"], ["--input", "--data"]),
    "attack on two things": (["attack", "zoo:cnn", "--input", "a.png", "--data", "digits"], ["either", "or --data"]),
    "picture that is not there": (["attack", "zoo:cnn", "--input", "a.png", "--label", 1], ["no picture a.png"]),
    "report of nothing": (["report"], ["at least one run folder"]),
    "report of no folder": (["report", "nothing"], ["no run folder nothing"]),
    "unknown recipe": (
        ["train", "zoo:cnn", "--data", "digits", "--threat", "linf:1", "--recipe", "madr()"],
        ["'madr'", "Did you mean madry"],
    ),
    "unknown optimizer": (
        ["train", "zoo:cnn", "--data", "digits", "--threat", "linf:1", "--optimizer", "Adan()"],
        ["'Adan'", "Did you mean Adam?"],
    ),
    "rate below zero": (
        ["train", "zoo:cnn", "--data", "digits", "--threat", "linf:1", "--optimizer", "Adam(rate=-1)"],
        ["rate of Adam", "-1"],
    ),
    "no epochs": (
        ["train", "zoo:cnn", "--data", "digits", "--threat", "linf:1", "--epochs", 0],
        ["at least one epoch", "got 0"],
    ),
    "batch above the data": (
        ["train", "zoo:cnn", "--data", "digits", "--threat", "linf:1", "--batch-size", 9999],
        ["fewer than one batch of 9999"],
    ),
    "no such config": (["audit", "--config", "none.toml"], ["none.toml", "give a config.toml"]),
}


@pytest.mark.parametrize(("line", "words"), LINES.values(), ids=LINES.keys())
def test_line_that_asks_for_too_little_or_nonsense(line, words, here):
    said = command(*line).sentence
    for word in words:
        assert word in said


CONFIGS = {
    "broken": ("= [", ["broken", "no valid TOML"]),
    "unknown key": ('command = "audit"\nfoo = 1\n', ["foo", "no audit reads"]),
    "of a training run": ('command = "train"\n', ["'train'", "config.toml of an adamant audit"]),
    "of nothing": ("", ["None", "config.toml of an adamant audit"]),
    "odd kind": ('command = "audit"\nmodel = 3\n', ["model = 3"]),
    "odd words": ('command = "audit"\nthreat = "lnf:1"\n', ["'lnf'"]),
    "out of place": ('command = "audit"\nout = "elsewhere"\n', ["out"]),
}


@pytest.mark.parametrize(("text", "words"), CONFIGS.values(), ids=CONFIGS.keys())
def test_configuration_that_is_none(text, words, here):
    (here / "broken.toml").write_text(text)
    said = command("audit", "--config", "broken.toml").sentence
    for word in words:
        assert word in said


def test_configuration_of_bytes(here):
    (here / "config.toml").write_bytes(b"\x80\x81")
    assert "no valid TOML" in command("audit", "--config", here).sentence


def test_configuration_beside_other_settings_is_refused_not_ignored(finished, here):
    said = command("audit", "--config", finished, "--limit", 3, "--out", here / "b").sentence
    assert "limit" in said
    assert not (here / "b").exists()


@pytest.mark.parametrize("below", ["", "below"])
def test_folder_that_cannot_be_written(below, shelf, here):
    out = shelf / "in_the_way" / below if below else shelf / "in_the_way"
    said = command(*audit(shelf, out)).sentence
    assert "in_the_way" in said
    assert "choose another with --out" in said
    assert (shelf / "in_the_way").read_text() == "a file, not a folder"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--target", 3], ["is its label (3)", "choose another target"]),
        (["--target", 30], ["Target 30", "outside 0..9"]),
        (["--access", "LabelsOnly()"], ["PGD needs the gradient"]),
        (["--attack", "PDG()"], ["Did you mean PGD"]),
        (["--device", "gpu"], ["'gpu'"]),
    ],
)
def test_attack_that_cannot_be(changes, words, shelf, here):
    labels = torch.from_numpy(np.load(shelf / "good.npz")["y_test"])
    assert (labels == 3).any()
    base = ["attack", "odd_models:Good", "--data", shelf / "good.npz", "--threat", "linf:0.1", "--quiet"]
    said = command(*base, "--out", here / "out", *changes).sentence
    for word in words:
        assert word in said


def test_nan_on_touched_inputs_only_never_counts(shelf, here):
    said = command(*audit(shelf, here / "out", model="odd_models:NaNWhenTouched", suite="quick", threat="linf:0.05"))
    assert said.code == 0, said.err
    result = json.loads((here / "out" / "result.json").read_text())
    assert result["statuses"]["broken"] == 0
    assert result["robust"]["accuracy"] == result["clean"]["accuracy"] == 1
    # Nobody may take this for robustness.
    assert any("24 rows the model returned NaN" in w for w in result["warnings"])
    assert "returned NaN" in (here / "out" / "report.html").read_text()
    assert "returned NaN" in said.out


@pytest.mark.parametrize(
    ("model", "data", "note"),
    [
        ("odd_models:Probabilities", "good.npz", "returns probabilities"),
        ("odd_models:OneLogit", "two.npz", "taken as the logit of class 1"),
    ],
)
def test_what_had_to_be_done_to_the_model_is_noted(model, data, note, shelf, here):
    said = command(*audit(shelf, here / "out", model=model, data=data))
    assert said.code == 0, said.err
    result = json.loads((here / "out" / "result.json").read_text())
    assert result["clean"]["accuracy"] == 1
    assert note in " ".join(result["model"]["notes"])
    assert note in (here / "out" / "report.html").read_text()


@pytest.fixture
def begun(shelf, here):
    """A folder with the finished chunks of an audit that was stopped; made of a whole one's own parts."""
    from adamant.attacks import PGD
    from adamant.data import load_data
    from adamant.evaluation import Order, Suite
    from adamant.evaluation import audit as run
    from adamant.models import load_model
    from adamant.threats import Linf

    class StopError(Exception):
        pass

    def watch(done, rows, words):
        if done > 16:
            raise StopError

    out = here / "begun"
    suite = Suite("PGD(steps=2)", (PGD(steps=2),))
    order = Order(threat=Linf(0.1), suite=suite, chunk=8, watch=watch)
    with pytest.raises(StopError):
        run(load_model("odd_models:Good"), load_data(str(shelf / "good.npz")), order, folder=out)
    assert len(list((out / "parts").glob("*.safetensors"))) == 2
    return out


def resumed(shelf, out, **changes):
    return command(*audit(shelf, out, "--resume", **{"chunk": 8, **changes}))


def test_audit_that_was_stopped_goes_on(shelf, begun, here):
    assert resumed(shelf, begun).code == 0
    assert command(*audit(shelf, here / "whole", chunk=8)).code == 0
    for name in ("rows.parquet", "adversarial.safetensors"):
        assert (begun / name).read_bytes() == (here / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"threat": "linf:0.2"}, "Linf(eps=0.2"),
        ({"seed": 1}, "seed 1"),
        ({"suite": "PGD(steps=3)"}, "steps=3"),
        ({"chunk": 4}, "chunks of 4"),
        ({"model": "odd_models:turned"}, "weights of"),
        ({"data": "two.npz"}, "the data of"),
        ({"limit": 20}, "20 rows"),
    ],
)
def test_resume_of_another_audit_is_refused(changes, word, shelf, begun):
    before = contents(begun)
    said = resumed(shelf, begun, **changes).sentence
    assert word in said
    assert "another --out" in said
    assert contents(begun) == before


def _cut(part):
    part.write_bytes(part.read_bytes()[:-5])


def _nonsense(part):
    part.write_bytes(b"nonsense")


def _foreign(part):
    part.write_bytes(safetensors.torch.save({k: torch.zeros(1) for k in ("row", "original", "adversarial")}))


def _emptied(part):
    part.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _nonsense, _foreign, _emptied])
def test_damaged_part_is_named_and_what_to_do_works(damage, shelf, begun):
    part = begun / "parts" / "000001.safetensors"
    damage(part)
    said = resumed(shelf, begun).sentence
    assert str(part) in said
    assert "delete it" in said
    part.unlink()
    assert resumed(shelf, begun).code == 0


def test_mistake_without_resume_leaves_the_finished_chunks(shelf, begun):
    before = contents(begun)
    command(*audit(shelf, begun, data="labels.npz")).sentence  # noqa: B018
    assert contents(begun) == before


def test_damaged_checkpoint_is_named(trained, here):
    shutil.copytree(trained, here / "run")
    _cut(here / "run" / "checkpoint.safetensors")
    before = contents(here / "run")
    words = ("--data", "digits", "--threat", "linf:0.1", "--recipe", "standard()", "--epochs", 3, "--batch-size", 32)
    said = command("train", "zoo:small-cnn", *words, "--out", here / "run", "--resume", "--quiet").sentence
    assert "checkpoint.safetensors cannot be read" in said
    assert contents(here / "run") == before


def test_checkpoint_of_another_run_is_refused(trained, here):
    shutil.copytree(trained, here / "run")
    words = ("--data", "digits", "--threat", "linf:0.1", "--recipe", "standard()", "--epochs", 3, "--batch-size", 32)
    said = command("train", "zoo:small-cnn", *words, "--seed", 5, "--out", here / "run", "--resume", "--quiet").sentence
    assert "another run" in said
    assert "seed 5" in said


def test_paths_are_printed_as_they_are(shelf, here):
    out = here / "[bold]:x:"
    said = command(*audit(shelf, out))
    assert said.code == 0, said.err
    assert f"{out}/report.html" in said.out.replace("\n", "")
    assert "[bold]:x:.npz" in command(*audit(shelf, out, data="[bold]:x:.npz")).sentence


def test_sigterm_is_left_as_it_was(here):
    import signal

    before = signal.getsignal(signal.SIGTERM)
    command("adit")
    assert signal.getsignal(signal.SIGTERM) is before


KINDS = {
    "PGD(steps='a')": "steps of PGD",
    "PGD(steps=1.5)": "steps of PGD",
    "PGD(steps=True)": "steps of PGD",
    "PGD(loss=3)": "loss of PGD",
    "PGD(loss=Here())": "loss of PGD",
    "PGD(start=None)": "start of PGD",
    "Restarts(3)": "attack of Restarts",
    "Union(PGD(), 3)": "attacks of Union",
    "EachTarget(PGD(loss=3))": "loss of PGD",
}


def test_settings_of_the_wrong_kind_without_the_help_of_a_type_checker(shelf, here):
    """In a process of its own: the tests run with every annotation checked, people do not."""
    script = (
        "import contextlib, io, json, sys\n"
        "from adamant.cli.main import main\n"
        "said = []\n"
        "for text in json.loads(sys.argv[1]):\n"
        "    err = io.StringIO()\n"
        "    with contextlib.redirect_stderr(err):\n"
        "        try: main([*sys.argv[2:], '--suite', text])\n"
        "        except SystemExit as left: said.append([left.code, err.getvalue()])\n"
        "print(json.dumps(said))\n"
    )
    base = ["audit", "odd_models:Good", "--data", str(shelf / "good.npz"), "--threat", "linf:0.1", "--quiet"]
    line = [sys.executable, "-c", script, json.dumps(list(KINDS)), *base, "--out", str(here / "out")]
    ran = subprocess.run(line, cwd=shelf, capture_output=True, text=True)
    assert not ran.stderr
    for (text, word), (code, said) in zip(KINDS.items(), json.loads(ran.stdout), strict=True):
        assert code == 2, (text, said)
        assert said.count("\n") == 1
        assert word in said
        assert "which is not what belongs there" in said


def test_the_script_in_a_process_of_its_own(here):
    script = Path(sys.executable).with_name("adamant")
    if not script.is_file():
        pytest.skip("the package is not installed here with its script")
    ran = subprocess.run([script, "audit", "zoo:cnn", "--data", "digits"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("adamant: Which threat?")
    assert ran.stderr.count("\n") == 1
