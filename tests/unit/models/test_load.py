"""load_model and save_model: what is accepted, what is refused, and with which words."""

import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from adamant.errors import InputError, MissingExtraError, ModelError, RunError
from adamant.models import Architecture, as_logits, build, load_model, save_model
from adamant.models.wrap import LogOfProbabilities, Normalised

SHAPE = (1, 8, 8)
ARCH = Architecture(name="zoo:cnn", shape=SHAPE, classes=10)
X = torch.linspace(0, 1, 3 * 64).view(3, *SHAPE)


def net(seed: int = 1) -> nn.Module:
    return build("cnn", shape=SHAPE, classes=10, seed=seed).eval()


def test_a_module_comes_back_in_eval_mode() -> None:
    given = net().train()
    assert load_model(given) is given
    assert not given.training


def test_a_function_becomes_a_module() -> None:
    model = load_model(lambda x: x.flatten(1)[:, :2])
    assert isinstance(model, nn.Module)
    assert torch.equal(model(X), X.flatten(1)[:, :2])


def test_the_normalisation_is_inside() -> None:
    model = load_model(net(), mean=(0.5,), std=(0.25,))
    assert torch.equal(model(X), net()((X - 0.5) / 0.25))
    colour = Normalised(nn.Flatten(), (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    x = torch.ones(2, 3, 2, 2)
    wanted = torch.tensor([0.9, 0.4, 0.175]).repeat_interleave(4).expand(2, -1)
    assert torch.allclose(colour(x), wanted)


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ((0.5,), None, "mean has 1 numbers and std has 0"),
        ((0.5, 0.5), (1.0,), "mean has 2 numbers and std has 1"),
        ((0.5,), (0.0,), r"std is \(0.0,\)"),
    ],
)
def test_a_bad_normalisation_is_named(mean: tuple[float, ...], std: tuple[float, ...] | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_model(net(), mean=mean, std=std)


def test_a_normalisation_for_other_channels_is_named() -> None:
    with pytest.raises(ModelError, match=r"3 channels and the input has shape \(3, 1, 8, 8\)"):
        load_model(net(), mean=(0.1, 0.2, 0.3), std=(1, 1, 1))(X)


@pytest.mark.parametrize("mean", [(), (0.1307,)])
def test_saved_models_explain_themselves(tmp_path: Path, mean: tuple[float, ...]) -> None:
    std = (0.3081,) if mean else ()
    arch = Architecture(name="zoo:cnn", shape=SHAPE, classes=10, mean=mean, std=std)
    model = load_model(net(), mean=mean or None, std=std or None)
    save_model(model, tmp_path / "deep" / "m.safetensors", architecture=arch)
    loaded = load_model(tmp_path / "deep" / "m.safetensors")
    assert torch.equal(loaded(X), model(X))
    assert not loaded.training
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["m.safetensors"]  # nothing unfinished is left


def test_an_architecture_is_its_repr() -> None:
    arch = Architecture(name="zoo:cnn", shape=SHAPE, classes=10, mean=(0.5,), std=(0.5,))
    assert eval(repr(arch)) == arch


def test_saving_takes_off_what_as_logits_put_on(tmp_path: Path) -> None:
    inner = net()
    save_model(LogOfProbabilities(inner), tmp_path / "m.safetensors", architecture=ARCH)
    assert torch.equal(load_model(tmp_path / "m.safetensors")(X), inner(X))


def test_float64_weights_keep_their_bits(tmp_path: Path) -> None:
    save_model(net().double(), tmp_path / "m.safetensors", architecture=ARCH)
    loaded = load_model(tmp_path / "m.safetensors")
    assert torch.equal(loaded(X.double()), net().double()(X.double()))


def test_a_normalisation_that_the_architecture_forgets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mean \(0.5,\)"):
        save_model(load_model(net(), mean=(0.5,), std=(0.5,)), tmp_path / "m.safetensors", architecture=ARCH)


def test_weights_of_another_network_are_not_saved(tmp_path: Path) -> None:
    other = Architecture(name="zoo:small-cnn", shape=SHAPE, classes=10)
    with pytest.raises(ModelError, match="small-cnn"):
        save_model(net(), tmp_path / "m.safetensors", architecture=other)
    assert not list(tmp_path.iterdir())


def test_only_safetensors_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.pt"):
        save_model(net(), tmp_path / "m.pt", architecture=ARCH)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save_model(net(1), path, architecture=ARCH)

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunError, match="No space left"):
        save_model(net(2), path, architecture=ARCH)
    assert torch.equal(load_model(path)(X), net(1)(X))
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_saved_model_refuses_other_data(tmp_path: Path) -> None:
    save_model(net(), tmp_path / "m.safetensors", architecture=ARCH)
    with pytest.raises(InputError, match=r"shape \(1, 8, 8\) and 10 classes"):
        load_model(tmp_path / "m.safetensors", shape=(3, 32, 32), classes=10)


@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_state_dicts_load_as_people_write_them(tmp_path: Path, nest, prefix: str) -> None:
    state = {prefix + k: v for k, v in net().state_dict().items()}
    torch.save(nest(state), tmp_path / "m.pth")
    loaded = load_model(tmp_path / "m.pth", arch="zoo:cnn", shape=SHAPE, classes=10)
    assert torch.equal(loaded(X), net()(X))
    assert not loaded.training


def test_plain_safetensors_need_arch(tmp_path: Path) -> None:
    safetensors.torch.save_file(net().state_dict(), tmp_path / "m.safetensors")
    assert torch.equal(
        load_model(tmp_path / "m.safetensors", arch="zoo:cnn", shape=SHAPE, classes=10)(X),
        net()(X),
    )
    with pytest.raises(InputError, match=r"m\.safetensors holds weights alone.*--arch"):
        load_model(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"zoo:cnn is built to measure: give shape"):
        load_model(tmp_path / "m.safetensors", arch="zoo:cnn")


def test_a_pickled_module_is_refused_and_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(ran),)

    torch.save(net(), tmp_path / "whole.pt")
    torch.save({"state_dict": net().state_dict(), "more": Bomb()}, tmp_path / "bomb.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Bomb()))
    for name in ("whole.pt", "bomb.pt", "old.pt"):
        with pytest.raises(ModelError, match=r"can run any code") as caught:
            load_model(tmp_path / name, arch="zoo:cnn", shape=SHAPE, classes=10)
        words = str(caught.value)
        assert name in words
        assert "torch.export" in words
        assert "--arch" in words
    assert not ran.exists()


def test_misfits_are_listed_at_most_five(tmp_path: Path) -> None:
    state = net().state_dict()
    state["0.weight"] = torch.zeros(2, 2)
    state["extra"] = torch.zeros(1)
    del state["7.bias"]
    safetensors.torch.save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="does not fit zoo:cnn") as caught:
        load_model(tmp_path / "m.safetensors", arch="zoo:cnn", shape=SHAPE, classes=10)
    words = str(caught.value)
    assert "missing 7.bias" in words
    assert "unexpected extra" in words
    assert "0.weight is (2, 2), not (16, 1, 4, 4)" in words
    with pytest.raises(ModelError, match=r"and \d+ more"):
        load_model(tmp_path / "m.safetensors", arch="zoo:wrn-16-4", shape=SHAPE, classes=10)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.pt", "a.pt2"):
        (tmp_path / name).write_bytes(b"not a model at all")
        with pytest.raises((InputError, ModelError), match=name):
            load_model(tmp_path / name, arch="zoo:cnn", shape=SHAPE, classes=10)
        with pytest.raises(InputError, match=rf"no file .*b{name[1:]}; did you mean {name}"):
            load_model(tmp_path / f"b{name[1:]}")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt holds a list"):
        load_model(tmp_path / "list.pt", arch="zoo:cnn", shape=SHAPE, classes=10)
    torch.save({"lr": 0.1}, tmp_path / "lr.pt")
    with pytest.raises(InputError, match=r"'lr' is a float"):
        load_model(tmp_path / "lr.pt", arch="zoo:cnn", shape=SHAPE, classes=10)
    (tmp_path / "m.tflite").write_bytes(b"")
    with pytest.raises(InputError, match=r"m\.tflite is not a kind of file"):
        load_model(tmp_path / "m.tflite")


def test_metadata_of_others_is_named(tmp_path: Path) -> None:
    safetensors.torch.save_file(net().state_dict(), tmp_path / "m.safetensors", {"adamant.architecture": "{}"})
    with pytest.raises(InputError, match=r"m\.safetensors carries cannot be read"):
        load_model(tmp_path / "m.safetensors")


def test_zoo_names_need_a_shape() -> None:
    with pytest.raises(InputError, match="zoo:cnn is untrained and built to measure: give shape"):
        load_model("zoo:cnn")
    assert not load_model("zoo:cnn", shape=SHAPE, classes=3).training
    with pytest.raises(InputError, match="Did you mean zoo:small-cnn"):
        load_model("small-cnn")


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 10)
    def forward(self, x):
        return self.inner(x.flatten(1))

made = Net()
number = 3
def factory():
    return Net()
def function():
    return lambda x: x.flatten(1)[:, :2]
def nothing():
    return None
def needs(argument):
    return Net()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine_adamant_test.py").write_text(MODULE)
    (tmp_path / "broken_adamant_test.py").write_text("raise ValueError('no weights today')")
    (tmp_path / "needy_adamant_test.py").write_text("import surely_not_installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("mine", "broken", "needy"):
        monkeypatch.delitem(sys.modules, f"{name}_adamant_test", raising=False)
    return tmp_path


def test_models_import_from_the_current_directory(here: Path) -> None:
    path, state = list(sys.path), torch.get_rng_state()
    for name in ("made", "factory", "Net"):
        model = load_model(f"mine_adamant_test:{name}")
        assert model(X).shape == (3, 10)
        assert not model.training
    assert load_model("mine_adamant_test:function")(X).shape == (3, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.path == path
    torch.save(load_model("mine_adamant_test:made").state_dict(), here / "m.pt")
    for name in ("Net", "factory"):
        again = load_model("m.pt", arch=f"mine_adamant_test:{name}")
        assert torch.equal(again(X), load_model("mine_adamant_test:made")(X))


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        ("mine_adamant_test:factori", InputError, "did you mean factory"),
        ("mine_adamant_test:number", InputError, "is a int"),
        ("mine_adamant_test:nothing", ModelError, "returned a NoneType"),
        ("mine_adamant_test:needs", ModelError, "missing 1 required positional argument"),
        ("not_there_at_all:make", InputError, "no Python module 'not_there_at_all'"),
        ("broken_adamant_test:make", ModelError, "ValueError: no weights today"),
        ("needy_adamant_test:make", ModelError, "itself imports 'surely_not_installed'"),
    ],
)
def test_bad_imports_are_named(here: Path, spec: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        load_model(spec)


def test_without_torchvision_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.torch.save_file(net().state_dict(), tmp_path / "m.safetensors")
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MissingExtraError, match=r"pip install adamant\[torchvision\]"):
        load_model(f"torchvision:resnet18@{tmp_path / 'm.safetensors'}")


def test_without_keras_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as made:
        made.writestr("config.json", '{"class_name": "Sequential", "config": {}}')
        made.writestr("metadata.json", '{"keras_version": "3.10.0"}')
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingExtraError, match=r"pip install adamant\[keras\]"):
        load_model(tmp_path / "m.keras")


@pytest.mark.parametrize("tail", ["", "@", "@gone.pth", "@gone"])
def test_torchvision_takes_local_weights_only(tail: str) -> None:
    with pytest.raises(InputError, match="downloads nothing"):
        load_model(f"torchvision:resnet18{tail}")


def test_torchvision_networks_take_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torchvision: the real one is an extra that these tests do not need."""
    stand_in = types.ModuleType("torchvision.models")
    stand_in.list_models = lambda: ["resnet18", "vgg11"]  # pyright: ignore[reportAttributeAccessIssue]
    stand_in.get_model = lambda name, *, weights, num_classes=10: net(0)  # pyright: ignore[reportAttributeAccessIssue]
    ways = [types.SimpleNamespace(mean=[0.5], std=[0.25]), types.SimpleNamespace(mean=(0.5,), std=(0.25,))]
    entries = [types.SimpleNamespace(transforms=lambda way=way: way) for way in ways]
    stand_in.get_model_weights = lambda name: entries  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", stand_in)
    torch.save(net(4).state_dict(), tmp_path / "w.pth")
    spec = f"torchvision:resnet18@{tmp_path / 'w.pth'}"
    loaded = load_model(spec)
    assert torch.equal(loaded(X), net(4)((X - 0.5) / 0.25))
    assert "torchvision has trained" in as_logits(loaded, X)[1][0]
    assert torch.equal(load_model(spec, mean=(0.0,), std=(1.0,))(X), net(4)(X))
    assert torch.equal(load_model(spec, classes=10)(X), net(4)(X))  # a head of one's own: trained who knows how
    ways[1].mean = (0.4,)
    assert torch.equal(load_model(spec)(X), net(4)(X))  # torchvision's own weights differ in it
    with pytest.raises(InputError, match="did you mean resnet18"):
        load_model(f"torchvision:resnet19@{tmp_path / 'w.pth'}")


@pytest.mark.parametrize(("spec", "package"), [("m.onnx", "onnx"), ("hf:folder", "huggingface")])
def test_without_a_framework_the_extra_is_named(
    spec: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, {"huggingface": "transformers"}.get(package, package), None)
    with pytest.raises(MissingExtraError, match=rf"^{spec} needs .*pip install adamant\[{package}\]"):
        load_model(spec)
