"""The gallery of broken inputs: which ones are shown, and how."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from adamant.report import figures
from adamant.report.reading import Evidence, Row, evidence_rows, read_evidence
from adamant.report.records import AuditResult
from adamant.report.words import is_picture, number, share

MOST = 8
_BYTES = 900_000  # of all pictures on a page, as written into it
_SIDE = 128  # pixels: larger pictures are reduced, or the page would weigh megabytes
_FACTORS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)
_DARKER, _MIDDLE, _BRIGHTER = (
    np.array(rgb, dtype=np.float32) / 255 for rgb in ((25, 90, 170), (245, 245, 242), (200, 95, 0))
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of the gallery."""

    caption: str
    alt: str
    uri: str
    wide: bool  # wider than high: fixes which side is stretched


@dataclass(frozen=True, kw_only=True)
class Change:
    """One value of a 1-D input."""

    place: int
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One broken input as the page shows it."""

    row: int
    truth: str
    before: str
    before_confidence: str | None
    after: str
    after_confidence: str | None
    attack: str | None
    size: str | None
    looks: int | None
    pictures: tuple[Picture, ...] = ()
    plot: Markup | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The broken inputs of one model."""

    examples: tuple[Example, ...]
    broken: int
    factor: int
    grey: bool
    reduced: bool


def gallery(folder: Path, audit: AuditResult, rows: Sequence[Row], *, name: str, models: int) -> Gallery:
    """The first broken input of each class, then the second ones, and so on: chosen by order, not for their looks."""
    broken = [row for row in rows if row.status == "broken"]
    if not broken:
        return Gallery(examples=(), broken=0, factor=1, grey=False, reduced=False)
    kept = set(evidence_rows(folder))
    chosen = _spread([row for row in broken if row.row in kept] or broken)
    chosen = chosen[: _fitting(audit.data.shape, models)]
    evidence = read_evidence(folder, [row.row for row in chosen])
    picture = is_picture(evidence[0].original.shape)
    factor = _factor(evidence)
    low, high = _range(evidence)
    examples = tuple(
        _example(
            row,
            one,
            audit,
            pictures=_pictures(row, one, audit, factor, low, high) if picture else (),
            name=f"{name}-{i}",
        )
        for i, (row, one) in enumerate(zip(chosen, evidence, strict=True))
    )
    return Gallery(
        examples=examples,
        broken=len(broken),
        factor=factor,
        grey=picture and _channels_last(evidence[0].original).shape[-1] == 1,
        reduced=picture and max(evidence[0].original.shape) > _SIDE,
    )


def _spread(broken: Sequence[Row]) -> list[Row]:
    seen: dict[int, int] = {}
    turns: list[tuple[int, int, Row]] = []
    for row in broken:
        turn = seen.get(row.label, 0)
        seen[row.label] = turn + 1
        turns.append((turn, row.label, row))
    return [row for _, _, row in sorted(turns, key=lambda one: one[:2])]


def _fitting(shape: Sequence[int], models: int) -> int:
    if not is_picture(shape):
        return 6
    weight = 3 * int(np.prod([side if side in (1, 3) else min(side, _SIDE) for side in shape])) * 4 / 3
    return int(min(MOST, max(3, _BYTES / weight / models)))


def class_name(label: int | None, audit: AuditResult) -> str:
    """The class of a label, or the label where it has no name."""
    if label is None:
        return "unknown"
    return audit.data.classes[label] if 0 <= label < len(audit.data.classes) else f"class {label}"


def _example(row: Row, one: Evidence, audit: AuditResult, *, pictures: tuple[Picture, ...], name: str) -> Example:
    plain = Example(
        row=row.row,
        truth=class_name(row.label, audit),
        before=class_name(row.clean_prediction, audit),
        before_confidence=_confidence(row.clean_confidence),
        after=class_name(row.adversarial_prediction, audit),
        after_confidence=_confidence(row.adversarial_confidence),
        attack=row.attack,
        size=None if row.size is None else number(row.size),
        looks=row.first_success,
        pictures=pictures,
    )
    if pictures:
        return plain
    before, after = one.original.ravel(), one.adversarial.ravel()
    changed = np.flatnonzero(before != after)
    if len(changed) > figures.MOST_BARS:  # of a changed waveform, five places would say nothing
        changed = changed[:0]
    largest = changed[np.argsort(-np.abs(after[changed] - before[changed]), kind="stable")[:5]]
    changes = tuple(
        Change(place=int(i), before=number(float(before[i])), after=number(float(after[i]))) for i in largest
    )
    alt = (
        f"Row {row.row} before and after the attack: {len(before)} values; "
        f"the model's answer goes from {plain.before} to {plain.after}."
    )
    return replace(plain, plot=figures.vector(before, after, name=name, alt=alt), changes=changes)


def _confidence(value: float | None) -> str | None:
    return None if value is None else share(value)


def _factor(evidence: Sequence[Evidence]) -> int:
    """How often the change is amplified: the largest round number that keeps it inside the scale."""
    low, high = _range(evidence)
    largest = max(float(np.abs(one.adversarial - one.original).max()) for one in evidence) / (high - low)
    return max((f for f in _FACTORS if f * largest <= 0.5 * 1.001), default=1)


def _range(evidence: Sequence[Evidence]) -> tuple[float, float]:
    """What black and white stand for: [0, 1] or [0, 255] where the inputs fit, else the inputs' own range."""
    low = min(float(min(one.original.min(), one.adversarial.min())) for one in evidence)
    high = max(float(max(one.original.max(), one.adversarial.max())) for one in evidence)
    if low >= -1e-6 and high <= 255:
        return (0.0, 1.0) if high <= 1 + 1e-6 else (0.0, 255.0)
    return low, (high if high > low else low + 1)


def _pictures(row: Row, one: Evidence, audit: AuditResult, factor: int, low: float, high: float) -> tuple[Picture, ...]:
    before, after = ((_channels_last(x) - low) / (high - low) for x in (one.original, one.adversarial))
    change = np.clip((after - before) * factor / 0.5, -1, 1)
    if change.shape[-1] == 1:
        ends = np.where(change < 0, _DARKER, _BRIGHTER)
        shown = _MIDDLE + (ends - _MIDDLE) * np.abs(change)
    else:
        shown = 0.5 + change / 2
    truth, first, last = (
        class_name(label, audit) for label in (row.label, row.clean_prediction, row.adversarial_prediction)
    )
    return (
        as_picture("Original", f"Original input, row {row.row}, class {truth}, recognised as {first}.", before),
        as_picture("Attacked", f"The same input after the attack, now taken for {last}.", after),
        as_picture(f"Change × {factor}", f"The change between the two, amplified {factor} times.", shown),
    )


def _channels_last(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if x.ndim == 2:
        return x[..., None]
    return np.moveaxis(x, 0, -1) if x.shape[0] in (1, 3) else x


def as_picture(caption: str, alt: str, values: npt.NDArray[np.floating], *, side: int = _SIDE) -> Picture:
    """Values (h, w, channels) in [0, 1] as an image of the page; those with a longer side are reduced."""
    levels = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    image.thumbnail((side, side), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(caption=caption, alt=alt, uri=uri, wide=image.width >= image.height)
