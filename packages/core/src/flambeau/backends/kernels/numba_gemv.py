"""A float32 matrix times few vectors, as when a language model writes a token: at the speed of reading the matrix."""

import numpy as np
from numba import prange

from .numba_dot import dot_float32
from .numba_setup import accepts, elementwise, rows_of_task

__all__ = ["linear"]

MOST_VECTORS = 8  # with more the product for matrices is faster
_FEWEST = 1 << 16  # elements of the matrix: below, OpenBLAS is done before the threads have met

_dot4, _dot1 = dot_float32(4), dot_float32(1)


@elementwise
def _linear(w, x, bias, biased, rows, out):
    n, k = w.shape
    steps = k // 16
    for task in prange((n + rows - 1) // rows):
        first, last = task * rows, min(n, task * rows + rows)
        quarter = (last - first) // 4
        for r in range(first, first + quarter):
            for m in range(x.shape[0]):
                sums = _dot4(w, np.int64(r * k), np.int64(quarter * k), x, np.int64(m * k), np.int64(steps))
                for i in range(4):
                    out[m, r + i * quarter] = sums[i]
        for r in range(first + 4 * quarter, last):
            for m in range(x.shape[0]):
                out[m, r] = _dot1(w, np.int64(r * k), np.int64(0), x, np.int64(m * k), np.int64(steps))[0]
        for m in range(x.shape[0]):
            for r in range(first, last):
                s = out[m, r]
                for j in range(16 * steps, k):
                    s += w[r, j] * x[m, j]
                out[m, r] = s + bias[r] if biased else s


def linear(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """input @ weight.T + bias for at most eight vectors."""
    k = weight.shape[-1]
    if weight.size < _FEWEST or k < 16 or input.size > MOST_VECTORS * k or weight.ndim != 2 or input.shape[-1:] != (k,):
        return NotImplemented
    if not (input.size and input.flags.c_contiguous and weight.flags.c_contiguous):
        return NotImplemented
    if not (
        accepts(input, weight) if bias is None else accepts(input, weight, bias) and bias.shape == weight.shape[:1]
    ):
        return NotImplemented
    vectors = input.reshape(-1, k)
    out = np.empty((len(vectors), len(weight)), np.float32)
    added = weight[0] if bias is None else bias
    _linear(weight, vectors, added, bias is not None, rows_of_task(len(weight)), out)
    return out.reshape(input.shape[:-1] + weight.shape[:1])
