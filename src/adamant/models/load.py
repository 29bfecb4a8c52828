"""load_model: from what a person writes (a name, a file, a module) to a torch module in eval mode."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from adamant.errors import AdamantError, InputError, ModelError
from adamant.files import sha256
from adamant.models.architecture import Architecture, from_json
from adamant.models.exported import load_exported
from adamant.models.state import fit, read_safetensors, read_torch
from adamant.models.torchvision import build_torchvision
from adamant.models.wrap import Exported, Function, Normalised
from adamant.models.zoo import ZOO, build
from adamant.random import sealed

_WEIGHTS = (".safetensors", ".pt", ".pth")
_IMPORTABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_FORMS = (
    "a file (.pt2, .safetensors, .pt, .pth), zoo:NAME, torchvision:NAME@WEIGHTS, package.module:callable, "
    "or a torch module"
)


def load_model(
    spec: str | Path | nn.Module | Callable[..., Any],
    *,
    arch: str | None = None,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Load a model, in eval mode, with the normalisation `(x - mean) / std` inside it where mean and std are given.

    `spec` is a torch module or a function from inputs to logits; an exported program (.pt2); weights (.safetensors,
    or a state dict in .pt or .pth) with `arch` naming the network ("zoo:cnn" or "package.module:callable"; files of
    `save_model` name it themselves); "zoo:NAME", which is untrained; "torchvision:NAME@WEIGHTS", WEIGHTS a local file;
    or "package.module:callable", a module or what builds one, importable from the current directory.
    `shape` (of one input, without the batch) and `classes` are for networks of the zoo. Nothing is ever downloaded.
    Raises `InputError` for a spec that names nothing, `ModelError` for weights that do not fit or an unsafe file.
    """
    if isinstance(spec, nn.Module):
        net, own = spec, None
    elif callable(spec):
        net, own = Function(spec), None
    else:
        net, own = _load(str(spec), arch, shape, classes)
    if own is not None and mean is None and std is None:
        mean, std = own.mean, own.std
    net = _evaluating(net)
    if mean or std:
        net = Normalised(net, tuple(mean or ()), tuple(std or ())).eval()
    return net


def kept_model(path: str, device: str) -> nn.Module:
    """The model in a file that explains itself, frozen and in eval mode; read once for each state of the file.

    Raises OSError where there is no such file, and what `load_model` raises.
    """
    return _kept(path, sha256(path), device)


@lru_cache(maxsize=4)
def _kept(path: str, _sha256: str, device: str) -> nn.Module:
    return load_model(path).to(device).eval().requires_grad_(False)


def _evaluating(net: nn.Module) -> nn.Module:
    try:
        return net.eval()
    except NotImplementedError:  # an exported program, handed over as a module
        return Exported(net)


def _load(
    spec: str, arch: str | None, shape: tuple[int, ...] | None, classes: int | None
) -> tuple[nn.Module, Architecture | None]:
    if spec.startswith("zoo:"):
        return _network(spec, shape, classes, why=f"{spec} is untrained and built to measure"), None
    if spec.startswith("torchvision:"):
        return _torchvision(spec, classes), None
    path = Path(spec)
    if path.suffix in (*_WEIGHTS, ".pt2"):
        return _file(path, arch, shape, classes)
    if _IMPORTABLE.fullmatch(spec):
        return _imported(spec), None
    if path.exists():
        raise InputError(f"{spec} is not a kind of file that adamant reads; give {_FORMS}.")
    near = difflib.get_close_matches(spec, [e.name for e in ZOO], n=1, cutoff=0.6)
    hint = f" Did you mean zoo:{near[0]}?" if near else ""
    raise InputError(f"There is no model {spec!r}; give {_FORMS}.{hint}")


def _file(
    path: Path, arch: str | None, shape: tuple[int, ...] | None, classes: int | None
) -> tuple[nn.Module, Architecture | None]:
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path()
        near = difflib.get_close_matches(path.name, [p.name for p in folder.iterdir()], n=3)
        raise InputError(f"There is no file {path}" + (f"; did you mean {' or '.join(near)}?" if near else "."))
    if path.suffix == ".pt2":
        return load_exported(path), None
    tensors, text = read_safetensors(path) if path.suffix == ".safetensors" else (read_torch(path), None)
    own = from_json(text, source=str(path)) if text and arch is None else None
    if own:
        _agree(path, own, shape, classes)
        arch, shape, classes = own.name, own.shape, own.classes
    if arch is None:
        raise InputError(
            f"{path} holds weights alone; say which network they belong to with arch (--arch), for example "
            'arch="zoo:cnn" or arch="my_package.my_module:MyNet".'
        )
    if arch.startswith("torchvision:"):
        net = build_torchvision(arch.removeprefix("torchvision:"), classes)
    else:
        net = _network(arch, shape, classes, why=f"{arch} is built to measure")
    fit(net, tensors, path=path, arch=arch)
    return net, own


def _agree(path: Path, own: Architecture, shape: tuple[int, ...] | None, classes: int | None) -> None:
    if shape not in (None, own.shape) or classes not in (None, own.classes):
        raise InputError(
            f"{path} was saved for inputs of shape {own.shape} and {own.classes} classes, you ask for shape {shape} "
            f"and {classes} classes; leave them out, or take data that match."
        )


def _network(arch: str, shape: tuple[int, ...] | None, classes: int | None, *, why: str) -> nn.Module:
    if _IMPORTABLE.fullmatch(arch) and not arch.startswith("zoo:"):
        return _imported(arch)
    if shape is None or classes is None:
        raise InputError(f"{why}: give shape (of one input, such as (1, 28, 28)) and classes.")
    return build(arch, shape=shape, classes=classes)


def _torchvision(spec: str, classes: int | None) -> nn.Module:
    name, at, weights = spec.removeprefix("torchvision:").partition("@")
    path = Path(weights)
    if not at or path.suffix not in _WEIGHTS or not path.is_file():
        what = f"the file {weights!r} is not there or is no weights file" if at else "it names no weights"
        raise InputError(
            f"{spec}: {what}; adamant downloads nothing, so give a local file: torchvision:{name}@weights.safetensors "
            "(or .pth, a state dict)."
        )
    tensors = read_safetensors(path)[0] if path.suffix == ".safetensors" else read_torch(path)
    net = build_torchvision(name, classes)
    fit(net, tensors, path=path, arch=f"torchvision:{name}")
    return net


@contextmanager
def _current_directory() -> Generator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _imported(spec: str) -> nn.Module:
    """A module, or what the named factory returns; a fixed seed keeps torch's generator as it was."""
    name, _, attribute = spec.partition(":")
    with _current_directory(), sealed(0):
        found = _attribute(spec, _module(spec, name), attribute)
        if isinstance(found, nn.Module):
            return found
        if not callable(found):
            raise InputError(
                f"{spec} is a {type(found).__name__}; name a torch module, or a function that returns one."
            )
        try:
            made = found()
        except AdamantError:
            raise
        except Exception as error:
            raise ModelError(
                f"{spec}() raised {type(error).__name__}: {error}; "
                "it is called without arguments and must return a model."
            ) from error
    if isinstance(made, nn.Module):
        return made
    if callable(made):
        return Function(made)
    raise ModelError(f"{spec}() returned a {type(made).__name__}; it must return a torch module.")


def _module(spec: str, name: str) -> Any:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"{spec}: there is no Python module {name!r} in {Path.cwd()} or among the installed."
            ) from error
        raise ModelError(f"{spec}: {name} itself imports {error.name!r}, which is not installed.") from error
    except Exception as error:
        raise ModelError(f"{spec}: importing {name} raised {type(error).__name__}: {error}.") from error


def _attribute(spec: str, module: Any, attribute: str) -> Any:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise InputError(f"{spec}: {module.__name__} has no {part!r}{hint}")
        found = getattr(found, part)
    return found
