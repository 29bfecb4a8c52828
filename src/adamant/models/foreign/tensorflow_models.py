"""Models of TensorFlow: tf.Module, SavedModel folders, tf.function and plain functions, tf_keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor

from adamant.errors import InputError, ModelError
from adamant.models.ask import Ask
from adamant.models.foreign.bridge import Tensors, Traced
from adamant.models.foreign.calls import mode_words
from adamant.models.foreign.flat import Flat, captured, drawn, flat, single
from adamant.models.foreign.module import Foreign
from adamant.models.foreign.tensorflow import TensorFlowFunction, tensorflow, to_torch
from adamant.models.foreign.variables import VariableFunction
from adamant.models.layout import Shape, fits, made_for, ways
from adamant.random import Rng

SAVED = "saved_model.pb"  # what every folder of a SavedModel holds
_UNSURE = 1e-4


def from_tensorflow(model: Any, *, shape: Shape | None = None) -> Foreign:
    """A model of TensorFlow as a torch module: a tf.Module, a loaded SavedModel, a tf_keras model, or any function.

    `shape` is that of one input in TensorFlow's own layout, (28, 28, 1) for a grey picture; a SavedModel and a tf_keras
    model know theirs. Weights are the variables that the function reads, those that are not trainable are state. Where
    the function takes `training` (or `train`, `is_training`), it is told the mode. A softmax or sigmoid at the end is
    left out of the graph, so that logits come back.
    Raises `InputError` without a shape, `ModelError` for several outputs, labels, or inputs that are whole numbers.
    """
    predict, train, known, kind = _parts(model)
    shape = shape or known
    if not shape or None in shape:
        raise InputError(
            f"The shape of one input is not known for this {type(model).__name__}: give it in TensorFlow's own layout, "
            "shape=(28, 28, 1) for grey pictures of 28 by 28."
        )
    if not kind.is_floating:
        raise ModelError(
            f"The model takes {kind.name}, and whole numbers have no gradient: give a function of numbers in [0, 1] "
            "that does the same."
        )
    return Foreign(TensorFlowHost(model, predict, train, shape, kind)).eval()


def host(model: Any, ask: Ask) -> Foreign:
    """The door for objects of TensorFlow, which know their shape, or are tried in the layouts of the one asked for."""
    known = _parts(model)[2]
    if ask.shape is None or (known and None not in known):
        return from_tensorflow(model)
    among = [way for way in ways(ask.shape) if known is None or fits(way, known)] or [ask.shape]
    # Its convolutions take channels first without a word, as groups: what looks like channels last is tried first.
    among.sort(key=lambda way: way[-1] not in (1, 3))
    return made_for(lambda way: from_tensorflow(model, shape=way), among)


def is_saved(spec: str) -> bool:
    """Whether the path is the folder of a SavedModel."""
    return (Path(spec) / SAVED).is_file()


def load_saved(spec: str, ask: Ask) -> Foreign:
    """The door for the folder of a SavedModel; raises ModelError where TensorFlow cannot read it."""
    tf = tensorflow()
    try:
        held = tf.saved_model.load(spec)
    except Exception as error:
        raise ModelError(f"TensorFlow cannot read the SavedModel {spec}: {str(error).splitlines()[0]}") from error
    return host(held, ask)


def _parts(model: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any] | None, Shape | None, Any]:
    """How it predicts, how it trains where that is another way, and the shape and type of one input if it knows."""
    tf = tensorflow()
    signatures: Mapping[str, Any] = getattr(model, "signatures", None) or {}
    if not callable(model) and "serving_default" not in signatures:
        raise ModelError(
            f"This {type(model).__name__} cannot be called and has no signature serving_default"
            f"{' but ' + ', '.join(signatures) if signatures else ''}: save it with signatures=, or give the function."
        )
    if "serving_default" in signatures:
        return _served(model, signatures["serving_default"])
    words = mode_words(model)
    shape: Any = getattr(model, "input_shape", None)
    if isinstance(shape, list):
        raise ModelError(f"The model has {len(cast(list[Any], shape))} inputs: give a function of one.")
    inputs: Any = getattr(model, "inputs", None)
    kind = tf.as_dtype(inputs[0].dtype) if inputs else tf.float32

    def predict(x: Any) -> Any:
        return model(x, **words(False))

    def train(x: Any) -> Any:
        return model(x, **words(True))

    return predict, train if words(True) else None, tuple(shape[1:]) if shape else None, kind


def _served(model: Any, serve: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any] | None, Shape | None, Any]:
    """The parts of a loaded SavedModel, whose signature says what it takes."""
    named: dict[str, Any] = serve.structured_input_signature[1]
    if len(named) != 1:
        raise ModelError(f"The model has {len(named)} inputs, {', '.join(named)}: give a function of one.")
    [(name, spec)] = named.items()

    def predict(x: Any) -> Any:
        return serve(**{name: x})

    return predict, _trains(model, spec) if callable(model) else None, tuple(spec.shape[1:]), spec.dtype


def _trains(model: Any, spec: Any) -> Callable[[Any], Any] | None:
    """The training mode of a loaded SavedModel, where it was saved with one."""

    def train(x: Any) -> Any:
        return model(x, training=True)

    try:
        drawn(train, spec.shape[1:], spec.dtype)
    except ModelError:
        return None
    return train


@final
class TensorFlowHost:
    """A model of TensorFlow behind `Foreign`: predictions from its flat graph, training through its variables."""

    sizes, native, suffix = False, False, ""

    def __init__(self, model: Any, predict: Callable[[Any], Any], train: Any, shape: Shape, kind: Any) -> None:
        self.model, self.predict, self.kind = model, predict, kind
        self.shape: Shape | None = shape
        graph = flat(drawn(predict, shape, kind))
        variables = list(graph.variables)
        if train:
            moving = captured(drawn(train, shape, kind)).values()
            variables += [v for v in moving if all(v is not other for other in variables)]
        self._weights = _named([v for v in variables if v.trainable])
        self._state = _named([v for v in variables if not v.trainable])
        self.classes = graph.classes
        order = [*self._weights.values(), *self._state.values()]
        self._places = [next(i for i, other in enumerate(order) if other is v) for v in graph.variables]
        graph, self.notes = _trusted(graph, shape, kind)
        self._flat = graph.raw(graph.logits)
        self._predicts = TensorFlowFunction(self._predicted)
        self._trains = self._training(train, graph.activation, order) if train else self._standing()

    def held(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return _values(self._weights), _values(self._state)

    def function(self, training: bool) -> Traced:
        return self._trains if training else self._predicts

    def receive(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Any:
        for name, variable in (*self._weights.items(), *self._state.items()):
            variable.assign((weights[name] if name in weights else state[name]).cpu().numpy())
        return self.model

    def save(self, path: Path) -> None:
        tf = tensorflow()
        if hasattr(self.model, "save"):  # tf_keras has a kind of file of its own
            self.model.save(path)
            return
        saved = self.model
        if not isinstance(saved, tf.Module) and not getattr(saved, "signatures", None):
            saved = tf.Module()
            saved.held = [*self._weights.values(), *self._state.values()]
        spec = tf.TensorSpec([None, *(self.shape or ())], self.kind, name="inputs")
        signatures = getattr(saved, "signatures", None) or tf.function(self.predict).get_concrete_function(spec)
        tf.saved_model.save(saved, str(path), signatures=signatures)

    def _predicted(self, x: Any, *held: Any) -> Sequence[Any]:
        return self._flat(x, *(held[i] for i in self._places))

    def _standing(self) -> Traced:
        """Without a mode of its own the model trains as it predicts, and its state stays as it is."""
        n = len(self._weights)

        def raw(x: Any, *held: Any) -> Sequence[Any]:
            return [*self._predicted(x, *held), *map(tensorflow().identity, held[n:])]

        return TensorFlowFunction(raw) if self._state else self._predicts

    def _training(self, train: Callable[[Any], Any], activation: str, order: Sequence[Any]) -> Traced:
        def raw(x: Any) -> Sequence[Any]:
            out = _before(single(train(x)), activation)
            return [out, *(v.read_value() for v in self._state.values())]

        return VariableFunction(raw, order)


def _before(out: Any, activation: str) -> Any:
    """What went into the activation at the end of a graph that is being drawn, or its inverse where calls hide it."""
    tf, op = tensorflow(), out.op
    while activation and op.type == "Identity":
        op = op.inputs[0].op
    if not activation or op.type == activation:
        return op.inputs[0] if activation else out
    tiny = out.dtype.as_numpy_dtype(torch.finfo(torch.float32).tiny)
    log = tf.math.log(tf.maximum(out, tiny))
    return log if activation == "Softmax" else log - tf.math.log(tf.maximum(1 - out, tiny))


def _trusted(graph: Flat, shape: Shape, kind: Any) -> tuple[Flat, tuple[str, ...]]:
    """The graph with its cut, where a few inputs confirm that the activation was all that was cut away."""
    if not graph.activation:
        return graph, ()
    tf = tensorflow()
    x = tf.constant(Rng.of(0, 4).fold("probe").uniform(*cast(tuple[int, ...], shape)).numpy(), kind)
    both = tf.function(graph.raw(graph.logits, graph.output), autograph=False)(x, *graph.variables)
    logits, out = to_torch(both)
    again = logits.softmax(1) if graph.activation == "Softmax" else logits.sigmoid()
    if not torch.allclose(again, out, atol=_UNSURE):
        return replace(graph, logits=graph.output, activation=""), ()
    name = graph.activation.lower()
    return graph, (
        f"The model ends in a {name}; adamant takes the logits before it from the model's graph, and the {name} of "
        "them is what the model returns.",
    )


def _named(variables: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable in variables:
        first = name = str(variable.name).removesuffix(":0")
        more = 1
        while name in found:
            name, more = f"{first}_{more}", more + 1
        found[name] = variable
    return found


def _values(variables: Mapping[str, Any]) -> dict[str, Tensor]:
    values: Tensors = to_torch([tensorflow().identity(v) for v in variables.values()])
    return dict(zip(variables, values, strict=True))
