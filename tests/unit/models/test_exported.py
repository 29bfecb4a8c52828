"""Exported programs: they load with their mode fixed, and what would run code on loading is refused."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adamant.errors import ModelError
from adamant.models import as_logits, load_model
from adamant.models.wrap import Exported

X = torch.linspace(0, 1, 3 * 64).view(3, 1, 8, 8)


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def export(path: Path, *, free: bool) -> nn.Module:
    model = WithDropout().eval()
    shapes = ({0: torch.export.Dim("n")},) if free else None
    torch.export.save(torch.export.export(model, (X[:2],), dynamic_shapes=shapes), path)
    return model


def test_exported_programs_load_and_their_mode_stays(tmp_path: Path) -> None:
    model = export(tmp_path / "m.pt2", free=True)
    loaded = load_model(tmp_path / "m.pt2")
    assert torch.equal(loaded(X), model(X))
    assert not any(m.training for m in loaded.modules())
    loaded.train()
    assert torch.equal(loaded(X), model(X))  # dropout stays off
    loaded.eval()
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loaded(x).sum(), x)
    assert gradient.abs().sum() > 0
    assert as_logits(loaded, X) == (loaded, ())
    program = torch.export.load(tmp_path / "m.pt2").module()
    assert isinstance(load_model(program), Exported)


def test_a_fixed_batch_size_is_explained(tmp_path: Path) -> None:
    export(tmp_path / "m.pt2", free=False)
    loaded = load_model(tmp_path / "m.pt2")
    assert loaded(X[:2]).shape == (2, 10)
    with pytest.raises(ModelError, match=r"input of shape \(3, 1, 8, 8\).*free batch size"):
        loaded(X)


def rewritten(source: Path, target: Path, change) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@pytest.mark.parametrize(
    ("entry", "old", "new", "words"),
    [
        ("weights_config.json", b'"use_pickle": false', b'"use_pickle": true', "a pickled tensor"),
        ("models/model.json", b"torch.ops.aten.linear.default", b"torch.hub.load", "a call of 'torch.hub.load'"),
        ("models/model.json", b"positive=True, integer=True)", b"positive=open)", "the expression"),
        ("models/model.json", b'"guards_code": []', b'"guards_code": ["__import__(1)"]', "the guard '__import__"),
    ],
)
def test_programs_that_would_run_code_are_refused(
    tmp_path: Path, entry: str, old: bytes, new: bytes, words: str
) -> None:
    export(tmp_path / "good.pt2", free=True)

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(entry):
            return content
        assert old in content
        return content.replace(old, new)

    rewritten(tmp_path / "good.pt2", tmp_path / "bad.pt2", change)
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path / "bad.pt2")


def test_pickles_inside_a_program_are_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(ran),)

    torch.save(Bomb(), tmp_path / "bomb")
    export(tmp_path / "good.pt2", free=True)
    bomb = (tmp_path / "bomb").read_bytes()
    rewritten(tmp_path / "good.pt2", tmp_path / "bad.pt2", lambda n, c: bomb if n.endswith("inputs/model.pt") else c)
    with pytest.raises(ModelError, match="sample inputs that are not tensors"):
        load_model(tmp_path / "bad.pt2")
    with zipfile.ZipFile(tmp_path / "good.pt2", "a") as archive:
        archive.writestr("good/data/aotinductor/model/run.so", b"")
    with pytest.raises(ModelError, match=r"run\.so"):
        load_model(tmp_path / "good.pt2")
    assert not ran.exists()
