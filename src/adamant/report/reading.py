"""Reads run folders: result.json as records, rows.parquet as rows, of adversarial.safetensors only what is asked."""

import dataclasses
import json
import math
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from adamant.errors import RunError
from adamant.report.records import AuditResult, Between, TrainingResult

READABLE: dict[str, type[AuditResult] | type[TrainingResult]] = {
    "adamant.audit/1": AuditResult,
    "adamant.training/1": TrainingResult,
}

_COLUMNS = {
    "row": "integer",
    "label": "integer",
    "clean_prediction": "integer",
    "clean_confidence": "floating",
    "status": "string",
    "attack": "string",
    "adversarial_prediction": "integer",
    "adversarial_confidence": "floating",
    "size": "floating",
    "loss": "floating",
    "forwards": "integer",
    "backwards": "integer",
    "first_success": "integer",
    "distance": "floating",
}
_ALWAYS_THERE = ("row", "label", "status")
_KINDS = {
    "integer": (pa.types.is_integer,),
    "floating": (pa.types.is_floating, pa.types.is_integer),
    "string": (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary),
}

_TOLERANCE = 1e-9  # an interval computed in floating point may end a hair outside [0, 1]
_NOUNS: dict[Any, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of rows.parquet; None where the audit had nothing to say."""

    row: int
    label: int
    clean_prediction: int | None
    clean_confidence: float | None
    status: str
    attack: str | None
    adversarial_prediction: int | None
    adversarial_confidence: float | None
    size: float | None
    loss: float | None
    forwards: int | None
    backwards: int | None
    first_success: int | None
    distance: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """One broken input, before and after."""

    row: int
    original: npt.NDArray[np.float32]
    adversarial: npt.NDArray[np.float32]


def read_result(folder: Path) -> AuditResult | TrainingResult:
    """The result.json of a run folder, checked field by field.

    Raises:
        RunError: the file is missing, is not JSON, has a schema that this version does not read, or a field is wrong.
    """
    path = Path(folder) / "result.json"
    try:
        # NaN and Infinity are not JSON; read as null, a required number then says by its name that it is missing.
        content = json.loads(_bytes(path), parse_constant=lambda _: None)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RunError(f"{path} is not JSON ({error}); run the command of {path.parent} again") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} must hold a JSON object, found {_found(content)}")
    name = cast("dict[str, Any]", content).get("schema")
    kind = READABLE.get(name) if isinstance(name, str) else None
    if kind is None:
        raise RunError(
            f"{path} has schema {name!r}; this adamant reads {' and '.join(READABLE)}. "
            "Read it with the version of adamant that wrote it, or run it again"
        )
    return cast("AuditResult | TrainingResult", _decode(kind, content, "", path))


def read_rows(folder: Path) -> tuple[Row, ...]:
    """Every line of rows.parquet.

    Raises:
        RunError: the file is missing, is not parquet, or lacks a column.
    """
    path = Path(folder) / "rows.parquet"
    try:
        table = pq.read_table(pa.BufferReader(_bytes(path)))
    except pa.ArrowException as error:
        raise RunError(f"{path} is not a parquet file ({_first_line(error)}); run the audit again") from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise RunError(f"{path} lacks the columns {', '.join(missing)}; run the audit again")
    for name, kind in _COLUMNS.items():
        column = table.column(name)
        fits = pa.types.is_null(column.type) or any(test(column.type) for test in _KINDS[kind])
        if not fits or (name in _ALWAYS_THERE and column.null_count):
            found = f"{column.type} with {column.null_count} nulls"
            raise RunError(f"{path}: the column {name} must be {kind}, found {found}; run the audit again")
    return tuple(Row(**line) for line in table.select(list(_COLUMNS)).to_pylist())


def evidence_rows(folder: Path) -> tuple[int, ...]:
    """The rows whose adversarial input the folder keeps, in the order of the file."""
    with _Tensors(folder) as tensors:
        return tensors.rows


def read_evidence(folder: Path, rows: Sequence[int]) -> tuple[Evidence, ...]:
    """Before and after of the given rows; only these are read from the disk.

    Raises:
        RunError: adversarial.safetensors is missing, corrupt, or lacks a row.
    """
    with _Tensors(folder) as tensors:
        return tuple(tensors.pick(row) for row in rows)


class _Tensors:
    """An open adversarial.safetensors whose every failure is a RunError that names the file."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / "adversarial.safetensors"
        if not self.path.is_file():
            raise RunError(_absent(self.path))

    def __enter__(self) -> "_Tensors":
        try:
            self.file = safe_open(self.path, framework="numpy").__enter__()
            missing = {"row", "original", "adversarial"} - set(self.file.keys())
            if missing:
                raise RunError(f"{self.path} lacks the tensors {', '.join(sorted(missing))}; run the audit again")
            self.rows = tuple(int(row) for row in self.file.get_tensor("row"))
            shapes = {name: tuple(self.file.get_slice(name).get_shape()) for name in ("original", "adversarial")}
        except (SafetensorError, OSError, ValueError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"{self.path} is not a safetensors file ({error}); run the audit again") from error
        if shapes["original"] != shapes["adversarial"] or shapes["original"][:1] != (len(self.rows),):
            raise RunError(f"{self.path}: row has {len(self.rows)} entries, but the inputs have shapes {shapes}")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.__exit__(None, None, None)

    def pick(self, row: int) -> Evidence:
        if row not in self.rows:
            raise RunError(f"{self.path} has no row {row}, which rows.parquet calls broken; run the audit again")
        at = self.rows.index(row)
        original, adversarial = (
            np.asarray(self.file.get_slice(name)[at : at + 1], dtype=np.float32)[0]
            for name in ("original", "adversarial")
        )
        return Evidence(row=row, original=original, adversarial=adversarial)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RunError(_absent(path)) from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


def _absent(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no run folder {path.parent}"
    return f"{path.parent} has no {path.name}: it is not a run folder, or its run did not finish; run it again"


def _decode(kind: Any, value: Any, at: str, path: Path) -> Any:
    """`value` as `kind`, which is one of the annotations in records.py; `at` is the place, for the error."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *remarks = get_args(kind)
        decoded = _decode(inner, value, at, path)
        for limit in (remark for remark in remarks if isinstance(remark, Between)):
            _check(decoded, limit, at, path)
        return decoded
    if origin in (Union, types.UnionType):
        (inner,) = (one for one in get_args(kind) if one is not type(None))
        return None if value is None else _decode(inner, value, at, path)
    if origin is Literal:
        return value  # only `schema`, which chose the record
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(at, "a list", value, path)
        items = cast("list[Any]", value)
        return tuple(_decode(get_args(kind)[0], one, f"{at}[{i}]", path) for i, one in enumerate(items))
    if dataclasses.is_dataclass(kind):
        return _decode_record(cast("type[Any]", kind), value, at, path)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise _wrong(at, _NOUNS[kind], value, path)
    return value


def _decode_record(kind: type[Any], value: Any, at: str, path: Path) -> Any:
    if not isinstance(value, dict):
        raise _wrong(at, "an object", value, path)
    entries = cast("dict[str, Any]", value)
    hints = get_type_hints(kind, include_extras=True)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        place = f"{at}.{field.name}" if at else field.name
        if field.name in entries:
            given[field.name] = _decode(hints[field.name], entries[field.name], place, path)
        elif field.default is dataclasses.MISSING:
            raise RunError(f"{path} lacks {place}; its schema is described in docs/result-schema.md")
    return kind(**given)


def _check(value: Any, limit: Between, at: str, path: Path) -> None:
    if value is None:
        return
    if value < limit.low - _TOLERANCE or (limit.high is not None and value > limit.high + _TOLERANCE):
        span = f"at least {limit.low:g}" if limit.high is None else f"between {limit.low:g} and {limit.high:g}"
        raise RunError(f"{path}: {at} must be {span}, found {value!r}")


def _wrong(at: str, expected: str, value: Any, path: Path) -> RunError:
    return RunError(f"{path}: {at} must be {expected}, found {_found(value)}")


def _found(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
