"""Distinct values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import method, normalize_dim, op

__all__ = ["unique", "unique_consecutive"]


@op(samples=lambda t: [(t(9, low=0, high=4, dtype="int64"),), (t(5, 2, low=0, high=2, dtype="int64"), 0)], method=False)
def _unique(xp, input, dim=None):
    """Sorted distinct values (slices along `dim`), inverse indices, counts."""
    if dim is None:
        values, inverse, counts = xp.unique(input, return_inverse=True, return_counts=True, equal_nan=False)
        return values, inverse.reshape(input.shape), counts
    dim = normalize_dim(dim, input.ndim)
    rows = xp.moveaxis(input, dim, 0)
    order = _lexical_order(xp, rows.reshape(rows.shape[0], math.prod(rows.shape[1:])))
    return _runs(xp, input, dim, order)


def _lexical_order(xp: Any, rows: Any) -> Any:
    if rows.shape[1] == 0:
        return xp.arange(rows.shape[0])
    return xp.lexsort(xp.asarray(rows.T[::-1]))


def _runs(xp: Any, input: Any, dim: int, order: Any = None) -> tuple:
    """The first slice of each run of equal slices (after ordering), the run of each slice, and the runs' lengths."""
    slices = xp.moveaxis(input, dim, 0)
    n = slices.shape[0]
    if order is not None:
        slices = slices[order]
    rows = slices.reshape(n, math.prod(slices.shape[1:]))
    if 0 in slices.shape[1:]:
        raise RuntimeError("unique: a tensor without elements in the other dimensions has no slices to compare")
    if n == 0:
        return input.copy(), xp.zeros(0, np.int64), xp.zeros(0, np.int64)
    new = xp.concatenate([xp.ones(1, bool), xp.any(rows[1:] != rows[:-1], 1)])
    run = xp.cumsum(new) - 1
    starts = xp.flatnonzero(new)
    inverse = run
    if order is not None:
        inverse = xp.empty_like(run)
        inverse[order] = run
    counts = xp.diff(xp.concatenate([starts, xp.asarray([n])]))
    return xp.ascontiguousarray(xp.moveaxis(slices[starts], 0, dim)), inverse, counts


@op(samples=lambda t: [(t(9, low=0, high=2, dtype="int64"),), (t(2, 5, low=0, high=2, dtype="int64"), 1)], method=False)
def _unique_consecutive(xp, input, dim=None):
    """Elements (slices along `dim`) without repeats of the one before, inverse indices, counts."""
    if dim is not None:
        return _runs(xp, input, normalize_dim(dim, input.ndim))
    values, inverse, counts = _runs(xp, input.reshape(-1), 0)
    return values, inverse.reshape(input.shape), counts


def _asked(found: tuple, return_inverse: bool, return_counts: bool) -> Any:
    extra = [x for x, wanted in zip(found[1:], (return_inverse, return_counts), strict=True) if wanted]
    return (found[0], *extra) if extra else found[0]


@method()
def unique(
    input: Any,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Distinct values (slices along `dim`) in ascending order, with inverse indices and counts when asked for."""
    return _asked(_unique(input, dim), return_inverse, return_counts)


@method()
def unique_consecutive(
    input: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The values (slices along `dim`) without repeats of the one before; inverse indices, counts when asked for."""
    return _asked(_unique_consecutive(input, dim), return_inverse, return_counts)
