"""The page of a generation run: what was made, how near it comes to the data, and how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from adamant.files import write_whole
from adamant.report import figures, words
from adamant.report.gallery import as_picture
from adamant.report.page import resource, templates

Sheet = tuple[str, npt.NDArray[np.floating[Any]]]  # a title, and one picture (h w 1 or 3) in [0, 1]
Points = tuple[str, npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]  # title, codes, y, prior

_SIDE = 1024
_GROUPS = (
    ("distance", ("frechet",)),
    ("shares", ("precision", "recall", "density", "coverage")),
)


@final
@dataclass(frozen=True, kw_only=True)
class Shown:
    """Pictures for the page: along the way by step, at the end, and codes in the plane."""

    along: Sequence[tuple[int, npt.NDArray[np.floating[Any]]]] = ()
    sheets: Sequence[Sheet] = ()
    maps: Sequence[Points] = ()


def write_generation_page(out: Path, result: Mapping[str, Any], shown: Shown) -> Path:
    """One self-contained HTML page from what result.json says. Raises RunError when the page cannot be written."""
    sheets = [(t, as_picture(t, t + ".", x, side=_SIDE)) for t, x in shown.sheets]
    along = [(s, as_picture(f"step {s}", f"Samples after {s} steps.", x, side=_SIDE)) for s, x in shown.along]
    classes = result["data"]["classes"]
    maps = [
        (t, figures.codes(points, y, drawn, classes=classes, name=f"codes-{i}", alt=f"{t}."))
        for i, (t, points, y, drawn) in enumerate(shown.maps)
    ]
    page = (
        templates()
        .get_template("generation.html")
        .render(
            title=f"Made: {result['name']}",
            style=Markup(resource("page.css")),
            result=result,
            sheets=sheets,
            along=along,
            maps=maps,
            drawing=_courses(result),
        )
    )
    write_whole(out, page)
    return out


def _courses(result: Mapping[str, Any]) -> figures.Drawing:
    """The figures and the losses over the steps."""
    measured: Sequence[Mapping[str, Any]] = result["measured"]
    names = list(dict.fromkeys(n for one in measured for n in one))
    grouped = {n for _, group in _GROUPS for n in group}
    rest = tuple(n for n in result["test"]["figures"] if n not in grouped and n in names)
    groups = (*_GROUPS, *((("other figures", rest),) if not grouped & set(names) else ()))
    losses = tuple(n for n in names if n.startswith("loss_"))
    panels = [(t, _lines(measured, g)) for t, g in (*groups, ("losses", losses)) if set(g) & set(names)]
    last = ", ".join(f"{n} {words.number(v)}" for n, v in result["test"]["figures"].items())
    return figures.courses(panels, best=result["best_step"], name="courses", alt=f"Over the steps; at the end {last}.")


def _lines(measured: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, tuple[list[float], list[float]]]:
    return {
        n.removeprefix("loss_"): (
            [one["step"] for one in measured if n in one],
            [one[n] for one in measured if n in one],
        )
        for n in names
        if any(n in one for one in measured)
    }
