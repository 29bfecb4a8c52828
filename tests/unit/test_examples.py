"""The examples run, and the docs show the files themselves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES, DOCS = ROOT / "examples", ROOT / "docs"

slow = pytest.mark.slow

# What each prints, at least; those that may take more than ten seconds on a busy core are slow.
PRINTS = {
    "face": (r"\d% of the digits stand", ()),
    "digit": (r"digit\.png shows a 2", ()),
    "first_attack": (r"PGD\(.*\): \d+\.\d% of the digits(.|\n)*forwards", (slow,)),
    "own_model": (r"robust accuracy \d+\.\d%, 95 % interval", (slow,)),
    "black_box": (r"PGD (.|\n)*RandomSearch (.|\n)*refused: PGD needs the gradient", (slow,)),
    "estimators": (r"gradient +0\.0% stand\n(.|\n)*scores(.|\n)*labels(.|\n)*refused: PGD", ()),
    "service": (r"rows sent\n\d+ of 40 rows were begun, \d+ ran out", ()),
    "harden": (r"standard +\d+\.\d%(.|\n)*madry +\d+\.\d%", (slow,)),
    "smallest_change": (r"median L2 size of the changes: 0\.\d(.|\n)*within 2.0 : 0%", (slow,)),
    "own_attack": (r"Lookahead\(.*\) keeps every promise in 16 cases", (slow,)),
    "tutorial": (r"clean accuracy(.|\n)*hardened: clean \d+\.\d%, robust \d+\.\d%", (slow,)),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks) for name, (_, marks) in PRINTS.items()])
def test_it_runs_and_prints_what_it_should(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTS[name][0], done.stdout), done.stdout


def test_every_example_is_run():
    assert {p.stem for p in EXAMPLES.glob("*.py")} == set(PRINTS)


def test_the_examples_are_short():
    assert max(len(p.read_text().splitlines()) for p in EXAMPLES.glob("*.py")) < 80


def test_own_attack_keeps_its_promises_in_one_case():
    """The short form of the slow run."""
    from importlib.util import module_from_spec, spec_from_file_location

    from adamant import Linf
    from adamant.testing import Member, cases, check

    spec = spec_from_file_location("own_attack", EXAMPLES / "own_attack.py")
    own = module_from_spec(spec)
    sys.modules[spec.name] = own  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(own)
        check(next(cases(Member(attack=own.Lookahead(steps=20), threats=(Linf(0.15),), reach=1.5, random=False))))
    finally:
        del sys.modules[spec.name]


def _included():
    return [
        (page, found)
        for page in sorted(DOCS.rglob("*.md"))
        for found in re.findall(r'^\s*--8<-- "([^"]+)"', page.read_text(), flags=re.MULTILINE)
    ]


def test_every_example_is_shown_in_the_docs():
    shown = {found.partition(":")[0] for _, found in _included()}
    assert {f"examples/{name}.py" for name in PRINTS} <= shown


def test_what_the_docs_include_is_there():
    for page, found in _included():
        path, _, section = found.partition(":")
        assert (ROOT / path).is_file(), f"{page.name} includes {path}"
        if section:
            text = (ROOT / path).read_text()
            assert f"[start:{section}]" in text, f"{page.name} includes {found}"
            assert f"[end:{section}]" in text, f"{page.name} includes {found}"


def test_the_docs_include_and_do_not_copy():
    """No block of Python in the docs holds three lines in a row that an example holds as well."""
    lines = [[line.strip() for line in p.read_text().splitlines() if line.strip()] for p in EXAMPLES.glob("*.py")]
    runs = {tuple(own[i : i + 3]) for own in lines for i in range(len(own) - 2)}
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
            shown = [line.strip() for line in block.splitlines() if line.strip()]
            copied = [shown[i] for i in range(len(shown) - 2) if tuple(shown[i : i + 3]) in runs]
            assert not copied, f"{page.name} copies {copied[0]!r} instead of including its file"
