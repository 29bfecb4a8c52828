"""Operators that sum up along axes, multiply matrices, and normalise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant.models.graph.record import Node, Operator, axes_of, plain


def _reducing(call: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    """A reduction over axes given as an attribute or, later on, as an input; without axes over all, or none at all."""

    def operator(n: Node, x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = axes_of(n, given, x.ndim)
        if not axes:
            if n.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return call(x, axes, bool(n.get("keepdims", 1)))

    return operator


def _largest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.amax(x, axes, keep) if axes else x


def _smallest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.amin(x, axes, keep) if axes else x


def _euclidean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.linalg.vector_norm(x, 2, axes, keep)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep)
    return x


def _best(call: Callable[..., Tensor]) -> Operator:
    def operator(n: Node, x: Tensor) -> Tensor:
        axis, keep = n.get("axis", 0), bool(n.get("keepdims", 1))
        if not n.get("select_last_index", 0):
            return call(x, axis, keep)
        return x.shape[axis] - 1 - call(x.flip(axis), axis, keep)

    return operator


def _cumsum(n: Node, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis.item())
    turned = x.flip(along) if n.get("reverse", 0) else x
    sums = turned.cumsum(along).to(x.dtype)
    sums = sums - turned if n.get("exclusive", 0) else sums
    return sums.flip(along) if n.get("reverse", 0) else sums


def _top(n: Node, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    axis, most = n.get("axis", -1), int(k.item())
    found = x.sort(dim=axis, descending=bool(n.get("largest", 1)), stable=True)  # of equals the first, as the standard
    return found.values.narrow(axis, 0, most), found.indices.narrow(axis, 0, most)


def _softmax(call: Callable[[Tensor, int], Tensor]) -> Operator:
    def operator(n: Node, x: Tensor) -> Tensor:
        if n.opset >= 13:
            return call(x, n.get("axis", -1))
        axis = n.get("axis", 1) % max(x.ndim, 1)  # before opset 13: over all axes from this one on, as if flattened
        return call(x.reshape(prod(x.shape[:axis]), -1), 1).view(x.shape)

    return operator


def _gemm(n: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if n.get("transA", 0) else a
    alpha, beta = n.get("alpha", 1.0), n.get("beta", 1.0)
    if n.get("transB", 0) and alpha == beta == 1 and (c is None or c.ndim == 1):
        return F.linear(a, b, c)
    product = a @ (b.T if n.get("transB", 0) else b)
    product = product if alpha == 1 else alpha * product
    return product if c is None else product + (c if beta == 1 else beta * c)


def _einsum(n: Node, *inputs: Tensor) -> Tensor:
    return torch.einsum(n.get("equation"), *inputs)


def _batch_norm(n: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """As in evaluation; ONNX keeps the statistics as inputs."""
    if n.get("training_mode", 0) or not n.get("spatial", 1):
        raise n.refuse("in training mode" if n.get("training_mode", 0) else "with statistics of each entry")
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, n.get("epsilon", 1e-5))


def _instance_norm(n: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, x.shape[1], scale, bias, n.get("epsilon", 1e-5))


def _layer_norm(n: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    shape, eps = x.shape[n.get("axis", -1) :], n.get("epsilon", 1e-5)
    if scale.shape == shape and (bias is None or bias.shape == shape):
        y = F.layer_norm(x, shape, scale, bias, eps)
    else:
        y = F.layer_norm(x, shape, None, None, eps) * scale + (0 if bias is None else bias)
    if len(n.outputs) == 1:
        return y
    axes = list(range(x.ndim - len(shape), x.ndim))
    return y, x.mean(axes, keepdim=True), (x.var(axes, correction=0, keepdim=True) + eps).rsqrt()


def _group_norm(n: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = int(n.get("num_groups"))
    if len(scale) == groups != x.shape[1]:  # opset 18 has one number for each group, 21 one for each channel
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return F.group_norm(x, groups, scale, bias, n.get("epsilon", 1e-5))


def _rms_norm(n: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(n.get("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + n.get("epsilon", 1e-5)) * scale


def _lp_norm(n: Node, x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, n.get("p", 2), n.get("axis", -1), keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)


def _local_response(n: Node, x: Tensor) -> Tensor:
    size = int(n.get("size"))
    around = F.pad(x.square(), (0, 0) * (x.ndim - 2) + ((size - 1) // 2, size // 2))
    sums = torch.stack([around[:, i : i + x.shape[1]] for i in range(size)]).sum(0)
    return x / (n.get("bias", 1.0) + n.get("alpha", 1e-4) / size * sums) ** n.get("beta", 0.75)


def _mean_variance(n: Node, x: Tensor) -> Tensor:
    axes = n.get("axes", (0, 2, 3))
    deviation = x - x.mean(axes, keepdim=True)
    return deviation / (deviation.square().mean(axes, keepdim=True).sqrt() + 1e-9)


REDUCING: Mapping[str, Operator] = {
    "ReduceMean": _reducing(lambda x, axes, keep: x.mean(axes, keep) if axes else x),
    "ReduceSum": _reducing(lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype) if axes else x),
    "ReduceMax": _reducing(_largest), "ReduceMin": _reducing(_smallest), "ReduceProd": _reducing(_product),
    "ReduceL1": _reducing(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reducing(_euclidean),
    "ReduceSumSquare": _reducing(lambda x, axes, keep: x.square().sum(axes, keep)),
    "ReduceLogSum": _reducing(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _reducing(lambda x, axes, keep: torch.logsumexp(x, axes, keep)),
    "ArgMax": _best(torch.argmax), "ArgMin": _best(torch.argmin), "CumSum": _cumsum, "TopK": _top,
    "Softmax": _softmax(torch.softmax), "LogSoftmax": _softmax(torch.log_softmax), "Gemm": _gemm,
    "MatMul": plain(torch.matmul), "Einsum": _einsum,
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm, "RMSNormalization": _rms_norm, "LpNormalization": _lp_norm,
    "LRN": _local_response, "MeanVarianceNormalization": _mean_variance,
}  # fmt: skip
