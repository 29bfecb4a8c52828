"""Layout: pictures lead with their channels in this house, and end with them in others; each model gets its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from torch import Tensor

from adamant.errors import ModelError

Shape = tuple[int | None, ...]  # of one input, without the batch; None where the model takes any size

T = TypeVar("T")


def laid_out(x: Tensor, wanted: Shape | None) -> Tensor:
    """x (n *d) in the shape that the model was made for: as it is, channels last, without its one channel, or flat.

    Raises ModelError where no such change makes it fit; None fits everything.
    """
    if wanted is None or fits(x.shape[1:], wanted):
        return x
    if x.ndim == 4:
        last = x.permute(0, 2, 3, 1)
        if fits(last.shape[1:], wanted):
            return last
        if x.shape[1] == 1 and fits(x.shape[2:], wanted):
            return x[:, 0]
    single = x.ndim < 4 or x.shape[1] == 1  # of several channels there is more than one order to write them in
    if single and len(wanted) == 1 and wanted[0] in (None, math.prod(x.shape[1:])):
        return x.flatten(1)
    raise ModelError(
        f"The model takes inputs of shape {_said(wanted)} and the data have {tuple(x.shape[1:])} (channels first): "
        "give data of that size."
    )


def ways(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """How others may write one input of this shape: as it is, channels last, without its one channel, or flat."""
    yield shape
    if len(shape) == 3:
        yield (*shape[1:], shape[0])
        if shape[0] == 1:
            yield shape[1:]
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        yield (math.prod(shape),)


def made_for(make: Callable[[Shape], T], among: Iterable[Shape]) -> T:
    """What `make` makes for the first of these shapes that it takes, else the first ModelError."""
    faults: list[ModelError] = []
    for shape in among:
        try:
            return make(shape)
        except ModelError as error:
            faults.append(error)
    raise faults[0]


def fits(have: Shape, wanted: Shape) -> bool:
    """Whether a shape is one that the wanted one, where None is free, allows."""
    return len(have) == len(wanted) and all(w in (None, h) for h, w in zip(have, wanted, strict=True))


def _said(shape: Shape) -> str:
    return "(" + ", ".join("any" if s is None else str(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"
