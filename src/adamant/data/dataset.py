"""DataSet: inputs, labels and where each row came from; and the split that keeps every class in both parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adamant.errors import InputError
from adamant.random import Rng


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DataSet:
    """Labelled inputs with their history.

    `x` (n *d) float32, images in [0, 1] as (n c h w); `y` (n,) int64, indices into `classes`; `rows` (n,) int64, the
    row numbers in the source, which stay with the rows wherever they are taken; `notes` are remarks for the person.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    name: str
    split: str
    rows: Tensor
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        shape = tuple(self.x.shape[1:])
        return f"<DataSet {self.name}, {self.split}: {len(self)} inputs of shape {shape}, {len(self.classes)} classes>"

    def take(self, rows: Tensor) -> DataSet:
        """The given rows, by position (m,) or by mask (n,); their original numbers come along."""
        return replace(self, x=self.x[rows], y=self.y[rows], rows=self.rows[rows])

    def fingerprint(self) -> str:
        """SHA-256 over shape, inputs and labels: equal for equal data, whatever the name."""
        digest = hashlib.sha256(repr(tuple(self.x.shape)).encode())
        for part in (self.x, self.y):
            digest.update(part.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def split(data: DataSet, share: float, seed: int) -> tuple[DataSet, DataSet]:
    """The data in two: what is left, and `share` of every class, which is named val; both keep the order of the rows.

    The choice depends on the seed and on the original row numbers alone. A class of two or more rows is in both parts.
    Raises `InputError` for a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}; give the part that the second set gets, between 0 and 1.")
    part = portions(data.y, data.rows, (share,), seed)
    return data.take(part == 0), replace(data.take(part == 1), split="val")


def portions(y: Tensor, rows: Tensor, shares: tuple[float, ...], seed: int) -> Tensor:
    """Which part each row falls to (n,): 1, 2, ... get their share of every class, 0 the rest."""
    key = Rng.of(seed, rows).fold("split").key
    part = torch.zeros_like(y)
    for label in y.unique().tolist():
        members = (y == label).nonzero()[:, 0]
        members = members[key[members].argsort(stable=True)]
        at = 0
        for number, share in enumerate(shares, 1):
            spare = len(members) - at - (len(shares) - number) - 1  # leave one for each part that comes later
            size = min(max(round(share * len(members)), 1), max(spare, 0))
            part[members[at : at + size]] = number
            at += size
    return part
