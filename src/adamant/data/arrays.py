"""Arrays in an .npz file in the Keras layout: x_train, y_train, x_test, y_test, perhaps x_val, y_val, class_names."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adamant.data import checks
from adamant.data.source import COMPARED, Indices, Part, Source, labels_within
from adamant.errors import InputError

_SPLITS = ("train", "val", "test")


def read_npz(path: Path, split: str) -> Source:
    """The splits of an .npz file; inputs are read when they are asked for, and nothing is ever unpickled.

    Raises `InputError` naming the file and the array for another layout, objects, and labels that do not fit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is not a readable .npz file ({error}); write it with numpy.savez.") from error
    found = [s for s in _SPLITS if f"x_{s}" in sizes and f"y_{s}" in sizes]
    if not found:
        raise InputError(
            f"{path} holds {', '.join(sorted(sizes)) or 'nothing'}; adamant reads x_train, y_train, x_test, "
            "y_test, and x_val, y_val where there are some."
        )
    cheap = sum(sizes[f"x_{s}"] for s in found) <= COMPARED
    parts: dict[str, Part] = {}
    notes: list[str] = []
    for name in found:
        lazy = _Lazy(path, f"x_{name}")
        y, remarks = checks.labels(_array(path, f"y_{name}"), _length(path, f"x_{name}"), f"{path.name}: y_{name}")
        parts[name] = Part(labels=y, read=lazy.read, keys=lazy.keys if cheap else None)
        notes += remarks if name == split else ()
    classes = tuple(map(str, _array(path, "class_names").tolist())) if "class_names" in sizes else ()
    source = Source(name=path.stem, where=str(path), parts=parts, classes=classes, notes=tuple(notes))
    known = len(classes) or (
        1 + int(parts["train"].labels.max()) if "train" in parts and len(parts["train"].labels) else 0
    )
    if known:
        labels_within(source, known)
    return source


class _Lazy:
    """One array of the archive, unpacked at its first use and kept."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._held: NDArray[Any] | None = None

    def array(self) -> NDArray[Any]:
        if self._held is None:
            self._held = _array(self._path, self._name)
            checks.numeric(self._held, f"{self._path.name}: {self._name}")
        return self._held

    def read(self, rows: Indices) -> Tensor:
        return checks.inputs(self.array(), rows, f"{self._path.name}: {self._name}")

    def keys(self, rows: Indices) -> list[bytes]:
        held = self.array()
        return [held[row].tobytes() for row in rows]


def _array(path: Path, name: str) -> NDArray[Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return cast(NDArray[Any], archive[name])
    except ValueError as error:
        raise InputError(
            f"{path.name}: {name} holds Python objects (images of unequal size, perhaps), which only "
            "unpickling could read; save it as one array of numbers."
        ) from error
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(f"{path.name}: {name} is damaged ({error}); fetch or write the file again.") from error


def _length(path: Path, name: str) -> int:
    """How many rows an array has, from its header alone."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            newer = np.lib.format.read_magic(file) != (1, 0)
            read = np.lib.format.read_array_header_2_0 if newer else np.lib.format.read_array_header_1_0
            shape = read(file)[0]
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise InputError(f"{path.name}: {name} is damaged ({error}); fetch or write the file again.") from error
    if not shape:
        raise InputError(f"{path.name}: {name} is one number; give one row for each input.")
    return shape[0]
