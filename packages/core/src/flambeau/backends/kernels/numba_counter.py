"""The random bits of ops/_counter.py in kernels, number by number."""

import numpy as np

from .numba_setup import scalar

__all__ = ["bits", "row_keys"]

u = np.uint32


@scalar
def _mix(x):
    """Numba computes with 64 bits unless told otherwise."""
    x = u(u(x ^ u(x >> u(16))) * u(0x7FEB352D))
    x = u(u(x ^ u(x >> u(15))) * u(0x846CA68B))
    return u(x ^ u(x >> u(16)))


@scalar
def row_keys(row, low, high):
    """The keys of a row, from the low and the high half of the seed."""
    first = _mix(u(_mix(u(row ^ low)) + high))
    return first, _mix(u(first ^ high))


@scalar
def bits(first, second, column):
    """The number of a column, by the keys of its row."""
    return _mix(u(_mix(u(u(column) ^ first)) + second))
