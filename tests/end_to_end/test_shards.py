"""However an audit is cut up, its rows are the same, byte for byte."""

import os
import subprocess
import sys

import pytest

from .conftest import command

WORDS = ["audit", "odd_models:Good", "--data", "good.npz", "--threat", "linf:0.1", "--suite", "quick", "--chunk", "5"]


def rows(folder):
    return (folder / "rows.parquet").read_bytes(), (folder / "adversarial.safetensors").read_bytes()


@pytest.fixture(scope="module")
def words(shelf):
    return [str(shelf / w) if w == "good.npz" else w for w in WORDS]


@pytest.fixture(scope="module")
def alone(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    said = command(*words, "--quiet", "--out", folder)
    assert said.code == 0, said.err
    return rows(folder)


@pytest.mark.parametrize("size", [1, 16, 256])
def test_any_batch_size(size, words, alone, tmp_path):
    said = command(*words, "--quiet", "--out", tmp_path / "run", "--batch-size", size)
    assert said.code == 0, said.err
    assert rows(tmp_path / "run") == alone


def test_two_processes(words, alone, tmp_path, shelf):
    run = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone", "-m", "adamant"]
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", *run, *words, "--quiet", "--out", str(out)],
        capture_output=True, text=True, env=_env(shelf), timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert rows(out) == alone


def _env(shelf):
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(shelf), *filter(None, sys.path)])}
