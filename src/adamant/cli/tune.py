"""adamant tune: what clean accuracy does robustness cost, and which model is the one to take?"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import nn

import adamant
from adamant import runs
from adamant.cli import words
from adamant.cli.common import Source, at_least_one, percent
from adamant.data import DataSet, load_data
from adamant.errors import InputError, RunError
from adamant.evaluation import QUICK, Order, audit
from adamant.files import make_folder, write_whole
from adamant.models import Architecture, as_logits, load_model, save_model
from adamant.models.save import suffix_of
from adamant.report.tuning import write_tuning_page
from adamant.threats import Projectable
from adamant.training import Job, Plan, fit
from adamant.training.frontier import Point, between, choose, front
from adamant.values import brief

Values = dict[str, float]


class _Range(NamedTuple):
    """Every number between two, for a search."""

    low: float
    high: float


Axis = tuple[float, ...] | _Range
_RANGE = re.compile(r"^(?P<low>[-+0-9.e]+)\.\.(?P<high>[-+0-9.e]+)$")


@dataclass(frozen=True, kw_only=True)
class Tune(Source):
    """Train the same model many times, or mix two models, and show what robustness costs in clean accuracy."""

    split: str = "train"
    threat: str = ""
    """What the adversary may do: linf:0.3, l2:0.5 ..."""
    recipe: str = "trades(beta={beta})"
    """A recipe with names in braces, whose values --over gives."""
    over: tuple[str, ...] = ("beta=1,3,6",)
    """beta=1,3,6 for a sweep; beta=0.5..10 for a search by Optuna."""
    to: str | None = None
    """Another file of the same architecture: the models between the two, instead of training."""
    points: int = 9
    """How many models on the way to the other, both ends included."""
    trials: int = 12
    """How many trainings a search may take."""
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "Adam()"
    rows: int = 500
    """Validation rows that judge, none of which chose an epoch."""
    least_clean: float | None = None
    """Take the most robust model with at least this clean accuracy; by default that of the largest sum."""
    name: str | None = None
    """What the report calls it."""
    out: str = "runs/tune"
    """The folder of the run."""
    resume: bool = False
    """Keep the trials that are finished."""

    def run(self) -> int:
        """Try, judge, choose, write the page."""
        at_least_one(points=self.points, trials=self.trials, epochs=self.epochs, rows=self.rows)
        if not self.threat:
            raise InputError("Which threat? Give --threat, for example --threat linf:0.3.")
        threat, folder = words.threat(self.threat), make_folder(Path(self.out))
        data = self.load_data()
        held = load_data(str(self.data), split="val", data_dir=self.data_dir)
        chosen_by = min(Plan().select_rows, len(held) // 2)
        judges = held.take(torch.arange(chosen_by, min(len(held), chosen_by + self.rows)))
        path = folder / "trials.json"
        kept = _finished(path) if self.resume else []
        began = time.monotonic()
        if self.to:
            trials = list(self._mixed(data, judges, threat, kept, path))
        else:
            selection = held.take(torch.arange(chosen_by))
            trials = list(self._trained(data, selection, judges, threat, kept, path, folder))
        places = [Point(t["clean"]["accuracy"], t["robust"]["accuracy"]) for t in trials]
        taken, best = choose(places, self.least_clean), front(places)
        result: dict[str, Any] = {
            "schema": "adamant.tuning/1",
            "adamant": adamant.__version__,
            "name": self.name or str(self.model),
            "recipe": f"between {self.model} and {self.to}" if self.to else self.recipe,
            "threat": brief(threat),
            "suite": QUICK.name,
            "data": runs.facts_of_data(judges),
            "seed": self.seed,
            "trials": [{**t, "front": i in best, "taken": i == taken} for i, t in enumerate(trials)],
            "seconds": round(time.monotonic() - began, 1),
            "provenance": runs.provenance(runs.command_line(), torch.device(self.device or "cpu")),
        }
        write_whole(folder / "result.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        write_tuning_page(folder / "report.html", result)
        self.say(result)
        self.console.print(table(result))
        self.console.print(f"Take {trials[taken]['label']}. Seed {self.seed}. Report: {folder / 'report.html'}")
        return 0

    # --- where models come from -----------------------------------------------------------------------------------

    def _trained(
        self, data: DataSet, selection: DataSet, judges: DataSet, threat: Projectable,
        kept: list[dict[str, Any]], path: Path, folder: Path,
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        done: list[dict[str, Any]] = []
        plan = Plan(epochs=self.epochs, batch_size=self.batch_size, optimizer=words.optimizer(self.optimizer))
        for number, values in enumerate(self._tried(done)):
            label = ", ".join(f"{k} {v:.4g}" for k, v in values.items())
            known = next((t for t in kept if t["values"] == values), None)
            if known is None:
                recipe = words.recipe(_filled(self.recipe, values))
                raw = self.load_model(data)
                model, _ = as_logits(raw, data.x[:16].to(runs.device_of(raw)))
                place = make_folder(folder / f"trial-{number:03d}")
                with self.progress(f"{number + 1}: {label}", "steps") as tell:
                    job = Job(
                        model=model, data=data, validation=selection, threat=threat, recipe=recipe, plan=plan,
                        seed=self.seed, folder=place, resume=self.resume, watch=tell,
                    )  # fmt: skip
                    report = fit(job)
                shape, classes = tuple(data.x.shape[1:]), len(data.classes)
                name = self.arch or str(self.model)
                saved = place / f"model{suffix_of(raw)}"
                save_model(
                    raw,
                    saved,
                    architecture=Architecture(
                        name=name, shape=shape, classes=classes, mean=self.mean or (), std=self.std or ()
                    ),
                )
                known = {
                    "values": values, "label": label, **self._judged(model, judges, threat),
                    "seconds": round(report.seconds, 2), "model": str(saved),
                }  # fmt: skip
            done.append(known)
            write_whole(path, json.dumps(done))
            yield known

    def _mixed(
        self, data: DataSet, judges: DataSet, threat: Projectable, kept: list[dict[str, Any]], path: Path
    ) -> Iterator[dict[str, Any]]:
        done: list[dict[str, Any]] = []
        one, into = self.load_model(data), self.load_model(data)
        other = load_model(
            str(self.to), arch=self.arch, shape=tuple(data.x.shape[1:]), classes=len(data.classes), mean=self.mean,
            std=self.std, trust=self.trust,
        ).to(runs.device_of(one))  # fmt: skip
        some = data.x[:2048].to(runs.device_of(one))
        for place in range(self.points):
            values = {"share": place / max(1, self.points - 1)}
            known = next((t for t in kept if t["values"] == values), None)
            if known is None:
                between(one, other, values["share"], into, some)
                model, _ = as_logits(into, some[:16])
                known = {
                    "values": values, "label": f"{values['share']:.0%} of the way",
                    **self._judged(model, judges, threat), "seconds": 0.0, "model": None,
                }  # fmt: skip
            done.append(known)
            write_whole(path, json.dumps(done))
            yield known

    def _judged(self, model: nn.Module, rows: DataSet, threat: Projectable) -> dict[str, Any]:
        found = audit(model, rows, Order(threat=threat, suite=QUICK, seed=self.seed, curve=False)).summary()
        return {"clean": found["clean"], "robust": found["robust"]}

    def _tried(self, done: list[dict[str, Any]]) -> Iterator[Values]:
        """The values to try: all combinations, or what a search proposes after each trial that is done."""
        wanted = dict(_axis(text) for text in self.over)
        if not any(isinstance(v, _Range) for v in wanted.values()):
            lists = [[(k, float(x)) for x in v] for k, v in wanted.items()]
            yield from (dict(one) for one in itertools.product(*lists))
            return
        yield from self._searched(wanted, done)

    def _searched(self, wanted: dict[str, Axis], done: list[dict[str, Any]]) -> Iterator[Values]:
        try:
            import optuna  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError("A search needs Optuna: pip install 'adamant[tune]', or give lists of values.") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            directions=["maximize", "maximize"], sampler=optuna.samplers.TPESampler(seed=self.seed, multivariate=True)
        )
        for _ in range(self.trials):
            trial = study.ask()
            values = {
                k: trial.suggest_float(k, v.low, v.high, log=v.low > 0 and v.high >= 8 * v.low)
                if isinstance(v, _Range)
                else float(trial.suggest_categorical(k, list(v)))
                for k, v in wanted.items()
            }
            yield values
            study.tell(trial, [done[-1]["clean"]["accuracy"], done[-1]["robust"]["accuracy"]])


def _axis(text: str) -> tuple[str, Axis]:
    """`beta=1,3,6` as its numbers, `beta=1..6` as its ends."""
    name, sign, rest = text.partition("=")
    try:
        if sign and name.isidentifier() and (found := _RANGE.match(rest.strip())):
            low, high = float(found["low"]), float(found["high"])
            if low < high:
                return name, _Range(low, high)
        elif sign and name.isidentifier() and rest:
            return name, tuple(float(v) for v in rest.split(","))
    except ValueError:
        pass
    raise InputError(f"--over {text}: write a name and its values, as in beta=1,3,6, or a range, as in beta=0.5..10.")


def _filled(recipe: str, values: Values) -> str:
    for name, value in values.items():
        if f"{{{name}}}" not in recipe:
            raise InputError(f"--over gives {name}, and the recipe {recipe!r} has no {{{name}}} in it.")
        recipe = recipe.replace(f"{{{name}}}", repr(value))
    if left := re.search(r"\{(\w+)\}", recipe):
        raise InputError(f"The recipe asks for {left[0]}: give it with --over {left[1]}=1,2,3.")
    return recipe


def _finished(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): start again without --resume.") from error


def table(result: dict[str, Any]) -> Table:
    """A line for each model, the one to take in bold."""
    view = Table(title=f"{result['recipe']} under {result['threat']}", title_justify="left", show_edge=False)
    for column in ("", "clean", "robust", "seconds", ""):
        view.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for trial in result["trials"]:
        note = "taken" if trial["taken"] else "unbeaten" if trial["front"] else ""
        style = "bold" if trial["taken"] else None
        clean, robust = percent(trial["clean"]), percent(trial["robust"])
        view.add_row(trial["label"], clean, robust, f"{trial['seconds']:.0f}", note, style=style)
    return view
