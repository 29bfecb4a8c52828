"""adamant compare: is one model more robust than another, or is it chance?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from adamant.cli.common import percent
from adamant.errors import InputError
from adamant.evaluation import Comparison, Paired, Side, compare
from adamant.evaluation.parts import COLUMNS
from adamant.files import make_folder, write_whole
from adamant.report import AuditResult, read_result, read_rows, write_page


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Put finished audits side by side on the rows that they share, with intervals and a paired test."""

    folders: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Two or more folders of audits; differences are second minus first."""
    union: bool = False
    """The audits are several threats to one model: count what stands under all of them."""
    out: str | None = None
    """A folder for compare.json, and for report.html with the audits side by side."""
    json: bool = False
    """Print one JSON document and nothing else."""

    def run(self) -> int:
        """Compare, print the table and the sentences."""
        folders = [Path(f) for f in self.folders]
        if len({f.resolve() for f in folders}) < len(folders):
            raise InputError("A folder is named twice: compare different audits.")
        results = [_audit(folder) for folder in folders]
        sides = [
            _side(name, result, folder)
            for name, result, folder in zip(names(results, folders), results, folders, strict=True)
        ]
        found = compare(sides, union=self.union)
        document = _document(found, sides, folders)
        console = Console(quiet=self.json, highlight=False, markup=False, emoji=False)
        if self.out:
            out = make_folder(Path(self.out))
            write_whole(out / "compare.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
            write_page(folders, out / "report.html")
        if self.json:
            Console(highlight=False, soft_wrap=True, emoji=False).print_json(json.dumps(document))
        console.print(table(found))
        for sentence in sentences(found):
            console.print(sentence, soft_wrap=True)
        for warning in found.warnings:
            console.print(f"Warning: {warning}", style="bold red", soft_wrap=True)
        if self.out:
            console.print(f"Report: {Path(self.out) / 'report.html'}", soft_wrap=True)
        return 0


def _audit(folder: Path) -> AuditResult:
    result = read_result(folder)
    if not isinstance(result, AuditResult):
        raise InputError(f"{folder} holds a training run: compare folders that adamant audit made.")
    return result


def _side(name: str, result: AuditResult, folder: Path) -> Side:
    rows = read_rows(folder)
    split = f", {result.data.split}" if result.data.split else ""
    return Side(
        name=name,
        rows={column: [getattr(row, column) for row in rows] for column in COLUMNS},
        threat=result.threat.repr,
        data=result.data.spec + split,
        suite=result.suite,
        access=result.access or "WhiteBox()",
        attacks=tuple(stage.recipe or stage.attack for stage in result.stages),
        warnings=result.warnings,
    )


def names(results: Sequence[AuditResult], folders: Sequence[Path]) -> list[str]:
    """What each audit is called: its name, with the threat where these differ, or its folder to tell it apart."""
    one_threat = len({r.threat.repr for r in results}) == 1
    called = [r.name if one_threat else f"{r.name} under {r.threat.repr}" for r in results]
    return called if all(called) and len(set(called)) == len(called) else [str(folder) for folder in folders]


def _document(found: Comparison, sides: Sequence[Side], folders: Sequence[Path]) -> dict[str, Any]:
    asked = ("threat", "data", "suite")
    return {
        "schema": "adamant.compare/1",
        "audits": [
            {"folder": str(folder), **{k: getattr(side, k) for k in asked}, **asdict(standing)}
            for folder, side, standing in zip(folders, sides, found.standings, strict=True)
        ],
        "rows": found.rows,
        "left_out": found.left_out,
        "pairs": [asdict(pair) for pair in found.pairs],
        "worst": asdict(found.worst) if found.worst else None,
        "warnings": list(found.warnings),
    }


def table(found: Comparison) -> Table:
    """A line for each audit, and one for the union."""
    view = Table(title=f"On the {found.rows:,} rows that all share", title_justify="left", show_edge=False)
    view.add_column("audit", overflow="fold")
    for column in ("no attack", "stands", "median change"):
        view.add_column(column, justify="right", no_wrap=True)
    for standing in found.standings:
        median = "half stand" if standing.median is None else f"{standing.median:.4g}"
        view.add_row(standing.name, percent(standing.clean), percent(standing.robust), median)
    if found.worst:
        view.add_row("all at once", "", percent(found.worst.union), "", style="bold")
        view.add_row("mean of them", "", f"{found.worst.average:.1%}", "")
    return view


def sentences(found: Comparison) -> list[str]:
    """What the pairs say, and which rows are not in them."""
    told: list[str] = []
    for pair in found.pairs:
        told.append(f"{_moved(pair.second, pair.first, pair.robust, 'stands on')}. {_split(pair.robust)}")
        told.append(f"Without attack {_moved(pair.second, pair.first, pair.clean, 'is right on')}.")
    if (tests := len(found.pairs)) > 1:
        told.append(f"{tests} pairs were tested: hold each p against 0.05 / {tests} = {0.05 / tests:.2g} (Bonferroni).")
    if any(found.left_out.values()):
        rest = ", ".join(f"{n:,} of {name}" for name, n in found.left_out.items() if n)
        told.append(f"{found.rows:,} rows are shared; left out are {rest}.")
    return told


def _moved(second: str, first: str, figures: Paired, verb: str) -> str:
    """That one does better than the other by so many points, from the side of the better one."""
    better, low, high = second, figures.low, figures.high
    if figures.difference < 0:
        better, low, high = first, -figures.high, -figures.low
    other = first if better == second else second
    if figures.difference == 0:
        start = f"{second} {verb} as many of the {figures.rows:,} shared rows as {first}"
    else:
        points = f"{abs(figures.difference) * 100:.1f} points more of the {figures.rows:,} shared rows"
        start = f"{better} {verb} {points} than {other}"
    p = "p < 0.0001" if figures.p < 1e-4 else f"p = {figures.p:.2g}"
    return f"{start}, 95 % interval [{low * 100:.1f}, {high * 100:.1f}], McNemar {p}"


def _split(figures: Paired) -> str:
    return f"{figures.both:,} stand in both, {figures.only_first:,} + {figures.only_second:,} in one of them alone."
