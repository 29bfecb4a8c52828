"""TensorFlow functions for the bridge: the one file that imports tensorflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, cast, final

import torch
from torch import Tensor

from adamant.errors import MissingExtraError
from adamant.models.foreign.bridge import Back, Tensors, lent, returned


def tensorflow() -> Any:
    """The framework; raises MissingExtraError where it is not installed."""
    try:
        return cast(Any, import_module("tensorflow"))
    except ImportError as error:
        raise MissingExtraError(f"This model needs TensorFlow ({error}): pip install adamant[tensorflow].") from error


@final
class TensorFlowFunction:
    """A traceable function of TensorFlow tensors that returns a tuple of them; weights are among what it is given."""

    def __init__(self, raw: Callable[..., Sequence[Any]], smooth: int | None = 1) -> None:
        self.raw, self.smooth = raw, smooth
        self._compiled = tensorflow().function(raw, reduce_retracing=True, autograph=False)
        self._ways: dict[Any, tuple[Any, Any]] = {}
        self._slopes: dict[tuple[int, ...], TensorFlowFunction] = {}

    def __call__(self, *given: Tensor) -> Tensors:
        return _torch(self._compiled(*_tf(given)))

    def ahead(self, wanted: tuple[int, ...], *given: Tensor) -> tuple[Tensors, Back]:
        held = _tf(given)
        key = (wanted, tuple((t.dtype, t.shape[1:] if i == 0 else t.shape) for i, t in enumerate(held)))
        if key not in self._ways:
            self._ways[key] = self._way(wanted, held)
        forward, backward = self._ways[key]
        out, kept = forward(held)
        return _torch(out), lambda slopes: _torch(backward(kept, _tf(slopes)))

    def slope(self, wanted: tuple[int, ...], count: int) -> TensorFlowFunction:
        def slope(*both: Any) -> Sequence[Any]:
            return self._pulled(wanted, both[:count], both[count:])

        if wanted not in self._slopes:
            self._slopes[wanted] = TensorFlowFunction(slope, None)
        return self._slopes[wanted]

    def _pulled(self, wanted: tuple[int, ...], given: Sequence[Any], slopes: Sequence[Any]) -> list[Any]:
        tf = tensorflow()
        some = [given[i] for i in wanted]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(some)
            out = tuple(self.raw(*given))[: self.smooth]
        return tape.gradient(out, some, slopes, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def _way(self, wanted: tuple[int, ...], held: Sequence[Any]) -> tuple[Any, Any]:
        """One graph of the way ahead and back, cut in two where the slopes come in.

        What the first half leaves for the second is fetched from the one and fed to the other, so nothing is computed
        twice, and what nobody asked for (the slopes of frozen weights) is pruned.
        """
        tf, count = tensorflow(), len(held)
        shapes = [tf.TensorSpec([None, *t.shape[1:]] if i == 0 else t.shape, t.dtype) for i, t in enumerate(held)]
        out = tf.function(self.raw, autograph=False).get_concrete_function(*shapes).outputs
        cut = len(out) if self.smooth is None else self.smooth
        slopes = [tf.TensorSpec(o.shape, o.dtype) for o in out[:cut]]

        def both(*args: Any) -> Any:
            given, slope = args[:count], args[count:]
            some = [given[i] for i in wanted]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(some)
                found = tuple(self.raw(*given))
            back = tape.gradient(found[:cut], some, slope, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return [tf.identity(o) for o in found], [tf.identity(b) for b in back]

        whole = tf.compat.v1.wrap_function(both, [*shapes, *slopes])
        first, second = whole.structured_outputs
        fed = whole.inputs[:count]
        late = _after(whole.inputs[count:])
        kept = _crossing(second, late, set(map(_key, whole.inputs[count:])))
        ahead = whole.prune(fed, [*first, *kept])
        back = whole.prune([*kept, *whole.inputs[count : count + cut]], list(second))
        n = len(first)

        # A pruned graph runs as it was drawn; inside a function it is optimised first.
        @tf.function(autograph=False)
        def forward(given: Sequence[Any]) -> tuple[Any, Any]:
            made = ahead(*given)
            return made[:n], made[n:]

        @tf.function(autograph=False)
        def backward(keep: Sequence[Any], slope: Sequence[Any]) -> Any:
            return back(*keep, *slope)

        return forward, backward


# Pooling in the same graph leaves its way back the places of the maxima; from its output alone they are sought again,
# which takes three times as long.
_CHEAPER_AGAIN = ("MaxPool", "MaxPool3D")


def _key(t: Any) -> str:
    return str(t.name)


def _after(roots: Sequence[Any]) -> set[str]:
    """The names of the operations that hang on any of the tensors."""
    found: set[str] = set()
    waiting = [op for t in roots for op in t.consumers()]
    while waiting:
        op = waiting.pop()
        if op.name not in found:
            found.add(op.name)
            waiting += [after for t in op.outputs for after in t.consumers()]
    return found


def _crossing(ends: Sequence[Any], late: set[str], roots: set[str]) -> list[Any]:
    """What operations of the second half, as far as the ends need them, read from the first half."""
    kept: dict[str, Any] = {}
    seen: set[str] = set()
    waiting = list(ends)
    while waiting:
        t = waiting.pop()
        if _key(t) in roots:
            continue
        if t.op.name not in late and t.op.type not in _CHEAPER_AGAIN:
            kept[_key(t)] = t
        elif t.op.name not in seen:
            seen.add(t.op.name)
            waiting += list(t.op.inputs)
    return list(kept.values())


def _tf(tensors: Tensors) -> list[Any]:
    take = tensorflow().experimental.dlpack.from_dlpack
    return [take(lent(t).__dlpack__()) for t in tensors]


def _torch(found: Sequence[Any]) -> Tensors:
    return tuple(returned(torch.from_dlpack(t)) for t in found)
