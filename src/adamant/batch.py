"""Rows: which tensors lead with the batch, and the only indexing code of the house."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


class Rows:
    """Marks a record whose every tensor leads with the batch, so that rows can be taken from it.

    A record without the mark keeps its own tensors whole (a mask that all rows share is no row),
    and only the marked records inside it are taken.
    """

    __slots__ = ()


def _values_equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu())


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Shared:
    """A tensor as a value: printable, comparable, hashable, and the same for every row."""

    values: Tensor

    def __init__(self, values: Tensor | Sequence[Any]) -> None:
        held = torch.as_tensor(values, dtype=None if isinstance(values, Tensor) else torch.float64)
        if not isinstance(values, Tensor) and _all_bool(values):
            held = held.bool()
        object.__setattr__(self, "values", held if held.dtype == torch.bool else held.double())

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and _values_equal(self.values, cast(Shared, other).values)

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.values.cpu().numpy().tobytes()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.values.tolist()!r})"


class PerRow(Shared, Rows):
    """A tensor as a value that leads with the batch: one budget, or one mask, for each row."""

    __slots__ = ()


def _all_bool(values: Any) -> bool:
    return all(_all_bool(v) for v in values) if isinstance(values, (list, tuple)) else isinstance(values, bool)


def _map(value: Any, rows: Tensor, leads: bool) -> Any:
    match value:
        case Tensor():
            return value[rows] if leads else value
        case PerRow():
            return PerRow(value.values[rows.to(value.values.device)])
        case tuple():
            parts = cast(tuple[Any, ...], value)
            taken = tuple(_map(v, rows, leads) for v in parts)
            return parts if all(a is b for a, b in zip(taken, parts, strict=True)) else taken
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, (type, Shared)):
            inner = isinstance(value, Rows)
            return _rebuild(
                value, {f.name: _map(getattr(value, f.name), rows, inner) for f in dataclasses.fields(value)}
            )
        case _:
            return value


def _rebuild(record: Any, fields: dict[str, Any]) -> Any:
    if all(fields[name] is getattr(record, name) for name in fields):
        return record  # nothing in it follows the batch
    return dataclasses.replace(record, **fields)


def take(value: T, rows: Tensor) -> T:
    """The given rows (a mask or indices) of a tensor, or of every tensor of a `Rows` record, at any depth."""
    return cast(T, _map(value, rows, True))


def per_row(v: Tensor, like: Tensor) -> Tensor:
    """One number per row, shaped to broadcast over `like` (n *d): (n,) -> (n, 1, ...)."""
    return v.reshape(-1, *(1,) * (like.ndim - 1))


def where(mask: Tensor, a: T, b: T) -> T:
    """Row by row: `a` where the mask holds, else `b`; for tensors and for `Rows` records."""
    if isinstance(a, Tensor):
        return cast(T, torch.where(per_row(mask, a), a, cast(Tensor, b)))
    fields = {f.name: where(mask, getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(cast(Any, a))}
    return cast(T, dataclasses.replace(cast(Any, a), **fields))


def cat(parts: Sequence[T]) -> T:
    """The rows of several tensors, or of several records of one kind, one after another."""
    first = parts[0]
    if isinstance(first, Tensor):
        return cast(T, torch.cat(cast(list[Tensor], list(parts))))
    fields = {f.name: cat([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(cast(Any, first))}
    return cast(T, dataclasses.replace(cast(Any, first), **fields))


def on(value: T, device: torch.device) -> T:
    """A tensor, or a record's own tensors, on the device."""
    if isinstance(value, Tensor):
        return cast(T, value.to(device))
    fields = {name: v.to(device) for name, v in vars(value).items() if isinstance(v, Tensor)}
    return cast(T, dataclasses.replace(cast(Any, value), **fields))
