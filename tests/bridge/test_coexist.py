"""Frameworks that crash one another, in processes of their own: an abort is a failed test and not a dead runner."""

import itertools
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

# Each loads a framework, and lets it compute.
LOAD = {
    "adamant": "import adamant",
    "torch": "import torch; torch.ones(2).sum()",
    "tensorflow": "import tensorflow as tf; tf.reduce_sum(tf.function(lambda x: x * 2)(tf.ones(3)))",
    "jax": "import jax, jax.numpy as jnp; jax.jit(lambda x: x * 2)(jnp.ones(3)).block_until_ready()",
    "triton": "import triton",
}
# And what loads triton in the end.
LAST = """
import torch
w = torch.nn.Parameter(torch.ones(4, 4))
optimizer = torch.optim.Adam([w])
w.square().sum().backward()
optimizer.step()
print("alive", float(w.detach().sum()))
"""
COMPILE = "import torch; print(torch.compile(lambda x: x.sin() + 1)(torch.zeros(4)).sum())"


def run(*lines):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    code = "\n".join(("import faulthandler; faulthandler.enable()", *lines))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)


needs_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs TensorFlow")
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="there is no triton to crash with")


QUICK = [("tensorflow", "adamant", "triton"), ("triton", "tensorflow", "adamant")]


def _orders():
    """Every order of TensorFlow, triton's first user and adamant that leaves adamant a chance, with jax in between."""
    for order in itertools.permutations(("adamant", "tensorflow", "triton")):
        if order.index("adamant") < order.index("triton") or order.index("triton") < order.index("tensorflow"):
            yield order
    yield ("torch", "tensorflow", "adamant")
    yield ("tensorflow", "torch", "jax", "adamant")
    yield ("jax", "adamant", "tensorflow")
    yield ("adamant", "jax")


ORDERS = [pytest.param(o, marks=() if o in QUICK else pytest.mark.slow, id="-".join(o)) for o in _orders()]


@pytest.mark.parametrize("order", ORDERS)
def test_no_order_of_imports_ends_the_process(order):
    if missing := [name for name in order if name in LOAD and find_spec(name) is None]:
        pytest.skip(f"needs {missing[0]}")
    done = run(*(LOAD[name] for name in order), LAST)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "alive" in done.stdout


@pytest.mark.slow
@needs_tensorflow
@needs_triton
def test_without_adamant_the_process_ends():
    """Where this fails the frameworks have mended it, and the guard can go."""
    assert run(LOAD["tensorflow"], LAST).returncode != 0


@pytest.mark.slow
@needs_tensorflow
@needs_triton
def test_torch_compiles_behind_tensorflow_and_tensorflow_computes_behind_that():
    done = run(LOAD["tensorflow"], LOAD["adamant"], COMPILE, LAST, LOAD["tensorflow"])
    assert done.returncode == 0, done.stderr[-2000:]


@needs_tensorflow
def test_a_misaligned_buffer_handed_to_tensorflow():
    done = run(
        "import torch",
        "from adamant.models.foreign import bridge",
        "from adamant.models.foreign.tensorflow import TensorFlowFunction, tensorflow",
        "f = TensorFlowFunction(lambda x, w: (tensorflow().matmul(x, w),))",
        "x, w = torch.rand(1 + 5 * 7)[1:].view(5, 7), torch.rand(1 + 7 * 3)[1:].view(7, 3)",
        "assert x.data_ptr() % 64",
        "torch.testing.assert_close(bridge.call(f, x, w)[0], x @ w)",
        "z = x.requires_grad_()",
        "slope = torch.rand(16)[1:].view(5, 3)",
        "got = torch.autograd.grad(bridge.call(f, z, w)[0], z, slope)[0]",
        "torch.testing.assert_close(got, slope @ w.T)",
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_adamant_loads_no_framework_and_sets_one_guard():
    done = run(
        "import adamant, adamant.coexist, sys",
        "adamant.coexist.watch()",
        "odd = {'tensorflow', 'jax', 'keras', 'triton', 'onnx'} & set(sys.modules)",
        "assert not odd, odd",
        "assert sum(type(f).__name__ == '_Guard' for f in sys.meta_path) <= 1",
        "import torch",
    )
    assert done.returncode == 0, done.stderr[-2000:]
