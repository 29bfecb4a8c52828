"""adamant report: one page from one or several run folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from adamant.report import write_page


@dataclass(frozen=True, kw_only=True)
class Report:
    """Put audits and training runs side by side on one self-contained page."""

    folders: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run folders, in the order of the page."""
    out: str = "runs/report.html"
    """The page."""
    title: str | None = None
    """What stands at its top."""
    json: bool = False
    """Print one JSON document and nothing else."""

    def run(self) -> int:
        """Write the page."""
        page = write_page([Path(f) for f in self.folders], Path(self.out), title=self.title)
        if self.json:
            Console(soft_wrap=True, emoji=False).print_json(json.dumps({"report": str(page)}))
        else:
            Console(highlight=False, soft_wrap=True, markup=False, emoji=False).print(f"Report: {page}")
        return 0
