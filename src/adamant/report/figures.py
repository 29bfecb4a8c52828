"""The figures of the page: each draws one thing, once for wide screens and once for phones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from adamant.report.records import AuditResult, ClassResult, TrainingResult
from adamant.report.svg import CLEAN, DASHES, INK, MARKERS, PAPER, ROBUST, SERIES, draw
from adamant.report.words import clean_text, duration

MOST_CLASSES = 20  # more would be a wall; the table holds them all
MOST_BARS = 48
_LINE_POINTS = 300


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure in two sizes; the page shows the one that fits."""

    wide: Markup
    narrow: Markup


def _both(
    sketch: Callable[[Figure, bool], None], *, wide: tuple[int, int], narrow: tuple[int, int], name: str, alt: str
) -> Drawing:
    return Drawing(
        wide=draw(lambda figure: sketch(figure, False), width=wide[0], height=wide[1], name=f"{name}-wide", alt=alt),
        narrow=draw(
            lambda figure: sketch(figure, True), width=narrow[0], height=narrow[1], name=f"{name}-narrow", alt=alt
        ),
    )


def curve(audits: Sequence[tuple[str, AuditResult]], *, name: str, alt: str) -> Drawing:
    """Accuracy over the budget with its interval, one line per model; the audited figure as a diamond."""

    def sketch(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for i, (label, audit) in enumerate(audits):
            colour, k = SERIES[i % len(SERIES)], i % len(MARKERS)
            eps = [point.eps for point in audit.curve]
            axes.fill_between(
                eps, [p.low for p in audit.curve], [p.high for p in audit.curve], color=colour, alpha=0.16, linewidth=0
            )
            axes.plot(
                eps,
                [point.accuracy for point in audit.curve],
                color=colour,
                marker=MARKERS[k],
                linestyle=DASHES[k],
                markeredgecolor=PAPER,
                markeredgewidth=0.8,
                label=clean_text(label, 34),
            )
        for i, (_, audit) in enumerate(audits):
            if audit.threat.eps is None:
                continue
            robust = audit.robust
            axes.axvline(audit.threat.eps, color=INK, alpha=0.35, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
            bar = [[max(0.0, robust.accuracy - robust.low)], [max(0.0, robust.high - robust.accuracy)]]
            axes.errorbar(
                [audit.threat.eps],
                [robust.accuracy],
                yerr=bar,
                fmt="D",
                markersize=8.5,
                color=SERIES[i % len(SERIES)],
                markerfacecolor=PAPER,
                markeredgewidth=2,
                capsize=4,
                zorder=5,
            )
        _shares(axes.yaxis.set_major_formatter, axes)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(axis="y")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 8, steps=[1, 2, 2.5, 5, 10]))
        norm = audits[0][1].threat.norm
        axes.set_xlabel("budget eps" + (f" ({clean_text(norm, 20)})" if norm else ""))
        axes.set_ylabel("accuracy")
        if len(audits) > 1:
            _legend(figure, axes, 1 if narrow else 2)

    height = 24 * len(audits) if len(audits) > 1 else 0
    return _both(sketch, wide=(720, 360 + height // 2), narrow=(360, 290 + height), name=name, alt=alt)


def classes(worst_first: Sequence[ClassResult], *, name: str, alt: str) -> Drawing:
    """Per class: clean accuracy as a ring, robust accuracy as a square, each with its interval."""
    shown = list(worst_first[:MOST_CLASSES])

    def sketch(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for place, one in enumerate(shown):
            axes.axhline(place, color=INK, alpha=0.1, linewidth=0.8, zorder=1)
            for value, low, high, offset, colour, style in (
                (one.clean, one.clean_low, one.clean_high, -0.17, CLEAN, "o"),
                (one.robust, one.robust_low, one.robust_high, 0.17, ROBUST, "s"),
            ):
                if value is None:
                    continue
                reach = [[max(0.0, value - (value if low is None else low))], [max(0.0, (high or value) - value)]]
                axes.errorbar(
                    [value],
                    [place + offset],
                    xerr=reach,
                    fmt=style,
                    color=colour,
                    markerfacecolor=PAPER if style == "o" else colour,
                    markeredgewidth=1.8,
                    elinewidth=1.6,
                    label={"o": "clean", "s": "under attack"}[style] if place == 0 else None,
                )
        axes.set_yticks(
            range(len(shown)), [f"{clean_text(one.name, 12 if narrow else 24)} ({one.rows:,})" for one in shown]
        )
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("accuracy, with 95 % interval")
        _legend(figure, axes, 2)

    height = 96 + 30 * len(shown)
    return _both(sketch, wide=(720, height), narrow=(360, height), name=name, alt=alt)


def learning(result: TrainingResult, *, name: str, alt: str) -> Drawing:
    """Training loss, and validation accuracy clean and under attack, over epochs and over seconds."""

    def sketch(figure: Figure, narrow: bool) -> None:
        above, beside = (figure.subplots(2, 1) if narrow else figure.subplots(1, 2)).flat
        epochs = [one.epoch for one in result.epochs]
        above.plot(
            epochs, _gaps([one.loss for one in result.epochs]), color=INK, marker="." if len(epochs) < 40 else ""
        )
        above.set_title("training loss", loc="left", fontsize=12.5)
        spread = max(1, len(epochs) // 12)
        for values, colour, marker, dash, label in (
            ([one.clean for one in result.epochs], CLEAN, "o", "-", "clean"),
            ([one.robust for one in result.epochs], ROBUST, "s", (0, (5, 2)), "under attack"),
        ):
            if any(value is not None for value in values):
                beside.plot(
                    epochs,
                    _gaps(values),
                    color=colour,
                    marker=marker,
                    markevery=spread,
                    markerfacecolor=PAPER if marker == "o" else colour,
                    linestyle=dash,
                    label=label,
                )
        beside.set_title("validation accuracy", loc="left", fontsize=12.5)
        _shares(beside.yaxis.set_major_formatter, beside)
        beside.set_ylim(-0.02, 1.02)
        for axes in (above, beside):
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_xlabel("epoch")
            _clock(axes, result)
            if result.best_epoch is not None:
                late = result.best_epoch > epochs[len(epochs) // 2]
                axes.axvline(result.best_epoch, color=INK, alpha=0.5, linewidth=1.2, linestyle=(0, (3, 3)), zorder=1)
                axes.annotate(
                    "best",
                    (result.best_epoch, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(-4 if late else 4, 0),
                    textcoords="offset points",
                    ha="right" if late else "left",
                    va="top",
                    fontsize=11.5,
                )
        if beside.get_legend_handles_labels()[1]:
            beside.legend(loc="best", handlelength=2.8)

    return _both(sketch, wide=(720, 330), narrow=(360, 560), name=name, alt=alt)


def severities(
    accuracy: Mapping[str, Mapping[int, float]], mean: Mapping[int, float], clean: float, *, name: str, alt: str
) -> Drawing:
    """Accuracy over the severity of corruptions: a thin line per kind, a thick one for their mean."""

    def sketch(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for place, by in enumerate(accuracy.values()):
            label = "each kind" if place == 0 else None
            axes.plot([0, *by], [clean, *by.values()], color=INK, alpha=0.3, linewidth=1, label=label)
        axes.plot([0, *mean], [clean, *mean.values()], color=SERIES[0], marker="o", markeredgecolor=PAPER, label="mean")
        _shares(axes.yaxis.set_major_formatter, axes)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(axis="y")
        axes.set_xticks([0, *mean], ["clean", *map(str, mean)])
        axes.set_xlabel("severity")
        axes.set_ylabel("accuracy")
        _legend(figure, axes, 1 if narrow else 2)

    return _both(sketch, wide=(720, 380), narrow=(360, 310), name=name, alt=alt)


def courses(
    panels: Sequence[tuple[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]],
    *,
    best: float,
    name: str,
    alt: str,
) -> Drawing:
    """Numbers over the steps of a run, one panel for each kind: its title, and by label the steps and the values."""

    def sketch(figure: Figure, narrow: bool) -> None:
        grid = figure.subplots(len(panels), 1) if narrow else figure.subplots(1, len(panels))
        for axes, (title, lines) in zip(np.atleast_1d(grid).flat, panels, strict=True):
            for i, (label, (steps, values)) in enumerate(lines.items()):
                k = i % len(MARKERS)
                axes.plot(
                    steps, values, color=SERIES[i % len(SERIES)], marker=MARKERS[k], linestyle=DASHES[k],
                    markeredgecolor=PAPER, markeredgewidth=0.8, label=clean_text(label, 24),
                )  # fmt: skip
            axes.axvline(best, color=INK, alpha=0.5, linewidth=1.2, linestyle=(0, (3, 3)), zorder=1)
            axes.set_title(title, loc="left", fontsize=12.5)
            axes.set_xlabel("step")
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.legend(loc="best", fontsize=10.5, handlelength=2.4)

    return _both(sketch, wide=(720, 330), narrow=(360, 290 * len(panels)), name=name, alt=alt)


def codes(
    points: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], drawn: npt.NDArray[np.float32],
    *, classes: Sequence[str], name: str, alt: str,
) -> Drawing:  # fmt: skip
    """Codes in the plane, each by the first letters of its class, over draws of the prior as dots."""

    def sketch(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.plot(*drawn.T, ".", color=INK, alpha=0.15, markersize=3, zorder=1)
        for (a, b), label in zip(points, labels, strict=True):
            colour = SERIES[int(label) % len(SERIES)]
            axes.text(a, b, clean_text(classes[int(label)], 3), color=colour, fontsize=6 if narrow else 8, clip_on=True)
        axes.plot(*points.T, ".", alpha=0)  # a text makes no room for itself

    return _both(sketch, wide=(720, 560), narrow=(360, 330), name=name, alt=alt)


def frontier(trials: Sequence[Mapping[str, Any]], *, name: str, alt: str) -> Drawing:
    """Robust over clean accuracy with their intervals; a line joins the models that nothing beats."""

    def sketch(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        best = sorted((t for t in trials if t["front"]), key=lambda t: t["clean"]["accuracy"])
        places = [(t["clean"]["accuracy"], t["robust"]["accuracy"]) for t in best]
        axes.plot(*zip(*places, strict=True), color=SERIES[0], linewidth=1.2, zorder=2, label="beaten by none")
        for trial in trials:
            clean, robust = trial["clean"], trial["robust"]
            reach = [
                [[f["accuracy"] - f["low"]], [f["high"] - f["accuracy"]]] for f in (clean, robust)
            ]  # fmt: skip
            axes.errorbar(
                [clean["accuracy"]], [robust["accuracy"]], xerr=reach[0], yerr=reach[1],
                fmt="D" if trial["taken"] else "o", color=SERIES[0] if trial["front"] else INK,
                alpha=1.0 if trial["front"] else 0.45, elinewidth=0.8, markersize=9 if trial["taken"] else 5,
                markerfacecolor=PAPER if trial["taken"] else None, markeredgewidth=2 if trial["taken"] else 1, zorder=3,
                label="taken" if trial["taken"] else None,
            )  # fmt: skip
        for trial in trials if len(trials) <= MOST_CLASSES else best:
            at = (trial["clean"]["accuracy"], trial["robust"]["accuracy"])
            axes.annotate(clean_text(trial["label"], 24), at, xytext=(6, 6), textcoords="offset points", fontsize=9)
        for fix in (axes.xaxis.set_major_formatter, axes.yaxis.set_major_formatter):
            fix(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7))
        axes.grid()
        axes.set_xlabel("clean accuracy")
        axes.set_ylabel("robust accuracy")
        _legend(figure, axes, 2)

    return _both(sketch, wide=(720, 420), narrow=(360, 360), name=name, alt=alt)


def vector(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32], *, name: str, alt: str) -> Markup:
    """A 1-D input before and after: bars for a few values, lines for many."""

    def sketch(figure: Figure) -> None:
        axes = figure.add_subplot()
        if before.size <= MOST_BARS:
            places = np.arange(before.size)
            axes.bar(places, before, color=INK, alpha=0.28, width=0.8)
            axes.vlines(places, before, after, color=ROBUST, linewidth=2)
            axes.plot(places, after, color=ROBUST, marker="_", linestyle="", markersize=7, markeredgewidth=2)
        else:
            places, changed = _envelope(after)
            axes.plot(places, changed, color=ROBUST, linewidth=1.2)
            places, original = _envelope(before)
            axes.plot(places, original, color=INK, linewidth=1.0, alpha=0.65)
        axes.tick_params(labelsize=11)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.01)

    return draw(sketch, width=400, height=150, name=name, alt=alt)


def _envelope(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Lowest and highest of each stretch, so that a short peak of a long signal stays visible."""
    if values.size <= 2 * _LINE_POINTS:
        return np.arange(values.size, dtype=np.float64), values
    stretches = np.array_split(values, _LINE_POINTS)
    starts = np.linspace(0, values.size - 1, 2 * _LINE_POINTS)
    return starts, np.array([end for stretch in stretches for end in (stretch.min(), stretch.max())], dtype=np.float32)


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _shares(set_formatter: Callable[[PercentFormatter], None], axes: Axes) -> None:
    set_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def _clock(axes: Axes, result: TrainingResult) -> None:
    """A second scale on top: what the epochs took by the clock."""
    known = {one.epoch: one.seconds for one in result.epochs}
    last = max(known)
    wanted = sorted({one for one in (last // 2, last) if one in known})
    top = axes.secondary_xaxis("top")
    top.set_xticks(wanted, [duration(known[one]) for one in wanted])
    top.tick_params(length=3, labelsize=11)
    top.spines["top"].set_visible(False)
