"""ONNX graphs computed by torch."""

from adamant.models.graph.module import OPERATORS, GraphModule
from adamant.models.graph.record import TYPES, Graph, Node, Port, Unsupported

__all__ = ["OPERATORS", "TYPES", "Graph", "GraphModule", "Node", "Port", "Unsupported"]
