"""The one file that imports onnx: from a file or a ModelProto to a `Graph`, and back into a file with other weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from adamant.errors import InputError, MissingExtraError, ModelError
from adamant.models.graph import TYPES, Graph, Node, Port, UnsupportedError

_EXTERNAL = 1  # TensorProto.DataLocation
_OLDEST = 7  # before it, operators broadcast by rules of their own


def package(why: str) -> Any:
    """The package onnx; raises `MissingExtraError` that begins with what it is needed for."""
    try:
        return cast(Any, import_module("onnx"))
    except ImportError as error:
        raise MissingExtraError(f"{why} needs the package onnx ({error}): pip install adamant[onnx].") from error


def read_proto(source: Any) -> Any:
    """The ModelProto of a file, with its external data, in a form in which every constant is an initialiser.

    Weights beside the file are read from its own folder only. Raises `InputError` for a file that is no ONNX model,
    `ModelError` for external data elsewhere, `MissingExtraError` without the package onnx.
    """
    onnx = package(f"{source}" if isinstance(source, Path) else "An ONNX model")
    if isinstance(source, Path):
        proto = _from_file(onnx, source)
    else:
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
    if proto.functions:
        proto = import_module("onnx.inliner").inline_local_functions(proto)
    _lift_constants(proto)
    _part_statistics(proto)
    return proto


def _from_file(onnx: Any, path: Path) -> Any:
    try:
        proto = onnx.load(str(path), load_external_data=False)
        fault = "" if proto.graph.node or proto.graph.initializer else "it holds no graph"
    except Exception as error:  # protobuf has an error of its own, and which one changes with its version
        proto, fault = None, f"{type(error).__name__}: {error}"
    if fault or proto is None:
        raise InputError(
            f"{path} is not an ONNX model, or is cut short ({fault}); export it again, for example with "
            'torch.onnx.export(model, (x,), "model.onnx").'
        )
    outside = [t for t in _tensors(proto) if t.data_location == _EXTERNAL]
    for tensor in outside:
        _check_location(path, tensor)
    if outside:
        try:
            onnx.load_external_data_for_model(proto, str(path.parent))
        except Exception as error:
            raise ModelError(f"The weights that {path} keeps in other files cannot be read: {error}") from error
    return proto


def _check_location(path: Path, tensor: Any) -> None:
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    folder = path.parent.resolve()
    at = (folder / location).resolve()
    if not location or not at.is_relative_to(folder):
        raise ModelError(
            f"{path} says that its weight {tensor.name!r} is in {location!r}, outside of its own folder; adamant does "
            "not read there. Export the model again, with the weights in the file or beside it."
        )
    if not at.is_file():
        raise InputError(
            f"{path} keeps its weight {tensor.name!r} in {location!r}, and that file is not beside it; copy it there."
        )


def _tensors(proto: Any) -> Iterator[Any]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_tensors(graph)


def _lift_constants(proto: Any) -> None:
    """Constant nodes as initialisers, so that weights are in one place whoever exported the model."""
    left: list[Any] = []
    for node in proto.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is None or node.domain not in ("", "ai.onnx"):
            left.append(node)
            continue
        held = proto.graph.initializer.add()
        held.CopyFrom(value)
        held.name = node.output[0]
    kept = [type(node).FromString(node.SerializeToString()) for node in left]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def _part_statistics(proto: Any) -> None:
    """Statistics of batch normalisation that an exporter merged with equal weights, as in a fresh network, get
    initialisers of their own: weights are trained, and statistics are not."""
    held = {t.name: t for t in proto.graph.initializer}
    same = {n.output[0]: n.input[0] for n in proto.graph.node if n.op_type == "Identity"}

    def root(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    def places(node: Any) -> tuple[int, ...]:
        return (3, 4) if node.op_type == "BatchNormalization" else ()

    nodes = [n for n in proto.graph.node if n.op_type != "Identity"]
    learnt = {root(name) for n in nodes for i, name in enumerate(n.input) if i not in places(n)}
    for number, node in enumerate(nodes):
        for place in places(node):
            name = root(node.input[place])
            if name in held and name in learnt:
                own = proto.graph.initializer.add()
                own.CopyFrom(held[name])
                own.name = name = f"{name}.statistics.{number}.{place}"
            node.input[place] = name


def read_graph(proto: Any) -> Graph:
    """The graph of a ModelProto of `read_proto`; raises `UnsupportedError` for what has no place in a `Graph`."""
    onnx = package("An ONNX model")
    opsets = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    opset = opsets.get("ai.onnx", 1)
    if opset < _OLDEST:
        raise UnsupportedError(f"The model is written in opset {opset}, and adamant reads those from {_OLDEST} on.")
    if proto.graph.sparse_initializer:
        raise UnsupportedError("The model has sparse weights.")
    weights = {t.name: _tensor(onnx, t) for t in proto.graph.initializer}
    nodes = tuple(_node(onnx, n, opset) for n in proto.graph.node)
    known = {*weights, *(p.name for p in proto.graph.input), ""}
    for node in nodes:
        if odd := [name for name in node.inputs if name not in known]:
            raise InputError(f"The graph is broken: {node.op} asks for {odd[0]!r}, which nothing before it makes.")
        known.update(node.outputs)
    return Graph(nodes, weights, *ports(proto))


def ports(proto: Any) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """What goes in, without the weights that older files list there, and what comes out."""
    held = {t.name for t in proto.graph.initializer}
    given = tuple(_port(v) for v in proto.graph.input if v.name not in held)
    return given, tuple(_port(v) for v in proto.graph.output)


def _port(value: Any) -> Port:
    kind = value.type.tensor_type
    sizes = None
    if kind.HasField("shape"):
        sizes = tuple(int(d.dim_value) if d.dim_value > 0 else None for d in kind.shape.dim)
    return Port(value.name, TYPES.get(kind.elem_type), sizes)


def _node(onnx: Any, node: Any, opset: int) -> Node:
    name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    found = {a.name: _attribute(onnx, a) for a in node.attribute}
    return Node(name, tuple(node.input), tuple(node.output), found, opset)


def _attribute(onnx: Any, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return _tensor(onnx, value)
    return value if isinstance(value, (int, float)) else _several(value)


def _several(value: Any) -> Any:
    try:
        return tuple(v.decode(errors="replace") if isinstance(v, bytes) else v for v in value)
    except TypeError:  # a graph inside a node; its operator is unknown here, and named
        return None


def _tensor(onnx: Any, held: Any) -> Tensor:
    if held.data_type not in TYPES:
        raise UnsupportedError(
            f"The weight {held.name!r} is of the type {onnx.TensorProto.DataType.Name(held.data_type)}."
        )
    dtype = TYPES[held.data_type]
    array = onnx.numpy_helper.to_array(held)
    if dtype == torch.bfloat16:
        return torch.from_numpy(array.astype("float32")).bfloat16()
    return torch.from_numpy(array.copy())


def with_weights(proto: Any, weights: Mapping[str, Tensor]) -> bytes:
    """The file of the same graph with these weights, each of the type that it had."""
    new = type(proto)()
    new.CopyFrom(proto)
    for held in new.graph.initializer:
        if held.name not in weights:
            continue
        value = weights[held.name].detach().cpu().to(TYPES[held.data_type]).contiguous()
        for name in ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "external_data"):
            held.ClearField(name)
        held.ClearField("data_location")
        held.raw_data = value.view(torch.uint8).numpy().tobytes() if value.ndim else value.numpy().tobytes()
    try:
        return new.SerializeToString()
    except Exception as error:
        raise ModelError(f"The model cannot be written as one ONNX file ({error}); 2 GB is the most.") from error


def showing(proto: Any, names: tuple[str, ...]) -> Any:
    """The same graph with other values as its outputs."""
    onnx = package("An ONNX model")
    new = type(proto)()
    new.CopyFrom(proto)
    old = {v.name: type(v).FromString(v.SerializeToString()) for v in new.graph.output}
    del new.graph.output[:]
    new.graph.output.extend(old.get(name) or onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return new


def reference_evaluator(proto: Any) -> Any:
    """The slow evaluator that comes with onnx."""
    return cast(Any, import_module("onnx.reference")).ReferenceEvaluator(proto)


def before_activation(proto: Any, name: str) -> tuple[str, str]:
    """The value that the last softmax or sigmoid takes in, and which of them it was; `name` and "" without one."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    at = name
    while (node := makers.get(at)) is not None and node.op_type == "Identity":
        at = node.input[0]
    if node is None or node.op_type not in ("Softmax", "Sigmoid") or node.domain not in ("", "ai.onnx"):
        return name, ""
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
    if node.op_type == "Softmax" and axis not in (-1, 1):
        return name, ""
    return node.input[0], node.op_type.lower()
