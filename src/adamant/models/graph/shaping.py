"""Operators that move entries about: shapes, slices, gathers, padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant.models.graph.record import Node, Operator, axes_of, maybe, plain, whole


def _constant(n: Node) -> Tensor:
    for name, value in n.attributes.items():
        if name == "value":
            return value
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
    raise n.refuse(f"of {', '.join(n.attributes) or 'nothing'}")


def _constant_of_shape(n: Node, shape: Tensor) -> Tensor:
    value = n.get("value", torch.zeros(1))
    return value.reshape(()).expand(whole(shape)).clone()


def _shape(n: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[n.get("start", 0) : n.get("end")], dtype=torch.int64)


def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


def _reshape(n: Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = whole(shape)
    if not n.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(n: Node, x: Tensor) -> Tensor:
    axis = n.get("axis", 1)
    return x.reshape(x.shape[: axis + x.ndim if axis < 0 else axis].numel(), -1)


def _transpose(n: Node, x: Tensor) -> Tensor:
    return x.permute(n.get("perm", tuple(reversed(range(x.ndim)))))


def _squeeze(n: Node, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = axes_of(n, given, x.ndim)
    axes = [i for i, size in enumerate(x.shape) if size == 1] if axes is None else axes
    return x.reshape([size for i, size in enumerate(x.shape) if i not in axes])


def _unsqueeze(n: Node, x: Tensor, given: Tensor | None = None) -> Tensor:
    bare = whole(given if given is not None else n.get("axes"))
    for axis in sorted(a % (x.ndim + len(bare)) for a in bare):
        x = x.unsqueeze(axis)
    return x


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, whole(shape)))


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(whole(repeats))


def _concat(n: Node, *parts: Tensor) -> Tensor:
    return torch.cat(parts, n.get("axis", 1))


def _split(n: Node, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, sizes = n.get("axis", 0), maybe(given if given is not None else n.get("split"))
    if sizes is None:
        each = -(-x.shape[axis] // len(n.outputs))
        sizes = [min(each, x.shape[axis] - i * each) for i in range(len(n.outputs))]
    return x.split(sizes, axis)


def _slice(n: Node, x: Tensor, *given: Tensor | None) -> Tensor:
    if n.opset < 10:
        starts, ends, axes, steps = n.get("starts"), n.get("ends"), n.get("axes"), None
    else:
        starts, ends, axes, steps = (maybe(v) for v in (*given, None, None)[:4])
    starts, ends = whole(starts), whole(ends)
    axes = range(len(starts)) if axes is None else [int(a) % x.ndim for a in axes]
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
        places = range(*slice(start, _end(end, step), step).indices(x.shape[axis]))
        if step > 0:
            x = x.narrow(axis, 0, 0) if not places else x.narrow(axis, places[0], places[-1] - places[0] + 1)
            x = x[(slice(None),) * axis + (slice(None, None, step),)] if step > 1 else x
        else:
            x = _picked(x, axis, list(places))
    return x


def _end(end: int, step: int) -> int | None:
    """Where Python would stop: ONNX writes "past the first entry" as a number far below zero."""
    return None if step < 0 and end < -(2**30) else end


def _picked(x: Tensor, axis: int, places: list[int]) -> Tensor:
    return x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))


def _from_front(places: Tensor, size: int) -> Tensor:
    return torch.where(places < 0, places + size, places).long()


def _gather(n: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = n.get("axis", 0) % x.ndim
    flat = x.index_select(axis, _from_front(places, x.shape[axis]).flatten())
    return flat.reshape([*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]])


def _gather_elements(n: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = n.get("axis", 0)
    return x.gather(axis, _from_front(places, x.shape[axis]))


def _gather_nd(n: Node, x: Tensor, places: Tensor) -> Tensor:
    if n.get("batch_dims", 0):
        raise n.refuse("with batch_dims")
    return x[tuple(_from_front(places[..., i], x.shape[i]) for i in range(places.shape[-1]))]


def _scatter_nd(n: Node, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    if n.get("reduction", "none") not in ("none", "add"):
        raise n.refuse(f"with the reduction {n.get('reduction')}")
    where = tuple(_from_front(places[..., i], x.shape[i]) for i in range(places.shape[-1]))
    return x.index_put(where, updates, accumulate=n.get("reduction", "none") == "add")


def _scatter_elements(n: Node, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    axis, way = n.get("axis", 0), n.get("reduction", "none")
    where = _from_front(places, x.shape[axis])
    if way == "none":
        return x.scatter(axis, where, updates)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return x.scatter_reduce(axis, where, updates, names[way])


def _one_hot(n: Node, places: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    classes, axis = int(depth.item()), n.get("axis", -1)
    places = places.long()
    shape = [1] * (places.ndim + 1)
    shape[axis] = classes
    hit = torch.remainder(places, classes).unsqueeze(axis) == torch.arange(classes, device=places.device).view(shape)
    valid = ((places >= -classes) & (places < classes)).unsqueeze(axis)
    return torch.where(hit & valid, values[1], values[0])


def _pad(n: Node, x: Tensor, given: Tensor | None = None, value: Tensor | None = None, at: Any = None) -> Tensor:
    mode = n.get("mode", "constant")
    pads = whole(given if given is not None else n.get("pads", n.get("paddings")))
    axes = list(range(x.ndim)) if at is None else [a % x.ndim for a in whole(at)]
    fill = n.get("value", 0.0) if value is None else value.item()
    half = len(pads) // 2
    for axis, before, after in zip(axes, pads[:half], pads[half:], strict=True):
        if not before and not after:
            continue
        if mode == "constant":
            x = F.pad(x, (0, 0) * (x.ndim - 1 - axis) + (before, after), value=fill)
        else:
            x = _picked(x, axis, [_mirrored(i, x.shape[axis], mode) for i in range(-before, x.shape[axis] + after)])
    return x


def _mirrored(i: int, size: int, mode: str) -> int:
    if mode == "edge":
        return min(max(i, 0), size - 1)
    if mode == "wrap" or size == 1:
        return i % size
    i = i % (2 * size - 2)
    return i if i < size else 2 * size - 2 - i


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _trilu(n: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    shift = 0 if k is None else int(k.item())
    return torch.triu(x, shift) if n.get("upper", 1) else torch.tril(x, shift)


def _depth_to_space(n: Node, x: Tensor) -> Tensor:
    b, (rows, c, h, w) = n.get("blocksize"), x.shape
    if n.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    return x.reshape(rows, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(rows, c // b**2, h * b, w * b)


def _space_to_depth(n: Node, x: Tensor) -> Tensor:
    b, (rows, c, h, w) = n.get("blocksize"), x.shape
    order = (0, 1, 3, 5, 2, 4) if n.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    return x.reshape(rows, c, h // b, b, w // b, b).permute(order).reshape(rows, c * b**2, h // b, w // b)


SHAPING: Mapping[str, Operator] = {
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Shape": _shape, "Reshape": _reshape,
    "Size": plain(_size), "Flatten": _flatten, "Transpose": _transpose,
    "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Expand": plain(_expand), "Tile": plain(_tile), "Concat": _concat,
    "Split": _split, "Slice": _slice, "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd,
    "ScatterND": _scatter_nd, "ScatterElements": _scatter_elements, "OneHot": _one_hot, "Pad": _pad,
    "Range": plain(_range), "Trilu": _trilu, "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth,
}  # fmt: skip

# Inputs that say how and not what, counted from this one on: they are read as numbers, and may stay on the processor.
SETTINGS: Mapping[str, int] = {
    "ConstantOfShape": 0, "Range": 0, "Reshape": 1, "Squeeze": 1, "Unsqueeze": 1, "Expand": 1, "Tile": 1, "Split": 1,
    "Slice": 1, "Pad": 1, "Trilu": 1, "CumSum": 1, "TopK": 1, "Resize": 1, "Upsample": 1, "ReduceMean": 1,
    "ReduceSum": 1, "ReduceMax": 1, "ReduceMin": 1, "ReduceProd": 1, "ReduceL1": 1, "ReduceL2": 1,
    "ReduceSumSquare": 1, "ReduceLogSum": 1, "ReduceLogSumExp": 1,
}  # fmt: skip
