"""Inputs that stay on the disk: they are read by rows, when they are asked for, and not kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamant.errors import InputError


class Readable(Protocol):
    """What a tensor of inputs (n *d) and inputs on the disk have in common: a shape, and rows for the asking."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Tensor | slice, /) -> Tensor: ...


@final
class OnDisk:
    """Inputs (n *d), float32, of which nothing is in memory but what was asked for last, by whoever asked."""

    def __init__(self, read: Callable[[NDArray[np.int64]], Tensor], rows: NDArray[np.int64]) -> None:
        """`read` gives the inputs of rows of the source (m,) -> (m *d); `rows` are those that are meant."""
        self._read, self._rows = read, rows
        self.shape: tuple[int, ...] = (len(rows), *read(rows[:1]).shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        """The given rows, by position, mask or slice; raises InputError for rows that cannot be read, by their names.

        What a reader checks (numbers, range, size) it checks here, row by row.
        """
        wanted = self._rows[rows if isinstance(rows, slice) else rows.numpy()]
        if not len(wanted):
            return torch.empty(0, *self.shape[1:])
        x = self._read(wanted)
        if x.shape[1:] != self.shape[1:]:
            raise InputError(
                f"Row {wanted[0]} has the shape {tuple(x.shape[1:])} and row {self._rows[0]} has {self.shape[1:]}: "
                "bring all inputs to one size."
            )
        return x


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Stream:
    """Labelled inputs as in `DataSet`, with the inputs on the disk."""

    x: OnDisk
    y: Tensor
    classes: tuple[str, ...]
    name: str
    split: str
    rows: Tensor
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        shape, n = self.x.shape[1:], len(self.classes)
        return f"<Stream {self.name}, {self.split}: {len(self)} inputs of shape {shape} on the disk, {n} classes>"
