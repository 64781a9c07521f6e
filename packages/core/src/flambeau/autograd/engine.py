"""The engine: walks the graph backwards, runs each node's formulas, sums what meets.

Formulas run on raw arrays unless `create_graph`, where they run on Tensors and record themselves: one formula
gives gradients of every order. Un-broadcasting and casting to an input's dtype happen here, once.
"""

from __future__ import annotations

import heapq
import itertools
import sys
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
    module: tuple | None = None  # (model, innermost module) of the call, known in anomaly mode

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
        if plan.single is not None:
            return [formula(g, saved, out) for formula in plan.single]
        if self.op.has_list:
            return list(plan.formulas[0][0](g, saved, out))
        results: list[Any] = [None] * len(self.edges)
        for formula, need, targets in plan.formulas:
            got = formula(g, saved, out)
            if need is None:
                results[targets[0]] = got
            else:
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
        out = tuple(o if o is None else Tensor._from_edge(o, (node, k)) for k, o in enumerate(out))
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


def _forgetting(key: int, pop: Any = _modified.pop) -> Any:
    """Forgets an owner; bound here, as the names of a module are gone when arrays die with the interpreter."""
    return lambda _: pop(key, None)


def mark_modified(array: Any) -> None:
    """Notes that the array's memory was changed in place just now."""
    global _last_modified
    _last_modified = next_sequence()
    owner = _owner(array)
    key = id(owner)
    previous = _modified.get(key)
    if previous is None:
        _modified[key] = (_last_modified, weakref.ref(owner, _forgetting(key)), 1)
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
        for item in value if isinstance(value, list) else (value,):
            a: Any = getattr(item, "array", item)  # a Function saves tensors
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


def _run_hooks(hooks: Sequence[Any], g: Any, recording: bool) -> Any:
    t = g if recording else Tensor._wrap(as_array(g))
    for hook in list(hooks):
        changed = hook(t)
        if changed is not None:
            t = changed
    return t if recording else t.array


def _run_node_hooks(node: Node, g: Any, recording: bool) -> Any:
    """The cotangent(s) after the hooks of the node's outputs."""
    if node.out_metas is None:
        return _run_hooks(node.hooks[0], g, recording) if 0 in node.hooks else g  # type: ignore[index, operator]
    for k, hooks in node.hooks.items():  # type: ignore[union-attr]
        if g[k] is not None:
            g[k] = _run_hooks(hooks, g[k], recording)
    return g


def _restore(node: Node) -> None:
    """Brings back values that a checkpoint dropped (`saved` is then a function); RuntimeError when they were freed."""
    if node.saved is None:
        raise RuntimeError(
            "trying to go backward through the graph a second time: its saved values were freed; "
            "call the first backward with retain_graph=True"
        )
    node.saved(node)  # type: ignore[operator]


def _leading_to(roots: Sequence[Any], ends: set[int]) -> set[int]:
    """The ids of all nodes (and leaves) between the roots and the `ends`, these included."""
    nodes: dict[int, Node] = {}
    stack = [t._edge[0] for t in roots if t._edge is not None]
    while stack:
        node = stack.pop()
        if id(node) not in nodes:
            nodes[id(node)] = node
            stack.extend([e[0] for e in node.edges if e is not None and isinstance(e[0], Node)])
    useful = set(ends)
    for node in sorted(nodes.values(), key=lambda n: n.sequence):  # producers before users
        if any(e is not None and id(e[0]) in useful for e in node.edges):
            useful.add(id(node))
    return useful


def run(
    roots: Sequence[Any],
    cotangents: Sequence[Any],
    retain_graph: bool,
    create_graph: bool,
    capture: dict[Any, Any] | None = None,
    on_final: Any = None,
) -> list[list[Any]]:
    """Propagates cotangents (raw arrays, or Tensors with create_graph) from the root tensors.

    Returns [leaf tensor, gradient] pairs in the order of their first arrival. `capture` maps edges
    (id(node or leaf), index) to None and is filled with what arrives there; nothing else is visited then.
    `on_final` is called with the pair of a leaf that has hooks as soon as nothing more can arrive there; such a pair
    is not returned.
    """
    pending = None if on_final is None else _arrivals(roots)
    useful = None if capture is None else _leading_to(roots, {key[0] for key in capture})
    # sequence number -> [node, cotangent]; of a node with several outputs, a list of cotangents
    waiting: dict[int, list[Any]] = {}
    heap: list[int] = []  # negated sequence numbers: the youngest node comes first, after all that use it
    leaves: dict[int, list[Any]] = {}  # id -> [leaf, gradient]

    def deliver(edge: tuple, g: Any) -> None:
        target, k = edge
        if useful is not None and id(target) not in useful:
            return
        if not isinstance(target, Node):
            entry = leaves.get(id(target))
            if entry is None:
                leaves[id(target)] = [target, g]
            else:
                entry[1] = entry[1] + g
            return
        sequence = target.sequence
        entry = waiting.get(sequence)
        if entry is None:
            several = target.out_metas
            waiting[sequence] = entry = [target, g if several is None else [None] * len(several)]
            heapq.heappush(heap, -sequence)
            if several is None:
                return
        if target.out_metas is None:
            entry[1] = entry[1] + g
        else:
            arrived = entry[1]
            arrived[k] = g if arrived[k] is None else arrived[k] + g

    def finish(entry: list) -> list:
        leaf = entry[0]
        entry[1] = as_array(entry[1])
        if leaf._hooks:
            entry[1] = _run_hooks(leaf._hooks, entry[1], create_graph)
        if capture is not None and (id(leaf), 0) in capture:
            capture[id(leaf), 0] = entry[1]
        return entry

    previous, anomaly = (mode.grad, mode.intercept), mode.anomaly
    mode.grad = create_graph
    if not create_graph and not getattr(mode.intercept, "takes_formulas", False):
        mode.intercept = None  # formulas on raw arrays are not for autocast and the like
    try:
        for root, g in zip(roots, cotangents, strict=True):
            deliver(root._edge or (root, 0), g)
        while heap:
            node, g = waiting.pop(-heapq.heappop(heap))
            if node.hooks is not None:
                g = _run_node_hooks(node, g, create_graph)
            if capture is not None:
                for k, value in enumerate([g] if node.out_metas is None else g):
                    if (id(node), k) in capture:
                        capture[id(node), k] = value
            if node.saved.__class__ is not tuple:
                _restore(node)
            if _last_modified > node.sequence:
                _check_unmodified(node)
            gradients = node.gradients(g, create_graph)
            if anomaly is not None:
                anomaly.check_gradients(node, gradients)
            for edge, meta, g in zip(node.edges, node.metas, gradients, strict=True):
                if g is not None and edge is not None:
                    if create_graph or g.shape != meta[0] or g.dtype is not meta[1]:
                        g = _fit(g, meta, create_graph)
                    deliver(edge, g)
            del gradients
            if pending:
                g = None  # or the gradient would not be the leaf's alone
                for leaf_id in _final(node, pending):
                    if leaf_id in leaves:
                        on_final(finish(leaves.pop(leaf_id)))
            if not retain_graph:
                node.release()
        return [finish(entry) for entry in leaves.values()]
    finally:
        mode.grad, mode.intercept = previous


# How many parties (gradient reducers) want the hooks of leaves while backward still runs; then graphs are walked twice.
early_hooks = 0
_at_end: list[Any] = []


def queue_callback(function: Any) -> None:
    """Calls `function()` once, when the running backward has accumulated all gradients."""
    _at_end.append(function)


def _arrivals(roots: Sequence[Any]) -> dict[int, int]:
    """id of each leaf with hooks -> the number of edges that lead to it."""
    counts: dict[int, int] = {}
    seen: set[int] = set()
    stack = [t._edge[0] for t in roots if t._edge is not None]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for edge in node.edges:
            if edge is None:
                continue
            target = edge[0]
            if isinstance(target, Node):
                stack.append(target)
            elif target._after_grad is not None:
                counts[id(target)] = counts.get(id(target), 0) + 1
    return counts


def _final(node: Node, pending: dict[int, int]) -> list[int]:
    """The leaves whose last edge was one of this node's."""
    done = []
    for edge in node.edges:
        if edge is not None and (key := id(edge[0])) in pending:
            pending[key] -= 1
            if not pending[key]:
                del pending[key]
                done.append(key)
    return done


def _key(t: Any) -> tuple[int, int]:
    """Where the gradient of a tensor arrives, as `run` captures it."""
    target, k = t._edge or (t, 0)
    return id(target), k


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
            if t.array.dtype.kind == "c":
                raise RuntimeError(
                    f"grad can be implicitly created only for real scalar outputs, not for {t.dtype}; pass a gradient"
                )
            start = backends.of(t.array).xp.asarray(1, t.array.dtype).reshape(t.array.shape)
            if getattr(mode.intercept, "takes_formulas", False):
                start = mode.intercept.symbol(start)  # type: ignore[union-attr]
            g = Tensor._wrap(start)
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
    wanted = None
    if inputs is not None:
        inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        wanted = dict.fromkeys([_key(t) for t in inputs])

    def accumulate(entry: list) -> None:
        leaf = entry[0]
        if create_graph:
            leaf.grad = entry[1] if leaf.grad is None else leaf.grad + entry[1]
        elif leaf.grad is None:
            leaf.grad = Tensor._wrap(_own(entry))
        else:
            leaf.grad.array += entry[1]
        if leaf._after_grad is not None:
            for hook in list(leaf._after_grad):
                hook(leaf)

    on_final = accumulate if early_hooks and not create_graph and inputs is None else None
    try:
        found = run(outputs, _initial(outputs, grads, create_graph), retain, create_graph, wanted, on_final)
        for t in inputs or ():
            if t._edge is not None and (g := wanted[_key(t)]) is not None:  # type: ignore[index]
                found.append([t, as_array(g)])
        for entry in found:
            accumulate(entry)
    except BaseException:
        _at_end.clear()
        raise
    while _at_end:
        _at_end.pop(0)()


def _own(entry: list) -> Any:
    """The gradient in `entry`, copied if anything else refers to it: `.grad` is changed in place later."""
    g = entry.pop()
    return g if g.base is None and sys.getrefcount(g) <= _ALONE else g.copy()


def _references_of_a_fresh_array() -> int:
    entry = [numpy.empty(1)]
    g = entry.pop()
    return sys.getrefcount(g)


_ALONE = _references_of_a_fresh_array()


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple:
    """The gradients of `outputs` with respect to `inputs`, as a tuple; `.grad` stays as it is.

    is_grads_batched: `grad_outputs` have one more dimension in front, over which they are taken one by one; so have
    the results. Errors: RuntimeError when an input was not used and `allow_unused` is not set.
    """
    if is_grads_batched:
        return _grad_batched(outputs, inputs, grad_outputs, create_graph, allow_unused, materialize_grads)

    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or [None] * len(outputs))
    retain = create_graph if retain_graph is None else retain_graph
    keys = []
    for t in inputs:
        if not t.requires_grad:
            raise RuntimeError("one of the inputs does not require a gradient; call requires_grad_() on it first")
        keys.append(_key(t))
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


def _grad_batched(
    outputs: Any, inputs: Any, grad_outputs: Any, create_graph: bool, allow_unused: bool | None, materialize: bool
) -> tuple:
    from .. import ops  # not at the top: ops needs the engine

    given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    rows = [
        grad(outputs, inputs, row, True, create_graph, allow_unused, materialize_grads=materialize)
        for row in zip(*[g.unbind(0) for g in given], strict=True)
    ]
    return tuple([None if column[0] is None else ops.stack(list(column)) for column in zip(*rows, strict=True)])


# `flambeau.tensor` is a function beside the module of that name, hence by its entry in the table of modules.
sys.modules[Tensor.__module__]._engine = sys.modules[__name__]  # type: ignore[attr-defined]
