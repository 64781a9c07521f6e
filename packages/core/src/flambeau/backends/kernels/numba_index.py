"""Adding up at positions, the gradient of picking: in the order of the elements, whatever the number of threads.

Tasks share out the columns (and what lies before the dimension that is indexed), so no two write to one place.
"""

import numba
import numpy as np
from numba import prange

from .numba_setup import accepts, elementwise

__all__ = ["_add_at"]

_COLUMNS = 64  # of a task
_WORTH = 1 << 9


@numba.njit(error_model="numpy", boundscheck=False)
def _add(task, blocks, index, source, out):
    """The columns of one task."""
    o, first = task // blocks, task % blocks * _COLUMNS
    inner = source.shape[2]
    last = min(inner, first + _COLUMNS)
    where = o if index.shape[0] > 1 else 0
    if inner > 1 and index.shape[2] == 1:
        for i in range(source.shape[1]):
            here, there = source[o, i, first:last], out[o, index[where, i, 0], first:last]
            for k in range(last - first):
                there[k] += here[k]
    else:
        for i in range(source.shape[1]):
            for k in range(first, last):
                out[o, index[where, i, k], k] += source[o, i, k]


@elementwise
def _add_all(index, source, out):
    blocks = (source.shape[2] + _COLUMNS - 1) // _COLUMNS
    for task in prange(source.shape[0] * blocks):
        _add(np.int64(task), blocks, index, source, out)


def _add_at(source: np.ndarray, index: np.ndarray, size: int, base: np.ndarray | None = None) -> np.ndarray:
    """`source` (p, n, q) added at `index` (p or 1, n, q or 1) to zeros or to a copy of `base` (p, size, q)."""
    if source.size < _WORTH or not accepts(source) or type(index) is not np.ndarray:
        return NotImplemented
    if base is not None and not accepts(base):
        return NotImplemented
    if int(index.min()) < 0 or int(index.max()) >= size:
        return NotImplemented  # NumPy counts from the end, or has an error to raise
    index = np.ascontiguousarray(index, np.int64)
    outer, _, inner = source.shape
    out = np.zeros((outer, size, inner), np.float32) if base is None else np.array(base, order="C")
    _add_all(index, np.ascontiguousarray(source), out)
    return out
