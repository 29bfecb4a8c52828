"""Keras on each of its backends, of which a process has one: the cases and the examples in processes of their own."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="needs Keras: pip install adamant[keras]")
BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"needs {name}"))
    for name in ("torch", "tensorflow", "jax")
]
# Keras on torch turns Parameters into numpy arrays in a way that numpy 2 warns of; it is not ours to change.
NOT_OURS = ("-W", "ignore:__array__ implementation:DeprecationWarning")


def _run(*words, cwd=ROOT, **env):
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    words = [sys.executable, *map(str, words)]
    return subprocess.run(
        words, cwd=cwd, env={**os.environ, **quiet, **env}, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_case_on(backend):
    words = ("-m", "pytest", *NOT_OURS, "-o", "python_files=on_*.py", "tests/bridge/keras_cases")
    done = _run(*words, KERAS_BACKEND=backend)
    assert done.returncode == 0, done.stdout[-6000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 25, done.stdout[-1000:]


# Each once, on one of the backends. MNIST, and as many epochs as they ask for, are for those who run them by hand.
PRINTS = {
    "keras_fgsm": ("tensorflow", r"standard +clean +\d+\.\d%(.|\n)*madry(.|\n)*hardened\.keras, loaded by Keras, has"),
    "keras_mixed": ("jax", r"0\.1 CE\(adv\)(.|\n)*clean \d+\.\d%, robust \d+\.\d%(.|\n)*Conv2D"),
    "keras_picture": ("torch", r"28 x 28: 2 \(\d+%\)\nfgm\.png: [013-9](.|\n)*pgd\.png: [013-9].*change 0\.2"),
}


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs_and_prints_what_it_should(name, tmp_path, monkeypatch):
    monkeypatch.delenv("ADAMANT_DATA_DIR", raising=False)
    backend, expected = PRINTS[name]
    if find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    done = _run("-W", "error", *NOT_OURS, EXAMPLES / f"{name}.py", cwd=tmp_path, KERAS_BACKEND=backend, EPOCHS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(expected, done.stdout), done.stdout


def test_every_example_of_keras_is_run():
    assert {p.stem for p in EXAMPLES.glob("keras_*.py")} == set(PRINTS)


def test_where_nobody_chose_a_backend_it_is_torch():
    """And the environment is left as it was."""
    code = (
        "import os, sys, adamant as am\n"
        "assert 'keras' not in sys.modules\n"
        "model = am.load_model('tests/bridge/files/cnn.h5')\n"
        "import keras; print(keras.config.backend(), 'KERAS_BACKEND' in os.environ)"
    )
    env = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["torch", "False"], done.stderr[-2000:]
