"""The front door: the names, what they import, the snippet of the README, and the lists."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import adamant as am
from adamant.attacks.catalogue import CATALOGUE
from adamant.evaluation import QUICK
from adamant.training import Plan

from .conftest import command


def test_names_are_importable_and_hold_every_attack():
    assert {e.member for e in CATALOGUE} <= {getattr(am, name) for name in am.__all__}
    assert len(set(am.__all__)) == len(am.__all__)
    for name in am.__all__:
        assert getattr(am, name) is not None


def test_every_later_name_is_in_the_list():
    assert set(am._LATER) <= set(am.__all__)


def test_unknown_name():
    with pytest.raises(AttributeError, match="nonsense"):
        am.nonsense  # noqa: B018


def test_import_brings_torch_and_nothing_heavier():
    heavy = ["pyarrow", "scipy", "sklearn", "matplotlib", "rich", "tyro", "jinja2", "PIL", "torchvision", "pandas"]
    # torch itself brings some of these where they are installed; what counts is what adamant adds.
    script = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import adamant\n"
        f"print([m for m in {heavy!r} if m in sys.modules and m not in before], 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.stdout.strip() == "[] True"


def test_snippet_of_the_readme(here):
    digits = am.load_data("digits", split="train")
    test = am.load_data("digits", limit=20)
    model = am.load_model("zoo:small-cnn", shape=(1, 8, 8), classes=10)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tough = am.train(model, digits, am.recipes.standard(), am.Linf(0.1), plan=Plan(epochs=1))
    assert all((model.state_dict()[k] == v).all() for k, v in before.items()), "the model given stays as it is"
    assert any((tough.state_dict()[k] != v).any() for k, v in before.items())
    out = am.attack(am.PGD(steps=3), tough, test.x, test.y, am.Linf(0.1))
    assert len(out.status) == 20
    found = am.audit(tough, test, am.Linf(0.1), suite=QUICK, out="runs/a")
    assert 0 <= found.robust_accuracy <= found.clean_accuracy <= 1
    held = json.loads(Path("runs/a/result.json").read_text())
    assert held["robust"]["accuracy"] == found.robust_accuracy
    assert Path("runs/a/report.html").is_file()


def test_audit_of_tensors_and_of_nothing():
    test = am.load_data("digits", limit=4)
    model = am.load_model("zoo:small-cnn", shape=(1, 8, 8), classes=10)
    found = am.audit(model, (test.x, test.y), am.Linf(0.1), suite=QUICK)
    assert len(found.rows["row"]) == 4
    with pytest.raises(am.AdamantError, match="no rows"):
        am.audit(model, (test.x[:0], test.y[:0]), am.Linf(0.1))


LISTS = ["attacks", "threats", "recipes", "models"]


@pytest.mark.parametrize("name", LISTS)
def test_list_as_a_table_and_as_json(name):
    lines = json.loads(command(name, "--json").out)
    assert len(lines) >= 3
    table = command(name)
    assert table.code == 0
    squeezed = "".join(table.out.split())
    for line in lines:
        assert all(isinstance(v, str) and v for v in line.values()), line
        assert line["name"][:8] in squeezed


def test_what_is_listed_can_be_written():
    from adamant.cli import words

    for line in json.loads(command("threats", "--json").out):
        words.threat(line["example"])
    for line in json.loads(command("recipes", "--json").out):
        words.recipe(f"{line['name']}()")


def test_version_and_help():
    assert command("--version").out.strip() == f"adamant {am.__version__}"
    told = command("--help")
    assert told.code == 0
    for name in ("demo", "audit", "attack", "train", "report", *LISTS):
        assert name in told.out
        assert command(name, "--help").code == 0


def test_package_has_no_print_and_no_eval():
    """House rule: the terminal is the command line's, and no text of a user is ever run."""
    for file in Path(am.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert called not in ("print", "eval", "exec"), file
