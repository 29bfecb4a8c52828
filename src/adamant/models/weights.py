"""Files of torch weights and programs, and networks by name: from a path to a module."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from adamant.errors import InputError
from adamant.models.architecture import Architecture, from_json
from adamant.models.ask import Ask
from adamant.models.foreign.module import Foreign
from adamant.models.importable import FORM, imported
from adamant.models.state import fit, read_safetensors, read_torch
from adamant.models.timm import build_timm, prepare_timm
from adamant.models.torchvision import build_torchvision, preparation_of
from adamant.models.wrap import Normalised, normalised
from adamant.models.zoo import build

Opener = Callable[[Any], Callable[[Any, Ask], nn.Module] | None]
WEIGHTS = (".safetensors", ".pt", ".pth")


def load_weights(spec: str, ask: Ask, opener: Opener) -> nn.Module:
    """Weights in a file, and the network that the file, or the person, names.

    `opener` says who makes a torch module of an object; the file of one of another framework holds leaves by name.
    """
    path = existing(spec)
    tensors, text = read_safetensors(path) if path.suffix == ".safetensors" else (read_torch(path), None)
    own = from_json(text, source=str(path)) if text and ask.arch is None else None
    if own:
        _agree(path, own, ask)
        ask = Ask(arch=own.name, shape=own.shape, classes=own.classes, mean=ask.mean, std=ask.std)
    if ask.arch is None:
        raise InputError(
            f"{path} holds weights alone; say which network they belong to with arch (--arch), for example "
            'arch="zoo:cnn" or arch="my_package.my_module:MyNet".'
        )
    if ask.arch.startswith("torchvision:"):
        net = build_torchvision(ask.arch.removeprefix("torchvision:"), ask.classes)
    elif ask.arch.startswith("timm:"):
        net = build_timm(ask.arch.removeprefix("timm:"), ask.classes)
    else:
        net = _network(ask.arch, ask, why=f"{ask.arch} is built to measure", opener=opener)
    names = net.names if isinstance(net, Foreign) else {}
    fit(net, {names.get(k, k): v for k, v in tensors.items()}, path=path, arch=ask.arch)
    return Normalised(net, own.mean, own.std) if own and own.mean and not ask.mean else net


def existing(spec: str) -> Path:
    """The path of a file that is there; raises InputError with near names where it is not."""
    path = Path(spec)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path()
        near = difflib.get_close_matches(path.name, [p.name for p in folder.iterdir()], n=3)
        raise InputError(f"There is no file {path}" + (f"; did you mean {' or '.join(near)}?" if near else "."))
    return path


def _agree(path: Path, own: Architecture, ask: Ask) -> None:
    if ask.shape not in (None, own.shape) or ask.classes not in (None, own.classes):
        raise InputError(
            f"{path} was saved for inputs of shape {own.shape} and {own.classes} classes, you ask for shape "
            f"{ask.shape} and {ask.classes} classes; leave them out, or take data that match."
        )


def load_zoo(spec: str, ask: Ask) -> nn.Module:
    """An untrained network of the zoo."""
    return _network(spec, ask, why=f"{spec} is untrained and built to measure", opener=lambda _: None)


def _network(arch: str, ask: Ask, *, why: str, opener: Opener) -> nn.Module:
    if FORM.fullmatch(arch) and not arch.startswith("zoo:"):
        made = imported(arch, lambda held: opener(held) is not None)
        if not isinstance(made, nn.Module) and (open_ := opener(made)):
            made = open_(made, ask)
        if not isinstance(made, nn.Module):
            raise InputError(f"{arch} gives a {type(made).__name__}; weights go into a torch module.")
        return made
    if ask.shape is None or ask.classes is None:
        raise InputError(f"{why}: give shape (of one input, such as (1, 28, 28)) and classes.")
    return build(arch, shape=ask.shape, classes=ask.classes)


def load_torchvision(spec: str, ask: Ask) -> nn.Module:
    """A network of torchvision with weights from a file; with torchvision's own head, its mean and std are inside."""
    name, path, tensors = named_weights(spec, "torchvision:")
    net = build_torchvision(name, ask.classes)
    fit(net, tensors, path=path, arch=f"torchvision:{name}")
    known = None if ask.mean or ask.classes is not None else preparation_of(name)
    return normalised(net, *known, of="torchvision") if known else net


def load_timm(spec: str, ask: Ask) -> nn.Module:
    """A network of timm with weights from a file, and timm's mean and std inside."""
    name, path, tensors = named_weights(spec, "timm:")
    net = build_timm(name, ask.classes)
    fit(net, tensors, path=path, arch=f"timm:{name}")
    return prepare_timm(net, ask)


def named_weights(spec: str, prefix: str) -> tuple[str, Path, dict[str, Tensor]]:
    """The network's name, the file and its tensors in "PREFIX:NAME@WEIGHTS"; raises InputError without a local file."""
    name, at, weights = spec.removeprefix(prefix).partition("@")
    path = Path(weights)
    if not at or path.suffix not in WEIGHTS or not path.is_file():
        what = f"the file {weights!r} is not there or is no weights file" if at else "it names no weights"
        raise InputError(
            f"{spec}: {what}; adamant downloads nothing, so give a local file: {prefix}{name}@weights.safetensors "
            "(or .pth, a state dict)."
        )
    return name, path, read_safetensors(path)[0] if path.suffix == ".safetensors" else read_torch(path)
