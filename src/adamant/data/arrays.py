"""Arrays in an .npz file in the Keras layout: x_train, y_train, x_test, y_test, perhaps x_val, y_val, class_names."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adamant.data import checks
from adamant.data.source import COMPARED, Indices, Part, Source, labels_within
from adamant.errors import InputError

_SPLITS = ("train", "val", "test")
_BLOCK = 2**22  # bytes that are read at once where a whole array passes by


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
        held = _Array(path, f"x_{name}")
        y, remarks = checks.labels(_array(path, f"y_{name}"), held.shape[0], f"{path.name}: y_{name}")
        parts[name] = Part(labels=y, read=held.read, keys=held.keys if cheap else None)
        notes += remarks if name == split else ()
    classes = tuple(map(str, _array(path, "class_names").tolist())) if "class_names" in sizes else ()
    source = Source(name=path.stem, where=str(path), parts=parts, classes=classes, notes=tuple(notes))
    known = len(classes) or (
        1 + int(parts["train"].labels.max()) if "train" in parts and len(parts["train"].labels) else 0
    )
    if known:
        labels_within(source, known)
    return source


@final
class _Array:
    """One array of the archive, read by rows where it is stored as it is; else unpacked at its first use and kept."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name, self.where = path, name, f"{path.name}: {name}"
        self._header = _header(path, name)
        self.shape, self.dtype = self._header.shape, self._header.dtype

    def read(self, rows: Indices) -> Tensor:
        self._numeric()
        return checks.inputs(self, rows, self.where)

    def keys(self, rows: Indices) -> Iterator[bytes]:
        self._numeric()
        for block in self._blocks(rows):
            yield from (row.tobytes() for row in self[block])

    def max(self) -> Any:
        return self._max

    def _numeric(self) -> None:
        if self.dtype.hasobject:
            _array(self._path, self._name)  # says why not
        checks.numeric(self, self.where)

    def __getitem__(self, rows: Indices) -> NDArray[Any]:
        if (at := self._place) is None:
            return self._whole[rows]
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        width = self.dtype.itemsize * math.prod(self.shape[1:])
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)  # rows that follow each other are read together
        done = 0
        with self._path.open("rb") as file:
            for run in runs:
                file.seek(at + int(run[0]) * width)
                content = file.read(len(run) * width)
                out[done : done + len(run)] = np.frombuffer(content, self.dtype).reshape(len(run), *self.shape[1:])
                done += len(run)
        return out

    @cached_property
    def _max(self) -> Any:
        return max(self[block].max() for block in self._blocks(np.arange(self.shape[0])))

    @cached_property
    def _whole(self) -> NDArray[Any]:
        return _array(self._path, self._name)

    @cached_property
    def _place(self) -> int | None:
        """Where the numbers begin in the file; None where they are compressed, or not row after row."""
        if self.dtype.hasobject or self._header.packed or not math.prod(self.shape):
            return None
        try:
            with self._path.open("rb") as file, zipfile.ZipFile(file) as archive:
                info = archive.getinfo(f"{self._name}.npy")
                with archive.open(info) as member:  # the checksum is verified at the end of the member
                    while member.read(_BLOCK):
                        pass
                file.seek(info.header_offset + 26)  # of the local header: the length of its name, and of what follows
                lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise _damaged(self._path, self._name, error) from error
        return info.header_offset + 30 + lengths + self._header.size

    def _blocks(self, rows: Indices) -> list[Indices]:
        width = max(1, self.dtype.itemsize * math.prod(self.shape[1:]))
        return np.array_split(rows, -(-len(rows) * width // _BLOCK)) if len(rows) else []


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What an .npy file says of itself, how long that is in bytes, and whether its rows cannot be read in places."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int
    packed: bool


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
        raise _damaged(path, name, error) from error


def _header(path: Path, name: str) -> _Header:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            newer = np.lib.format.read_magic(file) != (1, 0)
            read = np.lib.format.read_array_header_2_0 if newer else np.lib.format.read_array_header_1_0
            shape, columns_first, dtype = read(file)
            size, compressed = file.tell(), archive.getinfo(f"{name}.npy").compress_type != zipfile.ZIP_STORED
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise _damaged(path, name, error) from error
    if not shape:
        raise InputError(f"{path.name}: {name} is one number; give one row for each input.")
    return _Header(shape=shape, dtype=dtype, size=size, packed=compressed or columns_first)


def _damaged(path: Path, name: str, error: Exception) -> InputError:
    return InputError(f"{path.name}: {name} is damaged ({error}); fetch or write the file again.")
