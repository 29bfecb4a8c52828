"""Weights that others trained load in our networks and give the accuracy that was published with them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from adamant.models import load_model

SHARED = Path(__file__).parents[3].parent / "shared"
MODELS = Path(os.environ.get("ADAMANT_MODELS_DIR", SHARED / "models"))
DATA = Path(os.environ.get("ADAMANT_DATA_DIR", SHARED / "data"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "arch", "right"),
    [
        ("mnist_cnn_pgd", "zoo:cnn", 9899),  # Wong et al. 2020, fast_adversarial
        ("mnist_lenet5_adv", "zoo:lenet5", 9864),  # AdverTorch
        ("mnist_lenet5_clean", "zoo:lenet5", 9889),
    ],
)
def test_clean_accuracy_is_the_published_one(file: str, arch: str, right: int) -> None:
    weights, data = MODELS / f"{file}.safetensors", DATA / "mnist.npz"
    if not (weights.exists() and data.exists()):
        pytest.skip(f"needs {weights.name} (ADAMANT_MODELS_DIR) and mnist.npz (ADAMANT_DATA_DIR)")
    model = load_model(weights, arch=arch, shape=(1, 28, 28), classes=10)
    with np.load(data, allow_pickle=False) as held:
        x, y = torch.from_numpy(held["x_test"])[:, None].float() / 255, torch.from_numpy(held["y_test"]).long()
    with torch.no_grad():
        found = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(1000), y.split(1000), strict=True))
    assert found == right
