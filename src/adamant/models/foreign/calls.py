"""How a model of another framework is told its mode, by the names of what it takes."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, cast

_TRAINING = ("training", "train", "is_training")
_PREDICTING = ("deterministic", "use_running_average", "inference")


def takes(model: Any) -> frozenset[str]:
    """The names of the arguments of a callable; of a layer of Keras, whose call takes anything, those of its `call`."""
    found: set[str] = set()
    for function in (model, getattr(model, "call", None)):
        with contextlib.suppress(TypeError, ValueError):
            found |= set(inspect.signature(cast(Any, function)).parameters)
    return frozenset(found)


def mode_words(model: Any) -> Callable[[bool], dict[str, bool]]:
    """The keywords that tell the model whether it trains: none where it takes none of the usual names."""
    names = takes(model)

    def words(training: bool) -> dict[str, bool]:
        told = {name: training for name in _TRAINING if name in names}
        return told | {name: not training for name in _PREDICTING if name in names}

    return words
