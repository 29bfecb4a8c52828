"""adamant corrupt: the table, its files, the page, and what it refuses."""

import json

import pytest

from .conftest import command


def test_a_run_on_digits(shelf, here):
    line = ("corrupt", "odd_models:Good", "--data", "digits", "--limit", "40", "--quiet")
    said = command(*line, "--severities", "5,1", "--out", "c")
    assert said.code == 0, said.err
    assert "GaussianNoise" in said.out
    result = json.loads((here / "c" / "result.json").read_text())
    assert len(result["corruptions"]) == 15
    assert list(result["corruptions"]["Fog"]) == ["1", "5"]
    assert result["corruptions"]["Fog"]["5"]["rows"] == result["clean"]["rows"] == 40
    assert result["figures"] == "32 px"
    page = (here / "c" / "report.html").read_text()
    assert page.count("<img ") == 15 * 3
    assert "http" not in page.replace("http-equiv", "")
    again = command(*line, "--severities", "1", "--kinds", "fog,road", "--json", "--out", "again")
    found = json.loads(again.out)
    assert list(found["corruptions"]) == ["Fog", "Rain", "RoadFog"]
    assert found["corruptions"]["Fog"]["1"] == result["corruptions"]["Fog"]["1"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--severities", "0,3"], "from 1 to 5"),
        (["--kinds", "Hail"], "no corruption named"),
        (["--batch-size", "0"], "--batch-size is 0"),
    ],
)
def test_what_it_refuses(words, sentence, shelf, here):
    assert sentence in command("corrupt", "odd_models:Good", "--data", "digits", *words).sentence
