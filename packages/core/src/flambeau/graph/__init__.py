"""One small graph form for compiling, exporting, quantising and counting: `trace(fn, *inputs)` gives a `Graph`."""

from .ir import Graph, Node, Ref, Value
from .symbol import GraphBreak
from .trace import trace

__all__ = ["Graph", "GraphBreak", "Node", "Ref", "Value", "trace"]
