"""load_model: from what a person writes (a name, a file, a module) to a torch module in eval mode."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from adamant.errors import InputError, ModelError
from adamant.files import sha256
from adamant.models.ask import Ask
from adamant.models.doors import NAMES, opener
from adamant.models.importable import FORM, imported
from adamant.models.wrap import Exported, Function, Normalised
from adamant.models.zoo import ZOO


def load_model(
    spec: str | Path | Any,
    *,
    arch: str | None = None,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    trust: bool = False,
) -> nn.Module:
    """Load a model, in eval mode, with the normalisation `(x - mean) / std` inside it where mean and std are given.

    `spec` is a model object of any framework that adamant knows, or a function from inputs to logits; an exported
    program (.pt2); a Keras model (.keras, or .h5, of Keras 3 or 2); an ONNX model (.onnx); the folder of a SavedModel;
    weights (.safetensors, or a state dict in .pt or .pth) with `arch` naming the network ("zoo:cnn" or
    "package.module:callable"; files of `save_model` name it themselves); "zoo:NAME", which is untrained;
    "torchvision:NAME@WEIGHTS" or "timm:NAME@WEIGHTS", WEIGHTS a local file; "hf:FOLDER" of Hugging Face; the address of
    a service; or "package.module:callable", a model or what builds one, importable from the current directory. `shape`
    (of one input, without the batch) and `classes` are for networks of the zoo; for models of TensorFlow, JAX and ONNX
    that do not know their shape, it may be that of the data or their own. `trust` lets a file run code that it carries.
    Nothing is ever downloaded.
    Raises `InputError` for a spec that names nothing, `ModelError` for weights that do not fit or an unsafe file.
    """
    ask = Ask(
        arch=arch, shape=shape, classes=classes, mean=tuple(mean or ()), std=tuple(std or ()), trust=trust
    )  # fmt: skip
    net = _evaluating(_named(str(spec), ask) if isinstance(spec, str | Path) else _held(spec, ask))
    return Normalised(net, ask.mean, ask.std).eval() if ask.mean or ask.std else net


def module_of(model: Any) -> nn.Module:
    """A model object of any framework that adamant knows as a torch module; one of torch is as it was."""
    return _held(model, Ask())


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


def _held(spec: Any, ask: Ask, *, of: str = "") -> nn.Module:
    """The module that an object is, or can be made into."""
    if (open_ := opener(spec)) is not None:
        return open_(spec, ask)
    if isinstance(spec, nn.Module):
        return spec
    if callable(spec):
        return Function(spec)
    raise ModelError(
        f"{of or 'The model'} {'returned' if of else 'is'} a {type(spec).__name__}; it must "
        f"{'return' if of else 'be'} a torch module, or a model of a framework that adamant knows."
    )


def _named(spec: str, ask: Ask) -> nn.Module:
    for door in NAMES:
        if door.fits(spec):
            return door.open(spec, ask)
    if FORM.fullmatch(spec):
        return _held(imported(spec, lambda held: opener(held) is not None), ask, of=f"{spec}()")
    forms = (
        f"a file or a name ({', '.join(door.form for door in NAMES if door.form)}), package.module:callable, or a model"
    )
    if Path(spec).exists():
        raise InputError(f"{spec} is not a kind of file that adamant reads; give {forms}.")
    near = difflib.get_close_matches(spec, [e.name for e in ZOO], n=1, cutoff=0.6)
    hint = f" Did you mean zoo:{near[0]}?" if near else ""
    raise InputError(f"There is no model {spec!r}; give {forms}.{hint}")
