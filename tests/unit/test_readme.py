"""The examples of the README run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path


def test_the_examples_run(tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (tmp_path / "example.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)))
    words = [sys.executable, "-W", "error", "example.py"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/tough/report.html").exists()
    clean, robust = map(float, done.stdout.splitlines()[1].split())
    assert clean > robust > 0.1
    assert "tensor(0." in done.stdout.splitlines()[2]  # the median size of the smallest changes
