"""Keras models on their way through ONNX: by Keras itself and by tf2onnx."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adamant.models import load_model

for name in ("onnx", "onnxruntime", "keras"):
    pytest.importorskip(name, reason="needs the extras onnx and keras")
pytestmark = pytest.mark.filterwarnings("ignore")

# Keras chooses its backend once for each process, and TensorFlow must not meet triton: each export has its own.
_SCRIPT = """
import sys
import numpy as np
import keras
from keras import layers
keras.utils.set_random_seed(0)
x = keras.Input((12, 12, 1))
y = layers.Conv2D(8, 3, padding="same", strides=2, activation="relu")(x)
y = layers.BatchNormalization()(y)
y = layers.DepthwiseConv2D(3, padding="same")(y)
y = layers.AveragePooling2D(2, padding="same")(y)
y = layers.UpSampling2D(2, interpolation="bilinear")(y)
y = layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(y))
y = layers.Dropout(0.5)(layers.Flatten()(y))
m = keras.Model(x, layers.Dense(10, activation="softmax")(y))
data = np.random.default_rng(0).random((5, 12, 12, 1)).astype("float32")
m(data)
if sys.argv[2] == "tf2onnx":
    import tensorflow as tf
    import tf2onnx
    call = tf.function(lambda x: m(x, training=False), input_signature=[tf.TensorSpec((None, 12, 12, 1), tf.float32)])
    tf2onnx.convert.from_function(call, call.input_signature, opset=15, output_path=sys.argv[1] + "/m.onnx")
else:
    m.export(sys.argv[1] + "/m.onnx", format="onnx", verbose=False)
np.savez(sys.argv[1] + "/answers.npz", x=data, y=np.asarray(keras.ops.convert_to_numpy(m(data, training=False))))
"""


@pytest.mark.parametrize(("way", "backend"), [("keras", "torch"), ("tf2onnx", "tensorflow")])
def test_keras(tmp_path: Path, way: str, backend: str) -> None:
    if way == "tf2onnx":
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
        pytest.importorskip("tensorflow", reason="needs the extra tensorflow")
    env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(tmp_path), way], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    held = np.load(tmp_path / "answers.npz")
    x, want = torch.from_numpy(held["x"]), torch.from_numpy(held["y"])
    loaded: Any = load_model(tmp_path / "m.onnx")
    assert "ends in a softmax" in loaded.notes[0]
    assert "differs from onnxruntime" in loaded.notes[-1]
    first = x.permute(0, 3, 1, 2).clone().requires_grad_()
    torch.testing.assert_close(loaded(first).softmax(1), want, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loaded(x), loaded(first))
    (slope,) = torch.autograd.grad(loaded(first).sum(), first)
    assert slope.shape == first.shape
    assert bool(slope.any())
    # Against a difference, as there is no torch original.
    step = torch.linspace(-1, 1, first.numel()).view(first.shape) * 1e-3
    with torch.no_grad():
        rise = (loaded(first + step) - loaded(first - step)).sum() / 2
    torch.testing.assert_close(rise, (slope * step).sum(), rtol=2e-2, atol=1e-4)
