"""Where models come from: one line for each form of a name and for each framework of an object.

A form is tried in the order of the table. What the adapters need is imported by them, at the moment of need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from adamant.models.ask import Ask
from adamant.models.exported import load_exported
from adamant.models.foreign import jax_models, keras, tensorflow_models
from adamant.models.http import load_endpoint
from adamant.models.huggingface import open_huggingface
from adamant.models.onnx import open_onnx
from adamant.models.sklearn import PICKLES, load_estimator, load_lightgbm, load_xgboost, refuse_pickle
from adamant.models.timm import prepare_timm
from adamant.models.weights import WEIGHTS, existing, load_timm, load_torchvision, load_weights, load_zoo


@dataclass(frozen=True)
class Door:
    """What a name looks like, in words and by test, and who opens it."""

    form: str
    fits: Callable[[str], bool]
    open: Callable[[str, Ask], nn.Module]


def _begins(*prefixes: str) -> Callable[[str], bool]:
    return lambda spec: spec.startswith(prefixes)


def _ends(*suffixes: str) -> Callable[[str], bool]:
    return lambda spec: Path(spec).suffix in suffixes


NAMES: tuple[Door, ...] = (
    Door("zoo:NAME", _begins("zoo:"), load_zoo),
    Door("torchvision:NAME@WEIGHTS", _begins("torchvision:"), load_torchvision),
    Door("http://...", _begins("http://", "https://", "Endpoint("), load_endpoint),
    Door("timm:NAME@WEIGHTS", _begins("timm:"), load_timm),
    Door("hf:FOLDER", _begins("hf:"), open_huggingface),
    Door(".pt2", _ends(".pt2"), lambda spec, _: load_exported(existing(spec))),
    Door(".onnx", _ends(".onnx"), open_onnx),
    Door(", ".join(WEIGHTS), _ends(*WEIGHTS), lambda spec, ask: load_weights(spec, ask, opener)),
    Door(", ".join(keras.SUFFIXES), _ends(*keras.SUFFIXES), keras.load_keras),
    Door("the folder of a SavedModel", tensorflow_models.is_saved, tensorflow_models.load_saved),
    Door("", _ends(*PICKLES), refuse_pickle),
)

# By the package that a class, or one that it derives from, was written in; a Keras model may be a torch module as well,
# so these come before "it is a torch module".
OBJECTS: tuple[tuple[str, Callable[[Any, Ask], nn.Module]], ...] = (
    ("keras", keras.host),  # first: on TensorFlow it is one of that as well
    ("tf_keras", tensorflow_models.host),
    ("tensorflow", tensorflow_models.host),
    ("flax", jax_models.host),
    ("equinox", jax_models.host),
    ("jaxlib", jax_models.host),
    ("xgboost", load_xgboost),
    ("lightgbm", load_lightgbm),
    ("sklearn", load_estimator),
    ("onnx", open_onnx),
    ("transformers", open_huggingface),
    ("timm", prepare_timm),
)


def opener(held: Any) -> Callable[[Any, Ask], nn.Module] | None:
    """Who makes a torch module of this object, by the packages of its classes; None where it is nobody's."""
    packages = [kind.__module__.partition(".")[0] for kind in type(held).__mro__]
    return next((open_ for package, open_ in OBJECTS if package in packages), None)
