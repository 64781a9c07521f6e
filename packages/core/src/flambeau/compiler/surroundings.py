"""What a function captures, before it is traced: tensors and optimizers whose gradients are followed, plain state."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ..nn.module import Module
from ..optim.optimizer import Optimizer
from ..tensor import Tensor
from .guards import outside

_OPAQUE = (types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, type, Module, Tensor)


def _one(getter: Callable[[], Any]) -> tuple:
    return (getter(),)


class Surroundings:
    """The modules, tensors and optimizers that a function captures, and a snapshot of what else it could change."""

    def __init__(self, fn: Callable):
        self.tensors: dict[int, Tensor] = {}
        self.optimizers: list[Optimizer] = []
        self._states: list[tuple[Callable[[], Iterable[Any]], list[Any], str]] = []
        self._copies: list[tuple[Any, Any]] = []  # containers and what they held
        if isinstance(fn, Module):
            self._take(fn, "")
        for getter, what in outside(fn):
            value = getter()
            self._watch(partial(_one, getter), what)
            self._take(value, what)
            if type(value) in (list, tuple, dict, set):
                members = list(value.values() if type(value) is dict else value)
                if type(value) is not tuple:
                    self._copies.append((value, value.copy()))
                    self._watch(value.values if type(value) is dict else value.__iter__, what)
                for member in members:
                    self._take(member, what)

    def _take(self, value: Any, what: str) -> None:
        if isinstance(value, Tensor):
            self.tensors[id(value)] = value
        elif isinstance(value, Module):
            self.tensors.update((id(t), t) for t in (*value.parameters(), *value.buffers()))
        elif isinstance(value, Optimizer):
            if not any(o is value for o in self.optimizers):
                self.optimizers.append(value)
                self.tensors.update((id(p), p) for p in value._params())
        elif not isinstance(value, _OPAQUE) and isinstance(getattr(value, "__dict__", None), dict):
            self._copies.append((vars(value), dict(vars(value))))
            self._watch(vars(value).values, f"an attribute of {what}")

    def _watch(self, read: Callable[[], Iterable[Any]], what: str) -> None:
        self._states.append((read, list(read()), what))

    def changed(self) -> str | None:
        """What the function changed besides tensors: a replay would not do that."""
        for read, before, what in self._states:
            if [*map(id, read())] != [*map(id, before)]:
                return f"{what} is changed inside the function"
        return None

    def restore(self) -> None:
        """Puts back what lists, dicts, sets and attributes held, where that was changed."""
        for container, before in self._copies if self.changed() is not None else ():
            container.clear()
            container.extend(before) if type(container) is list else container.update(before)
