"""Resize and Upsample, one axis at a time: each entry of the output is a weighted sum of entries of the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from adamant.models.graph.record import Node, Operator, maybe


def _sources(n: Node, size: int, out: int, scale: float) -> Tensor:
    """Where on the input's axis the centres of the output lie, float64."""
    at = torch.arange(out, dtype=torch.float64)
    match n.get("coordinate_transformation_mode", "half_pixel" if n.opset >= 11 else "asymmetric"):
        case "half_pixel":
            return (at + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (at + 0.5) / scale - 0.5 if out > 1 else torch.zeros_like(at)
        case "half_pixel_symmetric":
            return size / 2 * (1 - out / (scale * size)) + (at + 0.5) / scale - 0.5
        case "align_corners":
            return at * (size - 1) / (out - 1) if out > 1 else torch.zeros_like(at)
        case "asymmetric":
            return at / scale
        case other:
            raise n.refuse(f"with coordinates {other!r}")


def _nearest(n: Node, at: Tensor) -> Tensor:
    match n.get("nearest_mode", "round_prefer_floor" if n.opset >= 11 else "floor"):
        case "round_prefer_floor":
            return (at - 0.5).ceil()
        case "round_prefer_ceil":
            return (at + 0.5).floor()
        case "ceil":
            return at.ceil()
        case _:
            return at.floor()


def _cubic(n: Node, part: Tensor) -> list[Tensor]:
    """Weights of the four neighbours (Keys, 1981), for the share of the way to the right neighbour."""
    a = n.get("cubic_coeff_a", -0.75)

    def near(t: Tensor) -> Tensor:
        return ((a + 2) * t - (a + 3)) * t * t + 1

    def far(t: Tensor) -> Tensor:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a

    return [far(part + 1), near(part), near(1 - part), far(2 - part)]


def _along(n: Node, x: Tensor, axis: int, out: int, scale: float) -> Tensor:
    size = x.shape[axis]
    at = _sources(n, size, out, scale)
    mode = n.get("mode", "nearest")

    def picked(places: Tensor) -> Tensor:
        return x.index_select(axis, places.long().clamp(0, size - 1).to(x.device))

    if mode == "nearest":
        return picked(_nearest(n, at))
    first = at.floor()
    part = at - first
    if mode == "linear":
        offsets, weights = (0, 1), [1 - part, part]
    elif mode == "cubic":
        offsets, weights = (-1, 0, 1, 2), _cubic(n, part)
    else:
        raise n.refuse(f"in the mode {mode!r}")
    if n.get("exclude_outside", 0):
        inside = [((first + o >= 0) & (first + o < size)).double() for o in offsets]
        weights = [w * i for w, i in zip(weights, inside, strict=True)]
        total = torch.stack(weights).sum(0)
        weights = [w / total for w in weights]
    lead = [1] * x.ndim
    lead[axis] = out
    parts = (picked(first + o) * w.to(x).view(lead) for o, w in zip(offsets, weights, strict=True))
    return torch.stack(list(parts)).sum(0)


def _resize(n: Node, x: Tensor, *given: Tensor | None) -> Tensor:
    if n.get("antialias", 0):
        raise n.refuse("with antialias")
    if n.op == "Upsample" or n.opset < 11:
        scales, sizes = n.get("scales") or cast(Tensor, given[0]).tolist(), None
    else:
        _, held, wanted = (*given, None, None, None)[:3]
        scales, sizes = (None if held is None or not held.numel() else held.tolist()), maybe(wanted)
    axes = [a % x.ndim for a in n.get("axes", range(x.ndim))]
    if sizes:
        scales, sizes = _fitted(n, [x.shape[a] for a in axes], sizes)
    for i, axis in enumerate(axes):
        scale = float(cast(Any, scales)[i])
        out = sizes[i] if sizes else int(x.shape[axis] * scale + 1e-9)
        if out != x.shape[axis] or scale != 1:
            x = _along(n, x, axis, out, scale)
    return x


def _fitted(n: Node, had: list[int], sizes: list[int]) -> tuple[list[float], list[int]]:
    """Scales for these sizes; one for all where the proportions are to be kept."""
    scales = [out / size for out, size in zip(sizes, had, strict=True)]
    match n.get("keep_aspect_ratio_policy", "stretch"):
        case "not_larger":
            one = min(scales)
        case "not_smaller":
            one = max(scales)
        case _:
            return scales, sizes
    return [one] * len(had), [int(one * size + 0.5) for size in had]


RESIZE: Mapping[str, Operator] = {"Resize": _resize, "Upsample": _resize}
