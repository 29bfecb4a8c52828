"""Numbers and threat models in plain words."""

import math
import re
import unicodedata
from collections.abc import Sequence

from adamant.report.records import Data, Threat

NBSP = "\u00a0"

STATUS_WORDS = {
    "robust": ("Held", "Right without attack, and no attack of the suite made it fail."),
    "broken": (
        "Broken",
        "Right without attack, wrong after a change that the budget allows; each was asked once more.",
    ),
    "wrong_already": ("Wrong already", "Wrong without any attack. Counts as failing."),
    "out_of_budget": (
        "Undecided",
        "No failure was found before the attack ran into its limit of looks at the model. Counts as held.",
    ),
    "invalid": (
        "Invalid",
        "The attack left the threat model: a defect of the attack, which tells nothing here. Counts as held.",
    ),
}


def share(value: float, *, rounding: str = "nearest") -> str:
    """0.1361 as "13.6 %". Never says 0 or 100 % of what is only close to it; `down` keeps "at least" true."""
    tenths = math.floor(value * 1000 + 1e-9) if rounding == "down" else round(value * 1000)
    if tenths >= 1000 and value < 1:
        tenths = 999
    if tenths <= 0 and value > 0 and rounding != "down":
        return f"<{NBSP}0.1{NBSP}%"
    text = f"{tenths / 10:.1f}" if 0 < tenths < 1000 else f"{tenths // 10}"
    return f"{text}{NBSP}%"


def amount(value: float) -> str:
    """A share that is a setting, not a measurement, to three digits: 0.1 as "10 %"."""
    return f"{value * 100:.3g}{NBSP}%"


def interval(low: float, high: float) -> str:
    """A 95 % interval of a share, such as "10.4 to 17.5 %"."""
    return f"{max(0.0, low) * 100:.1f} to {min(1.0, high) * 100:.1f}{NBSP}%"


def points(value: float) -> str:
    """A difference of two shares, such as "+57.5 points"."""
    return f"{value * 100:+.1f}".replace("-", "\u2212")


def whole(value: int | None) -> str:
    """12345 as "12,345"."""
    return "not recorded" if value is None else f"{value:,}"


def number(value: float) -> str:
    """A number as short as it can be told: 0.1, 0.0314, 12."""
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """95.2 as "1 min 35 s"."""
    if seconds < 60:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{NBSP}h {minutes}{NBSP}min" if hours else f"{minutes}{NBSP}min {rest}{NBSP}s"


def chance(p: float) -> str:
    """A p-value: "p = 0.031", or "p < 0.000001"."""
    return "p < 0.000001" if p < 1e-6 else f"p = {p:.2g}"


def clean_text(text: str, limit: int = 80) -> str:
    """One line without control characters, cut at `limit`: for figures, which cannot wrap."""
    line = " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def listed(items: Sequence[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def is_picture(shape: Sequence[int]) -> bool:
    """Whether one input is an image that a person can look at: grey or colour, channels first or last."""
    if len(shape) == 2:
        return min(shape) >= 4
    return len(shape) == 3 and (
        (shape[0] in (1, 3) and min(shape[1:]) >= 4) or (shape[2] in (1, 3) and min(shape[:2]) >= 4)
    )


def budget(threat: Threat, data: Data) -> str:
    """What the adversary may do, for a reader who does not know norms; ends the phrase "The attacker may"."""
    if threat.allows:
        return threat.allows
    if threat.eps is None or threat.norm is None:
        return f"change an input in any way that the threat model {threat.repr} allows"
    count = math.prod(data.shape) if data.shape else None
    writer = {"Linf": _linf, "L2": _l2, "L1": _l1}.get(threat.norm)
    if writer is not None:
        return writer(threat.eps, _width(threat), _unit(data), count)
    if threat.norm == "L0":
        return _l0(threat, data, count)
    return f"change an input in any way that {threat.repr} allows (budget {number(threat.eps)})"


def _width(threat: Threat) -> float | None:
    """How far the valid range of the inputs reaches: 1 unless the threat model prints another finite box."""
    box = re.search(r"box=\(([^,()]+), ([^,()]+)\)", threat.repr)
    try:
        width = float(box[2]) - float(box[1]) if box else 1.0
    except ValueError:
        return None
    return width if 0 < width < math.inf else None


def _unit(data: Data) -> str:
    if not is_picture(data.shape):
        return "value"
    return "colour value" if len(data.shape) == 3 and 3 in (data.shape[0], data.shape[-1]) else "pixel"


def _linf(eps: float, width: float | None, unit: str, count: int | None) -> str:
    every = f"each of the {count:,} {unit}s" if count else f"each {unit}"
    if width is None:
        return f"move {every} up or down, all at once, by at most {number(eps)} in the input's own units"
    shades = eps / width * 255
    grey = unit != "value" and 0.5 < shades <= 64 and abs(shades - round(shades)) < 1e-3
    told = f" ({round(shades)} of 255 shades)" if grey else ""
    return f"move {every} up or down, all at once, by at most {amount(eps / width)} of the full range{told}"


def _l2(eps: float, width: float | None, unit: str, count: int | None) -> str:
    start = (
        f"move all {unit}s at once, as long as the changes together have a Euclidean length of at most {number(eps)}"
    )
    if count is None or width is None:
        return start
    whole_range = int((eps / width) ** 2)
    few = (
        f"{whole_range:,} {_plural(unit, whole_range)}" if whole_range else f"a single {unit} by {amount(eps / width)}"
    )
    each = amount(eps / width / math.sqrt(count))
    return f"{start}: for example all {count:,} {unit}s by {each} of the full range, or {few}{_fully(whole_range)}"


def _l1(eps: float, width: float | None, unit: str, count: int | None) -> str:
    start = f"move any {unit}s, as long as the changes add up to at most {number(eps)}"
    if count is None or width is None:
        return start
    whole_range = int(eps / width)
    few = (
        f"{whole_range:,} {_plural(unit, whole_range)}" if whole_range else f"a single {unit} by {amount(eps / width)}"
    )
    each = amount(eps / width / count)
    return f"{start}: for example all {count:,} {unit}s by {each} of the full range, or {few}{_fully(whole_range)}"


def _l0(threat: Threat, data: Data, count: int | None) -> str:
    together = "pixels=True" in threat.repr
    unit = "pixel" if together else _unit(data)
    among = f" of the {count:,}" if count and not together else ""
    return f"replace at most {number(threat.eps or 0)}{among} {unit}s of an input by any other values"


def _plural(unit: str, count: int) -> str:
    return unit if count == 1 else f"{unit}s"


def _fully(count: int) -> str:
    return " from one end of the range to the other" if count else " of it"
