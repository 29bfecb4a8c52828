"""The command line as a person meets it: run in this process for speed, or in one of its own to be killed."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from adamant.cli.main import main

MODELS = '''
"""Models as people have them: one that works, and many that do not."""
import time
import torch
from torch import nn


class Good(nn.Module):
    """Affine on 64 pixels, ten classes."""

    def __init__(self):
        super().__init__()
        made = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(64, 10, generator=made) * 0.3)

    def forward(self, x):
        return x.flatten(1) @ self.w


class Slow(Good):
    def forward(self, x):
        time.sleep(0.004)
        return super().forward(x)


def turned():
    """The same network with other weights."""
    net = Good()
    net.w.data.neg_()
    return net


class Raises(Good):
    def forward(self, x):
        raise ValueError("no such luck")


class RaisesUnderGradient(Good):
    def forward(self, x):
        if torch.is_grad_enabled():
            raise ValueError("no\\ngradients\\nhere")
        return super().forward(x)


class NaN(Good):
    def forward(self, x):
        return super().forward(x) * float("nan")


class NaNWhenTouched(Good):
    """The clean inputs are multiples of 1/16; anything else is answered with NaN."""

    def forward(self, x):
        touched = (x * 16 != (x * 16).round()).flatten(1).any(1)
        return torch.where(touched[:, None], torch.nan, super().forward(x))


class Rank3(Good):
    def forward(self, x):
        return super().forward(x)[..., None]


class OneLogit(Good):
    def forward(self, x):
        return super().forward(x - 0.5)[:, :1]


class Probabilities(Good):
    def forward(self, x):
        return super().forward(x).softmax(1)


class Labels(Good):
    def forward(self, x):
        return super().forward(x).argmax(1)


def not_a_model():
    return 3
'''


@dataclass(frozen=True)
class Said:
    """What a command left behind: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one sentence of a refusal; fails where it is none."""
        assert self.code == 2, (self.code, self.out[-500:], self.err)
        assert self.err.startswith("adamant: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n"), self.err
        assert "Traceback" not in self.err
        assert len(self.err) < 1200, self.err
        return self.err


def command(*args: object) -> Said:
    """adamant ARGS in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(a) for a in args])
    return Said(left.value.code, out.getvalue(), err.getvalue())


def started(*args: object, cwd: Path, path: Path) -> "subprocess.Popen[str]":
    """adamant ARGS in a process of its own."""
    words = [sys.executable, "-m", "adamant.cli.main", *map(str, args)]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_interruptible
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """A folder with the module `odd_models` and data files, good and bad; it is on the path."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "odd_models.py").write_text(MODELS)
    sys.path.insert(0, str(folder))
    import odd_models  # pyright: ignore[reportMissingImports]

    made = np.random.default_rng(0)
    x = (made.integers(0, 17, (24, 8, 8)) / 16).astype(np.float32)
    with torch.no_grad():
        z = odd_models.Good()(torch.from_numpy(x))
    y = z.argmax(1).numpy()

    def save(name, x, y):
        np.savez(folder / f"{name}.npz", x_test=x, y_test=y)

    save("good", x, y)
    save("two", x, (odd_models.OneLogit()(torch.from_numpy(x))[:, 0] > 0).long().numpy())
    save("wide", np.concatenate([x, x], 2), y)
    save("labels", x, y + 5)
    save("negative", x, y - 5)
    save("fractions", x, y + 0.5)
    holed = x.copy()
    holed[3, 2, 2] = np.nan
    save("nan", holed, y)
    save("bright", x * 3, y)
    save("flat", x.reshape(24, 64) * 3, y)
    save("one_class", x, y * 0)
    save("empty", x[:0], y[:0])
    save("unequal", x, y[:-1])
    (folder / "broken.npz").write_bytes((folder / "good.npz").read_bytes()[:900])
    (folder / "in_the_way").write_text("a file, not a folder")
    torch.save(torch.nn.Linear(64, 10), folder / "whole_module.pt")
    torch.save({"weight": torch.zeros(3)}, folder / "weights.pt")
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def here(shelf, tmp_path, monkeypatch):
    """An empty current directory beside the shelf."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a small network, trained on the digits for a few epochs."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ("--data", "digits", "--threat", "linf:0.1", "--recipe", "standard()", "--epochs", 3, "--batch-size", 32)
    said = command("train", "zoo:small-cnn", *words, "--out", folder, "--quiet")
    assert said.code == 0, said.err
    return folder


@pytest.fixture(scope="session")
def audited(trained, tmp_path_factory):
    """The folder of its audit, and what the command printed with --json."""
    folder = tmp_path_factory.mktemp("audited") / "run"
    words = ("--data", "digits", "--limit", 40, "--threat", "linf:0.1", "--suite", "quick", "--name", "tiny")
    said = command("audit", trained / "model.safetensors", *words, "--out", folder, "--json")
    assert said.code == 0, said.err
    return folder, said


def _interruptible() -> None:
    """A test run in the background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
