"""What a compiled graph takes for granted, and whether it still holds."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np

from .. import dtypes
from ..autograd.engine import version
from ..autograd.modes import mode
from ..graph.effects import Gradient
from ..graph.symbol import GraphBreak
from ..random import Generator
from ..tensor import Tensor

_COMPARED = 1 << 12  # elements of a captured NumPy array that are compared at each call
_DEPTH = 3  # functions that call functions that …: so far their global names and closures are watched
_requires_grad = attrgetter("requires_grad")


def argument_key(leaf: Any) -> tuple:
    """What the graph depends on in an argument. Errors: TypeError for one that is neither tensor nor plain value."""
    if isinstance(leaf, Tensor):
        a = leaf.array
        return a.__class__, a.shape, a.dtype, a.strides, leaf.requires_grad and mode.grad
    if leaf is None or isinstance(leaf, bool | int | str | bytes | dtypes.dtype | slice):
        return type(leaf), repr(leaf) if isinstance(leaf, slice) else leaf
    if isinstance(leaf, float | complex):
        return type(leaf), repr(leaf)  # tells 0.0 from -0.0
    raise TypeError(f"an argument is of type {type(leaf).__name__}, which is neither a tensor nor a plain value")


class Guards:
    """Conditions on what the function reads besides its arguments."""

    def __init__(
        self, fn: Callable, modules: list[Any], tensors: list[Tensor], written: list[Tensor], empty: list[Tensor]
    ):
        """written: those of the tensors that the graph changes. empty: tensors that must have no gradient yet."""
        self._held: list[Any] = []  # so that an id means one object
        self.dicts: list[tuple[dict, list[int], str]] = []
        self.reads: list[Callable[[], Any]] = []
        self.ids: list[int] = []  # of all values in all of `dicts`
        self.copies: list[tuple[np.ndarray, np.ndarray]] = []
        self.hooks: list[dict] = []
        self.cells: list[tuple[Callable[[], Any], int, str]] = []
        self.default = dtypes.get_default_dtype()
        for m in modules:
            name = type(m).__name__
            for d, what in (
                (m.__dict__, f"an attribute of a {name}"),
                (m._parameters, f"a parameter of a {name}"),
                (m._buffers, f"a buffer of a {name}"),
                (m._modules, f"a sub-module of a {name}"),
            ):
                self._watch(d, what)
            self.hooks += [m._forward_pre_hooks, m._forward_hooks, m._backward_hooks, m._backward_pre_hooks]
        for getter, what in outside(fn):
            value = getter()
            self._held.append(value)
            self.cells.append((getter, id(value), what))
            if type(value) in (dict, list):
                self._watch(value, what)
            elif isinstance(value, np.ndarray):
                if value.size > _COMPARED:
                    raise GraphBreak(f"{what} is a large NumPy array: pass it as a tensor, or make it one before")
                self.copies.append((value, value.copy()))
        self.tensors = tensors
        # Operations may have looked at the values of a tensor from outside to choose what they do (attention at its
        # mask): parameters and statistics are never read like that, all others must keep their values.
        own = {id(t) for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None}
        own = {id(t) for t in tensors if id(t) in own and t.array.dtype.kind in "fcV"} | {id(t) for t in written}
        self.constant = [t for t in tensors if id(t) not in own and not t.requires_grad]
        self.empty = empty
        self.full = [t.leaf for t in tensors if isinstance(t, Gradient)]
        self.refresh()

    def refresh(self) -> None:
        """Takes the tensors as they are now, when the trace is over."""
        tensors = self.tensors
        self.layouts = [(t.array.shape, t.array.dtype, t.array.strides) for t in tensors]
        self.arrays = [t.array for t in tensors]
        self.versions = [(id(t.array), version(t.array)) for t in self.constant]
        self.needs = [*map(_requires_grad, tensors)]

    def _watch(self, d: Any, what: str) -> None:
        values = list(d.values() if isinstance(d, dict) else d)
        self._held += values
        ids = [*map(id, values)]
        self.dicts.append((d, ids, what))
        self.reads.append(d.values if isinstance(d, dict) else d.__iter__)
        self.ids += ids

    def broken(self) -> str | None:
        """Why the graph may not be used now; None when it may."""
        # All containers in one go, and one by one only to tell which it was: most calls end here without a finding.
        if [*map(id, chain.from_iterable([read() for read in self.reads]))] != self.ids:
            for d, ids, what in self.dicts:
                if [*map(id, d.values() if isinstance(d, dict) else d)] != ids:
                    return f"{what} changed"
        if any(self.hooks):
            return "a module got a hook"
        for getter, known, what in self.cells:
            if id(getter()) != known:
                return f"{what} changed"
        for array, copy in self.copies:
            if not np.array_equal(array, copy, equal_nan=copy.dtype.kind in "fc"):
                return "a NumPy array that the function captures changed"
        if dtypes.get_default_dtype() is not self.default:
            return "the default dtype changed"
        for t in self.full:
            if t.grad is None:
                return "a gradient is missing, to which backward() adds"
        for t, state in zip(self.constant, self.versions, strict=True):
            if (id(t.array), version(t.array)) != state:
                return "the values of a tensor that the function uses changed"
        for k, t in enumerate(self.tensors):
            a = t.array
            if a is not self.arrays[k]:
                if (a.shape, a.dtype, a.strides) != self.layouts[k]:
                    return "a tensor that the function uses changed its shape, dtype or layout"
                self.arrays[k] = a
        if mode.grad and [*map(_requires_grad, self.tensors)] != self.needs:
            return "requires_grad of a tensor that the function uses changed"
        for t in self.empty:
            if t.grad is not None:
                return "a gradient is there already, to which backward() adds"
        return None


def outside(fn: Any, depth: int = _DEPTH) -> Iterator[tuple[Callable[[], Any], str]]:
    """What a function reads from closures and global names, as (getter, what it is)."""
    if depth < 0:
        return
    if isinstance(fn, types.MethodType):
        owner = fn.__self__
        if not hasattr(owner, "_parameters") and hasattr(owner, "__dict__"):
            attributes = vars(owner)
            for name in list(attributes):
                yield partial(attributes.get, name), f"the attribute {name} of a {type(owner).__name__}"
        fn = fn.__func__
    elif not isinstance(fn, types.FunctionType):
        kind = type(fn)
        fn = getattr(kind, "forward" if hasattr(fn, "_parameters") else "__call__", None)
    if not isinstance(fn, types.FunctionType) or (fn.__module__ or "").split(".")[0] == "flambeau":
        return
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        yield partial(_content, cell), f"the captured variable {name}"
        yield from _inner(_content(cell), depth)
    for name in fn.__code__.co_names:
        if name in fn.__globals__:
            value = fn.__globals__[name]
            yield partial(fn.__globals__.get, name), f"the global name {name}"
            yield from _inner(value, depth)


def _inner(value: Any, depth: int) -> Iterator[tuple[Callable[[], Any], str]]:
    if isinstance(value, types.FunctionType):
        yield from outside(value, depth - 1)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


def uses_generator(fn: Callable) -> bool:
    """Whether a random generator is among what the function captures."""
    return any(isinstance(getter(), Generator) for getter, _ in outside(fn))
