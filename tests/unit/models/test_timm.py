"""timm's networks, with a stand-in for timm, which these tests do not need; the real one is asked in tests/bridge."""

import sys
import types
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from adamant.errors import InputError, MissingExtraError
from adamant.models import load_model
from adamant.models.wrap import Normalised

X = torch.rand(2, 3, 4, 4)


class Net(nn.Sequential):
    def __init__(self, num_classes: int = 5) -> None:
        super().__init__(nn.Flatten(), nn.Linear(48, num_classes))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in, data = types.ModuleType("timm"), types.ModuleType("timm.data")
    vars(data)["resolve_model_data_config"] = lambda net: {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    vars(stand_in).update(
        data=data, is_model=lambda name: name == "tiny", list_models=lambda: ["tiny"],
        create_model=lambda name, pretrained, **more: Net(**more),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    monkeypatch.setattr(Net, "__module__", "timm.models.tiny")


@pytest.mark.usefixtures("timm")
def test_networks_by_name_and_objects(tmp_path: Path) -> None:
    net = Net(7)
    safetensors.torch.save_file(net.state_dict(), tmp_path / "w.safetensors")
    want = net((X - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1))
    spec = f"timm:tiny@{tmp_path / 'w.safetensors'}"
    for loaded in (load_model(spec, classes=7), load_model(net)):
        assert isinstance(loaded, Normalised)
        torch.testing.assert_close(loaded(X), want)
        assert "timm has trained Net with mean (0.5, 0.4, 0.3)" in loaded.notes[0]
    torch.testing.assert_close(load_model(net, mean=(0.0,), std=(1.0,))(X), net(X))
    with pytest.raises(InputError, match="no network 'tinny'; did you mean tiny"):
        load_model(f"timm:tinny@{tmp_path / 'w.safetensors'}")
    with pytest.raises(InputError, match="downloads nothing"):
        load_model("timm:tiny")


def test_without_timm_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.data", None)
    safetensors.torch.save_file(Net().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(MissingExtraError, match=r"pip install adamant\[timm\]"):
        load_model(f"timm:tiny@{tmp_path / 'w.safetensors'}")
