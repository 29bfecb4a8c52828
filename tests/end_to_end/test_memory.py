"""An audit of ten times the rows takes no more memory."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

TINY = '''
import torch
from torch import nn


class Tiny(nn.Module):
    """Ten classes from the means of 64 tiles in three colours."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(192, 10, generator=torch.Generator().manual_seed(0)) * 3)

    def forward(self, x):
        return nn.functional.avg_pool2d(x - 0.5, 8).flatten(1) @ self.w
'''
# The high water of a process begins anew with the program, which that of getrusage does not.
ALONE = """
import sys
from adamant.cli.main import main

try:
    main(sys.argv[1:])
except SystemExit as left:
    assert not left.code
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    (tmp_path / "tiny_model.py").write_text(TINY)
    peaks = {}
    for n in (2000, 20000):
        _rows(tmp_path / f"{n}.npz", n)
        line = ["tiny_model:Tiny", "--data", str(tmp_path / f"{n}.npz"), "--threat", "linf:0.03", "--suite", "quick"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        words = [*line, "--chunk", "128", "--no-curve", "--quiet", "--out", str(tmp_path / str(n))]
        done = subprocess.run(
            [sys.executable, "-c", ALONE, "audit", *words], capture_output=True, text=True, env=env, timeout=900
        )
        assert done.returncode == 0, done.stderr[-2000:]
        peaks[n] = int(done.stdout.split()[-1]) / 1024
        kept = (tmp_path / str(n) / "adversarial.safetensors").stat().st_size
        assert kept > n * 3 * 64 * 64 * 4  # at least half of the rows are broken, and kept twice
    assert peaks[20000] < peaks[2000] + 50, peaks


def _rows(path, n):
    made = np.random.default_rng(0)
    x = made.integers(0, 256, (n, 3, 64, 64), dtype=np.uint8)
    w = torch.randn(192, 10, generator=torch.Generator().manual_seed(0)) * 3
    means = [
        nn.functional.avg_pool2d(part.float() / 255 - 0.5, 8).flatten(1) for part in torch.from_numpy(x).split(500)
    ]
    np.savez(path, x_test=x, y_test=torch.cat(means).matmul(w).argmax(1).numpy())
