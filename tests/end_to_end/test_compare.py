"""adamant compare: two audits of the digits, the page, the union, and what it refuses."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adamant.report import read_rows

from .conftest import command

DATA = ("--data", "digits", "--suite", "quick", "--quiet")


@pytest.fixture(scope="module")
def others(trained, tmp_path_factory):
    """The trained network under L2, and an untrained one under Linf; fewer rows than `audited` has."""
    folder = tmp_path_factory.mktemp("others")
    for name, threat, model in (
        ("l2", "l2:0.4", trained / "model.safetensors"),
        ("untrained", "linf:0.1", "zoo:small-cnn"),
    ):
        words = ("--limit", 30, "--threat", threat, "--name", "tiny" if name == "l2" else name)
        said = command("audit", model, *DATA, *words, "--out", folder / name)
        assert said.code == 0, said.err
    return folder


def standing(folder, rows):
    return {r.row: r.status not in ("broken", "wrong_already") for r in read_rows(folder) if r.row in rows}


def test_two_models(audited, others, here):
    first, second = audited[0], others / "untrained"
    said = command("compare", second, first, "--out", "c")
    assert said.code == 0, said.err
    kept = json.loads((here / "c" / "compare.json").read_text())
    assert kept["schema"] == "adamant.compare/1"
    assert kept["rows"] == 30
    assert kept["left_out"] == {"untrained": 0, "tiny": 10}
    rows = {r.row for r in read_rows(second)}
    a, b = standing(second, rows), standing(first, rows)
    (pair,) = kept["pairs"]
    assert pair["robust"]["only_second"] == sum(b[r] and not a[r] for r in rows)
    assert pair["robust"]["difference"] == pytest.approx((sum(b.values()) - sum(a.values())) / 30)
    assert [x["robust"]["correct"] for x in kept["audits"]] == [sum(a.values()), sum(b.values())]
    said_itself = json.loads((second / "result.json").read_text())["warnings"]
    assert kept["warnings"] == [f"untrained: {text}" for text in said_itself]  # the two were asked the same
    points = abs(pair["robust"]["difference"]) * 100
    assert f"tiny stands on {points:.1f} points more of the 30 shared rows than untrained, 95 % interval [" in said.out
    assert "McNemar p" in said.out
    assert "30 rows are shared; left out are 10 of tiny." in said.out
    page = (here / "c" / "report.html").read_text()
    assert "untrained" in page
    assert "tiny" in page
    again = command("compare", second, first, "--json")
    assert json.loads(again.out) == kept


def test_the_union_of_two_threats(audited, others, here):
    said = command("compare", audited[0], others / "l2", "--union")
    assert said.code == 0, said.err
    assert "all at once" in said.out
    assert "Warning: The threat is not the same (Linf(0.1) in" in said.out
    found = json.loads(command("compare", audited[0], others / "l2", "--union", "--json").out)
    rows = {r.row for r in read_rows(others / "l2")}
    inf, two = standing(audited[0], rows), standing(others / "l2", rows)
    assert found["worst"]["union"]["correct"] == sum(inf[r] and two[r] for r in rows)
    assert found["worst"]["average"] == pytest.approx((sum(inf.values()) + sum(two.values())) / 60)
    assert [a["name"] for a in found["audits"]] == ["tiny under Linf(0.1)", "tiny under L2(0.4)"]
    said = command("compare", audited[0], others / "l2", others / "untrained")
    assert "3 pairs were tested: hold each p against 0.05 / 3 = 0.017" in said.out


def test_what_it_refuses(audited, trained, others, here):
    audit = audited[0]
    relabelled = shutil.copytree(audit, here / "relabelled")
    table = pq.read_table(relabelled / "rows.parquet")
    turned = pa.array([9 - y for y in table["label"].to_pylist()], pa.int64())
    pq.write_table(table.set_column(1, "label", turned), relabelled / "rows.parquet")
    (here / "empty").mkdir()
    for folders, words in (
        ([audit], "at least two audits, and got 1"),
        ([audit, audit], "named twice"),
        ([audit, here / "empty"], "has no result.json"),
        ([audit, "nothing"], "no run folder nothing"),
        ([audit, trained], "holds a training run"),
        ([audit, relabelled], "40 of 40 shared rows have other labels"),
        ([audit, others / "untrained", "--union"], "leave --union out"),
    ):
        assert words in command("compare", *folders).sentence
    assert "at least two audits, and got 0" in command("compare").sentence


def test_an_audit_and_its_copy_are_called_by_their_folders(audited, here):
    copy = shutil.copytree(audited[0], here / "copy")
    said = command("compare", audited[0], "copy", "--json")
    found = json.loads(said.out)
    assert [a["name"] for a in found["audits"]] == [str(audited[0]), copy.name]
    (pair,) = found["pairs"]
    assert (pair["robust"]["difference"], pair["robust"]["p"]) == (0, 1)
    assert pair["robust"]["low"] == -pair["robust"]["high"] < 0
