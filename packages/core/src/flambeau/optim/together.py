"""One update for all parameters of a group: in one call of a compiled kernel, where there is one.

A rule that a kernel covers says so (`Together`). The kernel takes float32 parameters on the CPU whose gradients and
state lie in memory as they do; a group with any other parameter is updated one by one. Results are the same either
way, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..tensor import Tensor

_WORTH_LOADING = 1 << 13  # elements: for fewer, Numba is loaded after so many steps
_WORTH_LOADING_STEPS = 100
_FLOAT32 = np.dtype(np.float32)
_OBJECT = np.int64  # the table holds addresses of objects


@dataclass(frozen=True, slots=True)
class Together:
    """A kernel (a name that `numba_optim.step` knows), the state that it changes, and the group's settings."""

    kernel: str
    state: tuple[str, ...]
    counter: str | None
    numbers: Sequence[float]


class Table:
    """The arrays of some parameters and of their state, checked once and used as long as they stay the same objects."""

    __slots__ = ("counters", "entries", "rows", "tasks", "values")

    def __init__(self, params: list[Tensor], states: Any, rule: Together, tasks: Any) -> None:
        names = [*rule.state, *([rule.counter] if rule.counter else [])]
        # (parameter, its array, shape, strides or None if C-ordered, its state), and its state's tensors with arrays
        self.entries = []
        self.values = []
        for param in params:
            array, state = param.array, states[param]
            strides = None if array.flags.c_contiguous else array.strides
            self.entries.append((param, array, array.shape, strides, state))
            self.values.append([(name, state[name], state[name].array) for name in names])
        self.rows = np.zeros((2 + len(rule.state), len(params)), _OBJECT)
        self.rows[0] = [id(entry[1]) for entry in self.entries]
        for row in range(len(rule.state)):
            self.rows[2 + row] = [id(values[row][2]) for values in self.values]
        self.counters = np.array([id(values[-1][2]) for values in self.values] if rule.counter else [], _OBJECT)
        self.tasks = tasks

    def gradients(self, params: list[Tensor], states: Any) -> list[int] | None:
        """The addresses of the gradients' objects; None unless all is as it was and the gradients fit."""
        if len(params) != len(self.entries):
            return None
        found = []
        for given, entry, values in zip(params, self.entries, self.values, strict=True):
            param, array, shape, strides, state = entry
            if given is not param or param.array is not array or states.get(param) is not state:
                return None
            for name, tensor, held in values:
                if state.get(name) is not tensor or tensor.array is not held:
                    return None
            grad = param.grad.array  # type: ignore[union-attr]
            if grad.dtype is not _FLOAT32 or type(grad) is not np.ndarray or grad.shape != shape:
                return None
            if not grad.flags.c_contiguous if strides is None else grad.strides != strides:
                return None
            found.append(id(grad))
        return found


def _fits(array: Any, shape: tuple, strides: tuple) -> bool:
    same = type(array) is np.ndarray and array.dtype is _FLOAT32 and array.shape == shape and array.flags.writeable
    return bool(same) and (array.strides == strides or (array.flags.c_contiguous and _c_order(shape, strides)))


def _c_order(shape: tuple, strides: tuple) -> bool:
    step = 4
    for size, stride in zip(shape[::-1], strides[::-1], strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def _overlap(arrays: list[np.ndarray]) -> bool:
    """Whether two of the arrays share memory: then they must be updated one after the other."""
    spans = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays)
    return any(end > start for (_, end), (start, _) in pairwise(spans))


def make_table(params: list[Tensor], optimizer: Any, group: dict[str, Any], rule: Together) -> Table | None:
    """A table of these parameters, with their state made where it is missing; None if a kernel cannot take them."""
    from ..backends.kernels import numba_optim, numba_setup

    if not numba_optim.can_run():
        return None
    for param in params:
        array = param.array
        if not array.size or not _fits(array, array.shape, array.strides) or numba_setup.flat(array) is None:
            return None
    written = []
    for param in params:
        array, state = param.array, optimizer.state[param]
        if not state:
            state.update(optimizer._initial_state(array, group))
        for name in rule.state:
            value = state.get(name)
            if not isinstance(value, Tensor) or not _fits(value.array, array.shape, array.strides):
                return None
            written.append(value.array)
        if rule.counter:
            value = state.get(rule.counter)
            if not isinstance(value, Tensor) or not _fits(value.array, (), ()):
                return None
            written.append(value.array)
        written.append(array)
    if _overlap(written):
        return None
    return Table(params, optimizer.state, rule, numba_optim.Tasks([param.array.size for param in params]))


class Tables:
    """The tables of an optimizer's groups, and when it is time to load the kernels."""

    def __init__(self) -> None:
        self.of: dict[int, Table] = {}
        self.steps = 0

    def update(self, index: int, params: list[Tensor], optimizer: Any, group: dict[str, Any], rule: Together) -> bool:
        """Update these parameters of group `index`, all of which have a gradient; False if that is left to do."""
        table = self.of.get(index)
        found = None if table is None else table.gradients(params, optimizer.state)
        if table is None or found is None:
            self.of.pop(index, None)
            self.steps += 1
            if self.steps <= _WORTH_LOADING_STEPS and sum(p.array.size for p in params) < _WORTH_LOADING:
                return False
            try:
                table = make_table(params, optimizer, group, rule)
            except ImportError:  # no Numba
                table = None
            found = None if table is None else table.gradients(params, optimizer.state)
            if table is None or found is None:
                return False
            self.of[index] = table
        from ..backends.kernels import numba_optim

        if not numba_optim.can_run():
            return False
        table.rows[1] = found
        numba_optim.step(rule.kernel, table.rows, table.tasks, table.counters, np.array(rule.numbers, np.float64))
        return True
