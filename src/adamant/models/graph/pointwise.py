"""Operators that work entry by entry, and those that compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant.models.graph.record import TYPES, Node, Operator, plain


def _chained(call: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of inputs, two at a time."""
    return plain(lambda *inputs: reduce(call, inputs))


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(n: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if n.get("fmod", 0) else torch.remainder(a, b)


def _pow(a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b).to(a.dtype)


def _mean(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs) / len(inputs)


def _clip(n: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    least, most = (n.get("min"), n.get("max")) if n.opset < 11 else (low, high)
    if isinstance(least, Tensor) and isinstance(most, Tensor):
        return torch.minimum(torch.maximum(x, least.to(x.dtype)), most.to(x.dtype))
    return x if least is None and most is None else x.clamp(least, most)


def _hard_sigmoid(n: Node, x: Tensor) -> Tensor:
    return (n.get("alpha", 0.2) * x + n.get("beta", 0.5)).clamp(0, 1)


def _hard_swish(x: Tensor) -> Tensor:
    return x * (x / 6 + 0.5).clamp(0, 1)


def _gelu(n: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=n.get("approximate", "none"))


def _leaky(n: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, n.get("alpha", 0.01))


def _thresholded(n: Node, x: Tensor) -> Tensor:
    return torch.where(x > n.get("alpha", 1.0), x, torch.zeros_like(x))


def _elu(n: Node, x: Tensor) -> Tensor:
    return F.elu(x, n.get("alpha", 1.0))


def _celu(n: Node, x: Tensor) -> Tensor:
    return F.celu(x, n.get("alpha", 1.0))


def _selu(n: Node, x: Tensor) -> Tensor:
    alpha, gamma = n.get("alpha", 1.67326319217681884765625), n.get("gamma", 1.05070102214813232421875)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _swish(n: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(n.get("alpha", 1.0) * x)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _shrink(n: Node, x: Tensor) -> Tensor:
    far, bias = n.get("lambd", 0.5), n.get("bias", 0.0)
    return torch.where(x < -far, x + bias, torch.where(x > far, x - bias, torch.zeros_like(x)))


def _cast(n: Node, x: Tensor) -> Tensor:
    if n.get("to") not in TYPES:
        raise n.refuse(f"to the type {n.get('to')}")
    return x.to(TYPES[n.get("to")])


def _cast_like(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def _itself(x: Tensor) -> Tensor:
    return x


def _dropout(n: Node, x: Tensor, *_: Any) -> Any:
    """As in evaluation: nothing is dropped."""
    return (x, torch.ones_like(x, dtype=torch.bool)) if len(n.outputs) > 1 else x


POINTWISE: Mapping[str, Operator] = {
    **{name: plain(getattr(torch, name.lower())) for name in (
        "Abs", "Acos", "Asin", "Atan", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "IsNaN", "Log", "Neg",
        "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh", "Sqrt", "Tan", "Tanh",
    )},
    "Add": plain(torch.add), "Sub": plain(torch.sub), "Mul": plain(torch.mul), "Div": plain(_div), "Mod": _mod,
    "Pow": plain(_pow), "Max": _chained(torch.maximum), "Min": _chained(torch.minimum), "Sum": _chained(torch.add),
    "Mean": plain(_mean), "And": plain(torch.logical_and), "Or": plain(torch.logical_or),
    "Xor": plain(torch.logical_xor), "Not": plain(torch.logical_not), "Equal": plain(torch.eq),
    "Greater": plain(torch.gt), "GreaterOrEqual": plain(torch.ge), "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le), "Where": plain(torch.where), "Clip": _clip, "Identity": plain(_itself),
    "Dropout": _dropout,
    "HardSigmoid": _hard_sigmoid, "HardSwish": plain(_hard_swish), "Gelu": _gelu, "LeakyRelu": _leaky,
    "Elu": _elu, "Celu": _celu, "Selu": _selu, "Swish": _swish, "PRelu": plain(_prelu), "Shrink": _shrink,
    "Mish": plain(F.mish), "Softplus": plain(F.softplus), "Softsign": plain(F.softsign),
    "ThresholdedRelu": _thresholded, "Cast": _cast, "CastLike": plain(_cast_like),
}  # fmt: skip
