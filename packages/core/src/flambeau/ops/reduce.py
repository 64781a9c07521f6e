"""Sums, means, extremes and what else makes one number of many."""

from __future__ import annotations

import builtins
import math
from collections import namedtuple
from typing import Any

import numpy as np

from .. import dtypes
from ._half import in_float32
from ._op import method, normalize_dim, op
from .elementwise import exp, true_divide, where
from .logic import cast, conj, eq, isnan, logical_not
from .shape import expand, reshape

ValuesIndices = namedtuple("ValuesIndices", ["values", "indices"])


def _spread(g: Any, shape: tuple, dim: Any, keepdim: bool) -> Any:
    """The cotangent of a reduction, expanded to the input's shape again."""
    if not keepdim and g.ndim:
        g = reshape(g, _kept(shape, dim))
    return expand(g, shape)


def _kept(shape: tuple, dim: Any) -> tuple:
    dims = range(len(shape)) if dim is None or dim == () else normalize_dim(dim, len(shape))
    dims = (dims,) if isinstance(dims, int) else dims
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


def _axis(input: Any, dim: Any) -> Any:
    if dim is None or dim == () or dim == []:
        return None
    dim = normalize_dim(dim, input.ndim)  # before the 0-d case: out of range is an error there too
    return dim if input.ndim else None


def _converted(input: Any, dtype: Any) -> Any:
    return input if dtype is None else input.astype(dtypes.as_dtype(dtype).numpy)


def _wide(dtype: Any) -> Any:
    """The dtype to add up in: half precision in float32, integers in int64."""
    if dtype.kind in "biu":
        return np.int64
    return np.float32 if dtype.itemsize <= 2 else None


def _needs_float(input: Any, name: str) -> None:
    if input.dtype.kind in "biu":
        raise RuntimeError(f"{name} needs a floating-point or complex dtype, not {input.dtype}; pass dtype=float32")


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
    input = _converted(input, dtype)
    wide = _wide(input.dtype)
    out = input.sum(_axis(input, dim), dtype=wide, keepdims=keepdim)
    return out if wide is None or (wide is np.int64 and dtype is None) else out.astype(input.dtype)


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
    if lead < 0:  # PyTorch lets a value have more dimensions of size 1 than the place it is written to
        return input.reshape(shape)
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
    input = _converted(input, dtype)
    _needs_float(input, "mean")
    wide = _wide(input.dtype)
    if input.size == 0:
        return xp.asarray(xp.sum(input, _axis(input, dim), dtype=wide, keepdims=keepdim) * np.nan).astype(input.dtype)
    out = xp.mean(input, _axis(input, dim), dtype=wide, keepdims=keepdim)
    return out if wide is None else out.astype(input.dtype)


def _count(shape: tuple, dim: Any) -> int:
    kept = _kept(shape, dim)
    return builtins.max(math.prod(n for n, k in zip(shape, kept, strict=True) if k == 1), 1)


def _freedom(shape: tuple, dim: Any, correction: Any) -> Any:
    """Degrees of freedom of a variance; hardly above 0 where there are none."""
    count = _count(shape, dim)
    return count - correction if count > correction else 1e-300


def _spread_of(g: Any, input: Any, shape: tuple, dim: Any, correction: Any, keepdim: bool) -> Any:
    """The cotangent of a variance carried back to its input."""
    deviation = input - mean(input, dim, True)
    return _spread(g, shape, dim, keepdim) * deviation * (2.0 / _freedom(shape, dim, correction))


def _variance(xp: Any, input: Any, dim: Any, correction: Any, keepdim: bool) -> Any:
    _needs_float(input, "var")
    axis, wide = _axis(input, dim), _wide(input.dtype)
    values = input if wide is None else input.astype(wide)
    if input.size == 0:
        return xp.asarray(xp.sum(values.real, axis, keepdims=keepdim) * np.nan).astype(input.real.dtype)
    total = xp.sum(xp.square(xp.abs(values - xp.mean(values, axis, keepdims=True))), axis, keepdims=keepdim)
    with np.errstate(divide="ignore", invalid="ignore"):  # no degrees of freedom: NaN or infinity, as in PyTorch
        out = total / total.dtype.type(builtins.max(_count(input.shape, dim) - correction, 0))
    return xp.asarray(out).astype(input.real.dtype, copy=False)


@op(
    vjp=dict(
        input=lambda g, input, input_shape, dim, correction, keepdim: _spread_of(
            g, input, input_shape, dim, correction, keepdim
        )
    ),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(3, 4), 0, 0, True)],
    ref=lambda x, dim=None, correction=1, keepdim=False: np.square(x - x.mean(axis=dim, keepdims=True)).sum(
        axis=dim, keepdims=keepdim
    ) / ((x.size if dim is None else x.shape[dim]) - correction),
    method=False,
)  # fmt: skip
def variance(xp, input, dim=None, correction=1, keepdim=False):
    """The variance over `dim`, divided by n - correction."""
    return _variance(xp, input, dim, correction, keepdim)


@op(
    vjp=dict(
        input=lambda g, out, input, input_shape, dim, correction, keepdim: _spread_of(
            where(eq(out, 0), 0, g / (2 * where(eq(out, 0), 1, out))), input, input_shape, dim, correction, keepdim
        )
    ),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(3, 4), 0, 0, True)],
    ref=lambda x, dim=None, correction=1, keepdim=False: np.std(x, axis=dim, ddof=correction, keepdims=keepdim),
    method=False,
)
def deviation(xp, input, dim=None, correction=1, keepdim=False):
    """The square root of `variance`; the gradient is 0 where it is 0."""
    return xp.sqrt(_variance(xp, input, dim, correction, keepdim))


def _correction(dim: Any, unbiased: Any, correction: Any) -> tuple:
    """(dim, correction) from PyTorch's spellings: `unbiased` (which may stand in the place of dim) and `correction`."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None:
        return dim, int(unbiased)
    return dim, 1 if correction is None else correction


@method()
def var(input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """The variance over `dim`, divided by n - correction (1 when not given)."""
    dim, correction = _correction(dim, unbiased, correction)
    return variance(input, dim, correction, keepdim)


@method()
def std(input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """The standard deviation over `dim`: the square root of `var`."""
    dim, correction = _correction(dim, unbiased, correction)
    return deviation(input, dim, correction, keepdim)


def var_mean(
    input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> tuple:
    """Variance and mean."""
    dim, correction = _correction(dim, unbiased, correction)
    return variance(input, dim, correction, keepdim), mean(input, dim, keepdim)


def std_mean(
    input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> tuple:
    """Standard deviation and mean."""
    dim, correction = _correction(dim, unbiased, correction)
    return deviation(input, dim, correction, keepdim), mean(input, dim, keepdim)


@op(
    vjp=dict(
        input=lambda g, out, input, input_shape, dim, keepdim: (
            _spread(g, input_shape, dim, keepdim) * conj(exp(input - _spread(out, input_shape, dim, keepdim)))
        )
    ),
    samples=lambda t: [(t(3, 4), 1), (t(3, 4), (0, 1)), (t(3, 4), 0, True)],
    ref=lambda x, dim, keepdim=False: np.log(np.exp(x).sum(axis=dim, keepdims=keepdim)),
    promote="float",
)
@in_float32
def logsumexp(xp, input, dim, keepdim=False):
    """log(sum(exp(input))) over `dim` without overflow."""
    axis = _axis(input, dim)
    top = xp.max(input.real, axis, keepdims=True) if input.size else xp.zeros((1,) * input.ndim, input.real.dtype)
    top = xp.where(xp.isfinite(top), top, 0).astype(input.real.dtype)
    with np.errstate(divide="ignore"):  # log(0) is -inf, as it should be
        out = xp.log(xp.sum(xp.exp(input - top), axis, keepdims=True)) + top
    return out if keepdim or not input.ndim else xp.squeeze(out, axis)


def _truth(xp: Any, reduced: Any, input: Any) -> Any:
    """bool, but uint8 for uint8 as in PyTorch."""
    return xp.asarray(reduced).astype(np.uint8 if input.dtype == np.uint8 else bool, copy=False)


@op(samples=lambda t: [(t(3, 4, dtype="bool"),), (t(3, 4, dtype="bool"), 1), (t(2, 3, 2, dtype="bool"), (0, 2))])
def any(xp, input, dim=None, keepdim=False):
    """Whether any element is non-zero."""
    return _truth(xp, xp.any(input, _axis(input, dim), keepdims=keepdim), input)


@op(samples=lambda t: [(t(3, 4, dtype="bool"),), (t(3, 4, dtype="bool"), 1), (t(2, 3, 2, dtype="bool"), (0, 2))])
def all(xp, input, dim=None, keepdim=False):
    """Whether all elements are non-zero."""
    return _truth(xp, xp.all(input, _axis(input, dim), keepdims=keepdim), input)


@op(samples=lambda t: [(t(3, 4, dtype="int64"),), (t(3, 4, dtype="int64"), 1)])
def count_nonzero(xp, input, dim=None):
    """The number of non-zero elements."""
    return xp.asarray(xp.count_nonzero(input, _axis(input, dim)))


@method()
def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The p-norm over `dim` (all elements when None), also over two dims; "fro" is 2, "nuc" the nuclear norm.

    Where the norm has a corner the gradient is PyTorch's subgradient: 0 at the origin.
    """
    from .linalg_norm import _norm  # not at the top: linear algebra rests on this file

    return _norm(input, p, dim, keepdim, dtype)


def _valid(input: Any) -> Any:
    return logical_not(isnan(input))


@method()
def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The sum with NaN counted as 0."""
    return sum(where(_valid(input), input, 0), dim, keepdim, dtype)


@method()
def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The mean of what is not NaN (NaN where there is nothing else)."""
    _needs_float(getattr(input if dtype is None else cast(input, dtype), "array", input), "nanmean")
    return nansum(input, dim, keepdim, dtype=dtype) / sum(_valid(input), dim, keepdim)


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    """input / max(norm, eps) along `dim`."""
    from .elementwise import clamp

    return true_divide(input, expand(clamp(norm(input, p, dim, True), eps), tuple(input.shape)))


from .reduce_extreme import *  # noqa: E402, F403 - the parts of this family
from .reduce_running import *  # noqa: E402, F403
