"""Order: sort, topk, medians, modes, quantiles. Parts: distinct values and histograms."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import method, normalize_dim, op
from .elementwise import ceil, floor, lerp, round, where
from .index import gather
from .logic import cast, eq, isnan, logical_not
from .reduce import ValuesIndices, any, sum
from .shape import expand, movedim, narrow, reshape, squeeze, unsqueeze


@op(samples=lambda t: [(t(3, 4),), (t(3, 4), 0, True)])
def argsort(xp, input, dim=-1, descending=False, stable=False):
    """Indices that sort `input` along `dim` (stable always); NaN counts as the largest."""
    dim = normalize_dim(dim, input.ndim)
    if input.ndim == 0:
        return xp.zeros((), np.int64)
    if not descending:
        return xp.argsort(input, dim, kind="stable")
    flipped = xp.flip(xp.argsort(xp.flip(input, dim), dim, kind="stable"), dim)
    return input.shape[dim] - 1 - flipped


@method()
def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Sorted values and their indices; equal ones keep their order."""
    order = argsort(input, dim, descending)
    return ValuesIndices(gather(input, dim, order), order)


@method()
def msort(input: Any) -> Any:
    """The values sorted along the first dimension."""
    return sort(input, 0).values if input.ndim else input


@op(samples=lambda t: [(t(3, 9), 2, -1, True), (t(9, 2), 3, 0, False)], method=False)
def top_indices(xp, input, k, dim, largest):
    """The indices of the k largest (smallest) elements along `dim`, in order: chosen by partition, then sorted."""
    dim = normalize_dim(dim, input.ndim)
    n = input.shape[dim]
    if 0 < k < n // 4:
        part = xp.argpartition(input, n - k if largest else k - 1, dim)
        chosen = part[(slice(None),) * dim + (slice(n - k, None) if largest else slice(0, k),)]
        chosen = xp.sort(chosen, dim)  # equal elements in the order of their places
        order = argsort.op.forward(xp, xp.take_along_axis(input, chosen, dim), dim, largest)
        return xp.take_along_axis(chosen, order, dim)
    order = argsort.op.forward(xp, input, dim, largest)
    return xp.ascontiguousarray(order[(slice(None),) * dim + (slice(0, k),)])


@method()
def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (smallest) values along `dim` and their indices, in order."""
    dim, k = normalize_dim(dim, input.ndim), int(k)
    if not 0 <= k <= (input.shape[dim] if input.ndim else 1):
        raise RuntimeError(f"topk: k ({k}) is not in range for dimension {dim} of shape {list(input.shape)}")
    if input.ndim == 0:
        return ValuesIndices(input, argsort(input)) if k else _empty_choice(input)
    order = top_indices(input, k, dim, largest)
    return ValuesIndices(gather(input, dim, order), order)


def _empty_choice(input: Any) -> Any:
    none = narrow(reshape(input, (1,)), 0, 0, 0)
    return ValuesIndices(none, argsort(none))


def _chosen(input: Any, index: Any, dim: int, keepdim: bool) -> Any:
    """Values at an index that has kept `dim`, and the index."""
    values = gather(input, dim, index)
    if not keepdim and input.ndim:
        values, index = squeeze(values, dim), squeeze(index, dim)
    return ValuesIndices(values, index)


def _needs_elements(input: Any, dim: int, name: str) -> int:
    dim = normalize_dim(dim, input.ndim)
    if input.ndim and input.shape[dim] == 0:
        raise IndexError(f"{name}(): expected the reduction dimension {dim} to have elements")
    return dim


@method()
def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest values along `dim` (k from 1) and their indices."""
    dim = _needs_elements(input, dim, "kthvalue")
    if not 1 <= k <= (input.shape[dim] if input.ndim else 1):
        raise RuntimeError(f"kthvalue: selected number k ({k}) is out of range for dimension {dim}")
    order = argsort(input, dim)
    return _chosen(input, narrow(order, dim, k - 1, 1) if input.ndim else order, dim, keepdim)


@op(
    samples=lambda t: [(t(3, 5, low=0, high=3, dtype="int64"), -1), (t(4, 2, low=0, high=3, dtype="int64"), 0)],
    method=False,
)
def mode_index(xp, input, dim):
    """The last place of the most frequent (of equally frequent ones, the smallest) element along `dim`."""
    if input.ndim == 0:
        return xp.zeros((), np.int64)
    order = xp.moveaxis(argsort.op.forward(xp, input, dim), dim, 0)
    values = xp.take_along_axis(xp.moveaxis(input, dim, 0), order, 0)
    n = values.shape[0]
    place = xp.arange(n).reshape((-1,) + (1,) * (values.ndim - 1))
    new = xp.concatenate([xp.ones((1, *values.shape[1:]), bool), values[1:] != values[:-1]])
    ends = xp.concatenate([new[1:], xp.ones((1, *values.shape[1:]), bool)])
    start = xp.where(new, place, 0)
    k = 1
    while k < n:  # the running maximum: where the run of each element starts
        start = xp.concatenate([start[:k], xp.maximum(start[k:], start[:-k])])
        k *= 2
    best = xp.argmax(xp.where(ends, place - start + 1, 0), 0, keepdims=True)
    return xp.moveaxis(xp.take_along_axis(order, best, 0), 0, dim)


@method()
def mode(input: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent values along `dim` (of equally frequent ones the smallest), and where each is last."""
    dim = _needs_elements(input, dim, "mode")
    return _chosen(input, mode_index(input, dim), dim, keepdim)


# -- medians ----------------------------------------------------------------------------------------------------
@op(samples=lambda t: [(t(3, 5), -1, False), (t(4, 2), 0, True)], method=False)
def median_index(xp, input, dim, ignore_nan):
    """The place of the lower median along `dim`; of a NaN where there is one and NaN is not ignored."""
    if input.ndim == 0:
        return xp.zeros((), np.int64)
    order = argsort.op.forward(xp, input, dim)
    valid = xp.sum(
        ~xp.isnan(input) if input.dtype.kind not in "biu" else xp.ones(input.shape, bool), dim, keepdims=True
    )
    middle = xp.maximum(valid - 1, 0) // 2
    if not ignore_nan:
        middle = xp.where(valid < input.shape[dim], valid, middle)
    return xp.take_along_axis(order, middle, dim)


@op(
    vjp=dict(input=lambda g, out, input: g * _evenly(input, out)),
    samples=lambda t: [
        (t(3, 5), False),
        (
            t(
                4,
            ),
            True,
        ),
    ],
    method=False,
)
def median_all(xp, input, ignore_nan):
    """The lower median of all elements; equal ones share the gradient."""
    flat = input.reshape(-1)
    if not flat.size:
        if input.dtype.kind in "biu":
            return xp.asarray(np.iinfo(input.dtype).min, input.dtype)
        return xp.asarray(np.nan, input.dtype)
    return flat[median_index.op.forward(xp, flat, 0, ignore_nan)].reshape(())


def _evenly(input: Any, out: Any) -> Any:
    hit = cast(eq(input, out) | (isnan(input) & isnan(out)), "like", input)
    return hit / sum(hit)


def _median(input: Any, dim: int | None, keepdim: bool, ignore_nan: bool, name: str) -> Any:
    if dim is None:
        return median_all(input, ignore_nan)
    dim = _needs_elements(input, dim, name)
    return _chosen(input, median_index(input, dim, ignore_nan), dim, keepdim)


@method()
def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median (the lower of two); with `dim`, values and indices. NaN where there is a NaN."""
    return _median(input, dim, keepdim, False, "median")


@method()
def nanmedian(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of what is not NaN; with `dim`, values and indices."""
    return _median(input, dim, keepdim, True, "nanmedian")


# -- quantiles --------------------------------------------------------------------------------------------------
def _quantile(input: Any, q: Any, dim: int | None, keepdim: bool, interpolation: str, ignore_nan: bool) -> Any:
    from .create import as_tensor

    raw = getattr(input, "array", input)
    if raw.dtype not in (np.float32, np.float64):
        raise RuntimeError(f"quantile() input tensor must be either float or double dtype, not {raw.dtype}")
    if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise RuntimeError(
            f"quantile() interpolation must be linear, lower, higher, midpoint or nearest, not {interpolation!r}"
        )
    if not hasattr(q, "dtype"):
        q = as_tensor(q, dtype=input.dtype, device=input.device)
    levels = getattr(q, "array", q)
    if levels.ndim > 1 or levels.dtype != raw.dtype:
        raise RuntimeError("quantile() q must be a number or a 1-d tensor of the same dtype as the input")
    if levels.size and not bool(((levels >= 0) & (levels <= 1)).all()):
        raise RuntimeError("quantile() q values must be in the range [0, 1]")
    if raw.size == 0:
        raise RuntimeError("quantile() input tensor must be non-empty")
    whole = (1,) * input.ndim
    if dim is None:
        input, axis = reshape(input, (-1,)), 0
    else:
        axis = normalize_dim(dim, input.ndim)
    rows = movedim(reshape(input, (1,)) if input.ndim == 0 else input, axis, -1)
    out = _at_ranks(sort(rows, -1).values, reshape(q, (-1,)), interpolation, ignore_nan)  # (…, levels)
    out = movedim(out, -1, 0)
    if keepdim:
        out = reshape(out, (out.shape[0], *whole)) if dim is None else unsqueeze(out, axis + 1) if whole else out
    return reshape(out, tuple(out.shape[1:])) if levels.ndim == 0 else out


def _at_ranks(ordered: Any, q: Any, interpolation: str, ignore_nan: bool) -> Any:
    """Values of sorted rows at the ranks of the levels `q`, between neighbours as `interpolation` says."""
    nan = isnan(ordered)
    last = ordered.shape[-1] - 1
    if ignore_nan:
        count = cast(sum(logical_not(nan), -1, True), "like", getattr(ordered, "array", ordered))
        ranks = q * where(count > 0, count - 1, 0)
    else:
        ranks = where(any(nan, -1, True), last, expand(q * last, (*ordered.shape[:-1], q.shape[0])))
    if interpolation in ("lower", "higher", "nearest"):
        ranks = {"lower": floor, "higher": ceil, "nearest": round}[interpolation](ranks)
    below = floor(ranks)
    values = gather(ordered, -1, cast(below, np.int64))
    if interpolation not in ("linear", "midpoint"):
        return values
    above = gather(ordered, -1, cast(ceil(ranks), np.int64))
    return lerp(values, above, ranks - below if interpolation == "linear" else 0.5)


@method()
def quantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """The quantiles `q` (a number or 1-d tensor in [0, 1]) along `dim` (of all when None); q's dimension comes first.

    interpolation: linear, lower, higher, midpoint or nearest.

    >>> import flambeau
    >>> flambeau.tensor([1.0, 2.0, 3.0, 5.0]).quantile(0.5)
    tensor(2.5)
    """
    return _quantile(input, q, dim, keepdim, interpolation, False)


@method()
def nanquantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """The quantiles of what is not NaN."""
    return _quantile(input, q, dim, keepdim, interpolation, True)


from .sort_distinct import *  # noqa: E402, F403 - the parts of this family
from .sort_histogram import *  # noqa: E402, F403
