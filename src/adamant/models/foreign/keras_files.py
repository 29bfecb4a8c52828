"""Files of Keras models: looked into before Keras opens them, and those of Keras 2 put into the words of Keras 3."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from adamant.errors import AdamantError, InputError, MissingExtraError, ModelError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_WEIGHTS = "model.weights.h5"
_CODE = ("Lambda", "__lambda__")
# What Keras 2 wrote of a layer and Keras 3 does not take; "groups" was always one.
_GONE = {
    "DepthwiseConv1D": ("groups",),
    "DepthwiseConv2D": ("groups",),
    "Conv1DTranspose": ("groups",),
    "Conv2DTranspose": ("groups",),
    "Conv3DTranspose": ("groups",),
    "SeparableConv1D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "InputLayer": ("ragged",),
    "SimpleRNN": ("time_major",),
    "LSTM": ("time_major", "implementation"),
    "GRU": ("time_major", "implementation"),
    "BatchNormalization": ("renorm", "renorm_clipping", "renorm_momentum", "fused", "virtual_batch_size", "adjustment"),
}


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a file says of its model: how to build it, and by which Keras it was written."""

    path: Path
    zipped: bool  # a .keras archive; else HDF5, whatever its suffix
    version: str
    legacy: bool  # by one before Keras 3
    config: dict[str, Any]  # in the words of Keras 3, without how the model was trained

    def classes(self) -> Iterator[tuple[str, str]]:
        """Every class that the model is made of, by module and name; the module is "" where none is named."""
        for node in _nodes(self.config):
            if "module" in node:
                yield str(node["module"] or ""), str(node.get("registered_name") or node["class_name"])
            elif isinstance(node["config"], dict):
                yield "", str(node["class_name"])

    def refuse_code(self) -> None:
        """Raise ModelError where the file carries code, which would run when the model is built."""
        if any(node["class_name"] in _CODE for node in _nodes(self.config)):
            raise ModelError(
                f"{self.path} holds a Lambda layer, whose code would run while it is loaded, so adamant does not open "
                "it; where you trust the file, say so: trust=True (--trust)."
            )


def described(path: Path) -> Described:
    """Look into a file without building anything; raises InputError or ModelError for what is no whole Keras model."""
    with path.open("rb") as file:
        lead = file.read(8)
    try:
        if lead == _HDF5:
            return _of_hdf5(path)
        if lead.startswith(b"PK"):
            return _of_archive(path)
    except AdamantError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is cut short, or is no model of Keras ({error}): save the model with model.save('model.keras')."
        ) from error
    if lead.startswith(b"\x80"):
        raise ModelError(
            f"{path} is a pickle, which can run any code while it is loaded, so adamant does not open it: load it "
            "yourself and save the model with model.save('model.keras')."
        )
    raise InputError(f"{path} is no Keras file, neither a .keras archive nor HDF5: save the model with model.save.")


def _of_archive(path: Path) -> Described:
    with zipfile.ZipFile(path) as archive:
        config = {k: v for k, v in json.loads(archive.read("config.json")).items() if k != "compile_config"}
        version = str(json.loads(archive.read("metadata.json"))["keras_version"])
    return _told(path, version, config, zipped=True)


def _of_hdf5(path: Path) -> Described:
    with h5py().File(path, "r") as file:
        text, version = (file.attrs.get(name) for name in ("model_config", "keras_version"))
    if text is None:
        raise InputError(
            f"{path} holds weights alone, without the model that they belong to: build it in Python, call "
            "model.load_weights, and name the function that does so: package.module:function."
        )
    return _told(path, _text(version or ""), json.loads(_text(text)), zipped=False)


def _told(path: Path, version: str, config: dict[str, Any], *, zipped: bool) -> Described:
    legacy = version.partition(".")[0] in ("", "0", "1", "2")
    config = _modern(config) if legacy else config
    return Described(path=path, zipped=zipped, version=version, legacy=legacy, config=config)


def h5py() -> Any:
    """What reads HDF5, and comes with Keras."""
    try:
        return cast(Any, import_module("h5py"))
    except ImportError as error:
        raise MissingExtraError(f"Files of Keras need Keras ({error}): pip install adamant[keras].") from error


@contextmanager
def readable(held: Described) -> Generator[Path]:
    """A path that Keras 3 opens: the file's own, or that of a copy in its words and of its suffix, for a while."""
    suffixes = (".keras",) if held.zipped else (".h5", ".hdf5")
    if not held.legacy and held.path.suffix in suffixes:
        yield held.path
        return
    words = json.dumps(held.config)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"model{suffixes[0]}"
        if not held.legacy:
            shutil.copyfile(held.path, path)
        elif held.zipped:
            _copy(held.path, path, words)
        else:
            shutil.copyfile(held.path, path)
            with h5py().File(path, "r+") as file:
                file.attrs["model_config"] = words
        yield path


def _copy(path: Path, to: Path, words: str) -> None:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        new.writestr("metadata.json", old.read("metadata.json"))
        new.writestr("config.json", words)
        weights = Path(old.extract(_WEIGHTS, to.parent))
        with h5py().File(weights, "r+") as file:
            _rename(file)
        new.write(weights, _WEIGHTS)


def _rename(group: Any) -> None:
    """Put the weights of layers where Keras 3 looks for them: before TensorFlow 2.16 they were elsewhere."""
    if "_layer_checkpoint_dependencies" in group:
        group.move("_layer_checkpoint_dependencies", "layers")
    for held in group.values():
        if hasattr(held, "values"):
            _rename(held)


def _modern(node: Any) -> Any:
    """A configuration of Keras 2 as Keras 3 reads it."""
    if isinstance(node, list):
        return [_modern(inner) for inner in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    node = {key: _modern(value) for key, value in cast(dict[str, Any], node).items()}
    kind, config = node.get("class_name"), node.get("config")
    if kind in ("Functional", "Model") and isinstance(config, dict):
        node |= {"module": "keras.src.models.functional", "class_name": "Functional"}
    elif kind == "Sequential":
        node["module"] = "keras"
    if kind and isinstance(config, dict):
        node["config"] = _settings(str(kind), cast(dict[str, Any], config))
        if kind in ("Functional", "Model"):
            _count_calls(node["config"])
    return node


def _count_calls(graph: dict[str, Any]) -> None:
    """Count the calls of each layer from 0: Keras 2 counts one more of a model within the model, its own making."""
    for layer in graph["layers"]:
        calls = [link for other in graph["layers"] for link in _links(other["inbound_nodes"], layer["name"])]
        calls += _links(graph["output_layers"], layer["name"])
        spare = max((link[1] for link in calls), default=0) - max(len(layer["inbound_nodes"]) - 1, 0)
        for link in calls if spare > 0 else ():
            link[1] -= spare


def _links(held: Any, name: str) -> Iterator[list[Any]]:
    """Every [name, call, tensor, ...] in nested lists."""
    if isinstance(held, list):
        if held[:1] == [name] and len(cast(list[Any], held)) > 2 and isinstance(held[1], int):
            yield held
        else:
            for inner in cast(list[Any], held):
                yield from _links(inner, name)


def _settings(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in config.items() if key not in _GONE.get(kind, ())}
    shape = config.pop("batch_input_shape", None)
    if kind == "InputLayer" and shape is not None:
        config["batch_shape"] = shape
    if isinstance(policy := config.get("dtype"), dict):
        config["dtype"] = policy["config"]["name"]
    if isinstance(axis := config.get("axis"), list) and len(cast(list[Any], axis)) == 1:
        config["axis"] = axis[0]
    return config


def missing(held: Described, known: Callable[[str, str], bool]) -> list[str]:
    """The names of the classes that Keras does not know, each once."""
    return list(dict.fromkeys(name for module, name in held.classes() if not known(module, name)))


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every dict of the configuration that describes an object."""
    if isinstance(node, dict):
        node = cast(dict[str, Any], node)
        if "class_name" in node and "config" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in cast(list[Any], node):
            yield from _nodes(inner)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
