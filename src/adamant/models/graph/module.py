"""An ONNX graph as a torch module: its weights are parameters, its nodes are torch calls, so gradients are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from adamant.models.graph.pointwise import POINTWISE
from adamant.models.graph.record import Graph, Node, Operator, UnsupportedError
from adamant.models.graph.reducing import REDUCING
from adamant.models.graph.resize import RESIZE
from adamant.models.graph.shaping import SETTINGS, SHAPING
from adamant.models.graph.windows import WINDOWS

OPERATORS: Mapping[str, Operator] = {**POINTWISE, **REDUCING, **SHAPING, **WINDOWS, **RESIZE}

# Numbers that say what is computed and were never learnt: training leaves them alone.
_FIXED: Mapping[str, Sequence[int]] = {
    "BatchNormalization": (3, 4), "Clip": (1, 2), "Resize": (1, 2, 3), "Upsample": (1,), "Pad": (1, 2), "Pow": (1,),
    "Dropout": (1, 2), "OneHot": (1, 2), "Range": (0, 1, 2), "Where": (0,),
}  # fmt: skip
_LAYERS = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu", "BatchNormalization", "InstanceNormalization",
    "LayerNormalization", "GroupNormalization", "RMSNormalization",
}  # fmt: skip
_SMALL = 64


class GraphModule(nn.Module):
    """`graph` from its one input to the value named `output`, in evaluation mode whatever the mode of the module.

    Weights of floating point are parameters; single numbers, statistics and whole numbers are not. A weight that
    several nodes use is one parameter. Nodes that do not lead to the output are left out.
    Raises `UnsupportedError` naming every operator for which there is no code here.
    """

    def __init__(self, graph: Graph, output: str) -> None:
        super().__init__()
        self.input, self.output = graph.inputs[0].name, output
        nodes = _needed(graph.nodes, output)
        unknown = sorted({n.op for n in nodes if n.op not in OPERATORS})
        if unknown:
            raise UnsupportedError(f"There is no torch code here for the operator{'s'[: len(unknown) > 1]} "
                              f"{', '.join(unknown)}.")  # fmt: skip
        self.names: dict[str, str] = {}  # of an initialiser: its name among the parameters and buffers
        self.constants: dict[str, Tensor] = {}  # numbers that say how: they stay on the processor
        self.held = nn.Module()
        wanted = {name for n in nodes for name in n.inputs} | {output}
        kept = {name: w for name, w in graph.weights.items() if name in wanted}
        computed = {name for n in nodes for name in n.inputs[: SETTINGS.get(n.op, len(n.inputs))]} | {output}
        self.constants.update({name: w for name, w in kept.items() if name not in computed})
        self._hold({name: w for name, w in kept.items() if name in computed}, _learnt(nodes, graph.weights))
        self.nodes = self._folded(nodes)
        self.last = _last_uses(self.nodes, output)

    def _hold(self, weights: Mapping[str, Tensor], learnt: set[str]) -> None:
        for name, value in weights.items():
            if value.ndim == 0 or (not value.is_floating_point() and value.numel() <= _SMALL):
                self.constants[name] = value
                continue
            self.names[name] = own = self._free_name(name)
            if value.is_floating_point() and name in learnt:
                self.held.register_parameter(own, nn.Parameter(value.clone()))
            else:
                self.held.register_buffer(own, value.clone())

    def _free_name(self, name: str) -> str:
        own = name.replace(".", "/")  # torch has dots for modules inside modules
        while not own or hasattr(self.held, own):
            own += "_"
        return own

    def _folded(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """The nodes that are left once those that work on constants alone have been computed."""
        left: list[Node] = []
        for n in nodes:
            if all(not name or name in self.constants for name in n.inputs):
                self.constants.update(call(n, [self.constants.get(name) for name in n.inputs]))
            else:
                left.append(n)
        return tuple(left)

    def weights(self) -> dict[str, Tensor]:
        """The weights by their names in the graph, as they are now."""
        return {name: cast(Tensor, getattr(self.held, own)) for name, own in self.names.items()}

    def forward(self, x: Tensor) -> Tensor:
        values: dict[str, Tensor | None] = {**self.constants, **self.weights(), self.input: x, "": None}
        elsewhere = x.device.type != "cpu"
        for n, done in zip(self.nodes, self.last, strict=True):
            inputs = [values[name] for name in n.inputs]
            values.update(call(n, _together(n, inputs, x.device) if elsewhere else inputs))
            for name in done:
                values.pop(name, None)
        return cast(Tensor, values[self.output])


def call(n: Node, inputs: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """What the node makes of its inputs, by name."""
    try:
        made: Any = OPERATORS[n.op](n, *inputs)
    except KeyError as error:
        raise n.refuse(f"with {error}") from error
    pairs = zip(n.outputs, cast(tuple[Tensor, ...], made) if isinstance(made, tuple) else (made,), strict=False)
    return {name: value for name, value in pairs if name}


def _together(n: Node, inputs: list[Tensor | None], device: torch.device) -> list[Tensor | None]:
    """The inputs on one device, but for those that are read as numbers."""
    data = SETTINGS.get(n.op, len(inputs))
    if not any(v is not None and v.device == device for v in inputs[:data]):
        return inputs  # arithmetic with sizes stays on the processor
    return [v if v is None or i >= data else v.to(device) for i, v in enumerate(inputs)]


def _needed(nodes: Sequence[Node], output: str) -> list[Node]:
    wanted, kept = {output}, list[Node]()
    for n in reversed(nodes):
        if wanted & {name for name in n.outputs if name}:
            wanted.update(n.inputs)
            kept.append(n)
    return kept[::-1]


def _learnt(nodes: Sequence[Node], weights: Mapping[str, Tensor]) -> set[str]:
    """The weights that training may move; a single number outside of a layer is part of a formula."""
    used = ((n, i, name) for n in nodes for i, name in enumerate(n.inputs) if name in weights)
    return {
        name for n, i, name in used if i not in _FIXED.get(n.op, ()) and (weights[name].numel() > 1 or n.op in _LAYERS)
    }


def _last_uses(nodes: Sequence[Node], output: str) -> list[tuple[str, ...]]:
    """For each node the values that nobody asks for after it."""
    seen, found = {output}, list[tuple[str, ...]]()
    for n in reversed(nodes):
        names = dict.fromkeys(name for name in (*n.inputs, *n.outputs) if name and name not in seen)
        seen.update(names)
        found.append(tuple(names))
    return found[::-1]
