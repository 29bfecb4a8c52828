"""JAX functions for the bridge: the one file that imports jax."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast, final

import torch
from torch import Tensor

from adamant.errors import MissingExtraError
from adamant.models.foreign.bridge import Back, Tensors, lent, returned


def jax() -> Any:
    """The framework; raises MissingExtraError where it is not installed."""
    try:
        return cast(Any, import_module("jax"))
    except ImportError as error:
        raise MissingExtraError(f"This model needs JAX ({error}): pip install adamant[jax].") from error


@final
class JaxFunction:
    """A function of JAX arrays that returns a tuple of them, compiled once for each shape."""

    def __init__(self, raw: Callable[..., tuple[Any, ...]], smooth: int | None = 1) -> None:
        self.raw, self.smooth = raw, smooth
        self._compiled = jax().jit(raw)
        self._ways: dict[tuple[int, ...], tuple[Any, Any]] = {}
        self._slopes: dict[tuple[int, ...], JaxFunction] = {}

    def __call__(self, *given: Tensor) -> Tensors:
        return _torch(self._compiled(*_jax(given)))

    def ahead(self, wanted: tuple[int, ...], *given: Tensor) -> tuple[Tensors, Back]:
        if wanted not in self._ways:
            self._ways[wanted] = self._way(wanted)
        forward, backward = self._ways[wanted]
        smooth, state, pull = forward(*_jax(given))

        def back(slopes: Tensors) -> Tensors:
            return _torch(backward(pull, _jax(slopes)))

        return _torch((*smooth, *state)), back

    def slope(self, wanted: tuple[int, ...], count: int) -> JaxFunction:
        def slope(*both: Any) -> tuple[Any, ...]:
            some = tuple(both[i] for i in wanted)
            pull = jax().vjp(self._part(wanted, both[:count]), *some, has_aux=True)[1]
            return tuple(pull(tuple(both[count:])))

        if wanted not in self._slopes:
            self._slopes[wanted] = JaxFunction(slope, None)
        return self._slopes[wanted]

    def _way(self, wanted: tuple[int, ...]) -> tuple[Any, Any]:
        """Both compiled; between them travels the pullback, a tree of arrays like any other."""

        def forward(*given: Any) -> Any:
            some = tuple(given[i] for i in wanted)
            smooth, pull, state = jax().vjp(self._part(wanted, given), *some, has_aux=True)
            return smooth, state, pull

        def backward(pull: Any, slopes: Any) -> Any:
            return pull(slopes)

        return jax().jit(forward), jax().jit(backward)

    def _part(self, wanted: tuple[int, ...], given: tuple[Any, ...]) -> Callable[..., tuple[Any, Any]]:
        """As a function of what is wanted alone: the outputs with a derivative, and beside them the state."""

        def part(*some: Any) -> tuple[Any, Any]:
            whole = list(given)
            for place, value in zip(wanted, some, strict=True):
                whole[place] = value
            out = tuple(self.raw(*whole))
            cut = len(out) if self.smooth is None else self.smooth
            return out[:cut], out[cut:]

        return part


def _jax(tensors: Tensors) -> tuple[Any, ...]:
    take = jax().numpy.from_dlpack
    return tuple(take(lent(t)) for t in tensors)


def _torch(arrays: Any) -> Tensors:
    return tuple(returned(torch.from_dlpack(a)) for a in jax().block_until_ready(tuple(arrays)))
