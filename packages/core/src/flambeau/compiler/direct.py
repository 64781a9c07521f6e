"""Source lines for operations that are one NumPy call once shapes and dtypes are known: the same bits, fewer calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.ir import Graph, Node, Ref

if TYPE_CHECKING:
    from .plan import Program

Buffer = Callable[[int], "str | None"]
_EXACT = 1 << 24  # counts up to this are exact in float32, so a division by one rounds once


def lines(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str] | None:
    """The lines for a node; None where it has none of its own."""
    from ..ops._op import REGISTRY

    write = _WRITERS.get(node.op)
    if write is None or len(node.outputs) != 1 or not node.args or not isinstance(node.args[0], Ref):
        return None
    if node.op in REGISTRY and REGISTRY[node.op].kernel is not None and not node.plain:
        return None
    return write(program, graph, node, buffer)


def _reshape(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str]:
    v, out = node.args[0].id, node.outputs[0]
    return [f"v{out} = v{v}.reshape({graph.values[out].shape!r})"]


def _transpose(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str] | None:
    v, out = node.args[0].id, node.outputs[0]
    ndim = len(graph.values[v].shape)
    if ndim < 2 or not all(type(d) is int for d in node.args[1:]):
        return None
    a, b = (d % ndim for d in node.args[1:])
    return [f"v{out} = v{v}.T" if ndim == 2 and a != b else f"v{out} = v{v}.swapaxes({a}, {b})"]


def _sum(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str] | None:
    v, dim, keep, dtype = node.args[0].id, *node.args[1:4]
    axes = _axes(dim, len(graph.values[v].shape))
    if dtype is not None or not _plain_float(graph, v) or axes is False:
        return None
    return _reduced(program, graph, v, node.outputs[0], axes, keep, buffer)


def _mean(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str] | None:
    v, dim, keep, dtype = node.args[0].id, *node.args[1:4]
    shape, out = graph.values[v].shape, node.outputs[0]
    axes = _axes(dim, len(shape))
    if dtype is not None or not _plain_float(graph, v) or axes is False:
        return None
    count = math.prod(shape if axes is None else [shape[i] for i in axes])
    if not 0 < count < _EXACT:
        return None
    made = _reduced(program, graph, v, out, axes, keep, buffer)
    divide = program.bind("np_divide", np.divide)
    if graph.values[out].shape:
        return [*made, f"v{out} = {divide}(v{out}, {count}, out=v{out})"]
    return [*made, f"v{out} = {program.bind('asarray', np.asarray)}({divide}(v{out}, {count}))"]


def _sum_to(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str] | None:
    v, shape = node.args[0].id, tuple(node.args[1])
    have, out = graph.values[v].shape, node.outputs[0]
    lead = len(have) - len(shape)
    if lead < 0 or not _plain_float(graph, v):
        return None
    inner = tuple(i + lead for i, n in enumerate(shape) if n == 1 and have[i + lead] != 1)
    axes = tuple(range(lead)) + inner
    if not axes:
        return _reshape(program, graph, node, buffer)
    if not inner and shape:
        return _reduced(program, graph, v, out, axes, False, buffer)
    reduce = program.bind("add_reduce", np.add.reduce)
    return [f"v{out} = {reduce}(v{v}, {axes!r}, None, None, True).reshape({shape!r})"]


def _reduced(program: Program, graph: Graph, v: int, out: int, axes: Any, keep: bool, buffer: Buffer) -> list[str]:
    reduce = program.bind("add_reduce", np.add.reduce)
    memory = buffer(out)
    call = f"{reduce}(v{v}, {axes!r}, None, {memory}, {bool(keep)!r})"
    return [
        f"v{out} = {call}" if graph.values[out].shape else f"v{out} = {program.bind('asarray', np.asarray)}({call})"
    ]


def _pow(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str] | None:
    v, exponent, out = node.args[0].id, node.args[1], node.outputs[0]
    if type(exponent) not in (int, float) or exponent != 2 or not graph.values[out].shape:
        return None
    multiply, memory = program.bind("np_multiply", np.multiply), buffer(out)
    return [f"v{out} = {multiply}(v{v}, v{v}{'' if memory is None else f', {memory}'})"]


def _astype(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str]:
    dtype = program.bind(f"dtype_{node.args[1].name}", node.args[1])
    return [f"v{node.outputs[0]} = v{node.args[0].id}.astype({dtype})"]


def _copy(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str]:
    return [f"v{node.outputs[0]} = v{node.args[0].id}.copy('K')"]


def _norm(program: Program, graph: Graph, node: Node, buffer: Buffer) -> list[str] | None:
    """What `numpy.linalg.norm` does for a vector and order 2."""
    v, out = node.args[0].id, node.outputs[0]
    x = graph.values[v]
    if len(x.shape) != 1 or x.dtype.kind != "f" or node.args[1] != 2:
        return None
    asarray, sqrt = program.bind("asarray", np.asarray), program.bind("np_sqrt", np.sqrt)
    return [f"v{out} = {asarray}({sqrt}(v{v}.dot(v{v})))"]


def _axes(dim: Any, ndim: int) -> Any:
    """Sorted axes from the front; None for all; False where it is neither."""
    if dim is None:
        return None
    dims = dim if isinstance(dim, tuple | list) else (dim,)
    if not ndim or not dims or not all(type(d) is int for d in dims):
        return False
    return tuple([d % ndim for d in dims])


def _plain_float(graph: Graph, v: int) -> bool:
    dtype = graph.values[v].dtype
    return dtype.kind == "f" and dtype.itemsize >= 4


_WRITERS: dict[str, Callable[[Any, Graph, Node, Buffer], list[str] | None]] = {
    "reshape": _reshape, "numpy.reshape": _reshape, "squeeze": _reshape, "transpose": _transpose, "sum": _sum,
    "mean": _mean, "sum_to": _sum_to, "pow": _pow, "numpy.astype": _astype, "numpy.copy": _copy,
    "numpy.linalg.norm": _norm,
}  # fmt: skip
