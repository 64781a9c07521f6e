"""Passes for memory: what constants give is computed once, copies that nobody needs go, results are made in place.

All of them keep every bit.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .ir import Graph, Node, Ref, Value, execute, refs, substitute
from .passes import ufunc_of

_SMALL = 1 << 16  # elements of memory of a constant that is kept in place of its computation
_SAME_SHAPE = frozenset(("reshape", "numpy.reshape", "expand", "contiguous", "sum_to"))


def fold_constants(graph: Graph) -> Graph:
    """Nodes that read constants alone are computed now, unless the result is large or its memory is written."""
    written = graph.written()
    constants = dict(graph.constants)
    moved = {graph.values[v].root for v in graph.outputs} | written
    values = dict(graph.values)
    nodes = []
    for node in graph.nodes:
        ids = node.inputs()
        fixed = not node.effect and not node.body and ids and all(v in constants for v in ids)
        if not fixed or any(values[v].root in moved for v in (*ids, *node.outputs)):
            nodes.append(node)
            continue
        env = {v: constants[v] for v in ids}
        execute(node, env)
        made = {v: env[v] for v in node.outputs if env[v] is not None}
        if len(made) < len(node.outputs) or any(_elements(a) > _SMALL for a in made.values()):
            nodes.append(node)
            continue
        constants.update(made)
    return replace(graph, values=values, nodes=nodes, constants=constants)


def _elements(a: np.ndarray) -> int:
    """How many elements of memory an array has; repeated dimensions take none."""
    return math.prod([n for n, s in zip(a.shape, a.strides, strict=True) if s])


def drop_copies(graph: Graph) -> Graph:
    """Copies of values that are not used afterwards, or that are never changed, and reshapes to the shape that is."""
    written = graph.written()
    outputs = {graph.values[v].root for v in graph.outputs}
    values = dict(graph.values)
    last: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        for v in node.inputs():
            last[values[v].root] = i
    made = {v for n in graph.nodes for v in n.outputs}
    same: dict[int, int] = {}
    nodes = []
    for i, node in enumerate(graph.nodes):
        node = replace(node, args=substitute(node.args, lambda r: Ref(same.get(r.id, r.id))))
        if _repeats(node, values):
            a, b = node.args[0].id, node.outputs[0]
            source, target = values[a], values[b]
            shared = target.root != b  # a view: the two are one
            own = source.root == a and a in made and a not in outputs
            untouched = not {a, b} & written
            if (shared and target.root == source.root) or (own and not shared and (last[a] <= i or untouched)):
                same[b] = a
                if not shared:
                    _merge(values, last, b, a)
                    written = written | {a} if b in written else written
                    outputs = outputs | {a} if b in outputs else outputs
                continue
        nodes.append(node)
    return replace(graph, values=values, nodes=nodes, outputs=[same.get(v, v) for v in graph.outputs])


def _merge(values: dict[int, Value], last: dict[int, int], b: int, a: int) -> None:
    """What is in the memory of `b` is in that of `a` from now on."""
    for v, x in list(values.items()):
        if x.root == b:
            values[v] = replace(x, root=a)
    last[a] = max(last.get(a, -1), last.get(b, -1))


def _repeats(node: Node, values: dict[int, Value]) -> bool:
    """Whether the output holds the very elements of the first input, in its layout."""
    if len(node.outputs) != 1 or not node.args or not isinstance(node.args[0], Ref):
        return False
    source, target = values[node.args[0].id], values[node.outputs[0]]
    if node.op not in ("numpy.copy", "numpy.astype", "cast", *_SAME_SHAPE):
        return False
    alike = source.shape == target.shape and source.dtype == target.dtype and source.contiguous == target.contiguous
    return alike and (node.op not in _SAME_SHAPE or target.root == source.root)


def update_in_place(graph: Graph) -> Graph:
    """`x = add(a, b)` and `write c <- x` as one `update` node, where nothing else uses x or c in between."""
    users = graph.users()
    root_of = {v: x.root for v, x in graph.values.items()}
    nodes: list[Node | None] = list(graph.nodes)
    for i, node in enumerate(graph.nodes):
        if node.op != "write" or node.args[1] is not Ellipsis or not isinstance(node.args[2], Ref):
            continue
        target, new = node.args[0].id, node.args[2].id
        made = next((k for k in range(i - 1, -1, -1) if new in graph.nodes[k].outputs), None)
        if made is None or users[new] != [i] or root_of[new] != new or new in graph.outputs:
            continue
        ufunc = ufunc_of(graph, graph.nodes[made])
        a, b = graph.values[target], graph.values[new]
        if ufunc is None or (a.shape, a.dtype) != (b.shape, b.dtype):
            continue
        between = [n for n in graph.nodes[made + 1 : i] if n is not None]
        touched = {root_of[v] for n in between for v in (*n.inputs(), *n.targets())}
        changed = {root_of[v] for n in between for v in n.targets()}
        if root_of[target] in touched or any(root_of[r.id] in changed for r in refs(ufunc[1])):
            continue
        nodes[made] = None
        nodes[i] = Node("update", (Ref(target), *ufunc), (), node.module)
    return replace(graph, nodes=[n for n in nodes if n is not None])
