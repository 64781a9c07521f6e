"""Attention of one token over a cache of keys and values, as when a language model writes: float32.

Each head is computed alone, by one thread: how many there are does not change results, which are within 2e-6 of the op
in float64, relative to the largest value. NaN and infinities go the ways that they go through NumPy's softmax.
"""

import math
from typing import Any

import numpy as np
from numba import prange

from . import WIDE
from .numba_math import fading
from .numba_rows import largest
from .numba_setup import accepts, elementwise, helper, inlined_sum, serial

__all__ = ["cached_attention"]

_WORTH_THREADS = 1 << 18  # numbers read: fewer are done before the threads have met

f = np.float32
_ZERO, _ONE = f(0), f(1)


@inlined_sum
def _dot(a, b):
    total = _ZERO
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@helper
def _head(q, keys, values, length, scale, to):
    scores = np.empty(length, f)
    for t in range(length):
        scores[t] = _dot(q, keys[t]) * scale
    top, total = largest(scores), _ZERO
    for t in range(length):
        scores[t] = fading(scores[t] - top)
    for t in range(length):
        total += scores[t]
    for j in range(to.size):
        to[j] = _ZERO
    for t in range(length):
        weight, row = scores[t], values[t]
        for j in range(to.size):
            to[j] += weight * row[j]
    for j in range(to.size):
        to[j] /= total


@serial
def _alone(q, keys, values, length, scale, out):
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            _head(q[b, h], keys[b, h], values[b, h], length, scale, out[b, h])


@elementwise
def _threads(q, keys, values, length, scale, out):
    heads = q.shape[1]
    for task in prange(q.shape[0] * heads):
        b, h = task // heads, task % heads
        _head(q[b, h], keys[b, h], values[b, h], length, scale, out[b, h])


def cached_attention(query: np.ndarray, keys: np.ndarray, values: np.ndarray, length: Any) -> np.ndarray:
    """softmax(query keys^T / sqrt(width)) values over the first `length` tokens."""
    batch, _, width = query.shape
    _, heads, capacity, each = keys.shape
    length = int(length)
    if width < WIDE["cached_attention"] or not 0 < length <= capacity or not accepts(query, keys, values):
        return NotImplemented
    if keys.shape != values.shape or keys.shape[0] != batch or heads * each != width:
        return NotImplemented
    if not (keys.flags.c_contiguous and values.flags.c_contiguous):
        return NotImplemented
    q, out = np.ascontiguousarray(query).reshape(batch, heads, each), np.empty((batch, 1, width), f)
    code = _threads if 2 * batch * width * length >= _WORTH_THREADS else _alone
    code(q, keys, values, length, f(1 / math.sqrt(each)), out.reshape(batch, heads, each))
    return out
