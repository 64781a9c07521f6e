"""`compile` and the function that it returns: keys, fallbacks, and which graph is run."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd.modes import mode
from ..func import _tree
from ..graph.effects import Leaves
from ..graph.symbol import GraphBreak
from ..graph.trace import Tracer, _lock, _owner, own_hooks
from ..nn import hooks as module_hooks
from ..tensor import Tensor
from .entry import Entry
from .explain import Explanation
from .guards import argument_key, uses_generator
from .surroundings import Surroundings

_MAX_PER_KEY = 4  # graphs for one set of shapes (they differ in what guards watch)


class Compiled:
    """A compiled function; call it as the function itself. `explain()` tells what it does."""

    def __init__(self, function: Callable, limit: int = 8, fullgraph: bool = False):
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.limit = limit
        self.fullgraph = fullgraph
        self._entries: dict[Any, list[Entry]] = {}
        self._short: dict[tuple, list[Entry]] = {}  # the same entries by a key that is quicker to make
        self._refused: dict[Any, str] = {}  # keys that are not tried again
        self.fallbacks: dict[str, int] = {}
        self.recompiles: dict[str, int] = {}
        self._change = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(mode.intercept, Tracer):  # part of another compiled function
            return self.function(*args, **kwargs)
        reason = _unsuitable()
        if reason is not None:
            return self._eager(reason, args, kwargs)
        short = None if kwargs else _short_key(args)  # the usual case: tensors by position, nothing else
        for entry in self._short.get(short, ()) if short is not None else ():
            if entry.guards.broken() is None and not (entry.written and _overlap(args)):
                return entry.run(args)
        leaves, structure = _tree.flatten((args, kwargs) if kwargs else args)
        try:
            key = (mode.grad, structure, *[argument_key(leaf) for leaf in leaves])
            entries = self._entries.get(key)
        except TypeError as e:
            return self._eager(str(e), args, kwargs)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        broken = None
        for entry in entries or ():
            broken = entry.guards.broken()
            if broken is None:
                if entry.written and _overlap(tensors):
                    return self._eager("arguments share memory and are changed in place", args, kwargs)
                return entry.run(tensors)
        if key in self._refused:
            return self._eager(self._refused[key], args, kwargs)
        if broken is not None:
            with self._change:
                self.recompiles[broken] = self.recompiles.get(broken, 0) + 1
        return self._compile(key, leaves, structure, tensors, args, kwargs)

    def _compile(self, key: Any, leaves: list, structure: Any, tensors: list, args: tuple, kwargs: dict) -> Any:
        reason = None
        with _lock:
            known = self._entries.get(key, [])
            if len(known) >= _MAX_PER_KEY:
                reason = self._refused[key] = "what the function reads from outside changes too often"
            elif not known and len(self._entries) >= self.limit:
                reason = f"there are {self.limit} graphs for other shapes already (limit)"
            else:
                around = Surroundings(self.function)
                try:
                    entry, out = self._trace(around, leaves, structure, tensors, bool(kwargs))
                except Exception as e:
                    around.restore()
                    reason = str(e) if isinstance(e, GraphBreak) else f"tracing failed with {type(e).__name__}: {e}"
                    self._refused[key] = reason
        if reason is not None:  # outside of the lock: the function may take its time, or use threads
            return self._eager(reason, args, kwargs)
        with _lock:
            self._entries[key] = [*self._entries.get(key, []), entry]
            if not kwargs and (short := _short_key(args)) is not None:
                self._short[short] = self._entries[key]
            return out

    def _trace(
        self, around: Surroundings, leaves: list, structure: Any, tensors: list[Tensor], keywords: bool
    ) -> tuple[Entry, Any]:
        if uses_generator(self.function):
            raise GraphBreak("the function captures a random generator of its own")
        if any(not isinstance(t.array, np.ndarray) for t in tensors):
            raise GraphBreak("only tensors on the CPU are compiled")
        tracer = Tracer()
        root = self.function if hasattr(self.function, "named_modules") else None
        with tracer.running(root):
            leaves_outside = tracer.leaves = Leaves(tracer, around.tensors.values(), around.optimizers)
            stand_ins = [tracer.argument(t, t.requires_grad and mode.grad) for t in tensors]
            supply = iter(stand_ins)
            given = _tree.unflatten([next(supply) if isinstance(v, Tensor) else v for v in leaves], structure)
            args, kwargs = given if keywords else (given, {})
            before = mode.grad
            out = self.function(*args, **kwargs)
            if mode.grad is not before:
                raise tracer.broken("the function leaves gradient recording switched")
            for s in stand_ins:
                if s.grad is not None:
                    raise tracer.broken("backward() reaches an argument")
            if not tracer.graph.nodes and not any(isinstance(v, Tensor) for v in _tree.flatten(out)[0]):
                raise tracer.broken("the function computes nothing with tensors")
            changes = leaves_outside.finish(tracer.graph.captured.values())
            if (changed := around.changed()) is not None:
                raise tracer.broken(changed)
            entry = Entry(tracer, self.function, stand_ins, out, around, changes)
            leaves_outside.restore(tracer.graph.captured.values(), False)
            if entry.written and _overlap(tensors):
                raise tracer.broken("arguments share memory and are changed in place")
        real = [tracer.symbols[v].value for v in [*entry.distinct, *entry.needed]]
        entry.guards.refresh()
        for t, gradient in entry.changes:
            t.grad = None if gradient is None else Tensor._wrap(tracer.symbols[gradient].value)
        return entry, entry.outputs(real, tensors)

    def _eager(self, reason: str, args: tuple, kwargs: dict) -> Any:
        if self.fullgraph:
            raise GraphBreak(f"compile(fullgraph=True): {reason}")
        with self._change:
            first = reason not in self.fallbacks
            self.fallbacks[reason] = self.fallbacks.get(reason, 0) + 1
        if first and mode.intercept is None:  # once for each reason; `explain` counts them all
            name = getattr(self.function, "__name__", type(self.function).__name__)
            warnings.warn(f"flambeau.compile({name}) runs without a graph: {reason}", RuntimeWarning, stacklevel=4)
        return self.function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "function":  # not set yet
            raise AttributeError(name)
        return getattr(self.function, name)

    def train(self, mode: bool = True) -> Compiled:
        """`train` of a compiled module."""
        self.function.train(mode)  # type: ignore[attr-defined]
        return self

    def eval(self) -> Compiled:
        """`eval` of a compiled module."""
        return self.train(False)

    def reset(self) -> None:
        """Forgets all graphs: needed after parameters were changed through their NumPy arrays."""
        with _lock:
            self._entries, self._refused, self._short = {}, {}, {}
            self.fallbacks, self.recompiles = {}, {}

    def explain(self) -> Explanation:
        """Graphs, guards, fallbacks and counts; `print` it, or read its attributes."""
        return Explanation(self)


def _short_key(args: tuple) -> tuple | None:
    recording = mode.grad
    key: list[Any] = [recording]
    for t in args:
        if not isinstance(t, Tensor):
            return None
        a = t.array
        if a.__class__ is not np.ndarray:
            return None
        key += (a.shape, a.dtype, a.strides, recording and t.requires_grad)
    return tuple(key)


def _unsuitable() -> str | None:
    if mode.intercept is not None:
        return "it is called inside autocast, vmap or another trace"
    if mode.observe is not None or mode.anomaly is not None:
        return "it is called inside a checkpoint or anomaly mode"
    forward = {*module_hooks.global_forward.copy(), *module_hooks.global_forward_pre.copy()}
    if forward and not forward <= own_hooks:  # a trace in another thread sets some
        return "hooks of all modules are registered"
    if module_hooks.global_backward or module_hooks.global_backward_pre:
        return "hooks of all modules are registered"
    return None


def _overlap(tensors: Sequence[Tensor]) -> bool:
    owners = [id(_owner(t.array)) for t in tensors]
    return len(set(owners)) < len(owners)


def compile(
    model: Callable | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: dict | None = None,
    disable: bool = False,
    limit: int = 8,
) -> Any:
    """A function or module that is traced at its first call for each set of shapes and then replayed from its graph.

    fullgraph: raise instead of running the function itself where no graph can be made. disable: return the function.
    limit: how many sets of shapes get a graph. `dynamic=True`, `backend` and `options` are not supported; `mode` is
    accepted and changes nothing. Usable as a decorator.

    Errors: NotImplementedError for what is not supported; GraphBreak with `fullgraph`.

    >>> import flambeau
    >>> from flambeau.compiler import compile
    >>> f = compile(lambda x: (x * 2 + 1).relu())
    >>> f(flambeau.tensor([1.0, -3.0]))
    tensor([3., 0.])
    """
    if dynamic:
        raise NotImplementedError("compile: dynamic shapes are not supported; each set of shapes gets a graph")
    if backend is not None or options is not None:
        raise NotImplementedError("compile: there is one backend, without options")
    if mode not in (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"):
        raise RuntimeError(f"compile: unrecognized mode {mode!r}")
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, mode=mode, disable=disable, limit=limit)
    if disable:
        return model
    return Compiled(model, limit, fullgraph)
