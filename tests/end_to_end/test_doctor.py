"""adamant doctor: the table, the document, the exit codes and what it refuses."""

import json

import pytest

from .conftest import command


def test_the_table_and_the_document(shelf, here):
    line = ("doctor", "odd_models:Good", "--data", shelf / "good.npz", "--threat", "linf:0.1", "--quiet")
    said = command(*line, "--out", "d")
    assert said.code == 0, said.err
    assert "wrong gradients" in said.out
    assert "rows, " in said.out
    kept = json.loads((here / "d" / "doctor.json").read_text())
    assert kept["schema"] == "adamant.doctor/1"
    assert kept["rows"] == 24
    assert {f["id"] for f in kept["findings"]} >= {f"D{i}" for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 19, 30)}
    again = json.loads(command(*line, "--json").out)
    assert again["findings"] == kept["findings"]


def test_strict_leaves_with_one_where_something_fails(shelf, here):
    line = ("doctor", "odd_models:turned", "--data", shelf / "good.npz", "--threat", "linf:0.1", "--quiet")
    assert command(*line).code == 0
    said = command(*line, "--strict")
    assert said.code == 1
    assert "D12" in said.out


def test_numbers_that_are_none_are_a_finding(shelf, here):
    said = command("doctor", "odd_models:NaN", "--data", shelf / "good.npz", "--threat", "linf:0.1", "--json")
    assert said.code == 0, said.err
    assert {f["id"]: f["verdict"] for f in json.loads(said.out)["findings"]}["D22"] == "FAIL"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["odd_models:Good"], "Which threat"),
        (["odd_models:Good", "--threat", "linf:0.1", "--rows", "0"], "--rows is 0"),
        (["odd_models:Good", "--threat", "linf:0.1", "--claimed", "97"], "from 0 to 1"),
        (["odd_models:Raises", "--threat", "linf:0.1"], "raised ValueError"),
        (["odd_models:Rank3", "--threat", "linf:0.1"], "(n, classes)"),
        (["odd_models:Labels", "--threat", "linf:0.1"], "before the argmax"),
    ],
)
def test_what_it_refuses(words, sentence, shelf, here):
    assert sentence in command("doctor", *words, "--data", shelf / "good.npz").sentence
