"""TensorFlow functions that keep their weights in variables, and change some of them while they train."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, final

from torch import Tensor

from adamant.models.foreign.bridge import Back, Tensors
from adamant.models.foreign.tensorflow import tensorflow, to_tensorflow, to_torch


@final
class VariableFunction:
    """`raw(x, *more)` of a function that reads `variables`; it is given `(x, *values of the variables, *more)`.

    The values are assigned for the time of a call, after which the variables hold what they held. A tape keeps what the
    way back needs, so that the function runs once, with one mask of dropout and one step of its statistics.
    Derivatives of the derivative run it anew.
    """

    def __init__(
        self, raw: Callable[..., Sequence[Any]], variables: Sequence[Any], smooth: int | None = 1
    ) -> None:  # fmt: skip
        self.raw, self.variables, self.smooth = raw, tuple(variables), smooth
        self._compiled = tensorflow().function(raw, autograph=False)
        self._slopes: dict[tuple[int, ...], VariableFunction] = {}

    def __call__(self, *given: Tensor) -> Tensors:
        with self._placed(given) as inputs:
            return to_torch(self._compiled(*inputs))

    def ahead(self, wanted: tuple[int, ...], *given: Tensor) -> tuple[Tensors, Back]:
        tf = tensorflow()
        with (
            self._placed(given) as inputs,
            tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
        ):
            some = [self._of(inputs)[i] for i in wanted]
            for one in some:
                tape.watch(one)
            out = tuple(self._compiled(*inputs))

        def back(slopes: Tensors) -> Tensors:
            return to_torch(_pulled(tape, out[: self.smooth], some, to_tensorflow(slopes)))

        return to_torch(out), back

    def slope(self, wanted: tuple[int, ...], count: int) -> VariableFunction:
        more = count - len(self.variables)

        def slope(*inputs: Any) -> list[Any]:
            some = [self._of(inputs[:more])[i] for i in wanted]
            with tensorflow().GradientTape(watch_accessed_variables=False) as tape:
                for one in some:
                    tape.watch(one)
                out = tuple(self.raw(*inputs[:more]))[: self.smooth]
            return _pulled(tape, out, some, inputs[more:])

        if wanted not in self._slopes:
            self._slopes[wanted] = VariableFunction(slope, self.variables, None)
        return self._slopes[wanted]

    @contextmanager
    def _placed(self, given: Tensors) -> Generator[list[Any]]:
        """Inside, the variables have their values; what is given beside them is handed over."""
        held, n = to_tensorflow(given), len(self.variables)
        before = [variable.read_value() for variable in self.variables]
        try:
            for variable, value in zip(self.variables, held[1 : 1 + n], strict=True):
                variable.assign(value)
            yield [held[0], *held[1 + n :]]
        finally:
            for variable, value in zip(self.variables, before, strict=True):
                variable.assign(value)

    def _of(self, inputs: Sequence[Any]) -> list[Any]:
        """The inputs as they are counted outside, with the variables in their places."""
        return [inputs[0], *self.variables, *inputs[1:]]


def _pulled(tape: Any, out: Sequence[Any], some: Sequence[Any], slopes: Sequence[Any]) -> list[Any]:
    tf = tensorflow()
    found = tape.gradient(out, some, list(slopes), unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(slope) for slope in found]
