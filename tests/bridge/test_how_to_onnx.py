"""The examples of docs/how-to/onnx-and-hugging-face.md; the page shows what is run here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import adamant as am
from adamant.models import build, save_onnx
from adamant.training import Plan

for name in ("onnx", "onnxruntime", "onnxscript", "transformers"):
    pytest.importorskip(name, reason="needs the extras onnx and huggingface")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_an_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = build("zoo:small-cnn", shape=(1, 8, 8), classes=10).eval()
    dims = ({0: torch.export.Dim("n")},)
    torch.onnx.export(net, (torch.rand(2, 1, 8, 8),), "model.onnx", dynamo=True, dynamic_shapes=dims, verbose=False)
    # --8<-- [start:onnx]
    model = am.load_model("model.onnx")
    data = am.load_data("digits", split="train")
    outcome = am.attack(am.PGD(steps=20), model, data.x[:100], data.y[:100], am.Linf(0.1))
    # --8<-- [end:onnx]
    assert outcome.robust_accuracy < 1
    before = model(data.x)
    # --8<-- [start:save]
    hardened = am.train(model, data, am.recipes.standard(), am.Linf(0.1), plan=Plan(epochs=1))
    save_onnx(hardened, "hardened.onnx")
    # --8<-- [end:save]
    assert not torch.equal(am.load_model("hardened.onnx")(data.x), before)
    torch.testing.assert_close(am.load_model("hardened.onnx")(data.x), hardened(data.x))
