"""A TensorFlow function drawn flat: calls inside it spelt out, its variables turned into inputs, its logits found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast, final

from adamant.errors import AdamantError, ModelError
from adamant.models.foreign.tensorflow import tensorflow
from adamant.models.layout import Shape

_ASIDE = ("Identity", "StopGradient", "EnsureShape")  # what may stand between a last activation and the output
_ACTIVATIONS = ("Softmax", "Sigmoid")


@final
@dataclass(frozen=True)
class Flat:
    """The graph of a prediction; `names` are the places of the variables in it, in the order of `variables`."""

    graph: Any
    variables: tuple[Any, ...]
    names: tuple[str, ...]
    entry: str
    output: str
    logits: str  # where the logits lie: before a last activation, or the output itself
    activation: str  # that activation, "" where there is none
    classes: int

    def raw(self, *ends: str) -> Callable[..., Sequence[Any]]:
        """(x, *values of the variables) to the named tensors of the graph."""

        def function(x: Any, *values: Any) -> Sequence[Any]:
            fed = {self.entry: x, **{f"{n}:0": v for n, v in zip(self.names, values, strict=True)}}
            return tensorflow().graph_util.import_graph_def(self.graph, fed, list(ends))

        return function


def drawn(predict: Callable[[Any], Any], shape: Shape, kind: Any) -> Any:
    """The function as a graph with its variables, for any number of inputs of this shape and type.

    Raises ModelError where it takes none such.
    """
    tf = tensorflow()
    try:
        return tf.function(predict).get_concrete_function(tf.TensorSpec([None, *shape], kind))
    except AdamantError:
        raise
    except Exception as error:
        name, lines = type(error).__name__, str(error).strip().splitlines() or ["no message"]
        why = next((line.strip() for line in reversed(lines) if f"{name}:" in line), lines[0])
        raise ModelError(
            f"The model raised {name} on inputs of shape ({', '.join(map(str, ('any', *shape)))}): {why[:300]} Check "
            "that shape is that of one input as the model takes it, and that it takes any number of them."
        ) from error


def flat(concrete: Any) -> Flat:
    """Raises ModelError for a graph whose outputs are no logits, or that changes its variables while it predicts."""
    output = single(concrete.structured_outputs)
    freeze = cast(Any, import_module("tensorflow.python.framework.convert_to_constants"))
    try:
        frozen = freeze.convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    except Exception as error:
        raise ModelError(
            f"The model's graph cannot be read ({str(error).splitlines()[0]}): its prediction must not change "
            "variables; give a function that only predicts."
        ) from error
    graph, places = frozen.graph.as_graph_def(), captured(concrete)
    held = {node.name: node for node in graph.node}
    for name in places:  # of the value only the place stays, which torch's weight takes
        kind = held[name].attr["dtype"].type
        held[name].op = "Placeholder"
        held[name].attr.clear()
        held[name].attr["dtype"].type = kind
    end = frozen.outputs[0].name
    node = held[end.partition(":")[0]]
    while node.op in _ASIDE:
        node = held[node.input[0].partition(":")[0]]
    cut = node.op in _ACTIVATIONS
    return Flat(
        graph,
        tuple(places.values()),
        tuple(places),
        frozen.inputs[0].name,
        end,
        _tensor(node.input[0]) if cut else end,
        node.op if cut else "",
        int(output.shape[1]),
    )


def captured(concrete: Any) -> dict[str, Any]:
    """The variables that a graph reads or writes, by the names of their places in it, in the order of its drawing."""
    known = {id(v.handle): v for v in concrete.graph.variables}
    return {place.op.name: known[id(handle)] for handle, place in concrete.graph.captures if id(handle) in known}


def single(out: Any) -> Any:
    """The one output of a classifier; raises ModelError for several, for labels, and for what has no row per input."""
    say = "give the part that is the logits: adamant.models.from_tensorflow(lambda x: model(x)[...], shape=...)."
    if isinstance(out, dict):
        named = cast(dict[str, Any], out)
        if len(named) > 1 and "logits" not in named:
            raise ModelError(f"The model has {len(named)} outputs, {', '.join(sorted(named))}: {say}")
        out = named["logits"] if "logits" in named else next(iter(named.values()), None)
    elif isinstance(out, list | tuple):
        several = cast(Sequence[Any], out)
        if len(several) != 1:
            raise ModelError(f"The model has {len(several)} outputs: {say}")
        out = several[0]
    if not hasattr(out, "dtype") or not out.dtype.is_floating:
        kind = out.dtype.name if hasattr(out, "dtype") else type(out).__name__
        raise ModelError(f"The model returns {kind}: labels are no logits, return the scores before the argmax.")
    if out.shape.rank != 2 or out.shape[1] is None:
        raise ModelError(f"The model returns a tensor of shape {out.shape}; it must return logits (n, classes).")
    return out


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"
