"""adamant doctor: can figures of this model's robustness be believed?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from adamant import runs
from adamant.calling import Settings
from adamant.cli import words
from adamant.cli.common import Source, at_least_one, seen
from adamant.errors import InputError
from adamant.evaluation.doctor import Examination, Verdict, examine
from adamant.files import make_folder, write_whole

_STYLE = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.SKIPPED: "dim"}


@dataclass(frozen=True, kw_only=True)
class Doctor(Source):
    """Examine a model before its robustness is measured: is there anything that would mislead an attack?"""

    threat: str = ""
    """What the adversary may do: linf:8/255, l2:0.5, l1:12, or as in Python."""
    rows: int = 256
    """So many rows are asked, drawn by the seed."""
    access: str = ""
    """What the adversary sees: WhiteBox(), EOT(20), ScoresOnly(); by default all that the model shows."""
    claimed: float | None = None
    """The clean accuracy that is claimed for the model, from 0 to 1."""
    batch_size: int | None = None
    """Rows at once."""
    strict: bool = False
    """Leave with exit code 1 where a diagnostic fails."""
    out: str | None = None
    """A folder for doctor.json."""

    def run(self) -> int:
        """Examine, print the table."""
        at_least_one(rows=self.rows, batch_size=self.batch_size)
        if not self.threat:
            raise InputError("Which threat? Give --threat, for example --threat linf:8/255.")
        if self.claimed is not None and not 0 <= self.claimed <= 1:
            raise InputError(f"--claimed is {self.claimed}: give the accuracy as a number from 0 to 1.")
        threat = words.threat(self.threat)
        folder = make_folder(Path(self.out)) if self.out else None
        model, data = self.load()
        access = seen(self.access, model)
        settings = Settings(batch_size=self.batch_size, device=self.device)
        found = examine(
            model, data, threat, seed=self.seed, rows=self.rows, settings=settings, access=access, claimed=self.claimed
        )
        document: dict[str, Any] = {
            "schema": "adamant.doctor/1", "threat": repr(threat), "seed": self.seed, **found.to_dict(),
            "provenance": runs.provenance(runs.command_line(), runs.device_of(model)),
        }  # fmt: skip
        if folder:
            write_whole(folder / "doctor.json", json.dumps(document, indent=1) + "\n")
        self.say(document)
        self.console.print(table(found))
        self.console.print(_last_word(found), soft_wrap=True)
        return int(self.strict and found.worst == Verdict.FAIL)


def table(found: Examination) -> Table:
    """A line for each diagnostic; what to do below what was measured."""
    view = Table(show_edge=False)
    for column in ("", "diagnostic", "verdict", "number"):
        view.add_column(column, no_wrap=True)
    view.add_column("what was measured, and what to do", overflow="fold")
    for f in found.findings:
        said = f"{f.measured}\n-> {f.advice}" if f.advice else f.measured
        number = "" if f.number is None else f"{f.number:.3g}"
        view.add_row(f.id, f.name, f.verdict.name, number, said, style=_STYLE[f.verdict])
    return view


def _last_word(found: Examination) -> str:
    cost = f"{found.rows} rows, {found.forwards:,} forwards and {found.backwards:,} backwards."
    if found.masking:
        return f"Gradients mislead here: {', '.join(f.id for f in found.masking)}. {cost}"
    return f"The worst verdict is {found.worst.name}. {cost}"
