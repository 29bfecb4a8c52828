"""The one file that imports timm: its networks by name, and as objects."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, cast

from torch import nn

from adamant.errors import InputError, MissingExtraError
from adamant.models.ask import Ask
from adamant.models.wrap import normalised
from adamant.random import sealed


def build_timm(name: str, classes: int | None) -> nn.Module:
    """timm's network of that name without weights; nothing is downloaded.

    Raises `MissingExtraError` without timm, `InputError` with near names for an unknown network.
    """
    timm = _timm(f"timm:{name}")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise InputError(f"timm has no network {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "."))
    with sealed(0):
        if classes is None:
            return cast(nn.Module, timm.create_model(name, pretrained=False))
        return cast(nn.Module, timm.create_model(name, pretrained=False, num_classes=classes))


def prepare_timm(net: Any, ask: Ask) -> nn.Module:
    """The network on inputs in [0, 1]: timm's mean and std are inside, where the person gives none."""
    if ask.mean:
        return net
    known = _timm(type(net).__name__).data.resolve_model_data_config(net)
    return normalised(net, known["mean"], known["std"], of="timm")


def _timm(spec: str) -> Any:
    try:
        import_module("timm.data")
        return cast(Any, import_module("timm"))
    except (ImportError, RuntimeError) as error:  # RuntimeError: its torchvision is built for another torch
        raise MissingExtraError(
            f"{spec} needs timm, which cannot be imported ({error}): pip install adamant[timm]."
        ) from error
