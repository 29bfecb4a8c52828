"""The JSON Schema of result.json, drawn from the records that the reader fills."""

import dataclasses
import types
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from adamant.report.reading import READABLE
from adamant.report.records import Between

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of result.json: an audit or a training run, told apart by `schema`.

    Unknown keys are allowed, so that a later version may add one without a new schema name.
    """
    definitions: dict[str, Any] = {}
    choices = [_of(kind, definitions) for kind in READABLE.values()]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "result.json of an adamant run folder",
        "oneOf": choices,
        "$defs": dict(sorted(definitions.items())),
    }


def _of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *remarks = get_args(kind)
        found = _of(inner, definitions)
        for remark in remarks:
            found = {**found, **(_limits(remark) if isinstance(remark, Between) else {"description": str(remark)})}
        return found
    if origin in (Union, types.UnionType):
        (inner,) = (one for one in get_args(kind) if one is not type(None))
        found = _of(inner, definitions)
        return {**found, "type": [found["type"], "null"]}
    if origin is Literal:
        return {"const": get_args(kind)[0]}
    if origin is tuple:
        return {"type": "array", "items": _of(get_args(kind)[0], definitions)}
    if dataclasses.is_dataclass(kind):
        return _record(cast("type[Any]", kind), definitions)
    return {"type": _TYPES[kind]}


def _record(kind: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # keeps the place, should a record ever hold its own kind
        hints = get_type_hints(kind, include_extras=True)
        fields = dataclasses.fields(kind)
        definitions[kind.__name__] = {
            "type": "object",
            "description": kind.__doc__,
            "properties": {field.name: _of(hints[field.name], definitions) for field in fields},
            "required": [field.name for field in fields if field.default is dataclasses.MISSING],
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _limits(limit: Between) -> dict[str, float]:
    return {"minimum": limit.low} | ({} if limit.high is None else {"maximum": limit.high})
