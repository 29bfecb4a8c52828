"""The one file that imports torchvision for its networks; the weights always come from a file of yours."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, cast

from torch import nn

from adamant.errors import InputError, MissingExtraError
from adamant.random import sealed


def build_torchvision(name: str, classes: int | None) -> nn.Module:
    """torchvision's network of that name without weights; nothing is downloaded.

    Raises `MissingExtraError` without torchvision, `InputError` with near names for an unknown network.
    """
    models = _models(name)
    names = cast(list[str], models.list_models())
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        raise InputError(f"torchvision has no network {name!r}; did you mean {' or '.join(near or names[:3])}?")
    with sealed(0):
        if classes is None:
            return cast(nn.Module, models.get_model(name, weights=None))
        return cast(nn.Module, models.get_model(name, weights=None, num_classes=classes))


def preparation_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The mean and std that all of torchvision's own weights for this network were trained with; None where unknown."""
    models = _models(name)
    found: set[tuple[tuple[float, ...], tuple[float, ...]]] = set()
    for weights in models.get_model_weights(name):
        way = weights.transforms()
        if not hasattr(way, "mean") or not hasattr(way, "std"):
            return None
        found.add((tuple(map(float, way.mean)), tuple(map(float, way.std))))
    return found.pop() if len(found) == 1 else None


def _models(name: str) -> Any:
    try:
        return cast(Any, import_module("torchvision.models"))
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise MissingExtraError(
            f"torchvision:{name} needs torchvision, which cannot be imported ({error}): "
            "pip install adamant[torchvision]."
        ) from error
