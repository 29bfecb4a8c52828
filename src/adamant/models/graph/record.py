"""What an ONNX graph is, without the package onnx: nodes, weights, what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adamant.errors import ModelError

Operator = Callable[..., Any]  # (node, *inputs), an absent input being None; returns a tensor or a tuple of them

# The numbers that ONNX gives to types of entries (onnx.proto, TensorProto.DataType).
TYPES: Mapping[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 12: torch.uint32, 13: torch.uint64, 16: torch.bfloat16,
}  # fmt: skip


class UnsupportedError(ModelError):
    """An operator, or a setting of one, for which there is no torch code here."""


@dataclass(frozen=True)
class Node:
    """One call of an operator; an empty name among the inputs is one that was left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]  # numbers, texts, tuples of them, tensors
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute, or the default that the standard gives it."""
        return self.attributes.get(name, default)

    def refuse(self, what: str) -> UnsupportedError:
        """The error that says what of this node cannot be computed here."""
        return UnsupportedError(f"{self.op} {what}")


@dataclass(frozen=True)
class Port:
    """An input or output: its name, type, and sizes, None where they are free; no sizes at all where none are told."""

    name: str
    dtype: torch.dtype | None
    sizes: tuple[int | None, ...] | None

    def __str__(self) -> str:
        sizes = "?" if self.sizes is None else ", ".join("?" if s is None else str(s) for s in self.sizes)
        return f"{self.name} ({sizes})"


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be computed, and the weights by name."""

    nodes: tuple[Node, ...]
    weights: Mapping[str, Tensor]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def plain(call: Callable[..., Any]) -> Operator:
    """An operator without attributes, from a function of its inputs."""

    def operator(_: Node, *inputs: Tensor | None) -> Any:
        return call(*inputs)

    return operator


def whole(values: Any) -> list[int]:
    """Whole numbers of an input or an attribute."""
    return [int(v) for v in (values.flatten().tolist() if isinstance(values, Tensor) else values)]


def maybe(values: Any) -> list[int] | None:
    """The same, or None where it is absent."""
    return None if values is None else whole(values)


def axes_of(n: Node, given: Tensor | None, ndim: int) -> list[int] | None:
    """Axes counted from 0, from the attribute (older opsets) or the input (newer ones); None where there are none."""
    axes = maybe(given if given is not None else n.get("axes"))
    return None if axes is None else [a % ndim for a in axes]
