"""Finished audits side by side: on the rows that they share, pair by pair, and all threats of one model at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, final

from adamant.errors import InputError
from adamant.evaluation.counting import Paired, paired, quantile, share

_FELL = ("wrong_already", "broken")
_NAMED = 5  # rows that a refusal names
_SURE = 0.01  # clean confidences of one model agree this well, whatever the device
_ODD = 0.01  # and so many of its rows may yet differ

Columns = Mapping[str, Sequence[Any]]


@final
@dataclass(frozen=True, kw_only=True)
class Side:
    """An audit that is compared: the columns of its rows.parquet, and what was asked of what."""

    name: str
    rows: Columns  # of COLUMNS: row, label, status, clean_prediction, clean_confidence, distance
    threat: str
    data: str
    suite: str
    access: str = ""  # what was seen of the model
    attacks: tuple[str, ...] = ()  # the recipes of the suite
    warnings: tuple[str, ...] = ()  # what the audit itself said


@final
@dataclass(frozen=True, kw_only=True)
class Standing:
    """One audit on the shared rows: shares with Wilson's intervals, and the median smallest change."""

    name: str
    clean: Mapping[str, Any]
    robust: Mapping[str, Any]
    median: float | None  # of the rows that were right, in the threat's unit; None where half of them still stand


@final
@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two audits on the shared rows; differences are second minus first."""

    first: str
    second: str
    clean: Paired
    robust: Paired


@final
@dataclass(frozen=True, kw_only=True)
class Worst:
    """One model under several threats: rows that stand under all of them, and the mean over the threats."""

    union: Mapping[str, Any]
    average: float


@final
@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Audits on the rows that all of them share."""

    rows: int
    left_out: Mapping[str, int]  # rows of each audit that not all have
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    worst: Worst | None
    warnings: tuple[str, ...]


def compare(sides: Sequence[Side], *, union: bool = False) -> Comparison:
    """Audits side by side, on the rows (number and label) that all of them share.

    With `union` the sides are threats of one model, and the worst case of every row is counted too (Tramèr & Boneh,
    2019, arXiv:1904.13000). Raises InputError for fewer than two sides, for rows that do not match, and where `union`
    is asked of several models.
    """
    if len(sides) < 2:
        raise InputError(f"A comparison needs at least two audits, and got {len(sides)}: name each, one after another.")
    if len({s.name for s in sides}) < len(sides):
        raise InputError("Two audits have the same name: give each its own.")
    shared = _shared(sides)
    tables = [_select(side.rows, shared) for side in sides]
    stands = [[s not in _FELL for s in table["status"]] for table in tables]
    right = [[s != "wrong_already" for s in table["status"]] for table in tables]
    warnings = _warnings(sides)
    if union:
        warnings += _one_model(sides, tables)
    return Comparison(
        rows=len(shared),
        left_out={side.name: len(side.rows["row"]) - len(shared) for side in sides},
        standings=tuple(map(_standing, sides, tables, right, stands)),
        pairs=tuple(
            Pair(
                first=sides[i].name,
                second=sides[j].name,
                clean=paired(right[i], right[j]),
                robust=paired(stands[i], stands[j]),
            )
            for i, j in combinations(range(len(sides)), 2)
        ),
        worst=_worst(stands) if union else None,
        warnings=tuple(warnings),
    )


def _labels(side: Side) -> dict[int, int]:
    """The label of every row number of an audit."""
    held = dict(zip(side.rows["row"], side.rows["label"], strict=True))
    if len(held) < len(side.rows["row"]):
        raise InputError(f"{side.name} holds a row number twice, so its rows cannot be matched: run the audit again.")
    return held


def _shared(sides: Sequence[Side]) -> list[int]:
    """The numbers of the rows that all audits hold, in order."""
    labels = [_labels(side) for side in sides]
    shared = sorted(set(labels[0]).intersection(*labels[1:]))
    if not shared:
        names = ", ".join(side.name for side in sides)
        raise InputError(f"{names} share no row: compare audits of the same data, and of rows that overlap.")
    for side, theirs in zip(sides[1:], labels[1:], strict=True):
        if odd := [row for row in shared if theirs[row] != labels[0][row]]:
            named = ", ".join(map(str, odd[:_NAMED])) + (" ..." if len(odd) > _NAMED else "")
            raise InputError(
                f"{len(odd)} of {len(shared)} shared rows have other labels in {side.name} than in {sides[0].name} "
                f"(rows {named}): compare audits of the same data."
            )
    return shared


def _select(rows: Columns, numbers: Sequence[int]) -> dict[str, list[Any]]:
    """Some rows of the columns, in the order of the numbers."""
    at = {number: place for place, number in enumerate(rows["row"])}
    places = [at[number] for number in numbers]
    return {name: [values[i] for i in places] for name, values in rows.items()}


def _standing(side: Side, table: Columns, right: Sequence[bool], stands: Sequence[bool]) -> Standing:
    fell = sorted(d for d, ok in zip(table["distance"], right, strict=True) if ok and d is not None)
    return Standing(
        name=side.name,
        clean=share(sum(right), len(right)),
        robust=share(sum(stands), len(stands)),
        median=quantile(fell, sum(right), 0.5),
    )


def _worst(stands: Sequence[Sequence[bool]]) -> Worst:
    n = len(stands[0])
    union = share(sum(map(all, zip(*stands, strict=True))), n)
    return Worst(union=union, average=sum(map(sum, stands)) / (n * len(stands)))


def _warnings(sides: Sequence[Side]) -> list[str]:
    """Where the audits were not asked the same, in words; then what each said of itself."""
    found: list[str] = []
    for what, means in (
        ("threat", "each stands against what it was asked, and the differences compare the questions too"),
        ("data", "rows are matched by number and label alone: make sure that they are the same inputs"),
        ("suite", "the stronger suite finds more, whatever the model"),
        ("access", "who sees more of a model finds more"),
    ):
        asked: dict[str, list[str]] = {}
        for side in sides:
            asked.setdefault(str(getattr(side, what)), []).append(side.name)
        if len(asked) > 1:
            told = "; ".join(f"{value} in {', '.join(names)}" for value, names in asked.items())
            found.append(f"The {what} is not the same ({told}): {means}.")
    for first, second in combinations(sides, 2):
        odd = sorted({*first.attacks} ^ {*second.attacks})
        if odd and (first.threat, first.suite) == (second.threat, second.suite):
            found.append(
                f"The suite has one name and not the same attacks in {first.name} and {second.name}, where only one "
                f"ran {', '.join(odd)}: it may find more."
            )
    return found + [f"{side.name}: {text}" for side in sides for text in side.warnings]


def _one_model(sides: Sequence[Side], tables: Sequence[Columns]) -> list[str]:
    """A warning where the clean answers differ on a few rows; refuses where they are those of several models."""
    found: list[str] = []
    for side, table in zip(sides[1:], tables[1:], strict=True):
        odd = sum(map(partial(_differ, tables[0], table), range(len(table["row"]))))
        told = f"{side.name} answers {odd} of {len(table['row'])} shared rows otherwise than {sides[0].name}, clean"
        if odd > _ODD * len(table["row"]):
            raise InputError(
                f"{told}: a union is of several threats to one model that answers the same twice, so leave --union out."
            )
        if odd:
            found.append(f"{told}.")
    return found


def _differ(one: Columns, other: Columns, row: int) -> bool:
    """Whether a row was answered differently without an attack."""
    if one["clean_prediction"][row] != other["clean_prediction"][row]:
        return True
    a, b = one["clean_confidence"][row], other["clean_confidence"][row]
    return (a is None) != (b is None) or (a is not None and abs(a - b) > _SURE)
