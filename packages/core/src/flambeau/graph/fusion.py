"""Which elementwise nodes become one kernel: groups over one shape, found in the graph's dependencies, not its order.

A group may take in picks of rows (`x[index]` with a fixed index) and repeats (`expand`) as ways to read an operand, and
sums over the last dimension as outputs. Only operations that a kernel rounds exactly as NumPy, or as the eager kernel,
are taken: every bit stays.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .ir import Graph, Node, Ref, refs

ACTIVATIONS = frozenset(
    (
        "gelu", "gelu_grad", "sigmoid", "silu", "silu_grad", "softplus", "softplus_curvature", "softplus_grad",
    )
)  # fmt: skip
COMPARISONS = frozenset(("equal", "greater", "greater_equal", "less", "less_equal", "not_equal"))
_SHORT = {
    "add": "add", "sub": "subtract", "mul": "multiply", "true_divide": "divide", "lt": "less", "le": "less_equal",
    "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal", "maximum": "maximum",
    "minimum": "minimum", "logical_and": "logical_and", "logical_or": "logical_or",
}  # fmt: skip
_ARITHMETIC = frozenset(("add", "subtract", "multiply", "divide", "maximum", "minimum"))
_LOGICAL = frozenset(("logical_and", "logical_or"))
_UNARY = {
    "neg": "negative", "negative": "negative", "square": "square", "sqrt": "sqrt", "abs": "absolute",
    "absolute": "absolute", "logical_not": "logical_not",
}  # fmt: skip
_DTYPES = frozenset(map(np.dtype, ("float32", "float64", "int32", "int64", "bool")))
_KERNELS_TAKE = 1 << 13  # elements from which the eager kernels of activations work, so that the bits are theirs
_LARGE = 1 << 15  # elements: from here two operations are worth a kernel, below four
_MEMBERS, _ARRAYS = 32, 14  # at most: a kernel's compilation grows with them
_EXACT = 1 << 53


# -- nodes ------------------------------------------------------------------------------------------------------
def unary_of(node: Node) -> str | None:
    """The NumPy function of a node with one operand."""
    if node.op == "pow":
        return "square" if type(node.args[1]) in (int, float) and node.args[1] == 2 else None
    return _UNARY.get(node.op.removeprefix("numpy.")) if len(node.args) == 1 else None


def binary_of(node: Node) -> str | None:
    """The NumPy function of a node with two operands."""
    name = node.op.removeprefix("numpy.")
    if name in ("add", "sub") and node.op == name:
        return _SHORT[name] if node.args[2:] == (1,) else None
    if len(node.args) != 2:
        return None
    if node.op != name:
        name = "divide" if name == "true_divide" else name
        return name if name in _ARITHMETIC or name in COMPARISONS or name in _LOGICAL else None
    return _SHORT.get(name)


def operand_of(node: Node) -> tuple[int, int | None]:
    """(what `expand` or `getitem` reads, the index)."""
    if node.op == "expand":
        return node.args[0].id, None
    index = node.args[1][0] if isinstance(node.args[1], tuple) else node.args[1]
    return node.args[0].id, index.id


def _fits(graph: Graph, node: Node) -> bool:
    """Whether a kernel can compute this node with the same bits."""
    if len(node.outputs) != 1 or node.body or node.effect:
        return False
    v = node.outputs[0]
    out = graph.values[v]
    if out.root != v or not out.contiguous or out.dtype not in _DTYPES or math.prod(out.shape) < 2:
        return False
    arrays = list(refs(node.args))
    dtypes = {graph.values[r.id].dtype for r in arrays}
    if not arrays or not dtypes <= _DTYPES:
        return False
    kind = out.dtype.kind
    single, pair = unary_of(node), binary_of(node)
    if single is not None:
        if single == "logical_not":
            return dtypes == {out.dtype} and kind == "b"
        return dtypes == {out.dtype} and (kind == "f" or (kind == "i" and single != "sqrt"))
    if pair is not None:
        (given,) = dtypes if len(dtypes) == 1 else (None,)
        if given is None or not all(_operand(a, given) for a in node.args[:2]):
            return False
        if pair in COMPARISONS:
            return kind == "b"
        if pair in _LOGICAL:
            return given == out.dtype and kind == "b"
        return given == out.dtype and (kind == "f" or (kind == "i" and pair != "divide"))
    if node.op in ("cast", "numpy.astype"):
        (given,) = dtypes
        return isinstance(node.args[0], Ref) and kind in "fi" and (kind == "f" or given.kind in "bi")
    if node.op == "where":
        c, a, b = node.args
        values = {graph.values[r.id].dtype for r in (a, b) if isinstance(r, Ref)}
        known = isinstance(c, Ref) and graph.values[c.id].dtype.kind == "b" and values == {out.dtype}
        return known and kind != "b" and _operand(a, out.dtype) and _operand(b, out.dtype)
    if node.op in ("relu", "relu_grad"):
        return dtypes == {out.dtype} and kind == "f" and all(isinstance(a, Ref) for a in node.args)
    if node.op in ACTIVATIONS:
        return dtypes == {np.dtype(np.float32)} and _as_the_kernel(graph, node)
    return False


def _operand(value: object, dtype: np.dtype) -> bool:
    if isinstance(value, Ref):
        return True
    if dtype.kind == "f":
        return type(value) in (int, float) and (value != value or abs(value) < _EXACT or math.isinf(value))  # type: ignore[operator, arg-type]
    return dtype.kind == "i" and type(value) is int and abs(value) < 1 << 31


def _as_the_kernel(graph: Graph, node: Node) -> bool:
    """Whether the eager kernel takes this activation, whose formula the group's kernel then shares."""
    from ..ops._op import REGISTRY

    shape = graph.values[node.outputs[0]].shape
    if node.plain or REGISTRY[node.op].kernel is None or math.prod(shape) < _KERNELS_TAKE:
        return False
    if any(graph.values[r.id].shape != shape for r in refs(node.args)):
        return False
    rest = [a for a in node.args if not isinstance(a, Ref)]
    if node.op.startswith("softplus"):
        return len(rest) == 2 and all(type(a) in (int, float) for a in rest) and rest[0] != 0
    return rest in ([], ["none"], ["tanh"])


def _row_sum(graph: Graph, node: Node) -> bool:
    """Whether the node adds up the last dimension, in a row that NumPy adds without dividing it."""
    if node.op not in ("sum_to", "sum") or not node.args or not isinstance(node.args[0], Ref):
        return False
    x, out = graph.values[node.args[0].id], graph.values[node.outputs[0]]
    if out.root != node.outputs[0] or x.dtype.kind != "f" or x.dtype != out.dtype or len(x.shape) < 2:
        return False
    if node.op == "sum" and (node.args[1] not in (-1, len(x.shape) - 1) or node.args[3:] not in ((), (None,))):
        return False
    left = x.shape[:-1] + ((1,) if len(out.shape) == len(x.shape) else ())
    return out.shape == left and 8 <= x.shape[-1] <= 128 and math.prod(x.shape[:-1]) > 1


def _reads_rows(graph: Graph, node: Node, written: set[int]) -> bool:
    """Whether the node picks whole rows by an index that is in range, as far as that is known; calls check it."""
    if node.op != "getitem" or not isinstance(node.args[0], Ref):
        return False
    index = node.args[1][0] if isinstance(node.args[1], tuple) and len(node.args[1]) == 1 else node.args[1]
    if not isinstance(index, Ref):
        return False
    x, i, out = graph.values[node.args[0].id], graph.values[index.id], graph.values[node.outputs[0]]
    if i.dtype != np.int64 or len(i.shape) != 1 or i.root in written or not i.shape[0] or len(x.shape) < 2:
        return False
    array = graph.constants.get(index.id)
    if array is None and index.id in graph.captured:
        array = graph.captured[index.id].array
    if not x.contiguous or not out.contiguous or x.root in written or math.prod(x.shape[1:]) < 8:
        return False
    return array is None or bool(array.min() >= 0 and array.max() < x.shape[0])


# -- how a group's operands lie ---------------------------------------------------------------------------------
@dataclass
class Layout:
    """The dimensions of a group's loop, merged to at most three, and along which of them operands are repeated.

    operands: (value, index of a pick of rows or None) -> for each dimension 1, or 0 where the operand is repeated.
    """

    dims: tuple[int, int, int]
    operands: dict[tuple[int, int | None], tuple[int, int, int]]
    inside: set[int]
    flat: bool
    size: int

    @staticmethod
    def key(v: int, index: int | None) -> int:
        """A number for an operand, apart from those of values if it is a pick."""
        return v if index is None else -1 - (v << 24) - index


def layout_of(graph: Graph, body: Sequence[Node]) -> Layout | None:
    """The layout of these nodes; None if their operands have more patterns than a kernel's loops can follow."""
    values = graph.values
    inside = {n.outputs[0] for n in body}
    first = next(n for n in body if n.op not in ("sum_to", "sum", "getitem", "expand"))
    shape = values[first.outputs[0]].shape
    codes: dict[tuple[int, int | None], tuple[int, ...]] = {}
    marks: list[tuple[int, ...]] = []
    for n in body:
        if n.op == "getitem":
            codes[operand_of(n)] = (2, *([1] * (len(shape) - 1)))
        elif n.op in ("sum_to", "sum"):
            marks.append((*([1] * (len(shape) - 1)), 0))
        else:
            for v in n.inputs():
                if v not in inside:
                    code = _code(values[v].shape, shape)
                    if code is None:
                        return None
                    codes[v, None] = code
    keep = [d for d, n in enumerate(shape) if n != 1]
    if not keep or (any(2 in c for c in codes.values()) and 0 not in keep):
        return None
    merged: list[list[int]] = []
    for d in keep:
        if merged and all(c[d] == c[merged[-1][-1]] != 2 for c in (*codes.values(), *marks)):
            merged[-1].append(d)
        else:
            merged.append([d])
    sizes = [math.prod([shape[d] for d in dims]) for dims in merged]
    rows = bool(marks) or any(2 in c for c in codes.values())
    if len(merged) > 3 or (rows and len(merged) != 2):
        return None
    flat = len(merged) == 1
    if flat:
        three = (1, 1, sizes[0])
    else:
        three = (sizes[0], sizes[1] if len(sizes) == 3 else 1, sizes[-1])
    operands = {}
    for k, c in codes.items():
        at = [c[dims[0]] for dims in merged]
        operands[k] = (at[0], at[0], at[-1]) if len(at) < 3 else (at[0], at[1], at[2])
    return Layout(three, operands, inside, flat, math.prod(shape))  # type: ignore[arg-type]


def _code(shape: tuple[int, ...], full: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(shape) > len(full):
        return None
    padded = (1,) * (len(full) - len(shape)) + shape
    if any(a not in (1, b) for a, b in zip(padded, full, strict=True)):
        return None
    return tuple([int(a == b) for a, b in zip(padded, full, strict=True)])


# -- groups -----------------------------------------------------------------------------------------------------
class _Groups:
    """Groups of nodes, with what must run before each of them: a group runs as a whole."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.written = graph.written()
        self.maker = {v: i for i, n in enumerate(graph.nodes) for v in n.outputs}
        self.before: list[int] = []  # of each unit, as bits: all that must run before it
        self.unit = list(range(len(graph.nodes)))
        self.members: dict[int, list[int]] = {}
        self.shape: dict[int, tuple[int, ...]] = {}
        self.views = [self._is_view(n) for n in graph.nodes]
        self.needs = [set[int]() for _ in graph.nodes]
        self._order_memory()

    def _is_view(self, node: Node) -> bool:
        if node.op == "expand" and isinstance(node.args[0], Ref):
            x = self.graph.values[node.args[0].id]
            return x.contiguous and x.root not in self.written and x.dtype in _DTYPES
        return _reads_rows(self.graph, node, self.written)

    def _order_memory(self) -> None:
        """Effects stay in order, and so does what touches memory that is changed in place."""
        last_effect = -1
        last_write: dict[int, int] = {}
        readers: dict[int, list[int]] = {}
        values = self.graph.values
        for i, n in enumerate(self.graph.nodes):
            if n.effect:
                if last_effect >= 0:
                    self.needs[i].add(last_effect)
                last_effect = i
            touched = {values[v].root for v in (*n.inputs(), *n.outputs)} & self.written
            targets = {values[v].root for v in n.targets()}
            for r in touched:
                if r in last_write:
                    self.needs[i].add(last_write[r])
            for r in targets:
                self.needs[i].update(readers.pop(r, ()))
                last_write[r] = i
            for r in touched:
                readers.setdefault(r, []).append(i)
            self.needs[i].discard(i)

    def reads(self, i: int) -> list[int]:
        """The values that a node reads, through picks and repeats."""
        found: list[int] = []
        for v in self.graph.nodes[i].inputs():
            made = self.maker.get(v)
            if made is not None and self.views[made] and made != i:
                found += self.graph.nodes[made].inputs()
            else:
                found.append(v)
        return found

    def views_of(self, i: int) -> list[int]:
        """The picks and repeats through which a node reads."""
        made = [self.maker.get(v) for v in self.graph.nodes[i].inputs()]
        return [m for m in dict.fromkeys(made) if m is not None and self.views[m]]

    def body(self, members: Iterable[int]) -> list[Node]:
        """The nodes of a group, with their picks and repeats, in order."""
        chosen = {m for i in members for m in (*self.views_of(i), i)}
        return [self.graph.nodes[i] for i in sorted(chosen)]

    def collect(self) -> None:
        """Goes through the nodes and lets each join the last group that it may."""
        recent: dict[tuple[int, ...], list[int]] = {}
        values = self.graph.values
        for i, node in enumerate(self.graph.nodes):
            sums = _row_sum(self.graph, node)
            joins = sums or (not self.views[i] and _fits(self.graph, node) and self._readable(i))
            sources = self.reads(i) if joins else node.inputs()
            units = {self.unit[self.maker[v]] for v in sources if v in self.maker} | {
                self.unit[d] for d in self.needs[i]
            }
            before = 0
            for u in units:
                before |= self.before[u] | 1 << u
            self.before.append(before)
            if not joins:
                continue
            shape = values[node.args[0].id].shape if sums else values[node.outputs[0]].shape
            groups = recent.setdefault(shape, [])
            for g in reversed(groups[-12:]):
                if self._may_join(g, i, units, sums) and self._related(g, i):
                    self._join(g, i, before)
                    break
            else:
                if not sums:
                    self.members[i], self.shape[i] = [i], shape
                    groups.append(i)

    def _readable(self, i: int) -> bool:
        body = self.body([i])
        indices = {operand_of(n)[1] for n in body if n.op == "getitem"}  # made contiguous at each call
        dense = all(self.graph.values[v].contiguous for v in self.reads(i) if v not in indices)
        return dense and layout_of(self.graph, body) is not None

    def _may_join(self, g: int, i: int, units: set[int], sums: bool) -> bool:
        members = self.members[g]
        if len(members) >= _MEMBERS or any(u != g and self.before[u] >> g & 1 for u in units):
            return False
        node, nodes = self.graph.nodes[i], self.graph.nodes
        made = {nodes[k].outputs[0] for k in members}
        if sums:
            if node.args[0].id not in made:
                return False
        else:
            ends = {nodes[k].outputs[0] for k in members if nodes[k].op in ("sum_to", "sum")}
            direct = set(node.inputs())
            if any(v in ends or (v in made and v not in direct) for v in self.reads(i)):
                return False
        layout = layout_of(self.graph, self.body([*members, i]))
        return layout is not None and len(layout.operands) + len(members) // 2 <= _ARRAYS

    def _related(self, g: int, i: int) -> bool:
        """Whether the node reads what the group reads or makes."""
        here = {v for k in self.members[g] for v in (*self.graph.nodes[k].inputs(), *self.graph.nodes[k].outputs)}
        large = {v for v in self.graph.nodes[i].inputs() if self.graph.values[v].shape == self.shape[g]}
        return bool(here & large)

    def _join(self, g: int, i: int, before: int) -> None:
        self.members[g].append(i)
        self.unit[i] = g
        new = before & ~(1 << g)
        self.before[g] |= new
        for h, bits in enumerate(self.before):
            if bits >> g & 1:
                self.before[h] = bits | new

    def worth(self, g: int) -> bool:
        """Whether a kernel is worth its compilation and its call."""
        nodes, members = self.graph.nodes, self.members[g]
        picks = {m for i in members for m in self.views_of(i) if nodes[m].op == "getitem"}
        work = len(members) + len(picks)
        return work >= (2 if math.prod(self.shape[g]) >= _LARGE else 4)


def fuse(graph: Graph) -> Graph:
    """Groups of elementwise nodes as nodes `kernel`, each placed where all that it reads has been made."""
    groups = _Groups(graph)
    groups.collect()
    taken = {g: m for g, m in groups.members.items() if groups.worth(g)}
    if not taken:
        return graph
    nodes = graph.nodes
    group_of = {i: g for g, members in taken.items() for i in members}
    bodies = {g: groups.body(members) for g, members in taken.items()}
    # What is read by a node that is no member, or by another group otherwise than through a pick of its own.
    read = set(graph.outputs)
    for i, n in enumerate(nodes):
        if i not in group_of and not groups.views[i]:
            read.update(n.inputs())
    for body in bodies.values():
        inside = {n.outputs[0] for n in body}
        read.update(v for n in body for v in n.inputs() if v not in inside)
    for i in range(len(nodes) - 1, -1, -1):
        if groups.views[i] and nodes[i].outputs[0] in read:
            read.update(nodes[i].inputs())
    units: dict[int, Node] = {}
    for i, n in enumerate(nodes):
        if i in group_of or (groups.views[i] and n.outputs[0] not in read):
            continue
        units[i] = n
    for g, members in taken.items():
        body = bodies[g]
        inside = {n.outputs[0] for n in body}
        ins = dict.fromkeys(v for n in body for v in n.inputs() if v not in inside)
        outs = tuple(v for v in (nodes[i].outputs[0] for i in sorted(members)) if v in read)
        units[g] = Node("kernel", tuple(Ref(v) for v in ins), outs, nodes[members[-1]].module, tuple(body))
    return replace(graph, nodes=_ordered(groups, taken, group_of, units))


def _ordered(
    groups: _Groups, taken: dict[int, list[int]], group_of: dict[int, int], units: dict[int, Node]
) -> list[Node]:
    """The units such that each comes after what it needs, otherwise as they were."""
    maker = {v: u for u, n in units.items() for v in n.outputs}
    needs: dict[int, set[int]] = {}
    for u, n in units.items():
        found = {maker[v] for v in n.inputs() if v in maker}
        for i in taken.get(u, [u]):
            found |= {group_of.get(d, d) for d in groups.needs[i]}
        needs[u] = {d for d in found if d != u and d in units}
    after: dict[int, list[int]] = {u: [] for u in units}
    for u, ds in needs.items():
        for d in ds:
            after[d].append(u)
    waiting = {u: len(ds) for u, ds in needs.items()}
    place = {u: max(taken.get(u, [u])) for u in units}
    ready = [(place[u], u) for u, n in waiting.items() if not n]
    heapq.heapify(ready)
    order = []
    while ready:
        _, u = heapq.heappop(ready)
        order.append(units[u])
        for w in after[u]:
            waiting[w] -= 1
            if not waiting[w]:
                heapq.heappush(ready, (place[w], w))
    assert len(order) == len(units), "a cycle among groups"
    return order
