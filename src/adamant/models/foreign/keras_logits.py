"""The logits of a Keras model that ends in a softmax or a sigmoid: how they are had, and proof that they are those."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, final

import torch
from torch import Tensor

_CLOSE = 1e-5
_MOST = 6  # parts from the end that are tried: attention is full of softmaxes


class Reading(Protocol):
    """How a model is asked for its logits."""

    @property
    def note(self) -> str:
        """What the audit should say of it, if anything."""
        ...

    @property
    def pair(self) -> bool:
        """Whether one logit z, of class 1, is made [0, z]."""
        ...

    def __call__(self, k: Any, model: Any, x: Any, training: bool) -> Any:
        """The logits (n k), given the Keras module, the model and its input."""
        ...


@final
@dataclass(frozen=True)
class AsItIs:
    """What the model returns."""

    note: str = ""
    pair: bool = False

    def __call__(self, k: Any, model: Any, x: Any, training: bool) -> Any:
        return model(x, training=training)


@final
@dataclass(frozen=True)
class Silenced:
    """The model with one part of it doing nothing: the activation of a layer, or a layer or operation that is one."""

    part: Any
    attribute: str
    squash: str
    pair: bool = False

    @property
    def note(self) -> str:
        binary = ", and of one number z they are [0, z]" if self.pair else ""
        return (
            f"The model ends in a {self.squash}; the logits are what {self.part.name!r} gives without it{binary}, "
            f"checked: their {self.squash} is what the model returns."
        )

    def __call__(self, k: Any, model: Any, x: Any, training: bool) -> Any:
        held = vars(self.part)
        before = {self.attribute: held[self.attribute]} if self.attribute in held else {}
        held[self.attribute] = _unchanged
        try:
            z = model(x, training=training)
        finally:
            del held[self.attribute]
            held.update(before)
        return _paired(k, z) if self.pair else z


@final
@dataclass(frozen=True)
class Remembered:
    """What Keras' own softmax and sigmoid leave at their outputs, for its losses; under JAX it is lost."""

    squash: str
    pair: bool = False

    @property
    def note(self) -> str:
        return (
            f"The model ends in a {self.squash}; the logits are what Keras remembers of its input, checked: their "
            f"{self.squash} is what the model returns."
        )

    def __call__(self, k: Any, model: Any, x: Any, training: bool) -> Any:
        z = model(x, training=training)._keras_logits
        return _paired(k, z) if self.pair else z


@final
@dataclass(frozen=True)
class Logarithm:
    """The logarithms of the probabilities."""

    note: str = (
        "The model returns probabilities, and no softmax at its end was found to leave out: the logits are their "
        "logarithms. Where a probability rounds to 0 or 1 the gradient is lost and the model can look more robust than "
        "it is: make its last activation linear."
    )
    pair: bool = False

    def __call__(self, k: Any, model: Any, x: Any, training: bool) -> Any:
        p = model(x, training=training)
        return k.ops.log(k.ops.maximum(p, float(torch.finfo(torch.float32).tiny)))


def reading(k: Any, model: Any, answer: Tensor, ask: Callable[[Reading], Tensor]) -> Reading:
    """How to have the logits of a model with this answer (n k) to some inputs; `ask` asks it in some other way."""
    if (squash := _squashed(answer)) is None:
        return AsItIs()
    for way in (*islice(_parts(k, model, squash), _MOST), Remembered(squash)):
        try:
            z = ask(way)
        except Exception:  # a part that cannot be left out is not the one
            continue
        if _gives(z, answer, squash):
            return replace(way, pair=answer.shape[1] == 1)
    return Logarithm() if squash == "softmax" else AsItIs()


def _squashed(answer: Tensor) -> str | None:
    inside = bool(((answer >= 0) & (answer <= 1)).all())
    if answer.shape[1] > 1 and inside and bool(((answer.sum(1) - 1).abs() < 1e-4).all()):
        return "softmax"
    return "sigmoid" if inside else None


def _gives(z: Tensor, answer: Tensor, squash: str) -> bool:
    p = z.double().softmax(1) if squash == "softmax" else z.double().sigmoid()
    slack = _CLOSE * (1 + float(z.abs().max()))  # logits of two graphs differ by so much
    return z.shape == answer.shape and bool(((p - answer).abs() <= slack).all())


def _parts(k: Any, model: Any, squash: str) -> Iterator[Silenced]:
    """Whatever might be the last activation, from the end on."""
    function = getattr(k.activations, squash)
    parts = [model, *model._flatten_layers(include_self=False)]
    parts += [op for held in parts for op in getattr(held, "operations", ()) if not isinstance(op, k.layers.Layer)]
    for part in reversed(parts):
        if vars(part).get("activation") is function:
            yield Silenced(part, "activation", squash)
        elif type(part).__name__.lower() == squash and type(part).__module__.startswith("keras."):
            yield Silenced(part, "call", squash)


def _unchanged(x: Any, *_: Any, **__: Any) -> Any:
    return x


def _paired(k: Any, z: Any) -> Any:
    return k.ops.concatenate([k.ops.zeros_like(z), z], 1)
