"""Sums, means, extremes and what else makes one number of many."""

from __future__ import annotations

import builtins
import math
from collections import namedtuple
from typing import Any

import numpy as np

from ._op import normalize_dim, op
from .elementwise import abs, exp, log, mul, pow, sqrt, true_divide, where
from .logic import cast, conj, eq
from .shape import cat, expand, flip, reshape

ValuesIndices = namedtuple("ValuesIndices", ["values", "indices"])


def _spread(g: Any, shape: tuple, dim: Any, keepdim: bool) -> Any:
    """The cotangent of a reduction, expanded to the input's shape again."""
    if not keepdim:
        g = reshape(g, _kept(shape, dim))
    return expand(g, shape)


def _kept(shape: tuple, dim: Any) -> tuple:
    dims = range(len(shape)) if dim is None or dim == () else normalize_dim(dim, len(shape))
    dims = (dims,) if isinstance(dims, int) else dims
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


def _axis(input: Any, dim: Any) -> Any:
    if dim is None or dim == () or dim == []:
        return None
    return normalize_dim(dim, input.ndim) if input.ndim else None


def _wide(dtype: Any) -> Any:
    """The dtype to add up in: half precision in float32, integers in int64."""
    if dtype.kind in "biu":
        return np.int64
    return np.float32 if dtype.itemsize <= 2 else None


@op(
    vjp=dict(input=lambda g, input_shape, dim, keepdim: _spread(g, input_shape, dim, keepdim)),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(2, 3, 4), (0, 2), True), (t(2, 3), -1, True)],
    ref=lambda x, dim=None, keepdim=False: np.add.reduce(
        x, axis=tuple(dim) if isinstance(dim, tuple) else dim if dim is not None else tuple(range(x.ndim)),
        keepdims=keepdim,
    ),
)  # fmt: skip
def sum(xp, input, dim=None, keepdim=False, dtype=None):
    """The sum over `dim` (all when None). Booleans and integers add up in int64."""
    if dtype is not None:
        input = input.astype(getattr(dtype, "numpy", dtype))
    wide = _wide(input.dtype)
    out = xp.sum(input, _axis(input, dim), dtype=wide, keepdims=keepdim)
    return out if wide is None or wide is np.int64 else out.astype(input.dtype)


@op(
    vjp=dict(input=lambda g, input_shape: expand(g, input_shape)),
    samples=lambda t: [(t(3, 4), (4,)), (t(3, 4), (3, 1)), (t(2, 3, 4), (1, 4))],
    ref=lambda x, shape: x.sum(tuple(range(x.ndim - len(shape)))).sum(
        tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True
    ) if 1 in shape else x.sum(tuple(range(x.ndim - len(shape)))),
    method=False,
)  # fmt: skip
def sum_to(xp, input, shape):
    """The sum over what broadcasting `shape` to the input's shape repeats."""
    lead = input.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and input.shape[i + lead] != 1)
    wide = _wide(input.dtype)
    out = xp.sum(input, axes, dtype=wide, keepdims=True) if axes else input
    return out.reshape(shape) if wide is None else out.reshape(shape).astype(input.dtype)


@op(
    vjp=dict(
        input=lambda g, input_shape, dim, keepdim: _spread(g, input_shape, dim, keepdim) / _count(input_shape, dim)
    ),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(2, 3, 4), (0, 2), True)],
    ref=lambda x, dim=None, keepdim=False: np.average(x, axis=dim) if not keepdim else np.average(
        x, axis=dim, keepdims=True
    ),
)  # fmt: skip
def mean(xp, input, dim=None, keepdim=False, dtype=None):
    """The mean over `dim` (all when None). Errors: RuntimeError for integers without a float `dtype`."""
    if dtype is not None:
        input = input.astype(getattr(dtype, "numpy", dtype))
    if input.dtype.kind in "biu":
        raise RuntimeError(f"mean needs a floating-point or complex dtype, not {input.dtype}; pass dtype=float32")
    wide = _wide(input.dtype)
    out = xp.mean(input, _axis(input, dim), dtype=wide, keepdims=keepdim)
    return out if wide is None else out.astype(input.dtype)


def _count(shape: tuple, dim: Any) -> int:
    kept = _kept(shape, dim)
    return builtins.max(math.prod(n for n, k in zip(shape, kept, strict=True) if k == 1), 1)


def _freedom(shape: tuple, dim: Any, correction: Any) -> Any:
    """Degrees of freedom of a variance; hardly above 0 where there are none."""
    count = _count(shape, dim)
    return count - correction if count > correction else 1e-300


@op(
    vjp=dict(
        input=lambda g, input, input_shape, dim, correction, keepdim: _spread(g, input_shape, dim, keepdim)
        * (input - mean(input, dim, True))
        * (2.0 / _freedom(input_shape, dim, correction))
    ),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(3, 4), 0, 0, True)],
    ref=lambda x, dim=None, correction=1, keepdim=False: np.square(x - x.mean(axis=dim, keepdims=True)).sum(
        axis=dim, keepdims=keepdim
    ) / ((x.size if dim is None else x.shape[dim]) - correction),
    method=False,
)  # fmt: skip
def variance(xp, input, dim=None, correction=1, keepdim=False):
    """The variance over `dim`, divided by n - correction."""
    n = _count(input.shape, dim)
    axis = _axis(input, dim)
    total = xp.sum(xp.square(xp.abs(input - xp.mean(input, axis, keepdims=True))), axis, keepdims=keepdim)
    return total / input.dtype.type(n - correction) if n > correction else total * np.nan


def _correction(dim: Any, unbiased: Any, correction: Any) -> tuple:
    """(dim, correction) from PyTorch's spellings: `unbiased` (which may stand in the place of dim) and `correction`."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None:
        return dim, int(unbiased)
    return dim, 1 if correction is None else correction


def var(input: Any, dim: Any = None, unbiased: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """The variance over `dim`, divided by n - correction (1 when not given)."""
    dim, correction = _correction(dim, unbiased, correction)
    return variance(input, dim, correction, keepdim)


def std(input: Any, dim: Any = None, unbiased: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """The standard deviation over `dim`: the square root of `var`."""
    dim, correction = _correction(dim, unbiased, correction)
    return sqrt(variance(input, dim, correction, keepdim))


def var_mean(
    input: Any, dim: Any = None, unbiased: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple:
    """Variance and mean."""
    dim, correction = _correction(dim, unbiased, correction)
    return variance(input, dim, correction, keepdim), mean(input, dim, keepdim)


def std_mean(
    input: Any, dim: Any = None, unbiased: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple:
    """Standard deviation and mean."""
    dim, correction = _correction(dim, unbiased, correction)
    return sqrt(variance(input, dim, correction, keepdim)), mean(input, dim, keepdim)


@op(
    vjp=dict(input=lambda g, out, input, input_shape, dim, keepdim: _to_ties(g, out, input, input_shape, dim, keepdim)),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(2, 3, 4), (0, 2), True)],
    ref=lambda x, dim=None, keepdim=False: np.maximum.reduce(
        x, axis=dim if dim is not None else tuple(range(x.ndim)), keepdims=keepdim
    ),
)
def amax(xp, input, dim=None, keepdim=False):
    """The largest element over `dim`; equal ones share the gradient."""
    return xp.max(input, _axis(input, dim), keepdims=keepdim)


@op(
    vjp=dict(input=lambda g, out, input, input_shape, dim, keepdim: _to_ties(g, out, input, input_shape, dim, keepdim)),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(2, 3, 4), (0, 2), True)],
    ref=lambda x, dim=None, keepdim=False: np.minimum.reduce(
        x, axis=dim if dim is not None else tuple(range(x.ndim)), keepdims=keepdim
    ),
)
def amin(xp, input, dim=None, keepdim=False):
    """The smallest element over `dim`; equal ones share the gradient."""
    return xp.min(input, _axis(input, dim), keepdims=keepdim)


def _to_ties(g: Any, out: Any, input: Any, shape: tuple, dim: Any, keepdim: bool) -> Any:
    hit = cast(eq(input, _spread(out, shape, dim, keepdim)), "like", g)
    return _spread(g, shape, dim, keepdim) * (hit / sum(hit, None if dim is None else dim, True))


@op(samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(3, 4), 0, True)])
def argmax(xp, input, dim=None, keepdim=False):
    """The index of the first largest element along `dim` (of the flattened tensor when None)."""
    if input.size == 0:
        raise IndexError("argmax: expected the reduction dimension to have elements")
    return xp.asarray(xp.argmax(input, None if dim is None else normalize_dim(dim, input.ndim), keepdims=keepdim))


@op(samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(3, 4), 0, True)])
def argmin(xp, input, dim=None, keepdim=False):
    """The index of the first smallest element along `dim` (of the flattened tensor when None)."""
    if input.size == 0:
        raise IndexError("argmin: expected the reduction dimension to have elements")
    return xp.asarray(xp.argmin(input, None if dim is None else normalize_dim(dim, input.ndim), keepdims=keepdim))


def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest element; with `dim` the values and their indices; with a second tensor, elementwise."""
    return _extreme(input, dim, keepdim, other, amax, argmax, "maximum")


def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest element; with `dim` the values and their indices; with a second tensor, elementwise."""
    return _extreme(input, dim, keepdim, other, amin, argmin, "minimum")


def _extreme(input, dim, keepdim, other, whole, arg, pairwise):
    from . import elementwise
    from .index import gather

    if other is not None or hasattr(dim, "dtype"):
        return getattr(elementwise, pairwise)(input, dim if other is None else other)
    if dim is None:
        return whole(input)
    index = arg(input, dim, True)
    values = gather(input, dim, index) if input.ndim else input
    if not keepdim:
        shape = tuple(n for i, n in enumerate(index.shape) if i != normalize_dim(dim, input.ndim))
        values, index = reshape(values, shape), reshape(index, shape)
    return ValuesIndices(values, index)


@op(
    vjp=dict(input=lambda g, out, input, input_shape, dim, keepdim: _prod_vjp(g, input, input_shape, dim, keepdim)),
    samples=lambda t: [(t(3, 4, low=0.5, high=1.5),), (t(3, 4, low=0.5, high=1.5), 1), (t(2, 3), 0, True)],
    ref=lambda x, dim=None, keepdim=False: np.multiply.reduce(
        x, axis=dim if dim is not None else tuple(range(x.ndim)), keepdims=keepdim
    ),
)
def prod(xp, input, dim=None, keepdim=False, dtype=None):
    """The product over `dim` (all when None)."""
    if dtype is not None:
        input = input.astype(getattr(dtype, "numpy", dtype))
    return xp.prod(input, _axis(input, dim), dtype=np.int64 if input.dtype.kind in "biu" else None, keepdims=keepdim)


def _prod_vjp(g: Any, input: Any, shape: tuple, dim: Any, keepdim: bool) -> Any:
    """The product of all others, from exclusive running products at both ends: right at zeros too."""
    if dim is None:
        flat = reshape(input, (-1,))
        return reshape(reshape(g, ()) * conj(_others(flat, 0)), shape)
    return _spread(g, shape, dim, keepdim) * conj(_others(input, normalize_dim(dim, len(shape))))


def _others(x: Any, dim: int) -> Any:
    n = x.shape[dim]
    if n < 2:
        return x * 0 + 1
    ones = _slice(x, dim, 0, 1) * 0 + 1
    left = cat([ones, cumprod(_slice(x, dim, 0, n - 1), dim)], dim)
    right = flip(cat([ones, cumprod(flip(_slice(x, dim, 1, n), (dim,)), dim)], dim), (dim,))
    return left * right


def _slice(x: Any, dim: int, start: int, stop: int) -> Any:
    return x[(slice(None),) * dim + (slice(start, stop),)]


@op(
    vjp=dict(input=lambda g, dim: flip(cumsum(flip(g, (dim,)), dim), (dim,))),
    samples=lambda t: [(t(3, 4), 0), (t(3, 4), -1)],
    ref=lambda x, dim: np.add.accumulate(x, dim),
)
def cumsum(xp, input, dim, dtype=None):
    """Running sums along `dim`."""
    if dtype is not None:
        input = input.astype(getattr(dtype, "numpy", dtype))
    if input.ndim == 0:
        return input.copy()
    wide = np.int64 if input.dtype.kind in "biu" else None
    return xp.cumsum(input, normalize_dim(dim, input.ndim), dtype=wide)


@op(
    vjp=dict(input=lambda g, out, input, dim: _cumprod_vjp(g, out, input, dim)),
    samples=lambda t: [(t(3, 4, low=0.5, high=1.5), 0), (t(3, 4, low=0.5, high=1.5), -1)],
    ref=lambda x, dim: np.multiply.accumulate(x, dim),
)
def cumprod(xp, input, dim, dtype=None):
    """Running products along `dim` (the gradient assumes that no element is 0)."""
    if dtype is not None:
        input = input.astype(getattr(dtype, "numpy", dtype))
    if input.ndim == 0:
        return input.copy()
    wide = np.int64 if input.dtype.kind in "biu" else None
    return xp.cumprod(input, normalize_dim(dim, input.ndim), dtype=wide)


def _cumprod_vjp(g: Any, out: Any, input: Any, dim: int) -> Any:
    return flip(cumsum(flip(g * conj(out), (dim,)), dim), (dim,)) / conj(input)


@op(
    vjp=dict(input=lambda g, out, input, input_shape, dim, keepdim: _spread(g, input_shape, dim, keepdim)
             * exp(input - _spread(out, input_shape, dim, keepdim))),
    samples=lambda t: [(t(3, 4), 1), (t(3, 4), (0, 1)), (t(3, 4), 0, True)],
    ref=lambda x, dim, keepdim=False: np.log(np.exp(x).sum(axis=dim, keepdims=keepdim)),
)  # fmt: skip
def logsumexp(xp, input, dim, keepdim=False):
    """log(sum(exp(input))) over `dim` without overflow."""
    axis = _axis(input, dim)
    top = xp.max(input, axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0).astype(input.dtype)
    out = xp.log(xp.sum(xp.exp(input - top), axis, keepdims=True)) + top
    return out if keepdim else out.reshape(xp.sum(top, axis).shape) if axis is not None else out.reshape(())


@op(samples=lambda t: [(t(3, 4, dtype="bool"),), (t(3, 4, dtype="bool"), 1)])
def any(xp, input, dim=None, keepdim=False):
    """Whether any element is non-zero."""
    return xp.asarray(xp.any(input, _axis(input, dim), keepdims=keepdim))


@op(samples=lambda t: [(t(3, 4, dtype="bool"),), (t(3, 4, dtype="bool"), 1)])
def all(xp, input, dim=None, keepdim=False):
    """Whether all elements are non-zero."""
    return xp.asarray(xp.all(input, _axis(input, dim), keepdims=keepdim))


@op(samples=lambda t: [(t(3, 4, dtype="int64"),), (t(3, 4, dtype="int64"), 1)])
def count_nonzero(xp, input, dim=None):
    """The number of non-zero elements."""
    return xp.asarray(xp.count_nonzero(input, _axis(input, dim)))


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The vector p-norm over `dim` (all elements when None); "fro" is 2.

    At the origin the gradient of the 2-norm is 0, as in PyTorch.
    """
    if dtype is not None:
        input = cast(input, dtype)
    p = 2.0 if p in ("fro", None) else float(p)
    if p == float("inf"):
        return amax(abs(input), dim, keepdim)
    if p == float("-inf"):
        return amin(abs(input), dim, keepdim)
    if p == 0:
        return sum(cast(input != 0, "like", input), dim, keepdim)
    if p == 1:
        return sum(abs(input), dim, keepdim)
    if p == 2:
        if getattr(input, "array", input).dtype.kind == "c":
            input = abs(input)
        total = sum(mul(input, input), dim, keepdim)
        zero = eq(total, 0)
        return where(zero, total, sqrt(where(zero, total + 1, total)))
    return pow(sum(pow(abs(input), p), dim, keepdim), 1.0 / p)


def nansum(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The sum with NaN counted as 0."""
    from .logic import isnan

    return sum(where(isnan(input), 0.0, input), dim, keepdim)


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    """input / max(norm, eps) along `dim`."""
    from .elementwise import clamp

    return true_divide(input, expand(clamp(norm(input, p, dim, True), eps), tuple(input.shape)))


def logcumsumexp(input: Any, dim: int) -> Any:
    """Running log-sum-exp along `dim`."""
    top = amax(input, dim, True)
    top = top.detach() if hasattr(top, "detach") else top
    return log(cumsum(exp(input - top), dim)) + top
