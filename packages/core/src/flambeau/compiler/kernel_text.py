"""Source text of one kernel for a group of elementwise nodes.

Shapes do not enter the text, only which operands are repeated along which dimensions, so one text serves many groups
and many shapes. Arrays come as vectors. The loop runs over rows, and over the elements of a row; without operands that
are repeated there is one row, cut into blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..graph.fusion import ACTIVATIONS, COMPARISONS, binary_of, layout_of, operand_of, unary_of
from ..graph.ir import Graph, Node, Ref

BLOCK = 1 << 13  # elements of a task
PARALLEL = 1 << 15  # elements: smaller groups run on the calling thread


@dataclass
class Text:
    """The text of a kernel, and what its arguments are."""

    source: str
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    sizes: tuple[int, ...] = ()  # tasks, elements or rows of a task, rows, repeats, elements of a row
    constants: np.ndarray = field(default_factory=lambda: np.zeros(0))


def text_of(graph: Graph, node: Node) -> Text:
    """The kernel for a node `kernel`."""
    return _Writer(graph, node).text()


class _Writer:
    def __init__(self, graph: Graph, node: Node):
        self.graph, self.node = graph, node
        self.layout = layout_of(graph, node.body)
        assert self.layout is not None
        self.names: dict[int, str] = {}  # value -> what it is called inside of the loop
        self.constants: list[tuple[float, str]] = []
        self.lines: list[str] = []

    def text(self) -> Text:
        layout, values, node = self.layout, self.graph.values, self.node
        assert layout is not None
        flat = layout.flat
        sums = [n for n in node.body if n.op in ("sum_to", "sum")]
        total = {n.outputs[0] for n in sums}
        inputs = list(dict.fromkeys(v for n in node.body for v in _sources(n) if v not in layout.inside))
        place = {v: f"a{k}" for k, v in enumerate(inputs)}
        rows: list[str] = []  # before the loop over a row's elements
        after: list[str] = []
        for (v, index), code in layout.operands.items():
            name = f"x{len(self.names)}"
            if index is not None:
                rows.append(f"{name}_ = {place[v]}[{place[index]}[r] * n : ({place[index]}[r] + 1) * n]")
            elif code[2]:
                where = {(1, 1): "r", (1, 0): "r // m", (0, 1): "r % m", (0, 0): "0"}[code[:2]]
                rows.append(f"{name}_ = {place[v]}[first:last]" if flat else f"{name}_ = {_row(place[v], where)}")
            else:
                where = {(1, 1): "r", (1, 0): "r // m", (0, 1): "r % m", (0, 0): "0"}[code[:2]]
                rows.append(f"{name} = {place[v]}[{where}]")
                self.names[layout.key(v, index)] = name
                continue
            self.names[layout.key(v, index)] = name
            self.lines.append(f"{name} = {name}_[j]")
        for n in node.body:
            if n.op in ("getitem", "expand"):
                key = layout.key(*operand_of(n))
                self.names[n.outputs[0]] = self.names[key]
            elif n.outputs[0] in total:
                k = len(after)
                rows.append(f"s{k} = s[{k}]")
                self.lines.append(f"s{k}[j] = {self.names[n.args[0].id]}")
                after.append(f"o{node.outputs.index(n.outputs[0])}[r] = row_sum(s{k})")
            else:
                v = n.outputs[0]
                self.names[v] = f"t{len(self.names)}"
                self.lines.append(f"{self.names[v]} = {self.expression(n)}")
        for k, v in enumerate(node.outputs):
            if v not in total:
                rows.append(f"y{k} = o{k}[first:last]" if flat else f"y{k} = o{k}[r * n : (r + 1) * n]")
                self.lines.append(f"y{k}[j] = {self.names[v]}")
        arrays = ", ".join([*place.values(), *[f"o{k}" for k in range(len(node.outputs))]])
        head = [f"c{k} = np.{dtype}(c[{k}])" for k, (_, dtype) in enumerate(self.constants)]
        if sums:
            head.append(f"s = np.empty(({len(sums)}, n), np.{values[sums[0].args[0].id].dtype.name})")
        if flat:
            body = [*head, *rows, "for j in range(last - first):", *_indented(self.lines)]
        else:
            inner = [*rows, "for j in range(n):", *_indented(self.lines), *after]
            body = [*head, "for r in range(first, last):", *_indented(inner)]
        size = layout.size
        parallel = size >= PARALLEL
        helpers = sorted({f"one_{n.op}" for n in node.body} & _ONES) + sorted(
            {"logistic" for n in node.body if n.op == "sigmoid"}
        )
        for n in node.body:
            if n.op in ("gelu", "gelu_grad"):
                helpers.append(_gelu(n))
        source = "\n".join(
            [
                "import numpy as np",
                "from numba import prange",
                *[f"from flambeau.backends.kernels.numba_eltwise import {name}" for name in sorted(set(helpers))],
                "from flambeau.backends.kernels.numba_fused import row_body, row_sum, "
                + ("driver" if parallel else "serial_driver as driver"),
                "",
                "",
                "@row_body",
                f"def body(first, last, m, n, c, {arrays}):",
                *_indented(body),
                "",
                "",
                "@driver",
                f"def kernel(tasks, step, rows, m, n, c, {arrays}):",
                f"    for task in {'prange' if parallel else 'range'}(tasks):",
                f"        body(task * step, min(rows, task * step + step), m, n, c, {arrays})",
                "",
            ]
        )
        d0, d1, d2 = layout.dims
        count, step = (d2, BLOCK) if flat else (d0 * d1, max(1, BLOCK // d2))
        return Text(
            source, inputs, list(node.outputs), (-(-count // step), step, count, d1, d2),
            np.array([float(c) for c, _ in self.constants]),
        )  # fmt: skip

    # -- one node ------------------------------------------------------------------------------------------------
    def operand(self, value: Any, dtype: np.dtype) -> str:
        if isinstance(value, Ref):
            return self.names[value.id]
        key = (float(value), dtype.name)
        same = [k for k, c in enumerate(self.constants) if c[1] == key[1] and _same(c[0], key[0])]
        if not same:
            self.constants.append(key)
            same = [len(self.constants) - 1]
        return f"c{same[0]}"

    def expression(self, node: Node) -> str:
        values, out = self.graph.values, self.graph.values[node.outputs[0]]
        op = node.op
        single = unary_of(node)
        if single is not None:
            return self.cast(_UNARY[single].format(self.operand(node.args[0], out.dtype)), out.dtype)
        pair = binary_of(node)
        if pair is not None:
            dtype = out.dtype
            if pair in COMPARISONS:
                dtype = next(values[a.id].dtype for a in node.args[:2] if isinstance(a, Ref))
            a, b = (self.operand(x, dtype) for x in node.args[:2])
            return self.cast(_BINARY[pair].format(a=a, b=b), out.dtype)
        if op in ("cast", "numpy.astype"):
            return self.cast(self.names[node.args[0].id], out.dtype, always=True)
        if op == "where":
            condition, a, b = (self.operand(x, out.dtype) for x in node.args)
            return f"{a} if {condition} else {b}"
        if op == "relu":
            return _BINARY["maximum"].format(a=self.operand(node.args[0], out.dtype), b=self.operand(0, out.dtype))
        if op == "relu_grad":
            g, x = (self.names[r.id] for r in node.args)
            zero = self.operand(0, out.dtype)
            return f"{g} if {x} > {zero} else {zero}"
        assert op in ACTIVATIONS
        arrays = [self.names[r.id] for r in node.args if isinstance(r, Ref)]
        if op.startswith("softplus"):
            beta, threshold = node.args[-2:]
            arrays += [self.operand(x, out.dtype) for x in (beta, 1 / beta, threshold)]
        name = "logistic" if op == "sigmoid" else _gelu(node) if op.startswith("gelu") else f"one_{op}"
        return f"{name}({', '.join(arrays)})"

    @staticmethod
    def cast(text: str, dtype: np.dtype, always: bool = False) -> str:
        """Numba computes small integers in 64 bits, NumPy in their own."""
        return f"np.{dtype.name}({text})" if always or dtype.kind in "iu" else text


_ONES = {"one_silu", "one_silu_grad", "one_softplus", "one_softplus_grad", "one_softplus_curvature"}
_UNARY = {
    "negative": "-{0}", "square": "{0} * {0}", "sqrt": "np.sqrt({0})", "absolute": "abs({0})",
    "logical_not": "not {0}",
}  # fmt: skip
_BINARY = {
    "add": "{a} + {b}", "subtract": "{a} - {b}", "multiply": "{a} * {b}", "divide": "{a} / {b}",
    "maximum": "{a} if {a} > {b} or {a} != {a} else {b}", "minimum": "{a} if {a} < {b} or {a} != {a} else {b}",
    "greater": "{a} > {b}", "greater_equal": "{a} >= {b}", "less": "{a} < {b}", "less_equal": "{a} <= {b}",
    "equal": "{a} == {b}", "not_equal": "{a} != {b}", "logical_and": "{a} & {b}", "logical_or": "{a} | {b}",
}  # fmt: skip


def _gelu(node: Node) -> str:
    kind = "tanh" if "tanh" in node.args else "erf"
    return f"one_gelu_{kind}{'_grad' if node.op == 'gelu_grad' else ''}"


def _sources(node: Node) -> list[int]:
    return list(node.inputs())


def _row(array: str, where: str) -> str:
    return f"{array}[:n]" if where == "0" else f"{array}[({where}) * n : ({where}) * n + n]"


def _same(a: float, b: float) -> bool:
    return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
