"""The engine: walks the graph backwards, runs each node's formulas, sums what meets.

Formulas run on raw arrays unless `create_graph`, where they run on Tensors and record themselves: one formula
gives gradients of every order. Un-broadcasting and casting to an input's dtype happen here, once.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import numpy

from ..tensor import Tensor, as_array
from .modes import mode

next_sequence = itertools.count(1).__next__  # one clock for recorded calls and in-place changes


class Node:
    """One recorded call of an op.

    edges: for each input that gets a gradient, (node, output index), or (leaf tensor, 0).
    metas: (shape, dtype) of those inputs. saved: what the formulas asked for, raw. out: raw output(s) if asked for.
    """

    __slots__ = ("__dict__", "edges", "metas", "op", "out", "plan", "saved", "sequence")

    op: Any
    plan: Any
    edges: Sequence
    metas: Sequence
    saved: tuple | None
    out: Any
    sequence: int
    # Rare enough to be left to the class: a slot costs every node the time to fill it.
    out_metas: tuple | None = None
    hooks: dict[int, list] | None = None
    module: str | None = None

    def name(self) -> str:
        """The op's name, as PyTorch's `grad_fn.name()`."""
        return f"{self.op.name}Backward"

    @property
    def next_functions(self) -> tuple:
        """The producing nodes of the inputs (None for a leaf)."""
        return tuple((e[0] if isinstance(e[0], Node) else None, e[1]) for e in self.edges if e is not None)

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    def gradients(self, g: Any, recording: bool) -> list[Any]:
        """The gradients for `edges`, by the op's formulas."""
        plan = self.plan
        saved, out = _as_tensors(self) if recording else (self.saved, self.out)
        if self.op.has_list:
            formula, fill, _, _ = plan.formulas[0]
            return list(formula(g, *[out if k < 0 else saved[k] for k in fill]))
        results: list[Any] = [None] * len(self.edges)
        for formula, fill, need, targets in plan.formulas:
            args = [out if k < 0 else saved[k] for k in fill]
            if need is None:
                results[targets[0]] = formula(g, *args)
            else:
                got = formula(g, *args, need=need)
                for k, value in zip(targets, [v for v, wanted in zip(got, need, strict=True) if wanted], strict=True):
                    results[k] = value
        return results

    def release(self) -> None:
        """Forgets the saved values and what came before."""
        self.saved = self.out = None
        self.edges = ()


def _as_tensors(node: Node) -> tuple[Any, Any]:
    """The saved values and the output as Tensors that know where they came from, for formulas that are recorded."""
    plan, edges = node.plan, node.edges

    def rewrap(value: Any, position: int) -> Any:
        if node.op.has_list and isinstance(value, list):
            return [Tensor._from_edge(a, e) if e else Tensor._wrap(a) for a, e in zip(value, edges, strict=True)]
        if not hasattr(value, "dtype"):
            return value
        if position in plan.edges and not node.op.has_list:
            return Tensor._from_edge(value, edges[plan.edges.index(position)])
        return Tensor._wrap(as_array(value))

    saved = tuple(v if s else rewrap(v, p) for v, (p, s) in zip(node.saved or (), plan.saved, strict=True))
    out = node.out
    if isinstance(out, tuple):
        out = tuple(Tensor._from_edge(o, (node, k)) for k, o in enumerate(out))
    elif out is not None:
        out = Tensor._from_edge(out, (node, 0))
    return saved, out


# -- in-place changes -------------------------------------------------------------------------------------------
# id(memory owner) -> (sequence number at the last in-place change, weak reference to the owner, number of changes).
# A node that saved an array before its memory was changed must not use it.
_modified: dict[int, tuple[int, weakref.ref, int]] = {}
_last_modified = 0  # nodes younger than this need not look


def _owner(array: Any) -> Any:
    while isinstance(array.base, type(array)):
        array = array.base
    return array


def mark_modified(array: Any) -> None:
    """Notes that the array's memory was changed in place just now."""
    global _last_modified
    _last_modified = next_sequence()
    owner = _owner(array)
    key = id(owner)
    previous = _modified.get(key)
    if previous is None:
        _modified[key] = (_last_modified, weakref.ref(owner, lambda _: _modified.pop(key, None)), 1)
    else:
        _modified[key] = (_last_modified, previous[1], previous[2] + 1)


def version(array: Any) -> int:
    """How often the array's memory has been changed in place."""
    entry = _modified.get(id(_owner(array)))
    return 0 if entry is None else entry[2]


def same_memory(a: Any, b: Any) -> bool:
    """Whether two arrays are views of one block of memory."""
    return _owner(a) is _owner(b)


def _check_unmodified(node: Node) -> None:
    values = (node.saved or ()) + (
        (node.out if isinstance(node.out, tuple) else (node.out,)) if node.out is not None else ()
    )
    for value in values:
        for a in value if isinstance(value, list) else (value,):
            if not hasattr(a, "dtype") or isinstance(a, numpy.generic):
                continue
            entry = _modified.get(id(_owner(a)))
            if entry is not None and entry[0] > node.sequence:
                raise RuntimeError(
                    f"one of the values needed for the gradient of {node.op.name} "
                    f"(shape {tuple(a.shape)}) has been modified by an in-place operation; "
                    "use the out-of-place form, or clone() the value first"
                )


# -- walking ----------------------------------------------------------------------------------------------------
def _fit(g: Any, meta: tuple, recording: bool) -> Any:
    """Sums `g` over broadcast dimensions and casts it to the input's dtype."""
    from .. import ops  # not at the top: ops needs the engine; most gradients fit and never come here

    shape, dtype = meta
    if g.shape != shape:
        g = ops.sum_to(g, shape)
    have = g.array.dtype if recording else g.dtype
    if have != dtype:
        if dtype.kind != "c" and have.kind == "c":
            g = ops.real(g)
            have = g.array.dtype if recording else g.dtype
        if have != dtype:
            g = ops.cast(g, dtype)
    return g


def _complete(node: Node, g: dict[int, Any]) -> Any:
    """The cotangent(s) of a node: one, or a tuple with None for outputs that nobody used."""
    return g[0] if node.out_metas is None else tuple(g.get(k) for k in range(len(node.out_metas)))


def _run_hooks(hooks: Sequence[Any], g: Any, recording: bool) -> Any:

    t = g if recording else Tensor._wrap(as_array(g))
    for hook in hooks:
        changed = hook(t)
        if changed is not None:
            t = changed
    return t if recording else t.array


def _restore(node: Node) -> None:
    """Brings back values that a checkpoint dropped (`saved` is then a function); RuntimeError when they were freed."""
    if node.saved is None:
        raise RuntimeError(
            "trying to go backward through the graph a second time: its saved values were freed; "
            "call the first backward with retain_graph=True"
        )
    node.saved(node)  # type: ignore[operator]


def run(
    roots: Sequence[Any],
    cotangents: Sequence[Any],
    retain_graph: bool,
    create_graph: bool,
    capture: dict[Any, Any] | None = None,
) -> list[tuple[Any, Any]]:
    """Propagates cotangents (raw arrays, or Tensors with create_graph) from the root tensors.

    Returns (leaf tensor, gradient) pairs in the order of their first arrival. `capture` maps edges
    (id(node or leaf), index) to None and is filled with what arrives there.
    """
    waiting: dict[int, tuple[Node, dict[int, Any]]] = {}
    heap: list[int] = []
    leaves: dict[int, list[Any]] = {}

    def deliver(edge: tuple, g: Any) -> None:
        target, index = edge
        if not isinstance(target, Node):
            entry = leaves.get(id(target))
            if entry is None:
                leaves[id(target)] = [target, g]
            else:
                entry[1] = entry[1] + g
            return
        queued = waiting.get(target.sequence)
        if queued is None:
            waiting[target.sequence] = (target, {index: g})
            heapq.heappush(heap, -target.sequence)
        else:
            arrived = queued[1]
            arrived[index] = arrived[index] + g if index in arrived else g

    previous = mode.grad
    mode.grad = create_graph
    try:
        for root, g in zip(roots, cotangents, strict=True):
            deliver(root._edge or (root, 0), g)
        while heap:
            node, arrived = waiting.pop(-heapq.heappop(heap))
            if node.hooks:
                for k, hooks in node.hooks.items():
                    if k in arrived:
                        arrived[k] = _run_hooks(hooks, arrived[k], create_graph)
            if capture is not None:
                for k, g in arrived.items():
                    if (id(node), k) in capture:
                        capture[id(node), k] = g
            if node.saved.__class__ is not tuple:
                _restore(node)
            if _last_modified > node.sequence:
                _check_unmodified(node)
            gradients = node.gradients(_complete(node, arrived), create_graph)
            if mode.anomaly is not None:
                mode.anomaly.check_gradients(node, gradients)
            for edge, meta, g in zip(node.edges, node.metas, gradients, strict=True):
                if g is not None and edge is not None:
                    if create_graph or g.shape != meta[0] or g.dtype is not meta[1]:
                        g = _fit(g, meta, create_graph)
                    deliver(edge, g)
            if not retain_graph:
                node.release()
        result = []
        for leaf, g in leaves.values():
            g = as_array(g)
            if leaf._hooks:
                g = _run_hooks(leaf._hooks, g, create_graph)
            if capture is not None and (id(leaf), 0) in capture:
                capture[id(leaf), 0] = g
            result.append((leaf, g))
        return result
    finally:
        mode.grad = previous


def _initial(outputs: Sequence[Any], grads: Sequence[Any], create_graph: bool) -> list[Any]:
    from .. import backends

    cotangents: list[Any] = []
    for t, g in zip(outputs, grads, strict=True):
        if not t.requires_grad:
            raise RuntimeError("the tensor does not require a gradient and was not computed from one that does")
        if g is None:
            if t.array.size != 1:
                raise RuntimeError(
                    f"grad can be implicitly created only for scalar outputs, not for shape {tuple(t.shape)}; "
                    "pass a gradient of that shape, or reduce with .sum() or .mean() first"
                )
            g = Tensor._wrap(backends.of(t.array).xp.ones(t.array.shape, t.array.dtype))
        if g.array.shape != t.array.shape:
            raise RuntimeError(f"the gradient has shape {tuple(g.shape)} but the tensor has {tuple(t.shape)}")
        cotangents.append(g if create_graph else g.array)
    return cotangents


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Sequence[Any] | None = None,
) -> None:
    """Accumulates the gradients of `tensors` into `.grad` of the leaves that they came from.

    Errors: RuntimeError when an output is not a scalar and has no gradient given, or a graph was freed already.
    """

    outputs = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    grads = [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors or [None] * len(outputs))
    retain = create_graph if retain_graph is None else retain_graph
    wanted = None if inputs is None else {id(t) for t in inputs}
    for leaf, g in run(outputs, _initial(outputs, grads, create_graph), retain, create_graph):
        if wanted is None or id(leaf) in wanted:
            _accumulate(leaf, g, create_graph)


def _accumulate(leaf: Any, g: Any, recording: bool) -> None:

    if leaf.grad is not None:
        if recording:
            leaf.grad = leaf.grad + g
        else:
            leaf.grad.array += g
    elif recording:
        leaf.grad = g
    else:
        # A copy: a formula may have handed on `g` itself or a view of it, and `.grad` is changed in place later.
        leaf.grad = Tensor._wrap(g.copy())


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple:
    """The gradients of `outputs` with respect to `inputs`, as a tuple; `.grad` stays as it is.

    Errors: RuntimeError when an input was not used and `allow_unused` is not set.
    """

    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or [None] * len(outputs))
    retain = create_graph if retain_graph is None else retain_graph
    keys = []
    for t in inputs:
        if not t.requires_grad:
            raise RuntimeError("one of the inputs does not require a gradient; call requires_grad_() on it first")
        keys.append((id(t._edge[0]), t._edge[1]) if t._edge else (id(t), 0))
    capture: dict[Any, Any] = dict.fromkeys(keys)
    run(outputs, _initial(outputs, given, create_graph), retain, create_graph, capture)
    results = []
    for t, key in zip(inputs, keys, strict=True):
        g = capture[key]
        if g is None:
            if not (allow_unused or materialize_grads):
                raise RuntimeError(
                    "one of the inputs was not used in the graph; pass allow_unused=True if that is as wanted"
                )
            results.append(Tensor._wrap(t.array * 0) if materialize_grads else None)
        else:
            results.append(g if isinstance(g, Tensor) else Tensor._wrap(as_array(g)))
    return tuple(results)
