"""adamant corrupt: how much does weather, blur, noise and coding cost?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

import adamant
from adamant import runs, values
from adamant.calling import Settings
from adamant.cli.common import Source, at_least_one, percent
from adamant.corruptions import ALL15, EXTRA, KINDS, ROAD, Kind
from adamant.data import DataSet
from adamant.errors import InputError
from adamant.evaluation import Corrupted, corrupted
from adamant.files import make_folder, write_whole
from adamant.models import as_logits
from adamant.random import Rng
from adamant.report.corruption import Shown, write_corruption_page

_SETS: dict[str, tuple[Kind, ...]] = {"all": ALL15, "extra": EXTRA, "road": ROAD}
_SHOWN = (3, 5)  # severities in the gallery


@dataclass(frozen=True, kw_only=True)
class Corrupt(Source):
    """Measure the accuracy under common corruptions and write a report."""

    kinds: str = "all"
    """all (the fifteen of ImageNet-C), extra, road, or names with commas between, such as Fog,Snow,JPEG."""
    severities: str = "1,2,3,4,5"
    """Which of the severities 1 to 5, with commas between."""
    batch_size: int | None = None
    """128 by default; does not change the corruptions."""
    name: str | None = None
    """What the report calls the model."""
    out: str = "runs/corrupt"
    """Where the results go."""

    def run(self) -> int:
        """Corrupt, ask the model, print the table, write the files."""
        at_least_one(batch_size=self.batch_size)
        kinds, severities = _kinds(self.kinds), _severities(self.severities)
        folder = make_folder(Path(self.out))
        raw, data = self.load()
        _check(data)
        model, notes = as_logits(raw, data.x[:16].to(runs.device_of(raw)))
        settings = Settings(batch_size=self.batch_size)
        with self.progress("corrupt", "steps") as tell:
            found = corrupted(
                model, data, kinds=kinds, severities=severities, seed=self.seed, settings=settings, watch=tell
            )
        result: dict[str, Any] = {
            "schema": "adamant.corrupted/1",
            "adamant": adamant.__version__,
            "name": self.name or str(self.model),
            "model": runs.facts_of_model(str(self.model), raw, notes),
            "data": runs.facts_of_data(data),
            **found.summary(),
            "provenance": runs.provenance(runs.command_line(), runs.device_of(raw)),
        }
        write_whole(folder / "result.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        columns = ("clean", *(f"severity {s}" for s in _SHOWN))
        write_corruption_page(folder / "report.html", result, columns, _gallery(data, kinds, self.seed))
        self.say(result)
        self.console.print(table(found, result["name"]))
        self.console.print(f"Seed {self.seed}. Report: {folder / 'report.html'}", soft_wrap=True)
        return 0


def _kinds(text: str) -> tuple[Kind, ...]:
    chosen: list[Kind] = []
    for word in (w.strip() for w in text.split(",")):
        if word.lower() in _SETS:
            chosen += _SETS[word.lower()]
        else:
            chosen.append(type(values.read(word, KINDS, kind="corruption")))
    return tuple(dict.fromkeys(chosen))


def _severities(text: str) -> tuple[int, ...]:
    words = [w.strip() for w in text.split(",")]
    if not all(w in ("1", "2", "3", "4", "5") for w in words):
        raise InputError(f"--severities {text}: give numbers from 1 to 5 with commas between, for example 1,3,5.")
    return tuple(sorted({int(w) for w in words}))


def _check(data: DataSet) -> None:
    if data.x.ndim != 4:
        raise InputError(
            f"Corruptions are for pictures (channels, height, width), and a row of {data.name} has the shape "
            f"{tuple(data.x.shape[1:])}."
        )


def _gallery(data: DataSet, kinds: tuple[Kind, ...], seed: int) -> list[Shown]:
    """The first picture, clean and under each kind."""
    x, rng = data.x[:1], Rng.of(seed, data.rows[:1])
    return [(k.__name__, [_shown(x), *(_shown(k(severity=s)(x, rng)) for s in _SHOWN)]) for k in kinds]


def _shown(x: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    channels = x[0] if x.shape[1] in (1, 3) else x[0, :1]
    return channels.permute(1, 2, 0).float().cpu().numpy()


def table(found: Corrupted, name: str) -> Table:
    """One line per kind, one column per severity."""
    view = Table(title=f"Accuracy of {name} under corruptions", title_justify="left", show_edge=False)
    severities = list(next(iter(found.shares.values())))
    for column in ("", *map(str, severities), "mean"):
        view.add_column(column, justify="right" if column else "left")
    view.add_row("clean", *[""] * len(severities), percent(found.clean))
    for kind, by in found.shares.items():
        cells = (f"{by[s]['accuracy']:.1%}" for s in severities)
        view.add_row(kind, *cells, f"{found.per_kind[kind]:.1%}")
    means = (sum(by[s]["accuracy"] for by in found.shares.values()) / len(found.shares) for s in severities)
    view.add_row("mean", *(f"{m:.1%}" for m in means), f"{found.mean:.1%}", style="bold")
    if (mce := found.mce()) is not None:
        view.add_row("mCE (AlexNet 100 %)", *[""] * len(severities), f"{mce:.1%}")
    return view
