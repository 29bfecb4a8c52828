"""Images in parquet files, in the Hugging Face layout: a column image {bytes, path} and a column label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adamant.data import checks
from adamant.data.images import VAL_NAMES, Size, stack
from adamant.data.source import ALL, COMPARED, Indices, Part, Source, labels_within
from adamant.errors import InputError

_IMAGE, _LABEL = ("image", "img"), ("label", "labels", "fine_label")


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of each split in a folder or its `data` folder: test.parquet, test-00000-of-00001.parquet."""
    files = sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])
    found: dict[str, list[Path]] = {}
    for file in files:
        if (split := _split(file)) is not None:
            found.setdefault(split, []).append(file)
    return found


def _split(file: Path) -> str | None:
    word = file.stem.split("-")[0]
    return "val" if word in VAL_NAMES else word if word in ("train", "test") else None


def read_parquet(path: Path, *, size: Size | None) -> Source:
    """A parquet file (one split where its name says so, else rows without splits) or a folder of them.

    Raises `InputError` naming the file and the row for another layout, and for labels or images that cannot be read.
    """
    files = parquet_files(path) if path.is_dir() else {_split(path) or ALL: [path]}
    cheap = sum(f.stat().st_size for group in files.values() for f in group) <= COMPARED
    parts: dict[str, Part] = {}
    classes: tuple[str, ...] = ()
    for split, group in files.items():
        parts[split], named = _part(group, size, cheap)
        classes = classes or named
    source = Source(name=path.stem, where=str(path), parts=parts, classes=classes)
    if classes:
        labels_within(source, len(classes))
    return source


def _part(files: Sequence[Path], size: Size | None, cheap: bool) -> tuple[Part, tuple[str, ...]]:
    try:
        schema = pq.read_schema(files[0])
        image, label = _column(files[0], schema, _IMAGE), _column(files[0], schema, _LABEL)
        table = pa.concat_tables([pq.read_table(file, columns=[label]) for file in files])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{files[0]} is not a readable parquet file ({error}); write or fetch it again.") from error
    where = f"{files[0].name}: {label}"
    column = table.column(label)
    if column.null_count:
        row = cast(list[Any], column.to_pylist()).index(None)
        raise InputError(f"{where}: row {row} has no label; drop the row.")
    y, _ = checks.labels(cast(Any, column.to_numpy()), None, where)
    held = _Column(files, image)

    def keys(rows: Indices) -> Iterator[bytes]:
        return (held.content(row)[0] for row in rows.tolist())

    part = Part(labels=y, read=lambda rows: stack(held.content, rows, size), keys=keys if cheap else None)
    return part, _names(schema, label)


class _Column:
    """The encoded images of several files, read by row groups; two are kept, that of row 0 and the last asked for."""

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self._files, self._name = files, name
        sizes = [pq.ParquetFile(file).metadata for file in files]
        self._groups = [(i, g) for i, meta in enumerate(sizes) for g in range(meta.num_row_groups)]
        self._ends = np.cumsum([sizes[i].row_group(g).num_rows for i, g in self._groups])
        self._group = lru_cache(maxsize=2)(self._read)

    def content(self, row: int) -> tuple[bytes, str]:
        group = int(np.searchsorted(self._ends, row, side="right"))
        where = f"{self._files[0].name}: row {row}"
        value: Any = self._group(group)[row - int(self._ends[group])].as_py()  # counted from the end of its group
        content = cast(dict[str, Any], value).get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise InputError(f"{where} holds no image bytes; embed the images in the file.")
        return content, where

    def _read(self, number: int) -> Any:
        at, group = self._groups[number]
        try:
            return pq.ParquetFile(self._files[at]).read_row_group(group, columns=[self._name]).column(0)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{self._files[at]} is not a readable parquet file ({error}); write or fetch it again."
            ) from error


def _column(file: Path, schema: Any, names: Sequence[str]) -> str:
    found = [name for name in names if name in schema.names]
    if not found:
        raise InputError(f"{file} has the columns {', '.join(schema.names)}; adamant reads image (encoded) and label.")
    return found[0]


def _names(schema: Any, label: str) -> tuple[str, ...]:
    """The class names that the Hugging Face library writes into the file, or none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()
