"""Softmax, its logarithm and their gradients, one row after the other: float32, the last dimension, all threads.

A row is read from memory once and then again from the cache. Results are within 2e-6 (relative to the largest entry of
the row) of the op in float64: sums are taken in the lanes of vector registers. A row with NaN, with +inf, or with
nothing but -inf is NaN throughout, as in NumPy.
"""

import math
from typing import Any

import numpy as np
from numba import prange

from .numba_math import fading, ordered, unordered
from .numba_setup import BLOCK, accepts, inlined_sum, reducing

__all__ = ["log_softmax", "log_softmax_grad", "softmax", "softmax_grad"]

f = np.float32
_ZERO, _ONE = f(0), f(1)
_LOWEST = np.int32(-(1 << 31))


@inlined_sum
def largest(row):
    """The largest entry; NaN (of positive sign) counts as larger than inf."""
    top = _LOWEST
    for j in range(row.size):
        key = ordered(row[j])
        top = key if key > top else top
    return unordered(top)


@inlined_sum
def sum_of_exponentials(row, shift):
    """The sum of exp(row - shift)."""
    total = _ZERO
    for j in range(row.size):
        total += fading(row[j] - shift)
    return total


@reducing
def _softmax(x, out, step):
    for block in prange((x.shape[0] + step - 1) // step):
        for i in range(block * step, min(x.shape[0], block * step + step)):
            row, to = x[i], out[i]
            top, total = largest(row), _ZERO
            for j in range(row.size):
                value = fading(row[j] - top)
                to[j] = value
                total += value
            scale = _ONE / total
            for j in range(row.size):
                to[j] *= scale


@reducing
def _softmax_grad(g, y, out, step):
    for block in prange((y.shape[0] + step - 1) // step):
        for i in range(block * step, min(y.shape[0], block * step + step)):
            slope, row, to = g[i], y[i], out[i]
            total = _ZERO
            for j in range(row.size):
                total += slope[j] * row[j]
            for j in range(row.size):
                to[j] = row[j] * (slope[j] - total)


@reducing
def _log_softmax(x, out, step):
    for block in prange((x.shape[0] + step - 1) // step):
        for i in range(block * step, min(x.shape[0], block * step + step)):
            row, to = x[i], out[i]
            top = largest(row)
            log = f(math.log(sum_of_exponentials(row, top)))
            for j in range(row.size):
                to[j] = (row[j] - top) - log


@reducing
def _log_softmax_grad(g, y, out, step):
    for block in prange((y.shape[0] + step - 1) // step):
        for i in range(block * step, min(y.shape[0], block * step + step)):
            slope, row, to = g[i], y[i], out[i]
            total = _ZERO
            for j in range(row.size):
                total += slope[j]
            for j in range(row.size):
                to[j] = slope[j] - fading(row[j]) * total


def rows(array: np.ndarray, length: int) -> np.ndarray:
    """The array as (number of rows, length), copied if it is not in C order."""
    return np.ascontiguousarray(array).reshape(-1, length)


def rows_at_once(length: int) -> int:
    """How many rows one task works on."""
    return max(1, BLOCK // length)


def _run(code: Any, dim: Any, *arrays: np.ndarray) -> Any:
    last = arrays[-1]
    if last.size < BLOCK or not isinstance(dim, int) or dim not in (-1, last.ndim - 1):
        return NotImplemented
    if any(a.shape != last.shape for a in arrays) or not accepts(*arrays):
        return NotImplemented
    out: np.ndarray = np.empty(last.shape, np.float32)
    length = last.shape[-1]
    code(*[rows(a, length) for a in arrays], rows(out, length), rows_at_once(length))
    return out


def softmax(input: np.ndarray, dim: Any = None, dtype: Any = None) -> np.ndarray:
    """exp(input) / sum(exp(input)) along the last dimension."""
    return NotImplemented if dtype is not None else _run(_softmax, dim, input)


def log_softmax(input: np.ndarray, dim: Any = None, dtype: Any = None) -> np.ndarray:
    """log(softmax(input)) along the last dimension."""
    return NotImplemented if dtype is not None else _run(_log_softmax, dim, input)


def softmax_grad(g: np.ndarray, result: np.ndarray, dim: int) -> np.ndarray:
    """The gradient of `softmax` with respect to its input."""
    return _run(_softmax_grad, dim, g, result)


def log_softmax_grad(g: np.ndarray, result: np.ndarray, dim: int) -> np.ndarray:
    """The gradient of `log_softmax` with respect to its input."""
    return _run(_log_softmax_grad, dim, g, result)
