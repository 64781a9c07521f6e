"""What a compiled function tells of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..graph.ir import Graph
    from .compiled import Compiled


class Explanation:
    """What a compiled function did so far."""

    def __init__(self, compiled: Compiled):
        entries = [e for found in compiled._entries.values() for e in found]
        self.graphs = [e.shown for e in entries]
        self.calls = [e.hits for e in entries]
        self.fallbacks = dict(compiled.fallbacks)
        self.recompiles = dict(compiled.recompiles)
        self.sources = [e.program.source for e in entries]
        lines = [f"{len(entries)} graph(s), {sum(self.fallbacks.values())} call(s) without one"]
        for e in entries:
            shapes = ", ".join(str(e.raw.values[v]) for v in e.forward_graph.inputs)
            lines.append(f"graph for ({shapes}): replayed {e.hits} times")
            lines.append(
                f"  {e.boundary} calls traced, {len(e.program.graph.nodes)} replayed, {e.static_count} kept from "
                f"parameters, {e.fused} fused chains, {len(e.program.buffers)} buffers "
                f"of {e.program.buffer_bytes} bytes"
            )
            lines += _kernels(e.program.graph)
            if e.backward_program is not None:
                lines.append(f"  gradient: {len(e.backward_graph.nodes)} calls for {len(e.edges)} tensors")
                lines += _kernels(e.backward_graph)
            lines.append(
                f"  guards: arguments' shapes, dtypes and values; {len(e.guards.dicts)} dicts, {len(e.guards.cells)} "
                f"names, {len(e.guards.tensors)} tensors"
            )
        lines += [f"compiled again {n} times: {why}" for why, n in self.recompiles.items()]
        lines += [f"without a graph {n} times: {why}" for why, n in self.fallbacks.items()]
        self._text = "\n".join(lines)

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def _kernels(graph: Graph) -> list[str]:
    """The kernels made for groups of elementwise nodes, equal ones in one line."""
    found: dict[str, int] = {}
    groups = [n for n in graph.nodes if n.op == "kernel"]
    for node in groups:
        first = graph.values[(node.outputs or node.inputs())[0]]
        what = f"{', '.join(n.op.removeprefix('numpy.') for n in node.body)}: {first}"
        found[what] = found.get(what, 0) + 1
    if not groups:
        return []
    head = f"  {len(groups)} kernels for {sum(len(n.body) for n in groups)} elementwise calls:"
    return [head, *[f"    {n} x {what}" for what, n in found.items()]]
