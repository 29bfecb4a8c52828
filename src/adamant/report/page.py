"""Writes the page: gathers what each section says, in plain values, and fills the template with it."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adamant.errors import InputError
from adamant.evaluation.counting import Paired, paired
from adamant.files import write_whole
from adamant.report import figures, words
from adamant.report.counting import wilson
from adamant.report.figures import Drawing
from adamant.report.gallery import Gallery, gallery
from adamant.report.reading import Row, read_result, read_rows
from adamant.report.records import Accuracy, AuditResult, ClassResult, CurvePoint, TrainingResult

_HELD = ("robust", "out_of_budget", "invalid")
_MOST_ROWS_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Audited:
    """One audit as the page shows it."""

    key: str  # starts every id of this model's parts
    label: str
    series: int
    result: AuditResult
    rows: tuple[Row, ...]
    gallery: Gallery
    alarms: tuple[str, ...]
    classes: Drawing | None
    worst_first: tuple[ClassResult, ...]
    lost: Accuracy  # the share of inputs that the attacks took away


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One training run as the page shows it."""

    key: str
    label: str
    result: TrainingResult
    learning: Drawing | None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One figure of accuracy over the budget: models under the same norm."""

    drawing: Drawing
    norm: str | None
    models: tuple[Audited, ...]


def write_page(folders: Sequence[Path], out: Path, *, title: str | None = None) -> Path:
    """One self-contained HTML page from run folders: audits in the order given, then how models were trained.

    The page needs no network, and its bytes depend on the folders and the title alone.

    Raises:
        InputError: no folder is given.
        RunError: a folder misses a file, holds one that cannot be read, or the page cannot be written.
    """
    if not folders:
        raise InputError("A report needs at least one run folder: adamant report runs/a --out report.html")
    found = [(Path(folder), read_result(Path(folder))) for folder in folders]
    audits = [(folder, result) for folder, result in found if isinstance(result, AuditResult)]
    runs = [result for _, result in found if isinstance(result, TrainingResult)]
    models = tuple(
        _audited(folder, result, label, place, len(audits))
        for place, ((folder, result), label) in enumerate(
            zip(audits, _labels([result.name for _, result in audits]), strict=True), 1
        )
    )
    lessons = tuple(
        _trained(result, label, place)
        for place, (result, label) in enumerate(zip(runs, _labels([run.name for run in runs]), strict=True), 1)
    )
    out = Path(out)
    write_whole(out, _render(models, lessons, title))
    return out


def _render(models: tuple[Audited, ...], lessons: tuple[Trained, ...], title: str | None) -> str:
    script = resource("copy.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        templates()
        .get_template("page.html")
        .render(
            title=title or _title(models, lessons),
            models=models,
            lessons=lessons,
            curves=_curves(models),
            diagnosed=any(m.result.diagnostics for m in models),
            pair=_pair(models),
            same_terms=len({_terms(model.result) for model in models}) <= 1,
            style=Markup(resource("page.css")),
            script=Markup(script),
            script_digest=digest,
        )
    )


@cache
def templates() -> Environment:
    """The templates of all pages, with what they may call."""
    environment = Environment(
        loader=PackageLoader("adamant.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "share": words.share,
        "interval": _interval,
        "span": words.interval,
        "points": words.points,
        "whole": words.whole,
        "number": words.number,
        "duration": words.duration,
    }
    helpers: dict[str, Any] = {
        "budget": words.budget,
        "chance": words.chance,
        "status_words": words.STATUS_WORDS,
        "wilson": wilson,
        "most_classes": figures.MOST_CLASSES,
    }
    environment.filters.update(filters)
    environment.globals.update(helpers)
    return environment


def _interval(one: Accuracy | CurvePoint) -> str:
    return words.interval(one.low, one.high)


def resource(name: str) -> str:
    """The text of a file of the templates."""
    return files("adamant.report").joinpath("templates", name).read_text(encoding="utf-8")


def _audited(folder: Path, result: AuditResult, label: str, place: int, models: int) -> Audited:
    rows = read_rows(folder)
    key = f"m{place}"
    worst = sorted((one for one in result.per_class if one.rows), key=lambda one: (one.robust or 0, one.clean or 0))
    ordered = sorted(worst[: figures.MOST_CLASSES], key=lambda one: one.label)
    low, high = wilson(result.statuses.broken, result.clean.rows)
    return Audited(
        key=key,
        label=label,
        series=(place - 1) % 6 + 1,
        result=result,
        rows=rows,
        gallery=gallery(folder, result, rows, name=f"{key}-input", models=models),
        alarms=tuple(_alarms(result, rows)),
        classes=figures.classes(ordered, name=f"{key}-classes", alt=_classes_alt(label, worst)) if worst else None,
        worst_first=tuple(worst),
        lost=Accuracy(
            accuracy=result.statuses.broken / max(1, result.clean.rows),
            low=low,
            high=high,
            correct=result.statuses.broken,
            rows=result.clean.rows,
        ),
    )


def _trained(result: TrainingResult, label: str, place: int) -> Trained:
    key = f"t{place}"
    learning = (
        figures.learning(result, name=f"{key}-learning", alt=_learning_alt(label, result)) if result.epochs else None
    )
    return Trained(key=key, label=label, result=result, learning=learning)


def _labels(names: Sequence[str]) -> list[str]:
    """The names, told apart by a number where two are the same."""
    names = [name.strip() or "model without a name" for name in names]
    seen: Counter[str] = Counter()
    labels: list[str] = []
    for name in names:
        seen[name] += 1
        labels.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return labels


def _title(models: Sequence[Audited], lessons: Sequence[Trained]) -> str:
    if len(models) == 1:
        return f"Robustness audit: {models[0].label}"
    if models:
        return f"Robustness audit of {len(models)} models"
    return f"Training report: {words.listed([lesson.label for lesson in lessons])}"


def _terms(result: AuditResult) -> tuple[object, ...]:
    return result.threat.repr, result.data.spec, result.data.split, result.data.rows, result.suite


def _alarms(result: AuditResult, rows: Sequence[Row]) -> list[str]:
    """What makes the figures themselves doubtful."""
    alarms: list[str] = []
    invalid = [row for row in rows if row.status == "invalid"]
    count = max(len(invalid), result.statuses.invalid)
    if count:
        named = ", ".join(str(row.row) for row in invalid[:_MOST_ROWS_NAMED])
        more = f" and {len(invalid) - _MOST_ROWS_NAMED} more" if len(invalid) > _MOST_ROWS_NAMED else ""
        where = f" ({'row' if len(invalid) == 1 else 'rows'} {named}{more})" if invalid else ""
        verb = "input is" if count == 1 else "inputs are"
        alarms.append(
            f"{count:,} {verb} invalid{where}: the attack left the threat model there, a defect of the attack. "
            "They count as held, so the robust accuracy may be too high; mend the attack and run the audit again."
        )
    counted = Counter(row.status for row in rows)
    told = vars(result.statuses)
    wrong = [
        f"{counted[name]:,} {name} instead of {told.get(name, 0):,}"
        for name in sorted(set(counted) | set(told))
        if counted[name] != told.get(name, 0)
    ]
    if wrong:
        alarms.append(
            f"rows.parquet does not agree with result.json: it has {words.listed(wrong)}. Run the audit again."
        )
    for name, one, right in (
        ("clean", result.clean, len(rows) - counted["wrong_already"]),
        ("robust", result.robust, sum(counted[status] for status in _HELD)),
    ):
        if not wrong and (one.correct, one.rows) != (right, len(rows)):
            alarms.append(
                f"The {name} accuracy of result.json counts {one.correct:,} of {one.rows:,} inputs, "
                f"rows.parquet {right:,} of {len(rows):,}. Run the audit again."
            )
    return alarms


def _curves(models: Sequence[Audited]) -> tuple[Curve, ...]:
    groups: dict[str | None, list[Audited]] = {}
    for model in models:
        if len(model.result.curve) > 1:
            groups.setdefault(model.result.threat.norm, []).append(model)
    return tuple(
        Curve(
            drawing=figures.curve([(m.label, m.result) for m in group], name=f"curve{place}", alt=_curve_alt(group)),
            norm=norm,
            models=tuple(group),
        )
        for place, (norm, group) in enumerate(groups.items(), 1)
    )


def _curve_alt(group: Sequence[Audited]) -> str:
    told: list[str] = []
    for model in group:
        first, last = model.result.curve[0], model.result.curve[-1]
        told.append(
            f"{model.label} goes from {words.share(first.accuracy)} at budget {words.number(first.eps)} "
            f"to {words.share(last.accuracy)} at budget {words.number(last.eps)}"
        )
    return f"Accuracy over the budget of the attacker: {'; '.join(told)}."


def _classes_alt(label: str, worst: Sequence[ClassResult]) -> str:
    weak, strong = worst[0], worst[-1]
    return (
        f"Accuracy per class of {label}: under attack the weakest class is {weak.name} "
        f"with {words.share(weak.robust or 0)}, the strongest {strong.name} with {words.share(strong.robust or 0)}."
    )


def _learning_alt(label: str, result: TrainingResult) -> str:
    last = result.epochs[-1]
    parts = [f"Training of {label} over {len(result.epochs)} epochs"]
    if last.loss is not None:
        parts.append(f"the loss ends at {words.number(last.loss)}")
    if last.clean is not None:
        parts.append(f"validation accuracy at {words.share(last.clean)} clean")
    if last.robust is not None:
        parts.append(f"and {words.share(last.robust)} under attack")
    best = "" if result.best_epoch is None else f" The best epoch is {result.best_epoch}."
    return ", ".join(parts) + "." + best


def _pair(models: Sequence[Audited]) -> Paired | None:
    """The paired comparison of exactly two models, where both were asked the same question on the same rows."""
    if len(models) != 2:
        return None
    first, second = models
    if _terms(first.result)[:3] != _terms(second.result)[:3]:
        return None
    one, other = ({row.row: row for row in model.rows} for model in (first, second))
    if one.keys() != other.keys() or not one or any(one[row].label != other[row].label for row in one):
        return None
    order = sorted(one)
    return paired([one[row].status in _HELD for row in order], [other[row].status in _HELD for row in order])
