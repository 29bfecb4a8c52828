"""The bridge: a function that another framework computes, with its derivatives of every order, inside torch's autograd.

The way ahead keeps what the way back needs, as the frameworks do among themselves, so that nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Back = Callable[[Tensors], Tensors]


class Traced(Protocol):
    """A function of tensors, compiled by another framework: it writes into none, keeps none, and returns new ones."""

    def __call__(self, *given: Tensor) -> Tensors:
        """All its outputs, without a way back."""
        ...

    def ahead(self, wanted: tuple[int, ...], *given: Tensor) -> tuple[Tensors, Back]:
        """The outputs, and the way back: from the slopes of the outputs that have one to those of given[wanted]."""
        ...

    def slope(self, wanted: tuple[int, ...], count: int) -> Traced:
        """That way back as a function of the `count` tensors given and the slopes together, for derivatives of it."""
        ...

    @property
    def smooth(self) -> int | None:
        """How many of the outputs, from the first on, have a derivative; None for all. The others are state."""
        ...


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fn: Traced, *given: Tensor) -> Tensors:  # pyright: ignore[reportIncompatibleMethodOverride]
        wanted = tuple(i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed)
        out, back = fn.ahead(wanted, *given)
        ctx.fn, ctx.wanted, ctx.back = fn, wanted, back
        ctx.smooth = len(out) if fn.smooth is None else fn.smooth
        ctx.save_for_backward(*given)
        ctx.mark_non_differentiable(*out[ctx.smooth :])
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        given: Tensors = ctx.saved_tensors  # raises where one was changed in place since
        slopes = slopes[: ctx.smooth]
        if torch.is_grad_enabled():  # somebody wants the derivative of this derivative
            found = cast(Tensors, _Call.apply(ctx.fn.slope(ctx.wanted, len(given)), *given, *slopes))
        else:
            found = ctx.back(slopes)
        every: list[Tensor | None] = [None] * len(given)
        for place, slope in zip(ctx.wanted, found, strict=True):
            every[place] = slope
        return (None, *every)


def call(fn: Traced, *given: Tensor) -> Tensors:
    """The outputs of a traced function, differentiable to every order by whatever of `given` asks for it."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return cast(Tensors, _Call.apply(fn, *given))
    return fn(*given)


def lent(t: Tensor) -> Tensor:
    """The tensor as another framework may read it while it computes: on the processor, dense, and aligned.

    TensorFlow ends the process over a buffer that does not begin at a multiple of 64 bytes.
    """
    t = t.detach().cpu().contiguous()
    return t if t.data_ptr() % 64 == 0 else t.clone()


def returned(t: Tensor) -> Tensor:
    """A tensor that another framework made, as torch's own: the two share no memory afterwards."""
    return t.clone(memory_format=torch.contiguous_format)
