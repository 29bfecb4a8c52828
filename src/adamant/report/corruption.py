"""The page of a run under common corruptions: a table, a figure, and pictures to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from adamant.files import write_whole
from adamant.report import figures, words
from adamant.report.gallery import as_picture
from adamant.report.page import resource, templates

Shown = tuple[str, Sequence[npt.NDArray[np.float32]]]  # a kind and its pictures (h, w, 1 or 3), one per column


def write_corruption_page(out: Path, result: Mapping[str, Any], columns: Sequence[str], shown: Sequence[Shown]) -> Path:
    """One self-contained HTML page from what result.json says, and a gallery with one line per kind.

    Raises RunError when the page cannot be written.
    """
    accuracy = {kind: {int(s): one["accuracy"] for s, one in by.items()} for kind, by in result["corruptions"].items()}
    severities = list(next(iter(accuracy.values())))
    mean = {s: sum(by[s] for by in accuracy.values()) / len(accuracy) for s in severities}
    worst = min(result["per_kind"], key=result["per_kind"].__getitem__)
    alt = (
        f"Accuracy over severity: clean {words.share(result['clean']['accuracy'])}, on average "
        + ", ".join(f"{words.share(v)} at {s}" for s, v in mean.items())
        + f"; the worst kind is {worst}."
    )
    lines = [
        (kind, [as_picture(c, f"One input, {kind}, {c}.", p) for c, p in zip(columns, pictures, strict=True)])
        for kind, pictures in shown
    ]
    page = (
        templates()
        .get_template("corruption.html")
        .render(
            title=f"Common corruptions: {result['name']}",
            style=Markup(resource("page.css")),
            result=result,
            severities=severities,
            mean=mean,
            worst=worst,
            drawing=figures.severities(accuracy, mean, result["clean"]["accuracy"], name="severity", alt=alt),
            columns=columns,
            lines=lines,
        )
    )
    write_whole(out, page)
    return out
