"""ONNX graphs computed by torch."""

from adamant.models.graph.module import OPERATORS, GraphModule
from adamant.models.graph.record import TYPES, Graph, Node, Port, UnsupportedError

__all__ = ["OPERATORS", "TYPES", "Graph", "GraphModule", "Node", "Port", "UnsupportedError"]
