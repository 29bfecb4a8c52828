"""Operators with a window that slides: convolutions and pools, with the paddings that ONNX knows and torch does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant.models.graph.record import Node, Operator, plain

_CONV: Mapping[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: Mapping[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX: Mapping[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: Mapping[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _of(n: Node, table: Mapping[int, Any], dims: int) -> Any:
    if dims not in table:
        raise n.refuse(f"over {dims} dimensions")
    return table[dims]


def _pads(n: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], gaps: Sequence[int]) -> Any:
    """Padding before and after each dimension."""
    auto, dims = n.get("auto_pad", "NOTSET"), len(sizes)
    if auto == "NOTSET":
        pads = n.get("pads", (0,) * 2 * dims)
        return list(zip(pads[:dims], pads[dims:], strict=True))
    if auto == "VALID":
        return [(0, 0)] * dims
    found: list[tuple[int, int]] = []
    for size, k, s, d in zip(sizes, kernel, strides, gaps, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        found.append((total // 2, total - total // 2) if auto == "SAME_UPPER" else (total - total // 2, total // 2))
    return found


def _flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    """As F.pad takes them: the last dimension first."""
    return [p for pair in reversed(pads) for p in pair]


def _settings(n: Node, dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    ones = (1,) * dims
    return n.get("strides", ones), n.get("dilations", ones)


def _conv(n: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    dims = x.ndim - 2
    strides, gaps = _settings(n, dims)
    pads = _pads(n, x.shape[2:], w.shape[2:], strides, gaps)
    call = _of(n, _CONV, dims)
    if all(before == after for before, after in pads):
        return call(x, w, b, strides, [before for before, _ in pads], gaps, n.get("group", 1))
    return call(F.pad(x, _flat(pads)), w, b, strides, 0, gaps, n.get("group", 1))


def _conv_transpose(n: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    dims = x.ndim - 2
    strides, gaps = _settings(n, dims)
    extra = n.get("output_padding", (0,) * dims)
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], gaps, strict=True)]
    full = [s * (i - 1) + k + e for s, i, k, e in zip(strides, x.shape[2:], spans, extra, strict=True)]
    auto, wanted = n.get("auto_pad", "NOTSET"), n.get("output_shape")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [i * s for i, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = _pads(n, x.shape[2:], w.shape[2:], strides, gaps)
    else:
        totals = [max(f - o, 0) for f, o in zip(full, wanted[-dims:], strict=True)]
        extra = [e + max(o - f, 0) for e, f, o in zip(extra, full, wanted[-dims:], strict=True)]
        upper = auto == "SAME_UPPER"  # the odd entry is cut at the end there, and at the beginning otherwise
        pads = [(t // 2, t - t // 2) if upper else (t - t // 2, t // 2) for t in totals]
    call = _of(n, _TRANSPOSED, dims)
    fits = all(e < max(s, d) for e, s, d in zip(extra, strides, gaps, strict=True))
    y = call(x, w, b, strides, 0, extra if fits else 0, n.get("group", 1), gaps)
    if not fits:  # torch refuses what lies beyond every window: only the bias is there
        y = _lengthened(y, list(extra), b)
    for axis, (before, after) in enumerate(pads, 2):
        y = y.narrow(axis, before, y.shape[axis] - before - after)
    return y


def _lengthened(y: Tensor, extra: list[int], b: Tensor | None) -> Tensor:
    lead = (1, -1, *(1,) * len(extra))
    y = y if b is None else y - b.view(lead)
    y = F.pad(y, _flat([(0, e) for e in extra]))
    return y if b is None else y + b.view(lead)


def _reach(n: Node, x: Tensor, kernel: Sequence[int]) -> tuple[Any, Any, Any, list[tuple[int, int]]]:
    """Strides, dilations, the paddings as declared, and those that make every window of the output whole."""
    strides, gaps = _settings(n, len(kernel))
    pads = _pads(n, x.shape[2:], kernel, strides, gaps)
    whole: list[tuple[int, int]] = []
    for size, k, s, d, (before, after) in zip(x.shape[2:], kernel, strides, gaps, pads, strict=True):
        span = size + before + after - ((k - 1) * d + 1)
        last = -(-span // s) if n.get("ceil_mode", 0) else span // s
        if n.get("ceil_mode", 0) and last * s >= size + before:
            last -= 1  # a window that would begin in the padding at the end is left out
        whole.append((before, last * s + (k - 1) * d + 1 - size - before))
    return strides, gaps, pads, whole


def _max_pool(n: Node, x: Tensor) -> Any:
    if len([name for name in n.outputs if name]) > 1:
        raise n.refuse("with indices as an output")
    kernel = n.get("kernel_shape")
    strides, gaps, pads, whole = _reach(n, x, kernel)
    call = _of(n, _MAX, len(kernel))
    plain = all(a == b and 2 * a <= k for (a, b), k in zip(pads, kernel, strict=True)) and not n.get("ceil_mode", 0)
    if plain and x.is_floating_point():
        return call(x, kernel, strides, [a for a, _ in pads], gaps)
    least = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    return call(F.pad(x, _flat(whole), value=least), kernel, strides, 0, gaps)


def _average_pool(n: Node, x: Tensor) -> Tensor:
    kernel = n.get("kernel_shape")
    strides, gaps, pads, whole = _reach(n, x, kernel)
    if any(g != 1 for g in gaps):
        raise n.refuse("with dilations")
    call = _of(n, _AVERAGE, len(kernel))
    padding = [a for a, _ in pads]
    plain = all(a == b and 2 * a <= k for (a, b), k in zip(pads, kernel, strict=True)) and not n.get("ceil_mode", 0)
    if plain:
        return call(x, kernel, strides, padding, count_include_pad=bool(n.get("count_include_pad", 0)))
    counted = F.pad(torch.ones_like(x[:1, :1]), _flat(pads), value=float(n.get("count_include_pad", 0)))
    counted = F.pad(counted, _flat([(0, w[1] - p[1]) for p, w in zip(pads, whole, strict=True)]))
    return call(F.pad(x, _flat(whole)), kernel, strides) / call(counted, kernel, strides)


def _global(call: Callable[..., Tensor]) -> Operator:
    def over_places(x: Tensor) -> Tensor:
        return call(x, list(range(2, x.ndim)), True)

    return plain(over_places)


WINDOWS: Mapping[str, Operator] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "MaxPool": _max_pool, "AveragePool": _average_pool,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
}  # fmt: skip
