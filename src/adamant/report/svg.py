"""Matplotlib figures as inline SVG that takes its ink from the page: readable in light, in dark and on paper."""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

# Stand-ins that matplotlib draws with; the page's own colours take their place in the SVG.
INK, PAPER, CLEAN, ROBUST = "#010101", "#010102", "#010103", "#010104"
SERIES = tuple(f"#0102{i:02x}" for i in range(1, 7))
_PAINT = {
    INK: "currentColor",
    PAPER: "var(--paper)",
    CLEAN: "var(--clean)",
    ROBUST: "var(--robust)",
    **{stand_in: f"var(--series-{i})" for i, stand_in in enumerate(SERIES, 1)},
}

MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (8, 3)), (0, (3, 1.5, 1, 1.5, 1, 1.5)))

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "adamant",
    "svg.image_inline": True,
    "text.parse_math": False,  # names are untrusted: a dollar sign is a dollar sign
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 12.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def draw(sketch: Callable[[Figure], None], *, width: int, height: int, name: str, alt: str) -> Markup:
    """The figure that `sketch` draws, `width` by `height` pixels. `name` starts every id: one figure, one name."""
    with rc_context(_STYLE), warnings.catch_warnings():
        # The browser has the scripts that matplotlib's one font lacks; the text is kept as text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        sketch(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    root = ET.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _restyled(value, name) for key, value in element.attrib.items()}
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.attrib['id']}")
    root.attrib = {"class": "plot", "viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": alt}
    return Markup(ET.tostring(root, encoding="unicode"))


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _restyled(value: str, name: str) -> str:
    value = value.replace("url(#", f"url(#{name}-")
    if value.startswith("#") and value not in _PAINT:
        value = f"#{name}-{value[1:]}"
    for stand_in, paint in _PAINT.items():
        value = value.replace(stand_in, paint)
    return re.sub(r"font: (?:(\w+) )?([\d.]+)px [^;]*", r"font-size: \2px", value)
