"""What makes a graph smaller and faster without changing what it computes.

Every pass takes a graph and returns a new one. `dead_code`, `common_subexpressions` and `elementwise_chains` keep
every bit; `fold_batch_norm` multiplies weights beforehand, which rounds differently (relative differences of some
1e-6 in float32).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from .ir import Graph, Node, Ref, Value, refs, substitute

# op -> the NumPy function that it is for real floating-point arrays, and the further arguments for which this holds
UFUNCS: dict[str, tuple[str, tuple]] = {
    "add": ("add", (1,)), "sub": ("subtract", (1,)), "mul": ("multiply", ()), "true_divide": ("true_divide", ()),
    "neg": ("negative", ()), "exp": ("exp", ()), "log": ("log", ()), "sqrt": ("sqrt", ()), "tanh": ("tanh", ()),
    "sin": ("sin", ()), "cos": ("cos", ()), "abs": ("absolute", ()), "square": ("square", ()),
    "maximum": ("maximum", ()), "minimum": ("minimum", ()),
}  # fmt: skip
_ONE = {"neg", "exp", "log", "sqrt", "tanh", "sin", "cos", "abs", "square"}
_NUMPY_UFUNCS = frozenset(
    (
        *(name for name, _ in UFUNCS.values()),
        "divide",
        "greater",
        "greater_equal",
        "less",
        "less_equal",
        "equal",
        "not_equal",
    )
)


def ufunc_of(graph: Graph, node: Node) -> tuple[str, tuple] | None:
    """(name of a NumPy ufunc, its arguments) if that is all that the node does on floating-point arrays."""
    if len(node.outputs) != 1 or node.body:
        return None
    if node.op.startswith("numpy."):
        return (node.op[6:], node.args) if node.op[6:] in _NUMPY_UFUNCS else None
    out = graph.values[node.outputs[0]]
    if out.dtype.kind != "f" or out.dtype.itemsize < 4:
        return None
    if node.op == "relu":
        return "maximum", (node.args[0], 0)
    if _has_kernel(node.op):
        return None
    known = UFUNCS.get(node.op)
    if known is None:
        return None
    name, rest = known
    count = 1 if node.op in _ONE else 2
    if node.args[count:] != rest or any(graph.values[r.id].dtype != out.dtype for r in refs(node.args)):
        return None
    if not all(isinstance(a, Ref | int | float | np.floating) for a in node.args[:count]):
        return None
    return name, node.args[:count]


def _has_kernel(name: str) -> bool:
    from ..ops._op import REGISTRY

    return name in REGISTRY and REGISTRY[name].kernel is not None


# -- fewer nodes ------------------------------------------------------------------------------------------------
def dead_code(graph: Graph) -> Graph:
    """Without the nodes that nothing reads; writes and random draws stay."""
    live = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if node.effect or any(v in live for v in node.outputs):
            live.update(node.inputs())
            kept.append(node)
    captured = {v: t for v, t in graph.captured.items() if v in live}
    constants = {v: a for v, a in graph.constants.items() if v in live}
    return replace(graph, nodes=kept[::-1], captured=captured, constants=constants)


def common_subexpressions(graph: Graph) -> Graph:
    """Equal calls on equal values are made once (not if memory that they read was written between, or is theirs)."""
    # What is written or returned needs memory of its own.
    own = graph.written() | {graph.values[v].root for v in graph.outputs}
    same: dict[int, int] = {}
    seen: dict[Any, Node] = {}
    writes: dict[int, int] = {}  # how often memory has been written so far
    nodes = []
    root_of = {v: x.root for v, x in graph.values.items()}
    for node in graph.nodes:
        args = substitute(node.args, lambda r: Ref(same.get(r.id, r.id)))
        node = replace(node, args=args)
        if node.effect or any(root_of[v] == v and v in own for v in node.outputs):
            for v in node.targets():
                writes[root_of[v]] = writes.get(root_of[v], 0) + 1
            nodes.append(node)
            continue
        states = tuple([writes.get(root_of[v], 0) for v in node.inputs()])
        key = (node.op, _key(args), states)
        first = seen.get(key)
        if first is None:
            seen[key] = node
            nodes.append(node)
        else:
            same.update(zip(node.outputs, first.outputs, strict=True))
    # A view of what is not computed again is a view of the first one.
    values = {v: x if x.root not in same else replace(x, root=same[x.root]) for v, x in graph.values.items()}
    return replace(graph, values=values, nodes=nodes, outputs=[same.get(v, v) for v in graph.outputs])


def _key(value: Any) -> Any:
    if isinstance(value, Ref):
        return ("%", value.id)
    if isinstance(value, tuple | list):
        return (type(value).__name__, tuple([_key(v) for v in value]))
    if isinstance(value, slice):
        return ("slice", _key(value.start), _key(value.stop), _key(value.step))
    return (type(value).__name__, repr(value))


def static_part(graph: Graph) -> tuple[list[Node], list[Node]]:
    """(nodes that depend on parameters and constants alone, the others): the first need to run only once."""
    fixed = set(graph.captured) | set(graph.constants)
    written = graph.written()
    first, rest = [], []
    for node in graph.nodes:
        roots = {graph.values[v].root for v in (*node.inputs(), *node.outputs)}
        if not node.effect and node.inputs() and set(node.inputs()) <= fixed and not roots & written:
            fixed.update(node.outputs)
            first.append(node)
        else:
            rest.append(node)
    return first, rest


# -- batch normalisation in the weights -------------------------------------------------------------------------
def fold_batch_norm(graph: Graph) -> Graph:
    """`convolution * scale + shift` (and `linear`) with fixed scale and shift per channel as one call."""
    fixed = set(graph.captured) | set(graph.constants)
    for node in static_part(graph)[0]:
        fixed.update(node.outputs)
    if graph.written():
        return graph
    users = graph.users()
    nodes: list[Node | None] = list(graph.nodes)
    position = {id(node): i for i, node in enumerate(graph.nodes)}
    inserted: dict[int, list[Node]] = {}

    def only_use(v: int) -> Node | None:
        return graph.nodes[users[v][0]] if len(users[v]) == 1 and v not in graph.outputs else None

    def fixed_operand(node: Node | None, name: str, v: int) -> int | None:
        if node is None or node.op != name or node.args[0] != Ref(v) or not isinstance(node.args[1], Ref):
            return None
        other = node.args[1].id
        return other if other in fixed and _per_channel(graph, other, v) else None

    for node in graph.nodes:
        if node.op not in ("convolution", "linear"):
            continue
        weight, bias = node.args[1], node.args[2]
        if weight.id not in fixed or (isinstance(bias, Ref) and bias.id not in fixed):
            continue
        out = node.outputs[0]
        if node.op == "linear" and len(graph.values[out].shape) != 2:  # its channels come last
            continue
        scaled = only_use(out)
        scale = fixed_operand(scaled, "mul", out)
        if scaled is None or scale is None:
            continue
        shifted = only_use(scaled.outputs[0])
        shift = fixed_operand(shifted, "add", scaled.outputs[0])
        if shifted is None or shift is None or shifted.args[2] != 1:
            continue
        w = graph.values[weight.id]
        c = w.shape[0]

        extra: list[Node] = []

        def static(name: str, args: tuple, shape: tuple, like: np.dtype = w.dtype, to: list[Node] = extra) -> Ref:
            v = max(graph.values) + 1
            graph.values[v] = Value(shape, like, v)
            to.append(Node(f"numpy.{name}", args, (v,)))
            return Ref(v)

        column = static("reshape", (Ref(scale), (c,) + (1,) * (len(w.shape) - 1)), (c,) + (1,) * (len(w.shape) - 1))
        new_weight = static("multiply", (weight, column), w.shape)
        new_bias = static("reshape", (Ref(shift), (c,)), (c,))
        if isinstance(bias, Ref):
            flat = static("reshape", (Ref(scale), (c,)), (c,))
            new_bias = static("add", (static("multiply", (bias, flat), (c,)), new_bias), (c,))
        at = position[id(shifted)]
        nodes[position[id(node)]] = nodes[position[id(scaled)]] = None
        nodes[at] = replace(node, args=(node.args[0], new_weight, new_bias, *node.args[3:]), outputs=shifted.outputs)
        inserted[at] = extra
    flat_nodes: list[Node] = []
    for i, left in enumerate(nodes):
        flat_nodes += inserted.get(i, [])
        if left is not None:
            flat_nodes.append(left)
    return replace(graph, nodes=flat_nodes)


def _per_channel(graph: Graph, v: int, of: int) -> bool:
    """Whether a value has one number for each channel (dimension 1) of another."""
    shape, full = graph.values[v].shape, graph.values[of].shape
    return len(shape) == len(full) and all(n == (full[i] if i == 1 else 1) for i, n in enumerate(shape))


# -- elementwise work -------------------------------------------------------------------------------------------
_WHOLE = {"erf", "gelu", "sigmoid", "silu"}  # elementwise, but more than one NumPy function
LARGE = 1 << 15  # elements: below, a whole array stays in the cache and blocks would only cost calls


def elementwise_chains(graph: Graph) -> Graph:
    """Runs of elementwise nodes on large arrays of one shape as `fused` nodes, which work block by block."""
    nodes: list[Node] = []
    run: list[Node] = []
    users = graph.users()

    def close() -> None:
        if len(run) > 1:
            inside = {n.outputs[0] for n in run}
            positions = {id(n): i for i, n in enumerate(graph.nodes)}
            own = {positions[id(n)] for n in run}
            outs = [v for v in inside if v in graph.outputs or any(u not in own for u in users[v])]
            outs.sort()
            ins = dict.fromkeys(v for n in run for v in n.inputs() if v not in inside)
            nodes.append(Node("fused", tuple(Ref(v) for v in ins), tuple(outs), run[-1].module, tuple(run)))
        else:
            nodes.extend(run)
        run.clear()

    for node in graph.nodes:
        if not _chainable(graph, node):
            close()
            nodes.append(node)
            continue
        if run and graph.values[run[0].outputs[0]].shape != graph.values[node.outputs[0]].shape:
            close()
        run.append(node)
    close()
    return replace(graph, nodes=nodes)


def _chainable(graph: Graph, node: Node) -> bool:
    whole = node.op in _WHOLE and not _has_kernel(node.op)
    if ufunc_of(graph, node) is None and not whole:
        return False
    out = graph.values[node.outputs[0]]
    if whole and (out.dtype.kind != "f" or out.dtype.itemsize < 4):
        return False
    if math.prod(out.shape) <= LARGE or not out.contiguous:
        return False
    for v in node.inputs():
        shape = graph.values[v].shape
        while shape and shape[0] == 1 and len(shape) > 1:
            shape = shape[1:]
        if shape != out.shape and shape not in ((), (1,)) and shape != out.shape[len(out.shape) - len(shape) :]:
            return False
    return True
