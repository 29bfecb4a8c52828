"""Run folders: read as records, refused in one sentence that names the file and the field."""

import dataclasses
import json
import re

import numpy as np
import pytest

from adamant.errors import RunError
from adamant.report import AuditResult, TrainingResult, read_evidence, read_result, read_rows, write_page


@pytest.fixture
def folder(folders, tmp_path):
    return folders.audit_folder(tmp_path / "a")


def test_a_record_says_what_the_file_says(folder, folders, tmp_path):
    result = read_result(folder)
    assert isinstance(result, AuditResult)
    assert json.loads(json.dumps(dataclasses.asdict(result))) == folders.read_json(folder)
    lesson = read_result(folders.training_folder(tmp_path / "t"))
    assert isinstance(lesson, TrainingResult)
    assert lesson.epochs[0].epoch == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.name = "other"  # pyright: ignore
    assert hash(result) == hash(read_result(folder))


def test_rows_and_evidence(folder, folders):
    rows = read_rows(folder)
    assert [row.row for row in rows] == list(range(120))
    broken = [row.row for row in rows if row.status == "broken"]
    last, first = read_evidence(folder, [broken[-1], broken[0]])
    assert (last.row, first.row) == (broken[-1], broken[0])
    x, _ = folders.pictures(120)
    np.testing.assert_array_equal(first.original, x[broken[0]])
    np.testing.assert_array_equal(last.original, x[broken[-1]])
    assert 0 < np.abs(first.adversarial - first.original).max() <= 0.1 + 1e-6


def test_unknown_keys_are_let_by(folder, folders):
    result = folders.read_json(folder)
    result["later"] = result["clean"]["later"] = 1
    folders.write_json(folder, result)
    assert isinstance(read_result(folder), AuditResult)


@pytest.mark.parametrize("name", ["result.json", "rows.parquet", "adversarial.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_damage_is_one_sentence_that_names_the_file(folder, tmp_path, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": bytes(range(256)) * 9}[damage])
    with pytest.raises(RunError, match=re.escape(name)) as caught:
        write_page([folder], tmp_path / "r.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r.html").exists()


def test_no_folder(tmp_path):
    with pytest.raises(RunError, match="there is no run folder"):
        read_result(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["adamant.audit/2", "other/1", 3, None, ["adamant.audit/1"]])
def test_unknown_version(folder, folders, name):
    folders.write_json(folder, folders.read_json(folder) | {"schema": name})
    with pytest.raises(RunError, match=r"this adamant reads adamant.audit/1 and adamant.training/1"):
        read_result(folder)


@pytest.mark.parametrize(
    ("at", "value", "sentence"),
    [
        (("clean", "accuracy"), "0.9", 'clean.accuracy must be a number, found "0.9"'),
        (("clean", "accuracy"), float("nan"), "clean.accuracy must be a number, found null"),
        (("clean", "accuracy"), 97, "clean.accuracy must be between 0 and 1, found 97"),
        (("clean", "accuracy"), True, "clean.accuracy must be a number, found true"),
        (("clean", "rows"), 12.5, "clean.rows must be a whole number, found 12.5"),
        (("clean", "rows"), True, "clean.rows must be a whole number, found true"),
        (("clean", "rows"), -1, "clean.rows must be at least 0, found -1"),
        (("stages", 1, "attack"), None, r"stages\[1\].attack must be a text, found null"),
        (("stages",), {}, "stages must be a list, found {}"),
        (("threat",), "Linf", 'threat must be an object, found "Linf"'),
    ],
)
def test_a_wrong_field_is_named(folder, folders, at, value, sentence):
    result = folders.read_json(folder)
    place = result
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    folders.write_json(folder, result)
    with pytest.raises(RunError, match=sentence):
        read_result(folder)


def test_a_missing_field_is_named(folder, folders):
    result = folders.read_json(folder)
    del result["provenance"]["command"]
    folders.write_json(folder, result)
    with pytest.raises(RunError, match=r"lacks provenance\.command"):
        read_result(folder)


def test_a_list_is_no_result(folder):
    (folder / "result.json").write_text("[]")
    with pytest.raises(RunError, match="must hold a JSON object"):
        read_result(folder)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("label", [1.5] * 120, "the column label must be integer, found double with 0 nulls"),
        ("status", [None] * 120, "the column status must be string, found null with 120 nulls"),
        ("adversarial_prediction", ["3"] * 120, "the column adversarial_prediction must be integer, found string"),
    ],
)
def test_a_wrong_column_is_named(folder, folders, name, values, sentence):
    table = folders.pq.read_table(folder / "rows.parquet")
    table = table.set_column(table.column_names.index(name), name, folders.pa.array(values))
    folders.pq.write_table(table, folder / "rows.parquet")
    with pytest.raises(RunError, match=sentence):
        read_rows(folder)


def test_missing_column_and_missing_evidence(folder, folders, tmp_path):
    with pytest.raises(RunError, match="has no row 999"):
        read_evidence(folder, [999])
    folders.pq.write_table(folders.pq.read_table(folder / "rows.parquet").drop(["size"]), folder / "rows.parquet")
    with pytest.raises(RunError, match="lacks the columns size"):
        read_rows(folder)
    folders.save_file({"row": np.arange(3)}, folder / "adversarial.safetensors")
    with pytest.raises(RunError, match="lacks the tensors adversarial, original"):
        read_evidence(folder, [0])
    shapes = {"row": np.arange(3), "original": np.zeros((2, 4)), "adversarial": np.zeros((2, 4))}
    folders.save_file(shapes, folder / "adversarial.safetensors")
    with pytest.raises(RunError, match="row has 3 entries"):
        read_evidence(folder, [0])
