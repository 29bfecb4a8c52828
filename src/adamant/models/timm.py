"""The one file that imports timm: its networks by name with weights of yours, or as objects."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, cast

from torch import nn

from adamant.errors import InputError, MissingExtraError
from adamant.models.ask import Ask
from adamant.models.state import fit
from adamant.models.weights import named_weights
from adamant.models.wrap import Normalised, normalised
from adamant.random import sealed


def open_timm(spec: Any, ask: Ask) -> nn.Module:
    """timm's network of "timm:NAME@WEIGHTS", or an object, on inputs in [0, 1]: its own mean and std are inside.

    Where the person gives a mean and std, they stand for timm's. WEIGHTS is a local file; nothing is downloaded.
    Raises `MissingExtraError` without timm, `InputError` with near names for an unknown network.
    """
    timm = _timm(spec if isinstance(spec, str) else "A model of timm")
    net = _built(timm, spec, ask) if isinstance(spec, str) else spec
    if ask.mean or isinstance(net, Normalised):
        return net
    known = timm.data.resolve_model_data_config(net)
    return normalised(net, known["mean"], known["std"], of="timm")


def _timm(spec: str) -> Any:
    try:
        import_module("timm.data")
        return cast(Any, import_module("timm"))
    except (ImportError, RuntimeError) as error:  # RuntimeError: its torchvision is built for another torch
        raise MissingExtraError(
            f"{spec} needs timm, which cannot be imported ({error}): pip install adamant[timm]."
        ) from error


def _built(timm: Any, spec: str, ask: Ask) -> nn.Module:
    name, path, tensors = named_weights(spec, "timm:")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise InputError(f"timm has no network {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "."))
    more = {} if ask.classes is None else {"num_classes": ask.classes}
    with sealed(0):
        net = cast(nn.Module, timm.create_model(name, pretrained=False, **more))
    fit(net, tensors, path=path, arch=f"timm:{name}")
    return net
