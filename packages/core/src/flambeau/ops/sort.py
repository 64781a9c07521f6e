"""Order: sort, argsort, topk, unique, searchsorted, quantiles."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from ._op import normalize_dim, op
from .index import gather
from .shape import narrow

SortResult = namedtuple("SortResult", ["values", "indices"])


@op(samples=lambda t: [(t(3, 4),), (t(3, 4), 0, True)])
def argsort(xp, input, dim=-1, descending=False, stable=False):
    """Indices that sort `input` along `dim` (stable always)."""
    if input.ndim == 0:
        return xp.zeros((), np.int64)
    dim = normalize_dim(dim, input.ndim)
    if not descending:
        return xp.argsort(input, dim, kind="stable")
    flipped = xp.flip(xp.argsort(xp.flip(input, dim), dim, kind="stable"), dim)
    return input.shape[dim] - 1 - flipped


def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Sorted values and their indices."""
    order = argsort(input, dim, descending)
    return SortResult(gather(input, dim, order), order)


def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (smallest) values along `dim` and their indices, in order."""
    if input.ndim == 0:
        return SortResult(input, argsort(input))
    if k > input.shape[dim]:
        raise RuntimeError(f"topk: k ({k}) is larger than dimension {dim} ({input.shape[dim]})")
    order = narrow(argsort(input, dim, largest), dim, 0, k)
    return SortResult(gather(input, dim, order), order)


@op(samples=lambda t: [(t(9, low=0, high=4, dtype="int64"),)], method=False)
def _unique(xp, input):
    """Sorted distinct values, inverse indices, counts (of the flattened tensor)."""
    values, inverse, counts = xp.unique(input, return_inverse=True, return_counts=True)
    return values, inverse.reshape(input.shape), counts


def unique(input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """Distinct values in ascending order, with inverse indices and counts when asked for."""
    values, inverse, counts = _unique(input)
    extra = [x for x, wanted in ((inverse, return_inverse), (counts, return_counts)) if wanted]
    return (values, *extra) if extra else values


@op(samples=lambda t: [(t(9, low=0, high=4, dtype="int64"),)])
def bincount(xp, input, weights=None, minlength=0):
    """How often each non-negative integer occurs."""
    return xp.bincount(input, weights, minlength)
