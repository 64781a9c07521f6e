"""Tracing: runs a function on real tensors and notes every op as a node of a `Graph`."""

from __future__ import annotations

import contextlib
import gc
import random as _python_random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import random
from ..autograd import engine
from ..autograd.modes import mode
from ..nn import hooks as module_hooks
from ..ops._dispatch import like, promote, record
from ..ops._errors import check_same_dtype
from ..ops._op import Op
from ..random import Generator
from ..tensor import Tensor
from .effects import Gradient, Leaves
from .ir import Graph, Node, Ref, Value
from .symbol import GraphBreak, Symbol, Unread

own_hooks: set[int] = set()  # ids of the module hooks that a trace has set
_lock = threading.RLock()  # one trace at a time: buffers of modules are exchanged while it runs


def _owner(array: Any) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Tracer:
    """Notes what happens between `__enter__` and `__exit__` in this thread; use `trace` or `flambeau.compile`."""

    takes_formulas = True  # those of backward() and grad() inside the function become nodes as well

    def __init__(self) -> None:
        self.graph = Graph()
        self.symbols: dict[int, Symbol] = {}
        self.reason: str | None = None
        self.recording = True  # whether autograd's nodes are recorded as well
        self.modules: list[Any] = []
        self._roots: dict[int, int] = {}  # id of the owner of memory -> value
        self._arrays: dict[int, int] = {}  # id of an array -> value (captured ones and constants)
        self._kept: list[Any] = []  # so that ids stay unique
        self._undo: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._written: list[np.ndarray] = []
        self._swapped: list[tuple[Tensor, np.ndarray]] = []
        self._stack: list[Any] = []
        self._thread = threading.get_ident()
        self.leaves = Leaves(self, (), ())

    # -- values --------------------------------------------------------------------------------------------------
    def broken(self, reason: str) -> GraphBreak:
        """The exception to raise; the reason is kept even if the traced function catches it."""
        self.reason = self.reason or reason
        return GraphBreak(self.reason)

    def new(self, array: np.ndarray) -> Symbol:
        """A new value of the graph."""
        v = len(self.graph.values)
        owner = _owner(array)
        root = self._roots.setdefault(id(owner), v)
        self._kept.append(owner)
        self.graph.values[v] = Value(tuple(array.shape), array.dtype, root, bool(array.flags.c_contiguous))
        symbol = self.symbols[v] = Symbol(self, v, array)
        return symbol

    def argument(self, t: Tensor, requires_grad: bool) -> Tensor:
        """A stand-in for an argument of the function."""
        symbol = self.new(t.array)
        self.graph.inputs.append(symbol.id)
        stand_in = Tensor._wrap(symbol)
        stand_in.requires_grad = requires_grad
        return stand_in

    def symbol(self, value: Any) -> Symbol:
        """The symbol of a tensor or array that an op is called with."""
        array = value.array if isinstance(value, Tensor) else value
        if isinstance(array, Symbol):
            if array.tracer is not self:
                raise self.broken("a tensor from another trace is used")
            return array
        if not isinstance(array, np.ndarray):
            if isinstance(array, np.generic):
                array = np.asarray(array)
            else:
                raise self.broken(f"an array of type {type(array).__name__} is used; only NumPy arrays are traced")
        known = self._arrays.get(id(array))
        if known is not None:
            return self.symbols[known]
        if isinstance(value, Tensor):
            return self.capture(array, value)
        symbol = self.new(array)
        self._arrays[id(array)] = symbol.id
        self._kept.append(array)
        self.graph.constants[symbol.id] = array
        return symbol

    def capture(self, array: np.ndarray, holder: Any) -> Symbol:
        """The symbol of an array that `holder.array` is at each run."""
        symbol = self.new(array)
        self._arrays[id(array)] = symbol.id
        self._kept.append(array)
        self.graph.captured[symbol.id] = holder
        return symbol

    # -- nodes ---------------------------------------------------------------------------------------------------
    def _refs(self, value: Any) -> tuple[Any, Any]:
        """(what the node keeps, what is computed with) for an argument."""
        if isinstance(value, Tensor | Symbol | np.ndarray):
            symbol = self.symbol(value)
            return Ref(symbol.id), symbol.value
        if isinstance(value, tuple | list):
            pairs = [self._refs(v) for v in value]
            kept, real = [p[0] for p in pairs], [p[1] for p in pairs]
            if hasattr(value, "_fields"):
                return type(value)(*kept), type(value)(*real)
            return type(value)(kept), type(value)(real)
        if isinstance(value, slice):
            start, stop, step = (self._refs(v) for v in (value.start, value.stop, value.step))
            return slice(start[0], stop[0], step[0]), slice(start[1], stop[1], step[1])
        if isinstance(value, Unread):
            value._refused()
        return value, value

    def call(self, op: Op, values: Sequence[Any]) -> Any:
        """Runs an op on the real arrays and adds the node."""
        declined = False

        def run(*real: Any) -> Any:
            nonlocal declined
            if op.kernel is not None:
                out = op.kernel(*real)
                if out is not NotImplemented:
                    return out
                declined = True
            return op.forward(*real) if op.composite else op.forward(np, *real)

        out = self.emit(op.name, values, run)
        self.graph.nodes[-1].plain = declined
        return out

    def emit(self, name: str, args: Sequence[Any], function: Callable) -> Any:
        """Runs a function on the real arrays and adds the node."""
        kept, real = self._refs(tuple(args))
        before, mode.intercept = mode.intercept, None
        try:
            out = function(*real)
        finally:
            mode.intercept = before
        several = isinstance(out, tuple) and not isinstance(out, np.ndarray)
        arrays = [None if a is None else np.asarray(a) for a in (out if several else (out,))]
        path = self._path()
        symbols: list[Symbol | None] = []
        ids: list[int] = []
        for a in arrays:
            if a is None:  # an output that was not asked for
                v = len(self.graph.values)
                self.graph.values[v] = Value((), np.dtype(bool), v)
                symbols.append(None)
                ids.append(v)
            else:
                symbol = self.new(a)
                symbols.append(symbol)
                ids.append(symbol.id)
        self.graph.nodes.append(Node(name, kept, tuple(ids), path))
        return like(out, symbols) if several else symbols[0]

    def raw(self, name: str, args: Sequence[Any]) -> Symbol:
        """A NumPy function on symbols, outside of any op."""
        if mode.intercept is None:
            raise self.broken("gradients are taken inside autocast or a transformation")
        from .ir import function_of

        return self.emit(name, args, function_of(name))

    def write(self, target: Symbol, index: Any, new: Any) -> None:
        """`target[index] = new` in the memory of the target."""
        if self.graph.values[target.id].root in self._constant_roots():
            raise self.broken(
                "a tensor that is neither argument, buffer nor result of an operation is changed in place"
            )
        kept_index, real_index = self._refs(index)
        kept, real = self._refs(new)
        if not isinstance(kept, Ref):
            kept = Ref(self.symbol(np.asarray(real, target.value.dtype)).id)
        owner = _owner(target.value)
        if id(owner) not in self._undo:
            self._undo[id(owner)] = (owner, owner.copy())
        target.value[real_index] = real
        if not any(o is owner for o in self._written):
            self._written.append(owner)
        self.graph.nodes.append(Node("write", (Ref(target.id), kept_index, kept), (), self._path()))

    def _constant_roots(self) -> set[int]:
        swapped = {id(t) for t, _ in self._swapped}
        roots = {
            self.graph.values[v].root
            for v, t in self.graph.captured.items()
            if id(t) not in swapped and not isinstance(t, Gradient)
        }
        return roots | {self.graph.values[v].root for v in self.graph.constants}

    # -- ops -----------------------------------------------------------------------------------------------------
    def __call__(self, op: Op, args: tuple, kwargs: dict) -> Any:
        """In place of every op: runs it, adds the node, records it for backward as the dispatcher does."""
        if kwargs.get("out") is not None:
            raise self.broken(f"{op.name} is called with out=")
        kwargs.pop("out", None)
        values = op.bind(args, kwargs)
        tensors = [v for v in _flat(values) if isinstance(v, Tensor)]
        wants = self.recording and mode.grad and any(t.requires_grad for t in tensors)
        if op.composite and tensors and (wants or op.kernel is None):
            return op.forward(*values)
        if not tensors:
            if any(isinstance(v, Symbol) for v in _flat(values)):
                return self.call(op, values)
            return _uninterrupted(op, values)
        return self._list(op, values, wants) if op.has_list else self._single(op, values, wants)

    def _single(self, op: Op, values: list, wants: bool) -> Any:
        raw = [self.symbol(v) if isinstance(v, Tensor) else v for v in values]
        mask, edges, metas = 0, [], []
        for i in op.inputs:
            t = values[i]
            if wants and isinstance(t, Tensor) and t.requires_grad and i in op.vjp_of:
                mask |= 1 << i
                edges.append(t._edge or (t, 0))
                metas.append((raw[i].shape, raw[i].dtype))
        if op.promote == "same":
            check_same_dtype(op, raw)
        elif op.promote is not None:
            promote(op, raw)
        out = self.call(op, raw)
        result = self._recorded(op, raw, mask, edges, metas, out) if mask else _wrapped(out)
        if op.view and isinstance(values[0], Tensor):
            from ..autograd.views import note_view

            for k, t in enumerate(result) if isinstance(result, tuple) else ((None, result),):
                note_view(t, values[0], ((op.function, tuple(raw[1:]), k),))
        return result

    def _list(self, op: Op, values: list, wants: bool) -> Any:
        tensors = list(values[0])
        if not tensors:
            raise ValueError(f"{op.name}() expects a non-empty list of tensors")
        raw = [[self.symbol(t) for t in tensors], *values[1:]]
        if op.promote is not None:
            from .. import dtypes

            common = dtypes.result_numpy(raw[0])
            raw[0] = [a if a.dtype == common else a.astype(common) for a in raw[0]]
        out = self.call(op, raw)
        if not wants or not op.vjp_of:
            return _wrapped(out)
        needed = [isinstance(t, Tensor) and t.requires_grad for t in tensors]
        edges = [(t._edge or (t, 0)) if w else None for t, w in zip(tensors, needed, strict=True)]
        metas = [(s.shape, s.dtype) if w else None for s, w in zip(raw[0], needed, strict=True)]
        return self._recorded(op, raw, 1, edges, metas, out)

    def _recorded(self, op: Op, raw: list, mask: int, edges: list, metas: list, out: Any) -> Any:
        """Autograd's node, with the symbols in the place of the arrays."""
        real = like(out, [s.value for s in out]) if isinstance(out, tuple) else out.value
        result = record(op, raw, mask, edges, metas, real)
        if isinstance(result, tuple):
            node = next(t._edge[0] for t in result if t._edge is not None)
            for t, s in zip(result, out, strict=True):
                t.array = s
            if node.out is not None:
                node.out = tuple([None if a is None else s for a, s in zip(node.out, out, strict=True)])
        else:
            node, result.array = result._edge[0], out
            if node.out is not None:
                node.out = out
        return result

    def optimizer_step(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        """In place of an optimizer's step."""
        self.leaves.step(optimizer, args, kwargs)

    # -- modules -------------------------------------------------------------------------------------------------
    def _enter_module(self, module: Any, args: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        self._stack.append(module)
        if any(m is module for m in self.modules):
            return
        self.modules.append(module)
        if module._forward_pre_hooks or module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
            raise self.broken(f"a {type(module).__name__} has forward or backward hooks")
        if module.training:  # only then are buffers changed while others do not use the module
            for t in module._buffers.values():
                if t is not None and isinstance(t.array, np.ndarray):
                    self.swap(t)

    def _leave_module(self, module: Any, args: Any, output: Any) -> None:
        if threading.get_ident() == self._thread and self._stack:
            self._stack.pop()

    def swap(self, t: Tensor) -> None:
        """From now on the tensor shows a symbol, so that changes of it are noted."""
        symbol = self.symbol(t)
        self._swapped.append((t, t.array))
        self._undo.setdefault(id(_owner(t.array)), (_owner(t.array), _owner(t.array).copy()))
        t.array = symbol

    def _path(self) -> str:
        return "" if not self._stack else self._names.get(id(self._stack[-1]), type(self._stack[-1]).__name__)

    # -- the trace as a whole ------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def running(self, root: Any = None) -> Iterator[None]:
        """Traces what runs inside. On an error, memory and random numbers are as they were before."""
        self._names = {} if root is None else {id(m): name for name, m in root.named_modules()}
        source = random.default_generator()
        states = [(g, g.get_state()) for g in _generators(source)]
        others = _python_random.getstate(), _numpy_state()
        start = engine._last_modified
        handles = (
            module_hooks.register_module_forward_pre_hook(self._enter_module),
            module_hooks.register_module_forward_hook(self._leave_module, always_call=True),
        )
        own_hooks.update(handle.id for handle in handles)
        previous = random.override(_TracedGenerator(self, source))
        intercept, mode.intercept = mode.intercept, self
        try:
            yield
            if self.reason is None:
                self._check_outside(start, states, others, source)
            if self.reason is not None:
                raise GraphBreak(self.reason)
            for owner in self._written:
                engine.mark_modified(owner)
        except BaseException:
            self.leaves.restore(self.graph.captured.values(), True)
            for owner, before in self._undo.values():
                owner[...] = before
            for g, state in states:
                g.set_state(state)
            raise
        finally:
            mode.intercept = intercept
            random.override(previous)
            for handle in handles:
                handle.remove()
                own_hooks.discard(handle.id)
            for t, array in self._swapped:
                t.array = array

    def _check_outside(self, start: int, states: list, others: tuple, source: Generator) -> None:
        for sequence, reference, _ in list(engine._modified.values()):
            owner = reference()
            if sequence > start and id(owner) in self._roots and id(owner) not in self.leaves.stepped:
                self.broken("memory of a tensor is changed in place outside of the operations")
        if any(g is not source and g.get_state() != state for g, state in states):
            self.broken("random numbers are drawn from a generator other than the default one")
        now = _python_random.getstate(), _numpy_state()
        if now[0] != others[0] or now[1][1] != others[1][1] or not np.array_equal(now[1][0], others[1][0]):
            self.broken("random numbers are drawn from Python's or NumPy's global generator")

    def finish(self, outputs: Sequence[Tensor]) -> Graph:
        """The graph with these outputs."""
        graph = self.graph
        graph.outputs = [self.symbol(t).id for t in outputs]
        for m in self.modules:
            prefix = self._names.get(id(m), type(m).__name__)
            for name, t in [*m._parameters.items(), *m._buffers.items()]:
                for v, captured in graph.captured.items():
                    if captured is t:
                        graph.names[v] = f"{prefix}.{name}" if prefix else name
        return graph.verify()


class _TracedGenerator(Generator):
    """The default generator during a trace: its draws become nodes."""

    def __init__(self, tracer: Tracer, source: Generator):
        self.device, self._seed = source.device, source._seed
        self._tracer, self._source = tracer, source

    def _drawn(self, name: str, *args: Any) -> Any:
        draw = getattr(self._source, name)
        return self._tracer.emit(f"random.{name}", args, draw)

    def uniform(self, low: float, high: float, shape: Any, dtype: Any = np.float32) -> Any:
        return self._drawn("uniform", low, high, shape, np.dtype(dtype))

    def normal(self, mean: float, std: float, shape: Any, dtype: Any = np.float32) -> Any:
        return self._drawn("normal", mean, std, shape, np.dtype(dtype))

    def integers(self, low: int, high: int, shape: Any, dtype: Any = np.int64) -> Any:
        return self._drawn("integers", low, high, shape, np.dtype(dtype))

    def permutation(self, n: int) -> Any:
        return self._drawn("permutation", n)

    def _refused(self, *args: Any, **kwargs: Any) -> Any:
        raise self._tracer.broken("the random generator is used other than for uniform, normal and integer draws")

    manual_seed = seed = get_state = set_state = _refused
    numpy = property(_refused)  # type: ignore[assignment]


def _generators(default: Generator) -> list[Generator]:
    found = [o for o in gc.get_objects() if type(o) is Generator and "numpy" in o.__dict__]
    return found if any(g is default for g in found) else [default, *found]


def _numpy_state() -> tuple:
    state: Any = np.random.get_state()
    return state[1:3]


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for v in values:
        if isinstance(v, list | tuple):
            yield from _flat(v)
        else:
            yield v


def _wrapped(out: Any) -> Any:
    return (
        like(out, [None if s is None else Tensor._wrap(s) for s in out])
        if isinstance(out, tuple)
        else Tensor._wrap(out)
    )


def _uninterrupted(op: Op, values: list) -> Any:
    before, mode.intercept = mode.intercept, None
    try:
        return op.function(*values)
    finally:
        mode.intercept = before


def trace(fn: Callable, *example_inputs: Tensor) -> Graph:
    """The graph of `fn` (a function or a module) for tensors of these shapes and dtypes; gradients are not recorded.

    The function runs once, for real. Errors: GraphBreak for what a graph cannot hold (values that are read, foreign
    random numbers, `backward()`), with the reason.

    >>> import flambeau
    >>> print(trace(lambda x: (x * 2).relu(), flambeau.ones(3)))
    graph(%0: float32[3]):
      %1: float32[3] = mul(%0, 2)
      %2: float32[3] = relu(%1)
      return %2
    """
    from ..func import _tree

    tracer = Tracer()
    with _lock, tracer.running(fn if hasattr(fn, "named_modules") else None):
        previous, mode.grad = mode.grad, False
        try:
            out = fn(*[tracer.argument(t, False) for t in example_inputs])
        finally:
            mode.grad = previous
        leaves = [t for t in _tree.flatten(out)[0] if isinstance(t, Tensor)]
        for t in leaves:
            tracer.symbol(t)
        tracer.leaves.finish(tracer.graph.captured.values())
    return tracer.finish(leaves)
