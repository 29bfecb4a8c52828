"""What every reader returns, and how a split, a limit and the checks turn it into a DataSet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamant.data.dataset import DataSet, portions
from adamant.data.stream import OnDisk, Stream
from adamant.errors import InputError
from adamant.random import permutation

Indices = NDArray[np.int64]
ALL = "all"  # the one part of a source without splits
COMPARED = 256 * 2**20  # bytes of inputs up to which readers let rows be compared between splits: it takes time
_SHARES = (
    "The source has no splits of its own: train is 60 % of every class, val 20 %, test 20 %, always the same rows."
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split as it lies in the source: its labels, and what reads the inputs of given rows (m,) -> (m *d) float32.

    `keys` gives a hashable for each of the given rows, one after another, equal for equal inputs; None where that would
    take too long.
    """

    labels: Indices
    read: Callable[[Indices], Tensor]
    keys: Callable[[Indices], Iterable[bytes]] | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """All splits at hand (or one, named `all`), the names of the classes where they are known, and remarks."""

    name: str
    where: str
    parts: Mapping[str, Part]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What a split and a limit leave of a source: the rows of one part, their labels, and remarks."""

    part: Part
    rows: Indices
    y: Tensor
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def gather(source: Source, *, split: str, limit: int | None, seed: int) -> DataSet:
    """The first `limit` rows of the split asked for; raises `InputError` where there is nothing to give."""
    it = _choose(source, split, limit, seed)
    rows = torch.from_numpy(it.rows)
    x = it.part.read(it.rows)
    return DataSet(x=x, y=it.y, classes=it.classes, name=source.name, split=split, rows=rows, notes=it.notes)


def stream(source: Source, *, split: str, limit: int | None, seed: int) -> Stream:
    """The same rows, left on the disk; what is wrong with an input is said when it is read."""
    it = _choose(source, split, limit, seed)
    rows = torch.from_numpy(it.rows)
    x = OnDisk(it.part.read, it.rows)
    return Stream(x=x, y=it.y, classes=it.classes, name=source.name, split=split, rows=rows, notes=it.notes)


def _choose(source: Source, split: str, limit: int | None, seed: int) -> _Choice:
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give a positive number of rows, or leave it out for all of them.")
    rows_of = _assign(source, seed)
    if split not in rows_of:
        raise InputError(f"{source.where} has no split {split!r}; it has {', '.join(rows_of) or 'none'}.")
    name, rows = rows_of[split]
    if not len(rows):
        raise InputError(f"The {split} split of {source.where} is empty; it needs at least one row.")
    labels = source.parts[name].labels
    if (labels == labels[0]).all():
        raise InputError(
            f"Every label in {source.where} ({name}) is {labels[0]}; a classifier needs at least two classes."
        )
    notes = [*source.notes, *_origin(source, split, seed), *_duplicates(source, rows_of, split)]
    taken = rows[:limit]
    y = torch.from_numpy(labels[taken])
    if len(taken) > 1 and (y == y[0]).all():
        notes.append(f"The first {len(taken)} rows are all of class {int(y[0])}.")
    classes = source.classes or _numbered(source)
    return _Choice(part=source.parts[name], rows=taken, y=y, classes=classes, notes=tuple(notes))


def _assign(source: Source, seed: int) -> dict[str, tuple[str, Indices]]:
    """Which rows of which part each split is."""
    if ALL in source.parts:
        y = torch.from_numpy(source.parts[ALL].labels)
        number = portions(y, torch.arange(len(y)), (0.2, 0.2), seed=0).numpy()
        chosen = {name: (ALL, np.flatnonzero(number == i)) for i, name in enumerate(("train", "val", "test"))}
        return {**chosen, ALL: (ALL, np.arange(len(y)))}
    found = {name: (name, np.arange(len(part.labels))) for name, part in source.parts.items()}
    if "train" in found and "val" not in found:
        order = permutation(len(found["train"][1]), seed, "val").numpy()
        cut = len(order) - len(order) // 10
        found |= {"train": ("train", np.sort(order[:cut])), "val": ("train", np.sort(order[cut:]))}
    return found


def _origin(source: Source, split: str, seed: int) -> list[str]:
    if ALL in source.parts:
        return [_SHARES] if split != ALL else []
    if "val" not in source.parts and split in ("train", "val"):
        return [
            f"The source has no val split: val is a tenth of its train rows, chosen by seed {seed}, train the rest."
        ]
    return []


def _numbered(source: Source) -> tuple[str, ...]:
    return tuple(map(str, range(1 + max(int(part.labels.max()) for part in source.parts.values() if len(part.labels)))))


def _duplicates(source: Source, rows_of: Mapping[str, tuple[str, Indices]], split: str) -> list[str]:
    if split in ("train", ALL) or "train" not in rows_of:
        return []
    train = rows_of["train"]
    if train[0] != rows_of[split][0]:  # another part: compare with all that train holds, val too where it lies there
        train = train[0], np.arange(len(source.parts[train[0]].labels))
    first, second = source.parts[train[0]].keys, source.parts[rows_of[split][0]].keys
    if first is None or second is None:
        return []
    known = set(map(hash, first(train[1])))
    again = sum(hash(key) in known for key in second(rows_of[split][1]))
    if not again:
        return []
    return [f"{again} of the {len(rows_of[split][1])} inputs of {split} are also in train, byte for byte."]


def labels_within(source: Source, classes: int) -> None:
    """Raises `InputError` naming the row and the label where a label is not below the number of classes."""
    for name, part in source.parts.items():
        bad = np.flatnonzero(part.labels >= classes)
        if len(bad):
            raise InputError(
                f"{source.where} ({name}): row {bad[0]} has label {part.labels[bad[0]]}, and there are {classes} "
                f"classes, numbered from 0 to {classes - 1}; mend the labels or the class names."
            )
