"""The examples of docs/how-to/onnx-and-hugging-face.md; the page shows what is run here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

# --8<-- [start:imports]
import adamant as am
from adamant.training import Plan

# --8<-- [end:imports]

for name in ("onnx", "onnxruntime", "onnxscript", "transformers"):
    pytest.importorskip(name, reason="needs the extras onnx and huggingface")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_an_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = am.load_model("zoo:small-cnn", shape=(1, 8, 8), classes=10)
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
    am.save_model(hardened, "hardened.onnx")
    # --8<-- [end:save]
    assert not torch.equal(am.load_model("hardened.onnx")(data.x), before)
    torch.testing.assert_close(am.load_model("hardened.onnx")(data.x), hardened(data.x))


def test_a_folder_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.chdir(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=10, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained("my-vit")
    processor = {"size": {"height": 8, "width": 8}, "image_mean": [0.5], "image_std": [0.5], "resample": 2}
    (tmp_path / "my-vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    # --8<-- [start:huggingface]
    model = am.load_model("hf:my-vit")
    data = am.load_data("digits")
    outcome = am.attack(am.PGD(steps=20), model, data.x[:100], data.y[:100], am.Linf(0.1))
    # --8<-- [end:huggingface]
    assert outcome.robust_accuracy < 0.3  # untrained
    assert "preparation of its image processor is inside" in model.notes[0]
