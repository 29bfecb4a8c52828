"""Classifiers of transformers, built small from their configs: nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from adamant.errors import InputError, ModelError
from adamant.models import as_logits, load_model
from adamant.models.prepared import Embedded, Pictures, Waveforms

hub: Any = pytest.importorskip("transformers", reason="needs the extra huggingface")
pytestmark = pytest.mark.filterwarnings("ignore")

SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3,
}  # fmt: skip
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


def vit(**more: Any) -> Any:
    return hub.ViTForImageClassification(hub.ViTConfig(image_size=16, patch_size=8, **SMALL, **more)).eval()


def bert(**more: Any) -> Any:
    return hub.BertForSequenceClassification(hub.BertConfig(vocab_size=30, **SMALL, **more)).eval()


def saved(model: Any, path: Path, **processor: Any) -> str:
    model.save_pretrained(path)
    if processor:
        (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return f"hf:{path}"


def test_pictures_from_a_folder(tmp_path: Path) -> None:
    model = vit()
    usual = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "image_mean": MEAN,
        "image_std": STD, "do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 2,
    }  # fmt: skip
    spec = saved(model, tmp_path, **usual)
    loaded = load_model(spec)
    assert isinstance(loaded, Pictures)
    x = torch.rand(4, 3, 16, 16)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    want = model(pixel_values=(x - mean) / std).logits
    torch.testing.assert_close(loaded(x), want)
    z = x.clone().requires_grad_()
    (ours,) = torch.autograd.grad(F.cross_entropy(loaded(z), torch.arange(4) % 3), z, create_graph=True)
    torch.autograd.grad(ours.square().sum(), z)  # attention has a second derivative
    (theirs,) = torch.autograd.grad(F.cross_entropy(model((z - mean) / std).logits, torch.arange(4) % 3), z)
    torch.testing.assert_close(ours, theirs)
    assert "preparation of its image processor is inside" in as_logits(loaded, x)[1][0]
    given = load_model(spec, mean=(0.0,) * 3, std=(1.0,) * 3)
    torch.testing.assert_close(given(x), model(pixel_values=x).logits)
    other = torch.rand(2, 3, 20, 24)
    assert loaded(other).shape == (2, 3)


def test_the_preparation_is_that_of_the_processor_itself(tmp_path: Path) -> None:
    shades = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    usual = {"size": {"height": 16, "width": 16}, "image_mean": MEAN, "image_std": STD}
    spec = saved(vit(), tmp_path, image_processor_type="ViTImageProcessor", **usual)
    processor = hub.AutoImageProcessor.from_pretrained(str(tmp_path), use_fast=False)
    want = processor(shades.permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(load_model(spec).prepare(shades[None] / 255), want, rtol=1e-4, atol=1e-5)


def test_objects_and_folders_without_a_processor(tmp_path: Path) -> None:
    model = vit()
    x = torch.rand(2, 3, 16, 16)
    for loaded in (load_model(model), load_model(saved(model, tmp_path))):
        torch.testing.assert_close(loaded(x), model(x).logits)
        assert "inputs go in as they are" in loaded.notes[0]


def test_weights_saved_in_half_precision_are_computed_in_float32(tmp_path: Path) -> None:
    model = vit().half()
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(load_model(saved(model, tmp_path))(x), model.float()(x).logits)


def test_waveforms() -> None:
    config = hub.Wav2Vec2Config(
        **SMALL, conv_dim=(8, 8), conv_stride=(4, 2), conv_kernel=(8, 4), num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, num_feat_extract_layers=2, classifier_proj_size=8,
    )  # fmt: skip
    model = hub.Wav2Vec2ForSequenceClassification(config).eval()
    loaded = load_model(model)
    assert isinstance(loaded, Waveforms)
    x = torch.randn(2, 400) * 3 + 1
    normal = (x - x.mean(1, True)) / (x.var(1, correction=0, keepdim=True) + 1e-7).sqrt()
    torch.testing.assert_close(loaded(x), model(input_values=normal).logits)
    spectral = hub.ASTForAudioClassification(hub.ASTConfig(**SMALL, num_mel_bins=16, max_length=32))
    with pytest.raises(InputError, match="ASTForAudioClassification takes log-mel"):
        load_model(spectral)


def test_texts_by_their_embeddings() -> None:
    model = bert()
    loaded = load_model(model)
    assert isinstance(loaded, Embedded)
    ids, mask = torch.tensor([[5, 6, 7, 8], [9, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    x = loaded.embed(ids, mask).detach().requires_grad_()
    torch.testing.assert_close(loaded(x), model(input_ids=ids, attention_mask=mask).logits)
    (slope,) = torch.autograd.grad(loaded(x)[:, 0].sum(), x)
    assert not slope[1, 2:].any()
    assert bool(slope[0, :, :16].any(1).all())


def test_texts_that_answer_otherwise_to_embeddings() -> None:
    config = hub.GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, num_labels=3, pad_token_id=0)
    with pytest.raises(ModelError, match="GPT2ForSequenceClassification answers otherwise to embeddings"):
        load_model(hub.GPT2ForSequenceClassification(config).eval())


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        load_model(f"hf:{tmp_path / 'nowhere'}")
    spec = saved(bert(), tmp_path / "bin")
    torch.save(bert().state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "bin" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds pytorch_model\.bin, and no safetensors.*a pickle"):
        load_model(spec)
    spec = saved(bert(), tmp_path / "headless")
    held = load_file(tmp_path / "headless" / "model.safetensors")
    del held["classifier.weight"]
    save_file(held, tmp_path / "headless" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights of BertForSequenceClassification \(classifier\.weight\)"):
        load_model(spec)
    plain = hub.BertModel(hub.BertConfig(vocab_size=30, **SMALL))
    with pytest.raises(InputError, match="holds BertModel, which is no classifier"):
        load_model(saved(plain, tmp_path / "plain"))
    ran = tmp_path / "ran"
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "c.C"}}))
    (own / "c.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).mkdir()\n")
    with pytest.raises(InputError, match="not run"):
        load_model(f"hf:{own}")
    assert not ran.exists()
    odd = {"include_top": True, "image_mean": MEAN, "image_std": STD}
    with pytest.raises(InputError, match="include_top"):
        load_model(saved(vit(), tmp_path / "odd", **odd))


def test_trained_weights_are_the_models_own() -> None:
    model = vit()
    loaded = load_model(model)
    F.cross_entropy(loaded(torch.rand(2, 3, 16, 16)), torch.tensor([0, 1])).backward()
    assert all(isinstance(p.grad, torch.Tensor) for p in model.classifier.parameters())
    assert isinstance(loaded.net, nn.Module)
    assert loaded.net is model
