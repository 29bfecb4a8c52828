"""The page of a tuning run: the plane of clean and robust accuracy, with the models that nothing beats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from adamant.files import write_whole
from adamant.report import figures, words
from adamant.report.page import resource, templates


def write_tuning_page(out: Path, result: Mapping[str, Any]) -> Path:
    """One self-contained HTML page from what result.json says. Raises RunError when the page cannot be written."""
    trials = result["trials"]
    taken = next(t for t in trials if t["taken"])
    best = sorted((t for t in trials if t["front"]), key=lambda t: t["clean"]["accuracy"])
    alt = "Robust over clean accuracy. Not beaten: " + "; ".join(
        f"{t['label']}, clean {words.share(t['clean']['accuracy'])}, robust {words.share(t['robust']['accuracy'])}"
        for t in best
    )
    page = (
        templates()
        .get_template("tuning.html")
        .render(
            title=f"What robustness costs: {result['name']}",
            style=Markup(resource("page.css")),
            result=result,
            taken=taken,
            best=best,
            drawing=figures.frontier(trials, name="frontier", alt=alt),
        )
    )
    write_whole(out, page)
    return out
