"""Groups of elementwise nodes at work: the kernel where Numba can run it, the same nodes on NumPy where not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import fusion
from ..graph.ir import Graph, Node, execute
from .kernel_text import Text, text_of


def with_kernels(graph: Graph) -> Graph:
    """The graph with groups as `kernel` nodes; as it is where Numba is missing."""
    fused = fusion.fuse(graph)
    return fused if fused is graph or _numba() is not None else graph


def _numba() -> Any:
    try:
        from ..backends.kernels import numba_fused
    except ImportError:
        return None
    return numba_fused


class FusedKernel:
    """A `kernel` node as a function of arrays and of memory for its outputs."""

    def __init__(self, graph: Graph, node: Node):
        self.node = node
        self.text: Text = text_of(graph, node)
        self.shapes = [(graph.values[v].shape, graph.values[v].dtype) for v in node.outputs]
        given = list(node.inputs())
        indices = {fusion.operand_of(n)[1] for n in node.body if n.op == "getitem"}
        self.places = [(given.index(v), np.ascontiguousarray if v in indices else _vector) for v in self.text.inputs]
        # (where an index stands, how many rows there are): NumPy does the rest, from the end or with an error
        picks = [fusion.operand_of(n) for n in node.body if n.op == "getitem"]
        self.picks = list(dict.fromkeys((given.index(i), graph.values[v].shape[0]) for v, i in picks if i is not None))
        self.function: Any = None
        self._ready: Any = None

    def __call__(self, arrays: Sequence[np.ndarray], outs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """The outputs, in the given memory where there is some."""
        made = [np.empty(*s) if o is None else o for o, s in zip(outs, self.shapes, strict=True)]
        if self.function is None:
            self._load()
        if not self._ready() or not all([arrays[k].view(np.uint64).max() < rows for k, rows in self.picks]):
            env = dict(zip(self.node.inputs(), arrays, strict=True))
            with np.errstate(all="ignore"):
                execute(self.node, env)
            for v, o in zip(self.node.outputs, made, strict=True):
                o[...] = env[v]
            return made
        text = self.text
        self.function(
            *text.sizes, text.constants, *[form(arrays[k]) for k, form in self.places], *[o.reshape(-1) for o in made]
        )
        return made

    def _load(self) -> None:
        module = _numba()
        self._ready, self.function = module.numba_setup.ready, module.load(self.text.source)


def _vector(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)
