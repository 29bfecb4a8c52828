"""How a model of another framework is told its mode, by the names of what it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_TRAINING = ("training", "train", "is_training")
_PREDICTING = ("deterministic", "use_running_average", "inference")


def takes(model: Any) -> frozenset[str]:
    """The names of the arguments of a callable, or of an object that can be called."""
    try:
        return frozenset(inspect.signature(model).parameters)
    except (TypeError, ValueError):
        return frozenset()


def mode_words(model: Any) -> Callable[[bool], dict[str, bool]]:
    """The keywords that tell the model whether it trains: none where it takes none of the usual names."""
    names = takes(model)

    def words(training: bool) -> dict[str, bool]:
        told = {name: training for name in _TRAINING if name in names}
        return told | {name: not training for name in _PREDICTING if name in names}

    return words
