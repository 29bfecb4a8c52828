"""Settings as text: short for people, and read back safely. The only place where text becomes a value."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from adamant.batch import Shared
from adamant.errors import InputError

Vocabulary = Mapping[str, Callable[..., Any]]

_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def brief(value: Any) -> str:
    """The value as one would type it: settings that have their default value are left out."""
    if isinstance(value, Shared):
        return repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        variadic, fields = _variadic(value), dataclasses.fields(value)
        words: list[str] = []
        positional = True
        if variadic is not None:
            words, fields, positional = [brief(part) for part in variadic], fields[1:], False
        for f in fields:
            held = getattr(value, f.name)
            default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
            if not f.repr or (default is not dataclasses.MISSING and held == default):
                positional = False
                continue
            words.append(brief(held) if positional and not f.kw_only else f"{f.name}={brief(held)}")
            positional = False
        return f"{type(value).__name__}({', '.join(words)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(brief, value))}{',' * (len(value) == 1)})"
    return _number_as_typed(value) if isinstance(value, float) else repr(value)


def _number_as_typed(value: float) -> str:
    """The shortest form that reads back as the same number; budgets of pictures are so many parts in 255."""
    if float(short := f"{value:.6g}") == value or value != value:
        return short
    shades = f"{value * 255:.9g}"
    return f"{shades}/255" if float(shades) / 255 == value else repr(value)


def _variadic(value: Any) -> tuple[Any, ...] | None:
    """The parts of a record that is written as Name(part, part, ...): its first field holds them all."""
    return None if type(value).__dataclass_params__.init else getattr(value, dataclasses.fields(value)[0].name)


def read(text: str, vocabulary: Vocabulary, *, kind: str) -> Any:
    """The value that the text writes: names of the vocabulary, called with numbers, texts, tuples and other values.

    `linf:8/255` is short for `Linf(8/255)`, and a bare name, in any case, for a call without arguments.
    Raises InputError for anything else; nothing is ever evaluated as code.
    """
    name, colon, rest = text.partition(":")
    known = {n.lower(): n for n in vocabulary}
    if name.strip().isidentifier():
        named = name.strip() if name.strip() in vocabulary else known.get(name.strip().lower(), name.strip())
        text = f"{named}({rest})" if colon else named
    try:
        return _build(ast.parse(text.strip(), mode="eval").body, vocabulary, kind, call_names=True)
    except (SyntaxError, RecursionError, MemoryError):
        raise InputError(
            f"Cannot read the {kind} {text[:200]!r}: write it as in Python, for example {_example(vocabulary)}."
        ) from None


def _example(vocabulary: Vocabulary) -> str:
    return f"{next(iter(vocabulary))}(...)"


def _build(node: ast.expr, words: Vocabulary, kind: str, *, call_names: bool = False) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            make = _look_up(name, words, kind)
            positional = [_build(a, words, kind, call_names=True) for a in args]
            named = {k.arg: _build(k.value, words, kind, call_names=True) for k in keywords if k.arg}
            if len(named) < len(keywords):
                raise InputError(f"{ast.unparse(node)!r} must name each setting, and each once.")
            return _call(make, name, ast.unparse(node), positional, named)
        case ast.Name(id="inf"):
            return math.inf
        case ast.Name(id=name) if call_names:
            return _call(_look_up(name, words, kind), name, name, [], {})
        case ast.Constant(value=value) if isinstance(value, (int, float, str, bool)) or value is None:
            return value
        case ast.Tuple(elts=parts):
            return tuple(_build(p, words, kind, call_names=True) for p in parts)
        case ast.List(elts=parts):
            return [_build(p, words, kind, call_names=True) for p in parts]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, words, kind)
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATIONS:
            try:
                return _OPERATIONS[type(op)](_number(left, words, kind), _number(right, words, kind))
            except ZeroDivisionError:
                raise InputError(f"{ast.unparse(node)!r} divides by zero.") from None
        case _:
            raise InputError(
                f"{ast.unparse(node)!r} has no place in a {kind}: only names with their settings are read."
            )


def _call(make: Callable[..., Any], name: str, text: str, positional: list[Any], named: dict[str, Any]) -> Any:
    try:
        return make(*positional, **named)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{name} cannot be made from {text!r}: {error}.") from None


def _number(node: ast.expr, words: Vocabulary, kind: str) -> float | int:
    value = _build(node, words, kind)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{ast.unparse(node)!r} is not a number.")
    return value


def _look_up(name: str, words: Vocabulary, kind: str) -> Callable[..., Any]:
    if name in words:
        return words[name]
    near = difflib.get_close_matches(name.lower(), [w.lower() for w in words], n=3, cutoff=0.5)
    hint = [w for w in words if w.lower() in near]
    raise InputError(
        f"There is no {kind} named {name!r}. "
        + (f"Did you mean {' or '.join(hint)}?" if hint else f"Known: {', '.join(words)}.")
    )
