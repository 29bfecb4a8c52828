"""Weights files: read tensors without running anything, and fit them into a network or say what does not fit."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from adamant.errors import InputError, ModelError

KEY = "adamant.architecture"
_NESTED = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


def read_safetensors(path: Path, key: str = KEY) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a .safetensors file and the words beside them, such as `save_model` writes, or None."""
    try:
        with safe_open(str(path), framework="pt") as held:
            metadata = cast(dict[str, str], held.metadata() or {})
            names = cast(list[str], held.keys())
            return {name: held.get_tensor(name) for name in names}, metadata.get(key)
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); write it again.") from error


def read_torch(path: Path) -> dict[str, Tensor]:
    """The state dict of a .pt or .pth file, also where it is nested or carries the prefix of a parallel wrapper.

    Raises `ModelError` for a file that holds anything but tensors and containers: such a file could run any code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on TorchScript archives torch warns before it raises
            held = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error)
        if "eights only" in reason or "weights_only" in reason or "Unsupported" in reason:
            raise ModelError(_refusal(path, reason)) from error
        raise InputError(f"{path} cannot be read as a torch file ({_first(reason)}); save it again.") from error
    return _tensors(held, path)


def _refusal(path: Path, reason: str) -> str:
    named = next(
        (line.strip() for line in reason.splitlines() if "GLOBAL" in line or "global" in line), "a whole module"
    )
    return (
        f"{path} holds more than tensors ({_first(named)}), and such a pickle can run any code while it is loaded, so "
        "adamant does not open it. Where you trust the file, load it yourself and save it in one of two safe ways: "
        'safetensors.torch.save_file(model.state_dict(), "model.safetensors"), the network named by arch (--arch), '
        'or torch.export.save(torch.export.export(model, (x,)), "model.pt2").'
    )


def _first(text: str, most: int = 160) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return line if len(line) <= most else line[: most - 3] + "..."


def _tensors(held: Any, path: Path) -> dict[str, Tensor]:
    for name in _NESTED:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = cast(Mapping[str, Any], held)[name]
    if not isinstance(held, Mapping):
        raise InputError(f"{path} holds a {type(held).__name__}, not a state dict; save model.state_dict() instead.")
    found = {str(name): value for name, value in cast(Mapping[Any, Any], held).items()}
    odd = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if odd or not found:
        what = f"{odd[0]!r} is a {type(found[odd[0]]).__name__}" if odd else "it is empty"
        raise InputError(
            f"{path} holds no state dict of tensors ({what}); save model.state_dict() alone, or under 'state_dict'."
        )
    return cast(dict[str, Tensor], found)


def fit(net: nn.Module, tensors: Mapping[str, Tensor], *, path: Path, arch: str) -> None:
    """Load the tensors into the net, in float64 where the file is; raises `ModelError` with what does not fit."""
    tensors = _unprefixed(tensors)
    wanted = net.state_dict()
    shapes = [
        f"{k} is {tuple(tensors[k].shape)}, not {tuple(wanted[k].shape)}"
        for k in wanted
        if k in tensors and tensors[k].shape != wanted[k].shape
    ]
    faults = [
        *(f"missing {k}" for k in wanted if k not in tensors and not k.endswith("num_batches_tracked")),
        *(f"unexpected {k}" for k in tensors if k not in wanted),
        *shapes,
    ]
    if faults:
        listed = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise ModelError(f"{path} does not fit {arch}: {listed}. Check arch, shape and classes.")
    floats = {v.dtype for v in tensors.values() if v.is_floating_point()}
    if floats == {torch.float64}:
        net.double()
    net.load_state_dict(dict(tensors), strict=False)  # older files lack num_batches_tracked; the rest was checked above


def _unprefixed(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
