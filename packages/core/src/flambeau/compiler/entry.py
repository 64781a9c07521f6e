"""One graph of a compiled function: the programs made from it, what it takes for granted, the node of its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..autograd import engine
from ..autograd.engine import Node, next_sequence
from ..autograd.modes import mode
from ..func import _tree
from ..graph import passes, tidy
from ..graph.ir import Graph
from ..graph.symbol import GraphBreak, Unread
from ..graph.trace import Tracer
from ..tensor import Tensor
from .fused import with_kernels
from .guards import Guards
from .plan import Program
from .stepping import FlatAdam
from .surroundings import Surroundings


class _CompiledNode(Node):
    """Stands in autograd's graph for one call of a compiled function."""

    __slots__ = ("_entry",)

    _entry: Entry

    def gradients(self, g: Any, recording: bool) -> list[Any]:
        """The gradients of arguments and parameters, by the compiled backward graph."""
        if recording:
            raise NotImplementedError(
                "create_graph=True through a compiled function is not supported: "
                "call the function itself (compiled.function) to differentiate twice"
            )
        return self._entry.backward(self.saved, g if isinstance(g, list) else [g])


class _Named:
    has_list = view = False
    name = "Compiled"


_OP = _Named()


def _spent() -> tuple:
    """The place in the graph of a result through which backward() went inside the compiled function."""
    node = Node()
    node.op, node.plan, node.edges, node.metas, node.saved, node.out = _OP, None, (), (), None, None
    node.sequence = next_sequence()
    return node, 0


class Entry:
    """One graph of a compiled function: the programs made from it and what they take for granted."""

    def __init__(
        self, tracer: Tracer, fn: Callable, arguments: list[Tensor], out: Any, around: Surroundings, changes: list
    ):
        """changes: what becomes of `.grad` of tensors from outside, as `Leaves.finish` tells."""
        self.hits = 0
        leaves, self.structure = _tree.flatten(out)
        self.plain = {i: v for i, v in enumerate(leaves) if not isinstance(v, Tensor | Unread)}
        self.reads = {i for i, v in enumerate(leaves) if isinstance(v, Unread)}
        tensors = [
            v if isinstance(v, Tensor) else Tensor._wrap(v.symbol) for i, v in enumerate(leaves) if i not in self.plain
        ]
        ids = [tracer.symbol(t).id for t in tensors]
        self.spent = [t._edge is not None and t._edge[0].saved is None for t in tensors]
        self.differentiable = [t._edge is not None and not s for t, s in zip(tensors, self.spent, strict=True)]
        if changes and any(self.differentiable):
            raise GraphBreak("a result still has its graph, while backward() runs inside the function")
        self.backward_program: Program | None = None
        captured = _settle(tracer, around)
        self.edges: list[Any] = []  # positions of arguments, or tensors, that get a gradient
        gradients: list[int] = []
        cotangents: list[int] = []
        end = len(tracer.graph.nodes)
        if any(self.differentiable):
            self.edges, gradients, cotangents = _trace_backward(tracer, arguments, tensors)
        graph = tracer.graph
        tracer.finish(tensors)
        graph.outputs = [*ids, *gradients]
        self.changes = [(t, None if g is None else g.id) for t, g in changes]
        self.raw = graph
        first = {v for n in graph.nodes[:end] for v in n.outputs} | set(graph.sources()) - set(cotangents)
        self.boundary = end
        self.ids, self.distinct = ids, list(dict.fromkeys(ids))
        self._aliases(graph, ids, set(around.tensors) | _of_modules(tracer.modules))
        needed: list[int] = []
        if self.edges:
            if any(n.effect for n in graph.nodes[end:]):
                raise GraphBreak("the backward pass draws random numbers or changes memory in place")
            back = passes.dead_code(Graph(graph.values, graph.nodes[end:], [], {}, {}, gradients))
            made = {v for n in back.nodes for v in n.outputs} | set(cotangents)
            used = dict.fromkeys([*[v for n in back.nodes for v in n.inputs()], *gradients])
            needed = [v for v in used if v not in made]
            assert set(needed) <= first
            back.inputs = [*needed, *cotangents]
            self.backward_graph = with_kernels(_optimised(back))
            self.backward_program = Program(
                self.backward_graph, self.backward_graph.nodes, back.inputs, self.backward_graph.outputs, False
            )
        forward = Graph(
            graph.values, graph.nodes[:end], graph.inputs[: len(arguments)], dict(captured), dict(graph.constants),
            [*self.distinct, *needed, *[v for _, v in self.changes if v is not None]], graph.names,
        )  # fmt: skip
        self.needed = needed
        roots = graph.written()
        stepped = [n.args[0] for n in graph.nodes if n.op == "optimizer.step"]
        for step in stepped:
            if FlatAdam.takes(step.optimizer, step.params):
                step.faster = FlatAdam(step.optimizer, step.params).step
        self._plan(forward, bool(self.edges or self.changes or stepped))
        # Where an optimizer took a step with the gradient, it has stored it already.
        supply = iter(range(len(self.distinct) + len(needed), len(graph.nodes) + len(graph.values)))
        places = [(t, v, None if v is None else next(supply)) for t, v in self.changes]
        self.stored = [(t, k) for t, v, k in places if v is None or tracer.leaves.stepped_with.get(id(t)) != v]
        self.gradients = [k for _, _, k in places if k is not None]
        changed = [t for v, t in captured.items() if graph.values[v].root in roots]
        self.guards = Guards(fn, tracer.modules, list(captured.values()), changed, tracer.leaves.empty_before)
        self.written = any(n.op == "write" for n in graph.nodes) and self._outside_writes(graph)
        simple = self.structure.kind is None and not self.same and not self.plain and not self.edges
        self._single = simple and not self.reads and not any(self.spent)
        self._number = simple and bool(self.reads)
        self._tensors = [captured[v] for v in self.forward_graph.captured]
        self._static: tuple | None = None
        self._static_arrays: list[Any] = []
        self._static_time = -1

    def _aliases(self, graph: Graph, ids: list[int], known: set[int]) -> None:
        """Which outputs are an argument or a captured tensor itself."""
        places = {v: i for i, v in enumerate(graph.inputs)}
        self.same: dict[int, Any] = {}
        anew = set(graph.constants) | {v for v, t in graph.captured.items() if id(t) not in known}
        for v in dict.fromkeys(ids):
            if graph.values[v].root in anew:
                raise GraphBreak("an output is a constant that the function makes anew at each call")
            if v in places:
                self.same[v] = places[v]
            elif v in graph.captured:
                self.same[v] = graph.captured[v]
            elif graph.values[v].root != v and graph.values[v].root in {*graph.inputs, *graph.captured}:
                if mode.grad:
                    raise GraphBreak("an output is a view of an argument or of a parameter")

    @staticmethod
    def _outside_writes(graph: Graph) -> bool:
        """Whether `write` changes memory of arguments or captured tensors."""
        roots = {graph.values[n.args[0].id].root for n in graph.nodes if n.op == "write"}
        return any(graph.values[v].root in roots for v in (*graph.inputs, *graph.captured))

    def _plan(self, forward: Graph, training: bool) -> None:
        graph = _optimised(forward, fold=not training)
        static, dynamic = ([], graph.nodes) if training else passes.static_part(graph)
        # What is returned must be fresh memory at each call, so it and what is made from it is computed each time.
        moved = {graph.values[v].root for v in graph.outputs}
        again = []
        for n in static:
            if any(graph.values[v].root in moved or v in moved for v in (*n.inputs(), *n.outputs)):
                moved.update(n.outputs)
                again.append(n)
        static = [n for n in static if not any(n is m for m in again)]
        dynamic = [*again, *dynamic]
        made = {v for n in static for v in n.outputs}
        used = [v for n in dynamic for v in n.inputs()] + graph.outputs
        self.static_out = [v for v in dict.fromkeys(used) if v in made]
        fixed = [*graph.captured, *graph.constants]
        self.forward_graph = graph
        self.static_count = len(static)
        self.static_program = Program(graph, static, fixed, self.static_out, True) if static else None
        graph.nodes = dynamic
        body = passes.elementwise_chains(with_kernels(graph))
        self.fused = sum(1 for n in body.nodes if n.op == "fused")
        self.program = Program(body, body.nodes, [*graph.inputs, *fixed, *self.static_out], graph.outputs, False)
        self.shown = replace(body, nodes=[*static, *body.nodes])
        self.constants = list(graph.constants.values())

    # -- running -------------------------------------------------------------------------------------------------
    def run(self, tensors: Sequence[Tensor]) -> Any:
        """The function for these arguments."""
        self.hits += 1
        arrays = [t.array for t in tensors]
        captured = fixed = [t.array for t in self._tensors]
        if self.constants:
            fixed = [*captured, *self.constants]
        arrays += fixed
        if self.static_program is not None:
            now = engine._last_modified
            if now != self._static_time or not all(map(_is, captured, self._static_arrays)):
                state = [(id(a), engine.version(a)) for a in captured]
                if self._static is None or state != self._static[0]:
                    self._static = (state, self.static_program.run(fixed))
                self._static_arrays, self._static_time = captured, now
            arrays += self._static[1]  # type: ignore[index]
        results = self.program.run(arrays)
        if self.written:
            self._mark(tensors)
        for t, k in self.stored:
            t.grad = None if k is None else Tensor._wrap(results[k])
        if self._number:
            return results[0].item()
        if self._single:
            return Tensor._wrap(results[0])
        return self.outputs(results, tensors)

    def _mark(self, tensors: Sequence[Tensor]) -> None:
        roots = {self.raw.values[n.args[0].id].root for n in self.raw.nodes if n.op == "write"}
        for v, t in [*zip(self.raw.inputs, tensors, strict=False), *self.raw.captured.items()]:
            if self.raw.values[v].root in roots:
                engine.mark_modified(t.array)

    def outputs(self, results: Sequence[Any], tensors: Sequence[Tensor]) -> Any:
        """The results as the function returns them, with a node for their gradients."""
        by_id: dict[int, Tensor] = {}
        for v, a in zip(self.distinct, results, strict=False):
            same = self.same.get(v)
            by_id[v] = Tensor._wrap(a) if same is None else tensors[same] if isinstance(same, int) else same
        if self.backward_program is not None:
            node = _CompiledNode.__new__(_CompiledNode)
            node.op, node.plan, node.out, node._entry = _OP, None, None, self
            targets = [tensors[e] if isinstance(e, int) else e for e in self.edges]
            node.edges = [t._edge or (t, 0) for t in targets]
            node.metas = [(t.array.shape, t.array.dtype) for t in targets]
            node.saved = tuple(results[len(self.distinct) : len(self.distinct) + len(self.needed)])
            node.sequence = next_sequence()
            outs: list[tuple] = []
            for v, wanted in zip(self.ids, self.differentiable, strict=True):
                if wanted and v not in self.same:
                    t = by_id[v]
                    t._edge, t.requires_grad = (node, len(outs)), True
                    outs.append((t.array.shape, t.array.dtype))
            node.out_metas = tuple(outs)
        for v, spent in zip(self.ids, self.spent, strict=True):
            if spent and v not in self.same:
                by_id[v]._edge, by_id[v].requires_grad = _spent(), True
        items = iter(self.ids)
        count = len(self.ids) + len(self.plain)
        leaves = [self.plain[i] if i in self.plain else by_id[next(items)] for i in range(count)]
        for i in self.reads:
            leaves[i] = leaves[i].array.item()
        return _tree.unflatten(leaves, self.structure)

    def backward(self, saved: Any, cotangents: list[Any]) -> list[Any]:
        """The gradients for the edges."""
        assert self.backward_program is not None
        values = self.raw.values
        roots = [v for v, wanted in zip(self.ids, self.differentiable, strict=True) if wanted]
        given = [
            np.zeros(values[v].shape, values[v].dtype) if g is None else g
            for v, g in zip(roots, cotangents, strict=True)
        ]
        return list(self.backward_program.run([*saved, *given]))


def _is(a: Any, b: Any) -> bool:
    return a is b


def _of_modules(modules: list[Any]) -> set[int]:
    return {id(t) for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None}


def _settle(tracer: Tracer, around: Surroundings) -> dict[int, Tensor]:
    """Captured arrays by the tensors that stay, not by passing views such as `p.detach()` or by the raw array."""
    graph = tracer.graph
    lasting = {id(t.array): t for t in around.tensors.values() if isinstance(t.array, np.ndarray)}
    for m in tracer.modules:
        lasting.update((id(t.array), t) for t in (*m._parameters.values(), *m._buffers.values()) if t is not None)
    for v in list(graph.captured):
        graph.captured[v] = lasting.get(id(tracer.symbols[v].value), graph.captured[v])
    for v, array in list(graph.constants.items()):
        if id(array) in lasting:
            graph.captured[v] = lasting[id(array)]
            del graph.constants[v]
    return graph.captured


def _optimised(graph: Graph, fold: bool = False) -> Graph:
    graph = tidy.fold_constants(passes.dead_code(graph))
    graph = tidy.drop_copies(passes.common_subexpressions(graph))
    if fold:
        graph = passes.fold_batch_norm(graph)
    return tidy.update_in_place(passes.dead_code(graph))


def _trace_backward(tracer: Tracer, arguments: list[Tensor], outputs: list[Tensor]) -> tuple[list, list, list]:
    """Traces the formulas of the recorded nodes: (what gets a gradient, the gradients' values, the cotangents')."""
    roots = [t for t in outputs if t._edge is not None]
    if len({id(t) for t in roots}) < len(roots):
        raise GraphBreak("one tensor is returned twice while its gradient is recorded")
    targets: dict[tuple, Any] = {}
    for i, t in enumerate(arguments):
        if t.requires_grad:
            if t._edge is not None:
                raise GraphBreak("an argument that requires a gradient is changed in place")
            targets[id(t), 0] = i
    for t in list(tracer.graph.captured.values()):
        if t.requires_grad:
            if t._edge is not None:
                raise GraphBreak("a tensor with a history of its own is used from outside")
            if t._hooks:
                raise GraphBreak("a tensor with gradient hooks is used from outside")
            targets[id(t), 0] = t
    capture: dict[Any, Any] = dict.fromkeys(targets)
    cotangents = []
    for t in roots:
        symbol = tracer.new(np.ones(t.array.shape, t.array.dtype))
        tracer.graph.inputs.append(symbol.id)
        cotangents.append(symbol)
    tracer.recording = False
    try:
        engine.run(roots, [Tensor._wrap(s) for s in cotangents], True, True, capture)
    finally:
        tracer.recording = True
    edges, gradients = [], []
    for key, target in targets.items():
        g = capture[key]
        if g is not None:
            edges.append(target)
            gradients.append(tracer.symbol(g).id)
    return edges, gradients, [s.id for s in cotangents]
