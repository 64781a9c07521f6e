"""Updates of many float32 arrays in one call: the steps of optimizers, the norm of gradients, their scaling.

Arrays are handed over as a table of their objects' addresses: as many as there are cost one argument. Each row of the
table lists the arrays of one kind (parameters, gradients, averages ...). All are dense and, position by position, in
the same order of memory. The caller holds them while a kernel runs.

Steps round after every operation as NumPy does, so that their results are those of the plain form, bit for bit.
"""

import ctypes
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, prange
from numba.core import types
from numba.extending import intrinsic

from .numba_setup import BLOCK, elementwise, flat, ready, serial, written, written_parallel

__all__ = ["Tasks", "can_run", "scale", "step", "table"]

f = np.float32
CHUNK = 1 << 14  # elements of one task
_WORTH_THREADS = 1 << 16  # elements: fewer are done before the threads have started
_DATA = object.__basicsize__  # NumPy's ABI: the address of the data follows the head of the object


def _layout_is_known() -> bool:
    array = np.zeros(3, f)
    return ctypes.c_void_p.from_address(id(array) + _DATA).value == array.ctypes.data


_known = _layout_is_known()


def can_run() -> bool:
    """Whether these kernels may be used here and now."""
    return _known and ready()


class Tasks:
    """How the work on arrays of these sizes is divided: the array and the first element of each task."""

    __slots__ = ("array", "sizes", "start", "total")

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = np.array(sizes, np.int64)
        pieces = [(k, start) for k, size in enumerate(sizes) for start in range(0, size, CHUNK)]
        self.array, self.start = np.array(pieces, np.int64).reshape(-1, 2).T.copy()
        self.total = sum(sizes)


@intrinsic
def _pointer(typing: Any, object_address: Any, position: Any) -> Any:
    """Address of an element of the float32 array that is the object at this address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = ir.IntType(64)
        place = builder.add(args[0], ir.Constant(whole, _DATA))
        data = builder.load(builder.inttoptr(place, whole.as_pointer()))
        address = builder.add(data, builder.mul(args[1], ir.Constant(whole, 4)))
        return builder.inttoptr(address, ir.FloatType().as_pointer())

    pointer: Any = types.CPointer  # type: ignore[attr-defined]
    return pointer(types.float32)(types.int64, types.int64), generate


@numba.njit(forceinline=True)
def _piece(objects, sizes, which, start):
    """What a task works on of one kind of array."""
    return carray(_pointer(objects[which], start), (min(CHUNK, sizes[which] - start),))


# -- steps ------------------------------------------------------------------------------------------------------------
@written
def _adam_counts(counters, numbers, factors):
    """Count a step of each parameter; the two factors of its update, which depend on how many there were."""
    lr, beta1, beta2, eps = numbers[0], numbers[1], numbers[2], numbers[3]
    for k in range(counters.size):
        counter = carray(_pointer(counters[k], 0), (1,))
        counter[0] += f(1)
        count = np.floor(np.float64(counter[0]))
        correction = np.sqrt(1.0 - beta2**count)
        factors[0, k], factors[1, k] = f(eps * correction), f(lr / (1.0 - beta1**count) * correction)


@written
def _adam_task(table, sizes, k, start, numbers, factors):
    p, g = _piece(table[0], sizes, k, start), _piece(table[1], sizes, k, start)
    m, v = _piece(table[2], sizes, k, start), _piece(table[3], sizes, k, start)
    beta1, beta2 = f(numbers[1]), f(numbers[2])
    share1, share2 = f(1 - numbers[1]), f(1 - numbers[2])
    shrink, decay, sign = f(numbers[4]), f(numbers[5]), f(numbers[6])
    eps, rate = factors[0, k], factors[1, k]
    if decay != 0:
        for i in range(p.size):
            p[i] *= shrink
            grad = p[i] * decay + sign * g[i]
            m[i] = m[i] * beta1 + grad * share1
            v[i] = v[i] * beta2 + grad * grad * share2
            p[i] -= m[i] / (np.sqrt(v[i]) + eps) * rate
    else:
        for i in range(p.size):
            grad = sign * g[i]
            m[i] = m[i] * beta1 + grad * share1
            v[i] = v[i] * beta2 + grad * grad * share2
            p[i] = p[i] * shrink - m[i] / (np.sqrt(v[i]) + eps) * rate


@written
def _adam(table, sizes, arrays, starts, numbers, factors):
    for t in range(arrays.size):
        _adam_task(table, sizes, arrays[t], starts[t], numbers, factors)


@written_parallel
def _adam_threads(table, sizes, arrays, starts, numbers, factors):
    for t in prange(arrays.size):
        _adam_task(table, sizes, arrays[t], starts[t], numbers, factors)


@written
def _sgd_task(table, sizes, k, start, numbers):
    p, g = _piece(table[0], sizes, k, start), _piece(table[1], sizes, k, start)
    lr, decay, sign = f(numbers[0]), f(numbers[1]), f(numbers[2])
    momentum, share, nesterov = f(numbers[3]), f(numbers[4]), numbers[5] != 0
    if table.shape[0] == 2:
        if decay != 0:
            for i in range(p.size):
                p[i] -= (p[i] * decay + sign * g[i]) * lr
        else:
            for i in range(p.size):
                p[i] -= sign * g[i] * lr
        return
    v = _piece(table[2], sizes, k, start)
    for i in range(p.size):
        grad = sign * g[i]
        if decay != 0:
            grad = p[i] * decay + grad
        v[i] = v[i] * momentum + grad * share
        p[i] -= (grad + v[i] * momentum if nesterov else v[i]) * lr


@written
def _sgd(table, sizes, arrays, starts, numbers):
    for t in range(arrays.size):
        _sgd_task(table, sizes, arrays[t], starts[t], numbers)


@written_parallel
def _sgd_threads(table, sizes, arrays, starts, numbers):
    for t in prange(arrays.size):
        _sgd_task(table, sizes, arrays[t], starts[t], numbers)


@written
def _lion_task(table, sizes, k, start, numbers):
    p, g = _piece(table[0], sizes, k, start), _piece(table[1], sizes, k, start)
    m = _piece(table[2], sizes, k, start)
    lr, shrink, sign = f(numbers[0]), f(numbers[3]), f(numbers[4])
    beta1, beta2 = f(numbers[1]), f(numbers[2])
    share1, share2 = f(1 - numbers[1]), f(1 - numbers[2])
    for i in range(p.size):
        grad = sign * g[i]
        d = m[i] * beta1 + grad * share1
        d = lr if d > 0 else -lr if d < 0 else d * lr  # 0 and NaN stay
        p[i] = p[i] * shrink - d
        m[i] = m[i] * beta2 + grad * share2


@written
def _lion(table, sizes, arrays, starts, numbers):
    for t in range(arrays.size):
        _lion_task(table, sizes, arrays[t], starts[t], numbers)


@written_parallel
def _lion_threads(table, sizes, arrays, starts, numbers):
    for t in prange(arrays.size):
        _lion_task(table, sizes, arrays[t], starts[t], numbers)


_STEPS = {"adam": (_adam, _adam_threads), "sgd": (_sgd, _sgd_threads), "lion": (_lion, _lion_threads)}


def step(name: str, table: np.ndarray, tasks: Tasks, counters: np.ndarray, numbers: np.ndarray) -> None:
    """One step of `name` (adam, sgd or lion) for all parameters of the table.

    adam: numbers lr, beta1, beta2, eps, shrink, decay, sign; rows parameters, gradients, averages of them, of their
    squares. sgd: lr, decay, sign, momentum, share, nesterov; with momentum a third row. lion: lr, beta1, beta2,
    shrink, sign; three rows. `decay` is added to gradients, `shrink` multiplies parameters, sign -1 maximizes.
    """
    alone, threads = _STEPS[name]
    run = threads if tasks.total >= _WORTH_THREADS else alone
    if name == "adam":
        factors = np.empty((2, counters.size), f)
        _adam_counts(counters, numbers, factors)
        run(table, tasks.sizes, tasks.array, tasks.start, numbers, factors)
    else:
        run(table, tasks.sizes, tasks.array, tasks.start, numbers)


# -- gradients --------------------------------------------------------------------------------------------------------
@numba.njit(error_model="numpy", boundscheck=False, fastmath={"contract", "reassoc", "nsz"})
def _sum_of_squares(x):
    total = f(0)
    for i in range(x.size):
        total += x[i] * x[i]
    return total


@serial
def _squares_task(objects, sizes, k, start):
    """Summed in float32 over 1024 elements, in float64 beyond."""
    x = _piece(objects, sizes, k, start)
    total = 0.0
    for first in range(0, x.size, 1024):
        total += np.float64(_sum_of_squares(x[first : min(x.size, first + 1024)]))
    return total


@elementwise
def _squares(objects, sizes, arrays, starts, sums):
    for t in prange(arrays.size):
        sums[t] = _squares_task(objects, sizes, arrays[t], starts[t])


@written_parallel
def _scale(objects, sizes, arrays, starts, factor):
    for t in prange(arrays.size):
        x = _piece(objects, sizes, arrays[t], starts[t])
        for i in range(x.size):
            x[i] *= factor


def table(arrays: list[Any]) -> tuple[np.ndarray, Tasks] | None:
    """The addresses of these arrays and the tasks on them; None where kernels do not take them."""
    if not all([type(array) is np.ndarray and array.dtype == f for array in arrays]) or not can_run():
        return None
    if not all([array.flags.c_contiguous or flat(array) is not None for array in arrays]):
        return None
    return np.array([id(array) for array in arrays], np.int64), Tasks([array.size for array in arrays])


def _root_of_squares(tensors: list[np.ndarray]) -> np.ndarray:
    """The root of the sum of the squares of all elements; relative error below 1e-6."""
    if sum([array.size for array in tensors]) < BLOCK:
        return NotImplemented
    found = table(tensors)
    if found is None:
        return NotImplemented
    objects, tasks = found
    sums = np.empty(tasks.array.size)
    _squares(objects, tasks.sizes, tasks.array, tasks.start, sums)
    return np.asarray(np.sqrt(sums.sum()), f)


def scale(objects: np.ndarray, tasks: Tasks, factor: Any) -> None:
    """Multiply all elements by the float32 number `factor`, in place."""
    _scale(objects, tasks.sizes, tasks.array, tasks.start, f(factor))
