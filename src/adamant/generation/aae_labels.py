"""What an adversarial autoencoder does with labels: five uses, and a set of rows that has lost most of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from adamant.data import DataSet
from adamant.errors import InputError
from adamant.random import Rng
from adamant.runtime.augment import Augment


@final
@dataclass(frozen=True)
class Ignored:
    """Nobody looks at labels (Makhzani et al., 2016, arXiv:1511.05644, section 2)."""


@final
@dataclass(frozen=True)
class Told:
    """The decoder is told the class, so that the code is left with the style (section 4)."""


@final
@dataclass(frozen=True)
class Placed:
    """Part k of the prior is for class k: the critic is told the class, and rows without one may lie anywhere (2.3)."""


@final
@dataclass(frozen=True)
class Guessed:
    """The encoder guesses the class beside the style, and learns it from those rows that have a label (section 5).

    These rows are few, and are changed by `augment` whenever they are looked at. With `rows` only so many labels of
    the data are used, as many of each class as of any other. `steady` is the weight of something that the paper has
    not: the guess of a changed row, labelled or not, is held to that of the row itself (Sajjadi et al., 2016,
    arXiv:1606.04586). Without `rebuilds` the decoder hears the guess and does not teach it, as it does in the paper: in
    runs of minutes it teaches mistakes.
    """

    augment: tuple[Augment, ...] = ()
    rows: int | None = None
    steady: float = 0.0
    rebuilds: bool = True

    def changed(self, x: Tensor, rng: Rng) -> Tensor:
        """Rows (n *d) after all changes."""
        for number, change in enumerate(self.augment):
            x = change(x, rng.fold("augment").fold(number))
        return x

    def known(self, data: DataSet) -> DataSet:
        """The rows with a label that it learns from."""
        return _known(data, self.rows)


@lru_cache(maxsize=1)
def _known(data: DataSet, rows: int | None) -> DataSet:
    kept = data if rows is None else hide(data, rows, 0)
    return kept.take(kept.y >= 0)


@final
@dataclass(frozen=True)
class Clustered:
    """The encoder finds `count` classes by itself (section 6)."""

    count: int = 16


Labels = Ignored | Told | Placed | Guessed | Clustered


def hide(data: DataSet, keep: int, seed: int) -> DataSet:
    """The same rows, of which only `keep` have a label, as many of each class as of any other; the others have -1.

    The choice depends on the seed and on the original row numbers alone. Raises InputError where there are too few.
    """
    classes = len(data.classes)
    if keep < classes or keep % classes:
        raise InputError(f"{keep} labels cannot be shared evenly by {classes} classes: keep a multiple of {classes}.")
    key, y = Rng.of(seed, data.rows).fold("labelled").key, torch.full_like(data.y, -1)
    for label in range(classes):
        members = (data.y == label).nonzero()[:, 0]
        if len(members) < keep // classes:
            raise InputError(f"Class {data.classes[label]} has {len(members)} rows; {keep // classes} are to be kept.")
        kept = members[key[members].argsort(stable=True)[: keep // classes]]
        y[kept] = label
    return replace(data, y=y, notes=(*data.notes, f"{keep} rows kept their label"))


def check(labels: Labels, data: DataSet, parts: int) -> None:
    """Raise InputError where the rows do not have the labels that this use of them asks for."""
    y, classes = data.y, len(data.classes)
    name = type(labels).__name__
    if isinstance(labels, Ignored):
        return
    if isinstance(labels, Clustered):
        if labels.count < 2:
            raise InputError(f"{labels!r} would find one class at most: give a count from 2 on.")
        return
    known = y[y >= 0]
    present = known.unique()
    if not len(present):
        raise InputError(f"labels={name}() asks for labels and the rows have none: take Ignored() or Clustered().")
    if len(present) < 2:
        raise InputError(
            f"labels={name}() asks for several classes and all labels are {int(present[0])}: take Ignored()."
        )
    if int(present[-1]) >= classes:
        raise InputError(f"A label is {int(present[-1])}, and there are {classes} classes, numbered from 0 on.")
    if isinstance(labels, Told) and len(known) < len(y):
        raise InputError(
            f"labels=Told() asks for the label of every row and {len(y) - len(known)} have none: take Guessed()."
        )
    if isinstance(labels, Guessed) and len(present) < classes:
        missing = sorted(set(range(classes)) - set(present.tolist()))
        raise InputError(f"No row of class {missing[0]} has a label, so that Guessed() could never learn it: give one.")
    if isinstance(labels, Guessed):
        labels.known(data)
        if labels.steady < 0 or (labels.steady and not labels.augment):
            raise InputError(f"steady is {labels.steady}: give a weight from 0 on, and changes to be steady under.")
    if isinstance(labels, Placed) and parts < classes:
        raise InputError(
            f"labels=Placed() asks for a part of the prior for each of {classes} classes and it has {parts}: "
            f"take prior=Ring(parts={classes})."
        )


CATALOGUE: tuple[type, ...] = (Ignored, Told, Placed, Guessed, Clustered)
