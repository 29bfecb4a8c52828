"""The closed set of layers that bounds go through, by the name of the function that a layer calls.

Each is made into a rule from the value of the point, and the other arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from adamant.bounds.node import Bounded
from adamant.bounds.rules import Affine, Bent, Joined, Map, Rising, Scaled, Valley
from adamant.errors import ModelError


def _linear(_: Tensor, weight: Tensor, bias: Tensor | None = None) -> Affine:
    return Affine(lambda v: F.linear(v, weight, bias), lambda v: F.linear(v, weight.abs()), lambda a: a @ weight)


def _conv2d(
    z: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Affine:  # fmt: skip
    rest = (stride, padding, dilation, groups)

    def back(a: Tensor) -> Tensor:
        return conv2d_input((len(a), *z.shape[1:]), weight, a, *rest)

    return Affine(
        lambda v: F.conv2d(v, weight, bias, *rest),
        lambda v: F.conv2d(v, weight.abs(), None, *rest),
        None if isinstance(padding, str) else back,
    )


def _batch_norm(
    z: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Scaled:  # fmt: skip
    """With the running statistics, or while it trains with those of the point, as for any batch."""
    if running_mean is None or running_var is None:
        raise ModelError("The model normalises by its batch even in eval mode, and bounds are of each row by itself.")
    if training:
        with torch.no_grad():  # moves the running statistics
            F.batch_norm(z, running_mean, running_var, None, None, True, momentum, eps)
        dims = [d for d in range(z.ndim) if d != 1]
        mean, var = z.mean(dims), z.var(dims, unbiased=False)
    else:
        mean, var = running_mean, running_var
    factor = (var + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * factor
    lead = (1, -1, *(1,) * (z.ndim - 2))
    return Scaled(factor.view(lead), shift.view(lead))


def _dropout(z: Tensor, p: float = 0.5, training: bool = True) -> Scaled:
    """The same entries dropped for all that the input can be."""
    return Scaled(F.dropout(torch.ones_like(z), p, training), z.new_zeros(1).view((1,) * z.ndim))


def _even(apply: Map) -> Affine:
    """A mean or a move of entries: no weight is negative, and there is no constant."""
    return Affine(apply, apply)


def _across(name: str) -> ModelError:
    return ModelError(f"The model calls {name} across the rows of a batch, which bounds do not go through.")


def _reshaped(name: str) -> Callable[..., Affine]:
    def make(z: Tensor, *args: Any, **kwargs: Any) -> Affine:
        shape = getattr(torch.Tensor, name)(z, *args, **kwargs).shape  # with the rows of z; later there may be others
        if not shape or shape[0] != len(z):
            raise _across(name)
        return _even(lambda v: v.reshape(len(v), *shape[1:]))

    return make


def _plain(function: Callable[..., Tensor], kind: Callable[[Map], Any]) -> Callable[..., Any]:
    def make(_: Tensor, *args: Any, **kwargs: Any) -> Any:
        return kind(lambda v: function(v, *args, **kwargs))

    return make


def _valley(function: Callable[..., Tensor], bottom: float, least: float) -> Callable[..., Any]:
    def make(_: Tensor) -> Valley:
        return Valley(function, bottom, least)

    return make


def _gelu(_: Tensor, approximate: str = "none") -> Valley:
    if approximate == "tanh":
        return Valley(lambda v: F.gelu(v, approximate="tanh"), -0.7524614, -0.1700408)
    return Valley(F.gelu, -0.7517915, -0.1699713)


def _relu(_: Tensor) -> Bent:
    return Bent()


def _leaky(_: Tensor, negative_slope: float = 0.01) -> Bent:
    if not 0 <= negative_slope <= 1:
        raise ModelError(f"Bounds go through a leaky ReLU of a slope from 0 to 1, and the model has {negative_slope}.")
    return Bent(negative_slope)


def _elu(_: Tensor, alpha: float = 1.0) -> Rising:
    if alpha < 0:
        raise ModelError(f"Bounds go through an ELU that rises, with alpha from 0 on, and the model has {alpha}.")
    return Rising(lambda v: F.elu(v, alpha))


LAYERS: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "relu": _relu,
    "leaky_relu": _leaky,
    "elu": _elu,
    "sigmoid": _plain(torch.sigmoid, Rising),
    "tanh": _plain(torch.tanh, Rising),
    "softplus": _plain(F.softplus, Rising),
    "hardtanh": _plain(F.hardtanh, Rising),
    "relu6": _plain(F.relu6, Rising),
    "silu": _valley(F.silu, -1.2784645, -0.2784646),
    "gelu": _gelu,
    "max_pool2d": _plain(F.max_pool2d, Rising),
    "adaptive_max_pool2d": _plain(F.adaptive_max_pool2d, Rising),
    "avg_pool2d": _plain(F.avg_pool2d, _even),
    "adaptive_avg_pool2d": _plain(F.adaptive_avg_pool2d, _even),
    "mean": _plain(torch.mean, _even),
    "flatten": _reshaped("flatten"),
    "reshape": _reshaped("reshape"),
    "view": _reshaped("view"),
    "squeeze": _reshaped("squeeze"),
    "unsqueeze": _reshaped("unsqueeze"),
    "contiguous": _plain(torch.Tensor.contiguous, _even),
}
_SUMS = {"add": 1.0, "iadd": 1.0, "radd": 1.0, "sub": -1.0, "isub": -1.0}
_PRODUCTS = ("mul", "imul", "rmul", "div", "truediv", "itruediv", "true_divide")


def passed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bounded:
    """The node after a layer; raises ModelError, naming it, for a layer that bounds do not go through."""
    kwargs = {k: v for k, v in kwargs.items() if k != "inplace" and (k, v) != ("return_indices", False)}
    nodes = tuple(a for a in args if isinstance(a, Bounded))
    if name in _SUMS and len(nodes) == len(args) == 2 and not kwargs and nodes[0].shape == nodes[1].shape:
        rule = Joined(_SUMS[name])
        return Bounded(nodes[0].point + rule.sign * nodes[1].point, rule, nodes)
    if len(nodes) == 1 and len(args) == 2 and not kwargs and (name in _SUMS or name in _PRODUCTS):
        rule = _arithmetic(name, nodes[0].point, *args)
        if rule is not None:
            return Bounded(rule.apply(nodes[0].point), rule, nodes)
    if name not in LAYERS or len(nodes) != 1 or not args or args[0] is not nodes[0]:
        raise ModelError(
            f"The model calls {name}, which bounds do not go through: they know {', '.join(LAYERS)}, sums, and "
            "products with constants."
        )
    made = LAYERS[name](nodes[0].point, *args[1:], **kwargs)
    point = made.apply(nodes[0].point)
    if not point.ndim or len(point) != len(nodes[0]):
        raise _across(name)
    return Bounded(point, made, nodes)


def _arithmetic(name: str, point: Tensor, one: Any, other: Any) -> Scaled | None:
    """A value and a constant, in this or the other order; None for what is not affine, or changes the shape."""
    first = isinstance(one, Bounded)
    held = torch.as_tensor(other if first else one, dtype=point.dtype, device=point.device)
    if held.ndim > point.ndim or (name.endswith(("div", "divide")) and not first):
        return None
    held = held.view((1,) * (point.ndim - held.ndim) + held.shape)
    if torch.broadcast_shapes(held.shape, point.shape) != point.shape:
        return None
    unit, zero = held.new_ones(1).view((1,) * point.ndim), held.new_zeros(1).view((1,) * point.ndim)
    if name in _SUMS:
        sign = _SUMS[name]
        return Scaled(unit, sign * held) if first else Scaled(sign * unit, held)
    return Scaled(held if name.endswith("mul") else 1 / held, zero)
