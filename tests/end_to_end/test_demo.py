"""The demo from end to end, with few epochs."""

import json

import pytest
import torch

from .conftest import command


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the demo printed with --json, and its folder."""
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("demo") / "run"
    said = command("demo", "--epochs", 2, "--out", folder, "--quiet", "--json")
    torch.set_num_threads(threads)
    assert said.code == 0, said.err
    return said, folder


@pytest.mark.slow
def test_json_is_one_document(told):
    said, folder = told
    held = json.loads(said.out)
    assert [a["name"] for a in held["audits"]] == ["ordinary training", "adversarial training"]
    assert held["report"] == str(folder / "report.html")
    for result in held["audits"]:
        assert 0 <= result["robust"]["accuracy"] <= result["clean"]["accuracy"] <= 1
        assert result["suite"] == "standard_v1"


@pytest.mark.slow
def test_report_tells_both_stories(told):
    _, folder = told
    page = (folder / "report.html").read_text()
    for word in ("ordinary training", "adversarial training", "Two models, one attack"):
        assert word in page
    for short in ("ordinary", "adversarial"):
        for name in ("audit/rows.parquet", "audit/report.html", "training/result.json", "model.safetensors"):
            assert (folder / short / name).is_file()


@pytest.mark.slow
def test_table_is_printed(here):
    said = command("demo", "--epochs", 1, "--out", here / "demo", "--quiet")
    assert said.code == 0, said.err
    for word in ("ordinary training", "adversarial training", "no attack", "all of them", "Seed 0"):
        assert word in said.out
