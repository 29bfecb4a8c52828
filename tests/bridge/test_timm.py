"""The real timm; where torchvision, which it imports, is missing, something with its names stands for it."""

from __future__ import annotations

import enum
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from adamant.models import load_model

if importlib.util.find_spec("timm") is None:
    pytest.skip("needs the extra timm", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore")


class StandIn(types.ModuleType):
    """A module that has every name: a class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Any:
    if importlib.util.find_spec("torchvision") is None:
        below = ("ops", "ops.misc", "transforms", "transforms.functional", "datasets", "models", "utils")
        names = ["torchvision", *(f"torchvision.{tail}" for tail in (*below, "models.feature_extraction"))]
        for name in names:
            module = StandIn(name)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, name, module)
            above, _, last = name.rpartition(".")
            if above:
                setattr(sys.modules[above], last, module)
        words = ("NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS", "NEAREST_EXACT")
        ways = enum.Enum("InterpolationMode", {word: word.lower() for word in words})
        for name in ("torchvision.transforms", "torchvision.transforms.functional"):
            setattr(sys.modules[name], "InterpolationMode", ways)  # noqa: B010
    return importlib.import_module("timm")


def test_timm(tmp_path: Path, timm: Any) -> None:
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=4).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(load_model(net)(x), net(x * 2 - 1))  # its mean and std are 0.5
    small = timm.create_model("test_resnet", num_classes=4).eval()
    safetensors.torch.save_file(small.state_dict(), tmp_path / "w.safetensors")
    loaded = load_model(f"timm:test_resnet@{tmp_path / 'w.safetensors'}", classes=4)
    known = timm.data.resolve_model_data_config(small)
    mean, std = (torch.tensor(known[name]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(loaded(x), small((x - mean) / std))
