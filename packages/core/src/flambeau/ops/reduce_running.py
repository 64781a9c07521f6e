"""Products and running results along a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._half import widened
from ._op import method, normalize_dim, op
from .elementwise import exp, where
from .logic import conj, isfinite
from .reduce import ValuesIndices, _axis, _converted, _spread, all
from .shape import cat, flip, narrow, reshape

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "logcumsumexp", "prod", "reverse_scan", "running_index"]


def _wide(dtype: Any, given: Any) -> Any:
    """Booleans and integers are multiplied and added in int64 unless a dtype is given."""
    return np.int64 if given is None and dtype.kind in "biu" else dtype


@op(
    vjp=dict(input=lambda g, input, input_shape, dim, keepdim: _prod_vjp(g, input, input_shape, dim, keepdim)),
    samples=lambda t: [(t(3, 4, low=0.5, high=1.5),), (t(3, 4, low=0.5, high=1.5), 1), (t(2, 3), 0, True)],
    ref=lambda x, dim=None, keepdim=False: np.multiply.reduce(
        x, axis=dim if dim is not None else tuple(range(x.ndim)), keepdims=keepdim
    ),
)
def prod(xp, input, dim=None, keepdim=False, dtype=None):
    """The product over `dim` (all when None)."""
    input = _converted(input, dtype)
    return xp.asarray(xp.prod(input, _axis(input, dim), dtype=_wide(input.dtype, dtype), keepdims=keepdim))


def _prod_vjp(g: Any, input: Any, shape: tuple, dim: Any, keepdim: bool) -> Any:
    """The product of all others, from exclusive running products at both ends: right at zeros too."""
    if dim is None or not shape:
        flat = reshape(input, (-1,))
        return reshape(reshape(g, ()) * conj(_others(flat, 0)), shape)
    return _spread(g, shape, dim, keepdim) * conj(_others(input, normalize_dim(dim, len(shape))))


def _others(x: Any, dim: int) -> Any:
    n = x.shape[dim]
    if n < 2:
        return x * 0 + 1
    ones = narrow(x, dim, 0, 1) * 0 + 1
    left = cat([ones, cumprod(narrow(x, dim, 0, n - 1), dim)], dim)
    right = flip(cat([ones, cumprod(flip(narrow(x, dim, 1, n - 1), (dim,)), dim)], dim), (dim,))
    return left * right


@op(
    vjp=dict(input=lambda g, dim: flip(cumsum(flip(g, (dim,)), dim), (dim,))),
    samples=lambda t: [(t(3, 4), 0), (t(3, 4), -1)],
    ref=lambda x, dim: np.add.accumulate(x, dim),
)
def cumsum(xp, input, dim, dtype=None):
    """Running sums along `dim`."""
    input, dim = _converted(input, dtype), normalize_dim(dim, input.ndim)
    kind = _wide(input.dtype, dtype)
    if not input.ndim:
        return input.astype(kind)
    wide = widened(input)
    return xp.cumsum(input, dim, dtype=kind) if wide is input else xp.cumsum(wide, dim).astype(kind)


@op(
    vjp=dict(input=lambda g, out, input, dim: _cumprod_vjp(g, out, input, dim)),
    samples=lambda t: [(t(3, 4, low=0.5, high=1.5), 0), (t(3, 4, low=0.5, high=1.5), -1)],
    ref=lambda x, dim: np.multiply.accumulate(x, dim),
)
def cumprod(xp, input, dim, dtype=None):
    """Running products along `dim`."""
    input, dim = _converted(input, dtype), normalize_dim(dim, input.ndim)
    kind = _wide(input.dtype, dtype)
    if not input.ndim:
        return input.astype(kind)
    wide = widened(input)
    return xp.cumprod(input, dim, dtype=kind) if wide is input else xp.cumprod(wide, dim).astype(kind)


def _cumprod_vjp(g: Any, out: Any, input: Any, dim: int) -> Any:
    if not input.ndim or 0 in input.shape:
        return g
    if bool(all(input != 0)):
        return flip(cumsum(flip(g * conj(out), (dim,)), dim), (dim,)) / conj(input)
    # What comes before an element times a scan over what comes after it: no division, so right at zeros.
    n = input.shape[dim]
    if n == 1:
        return g
    before = cat([narrow(input, dim, 0, 1) * 0 + 1, narrow(out, dim, 0, n - 1)], dim)
    return conj(before) * reverse_scan(g, conj(narrow(input, dim, 1, n - 1)), dim)


@op(
    vjp=dict(
        s=lambda g, factor, dim: _forward_scan(g, factor, dim),
        factor=lambda g, out, factor, dim: _factor_vjp(g, out, factor, dim),
    ),
    samples=lambda t: [(t(3, 4), t(2, 4), 0), (t(2, 5), t(2, 4), -1)],
    method=False,
)
def reverse_scan(xp, s, factor, dim):
    """out[i] = s[i] + factor[i] out[i + 1] along `dim`, by doubling: log2(n) steps on whole arrays."""
    s, c = xp.moveaxis(s, dim, 0), xp.moveaxis(factor, dim, 0)
    n, k = s.shape[0], 1
    while k < n:
        s = xp.concatenate([s[:-k] + c * s[k:], s[-k:]])
        c = c[:-k] * c[k:]
        k *= 2
    return xp.ascontiguousarray(xp.moveaxis(s, 0, dim))


def _forward_scan(g: Any, factor: Any, dim: int) -> Any:
    """r[i] = g[i] + conj(factor[i - 1]) r[i - 1]: the scan the other way round."""
    return flip(reverse_scan(flip(g, (dim,)), flip(conj(factor), (dim,)), dim), (dim,))


def _factor_vjp(g: Any, out: Any, factor: Any, dim: int) -> Any:
    n = factor.shape[dim]
    return narrow(_forward_scan(g, factor, dim), dim, 0, n) * conj(narrow(out, dim, 1, n))


# -- running extremes -------------------------------------------------------------------------------------------
@op(samples=lambda t: [(t(3, 4), 0, True), (t(3, 4), -1, False)], method=False)
def running_index(xp, input, dim, largest):
    """The index of the largest (smallest) element so far along `dim`: the last of equal ones; NaN stays."""
    dim = normalize_dim(dim, input.ndim)
    if input.ndim == 0:
        return xp.zeros((), np.int64)
    values = xp.moveaxis(input, dim, 0)
    index = xp.zeros(values.shape, np.int64) + xp.arange(values.shape[0]).reshape((-1,) + (1,) * (values.ndim - 1))
    k = 1
    while k < values.shape[0]:
        before, after = values[:-k], values[k:]
        later = after >= before if largest else after <= before
        if values.dtype.kind not in "biu":
            later = xp.isnan(after) | (later & ~xp.isnan(before))
        values = xp.concatenate([values[:k], xp.where(later, after, before)])
        index = xp.concatenate([index[:k], xp.where(later, index[k:], index[:-k])])
        k *= 2
    return xp.ascontiguousarray(xp.moveaxis(index, 0, dim))


def _running(input: Any, dim: int, largest: bool) -> Any:
    from .index import gather

    index = running_index(input, dim, largest)
    return ValuesIndices(gather(input, dim, index), index)


@method()
def cummax(input: Any, dim: int) -> Any:
    """The largest elements so far along `dim` and their indices."""
    return _running(input, dim, True)


@method()
def cummin(input: Any, dim: int) -> Any:
    """The smallest elements so far along `dim` and their indices."""
    return _running(input, dim, False)


# -- running log-sum-exp ----------------------------------------------------------------------------------------
def _logaddexp(xp: Any, a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)) of complex numbers."""
    first = a.real >= b.real
    top, low = xp.where(first, a, b), xp.where(first, b, a)  # the imaginary part of the larger one is not wrapped
    gap = xp.where(xp.isfinite(low.real), xp.exp(low - top), 0)
    return xp.log(1 + gap) + top


@op(
    vjp=dict(input=lambda g, out, input, dim: _logcumsumexp_vjp(g, out, input, dim)),
    samples=lambda t: [(t(3, 4), 0), (t(3, 5), -1)],
    ref=lambda x, dim: np.logaddexp.accumulate(x, dim),
)
def logcumsumexp(xp, input, dim):
    """Running log-sum-exp along `dim`, without overflow."""
    dim = normalize_dim(dim, input.ndim)
    if input.ndim == 0:
        return input.copy()
    half = input.dtype.itemsize <= 2
    out, k = xp.moveaxis(input.astype(np.float32) if half else input, dim, 0), 1
    if input.dtype.kind == "c":  # one after the other: only so do the multiples of 2 pi i agree with PyTorch's
        out = out.copy()
        for i in range(1, len(out)):
            out[i] = _logaddexp(xp, out[i], out[i - 1])
        return xp.ascontiguousarray(xp.moveaxis(out, 0, dim))
    with np.errstate(divide="ignore", invalid="ignore"):
        while k < out.shape[0]:
            out = xp.concatenate([out[:k], xp.logaddexp(out[k:], out[:-k])])
            k *= 2
    return xp.ascontiguousarray(xp.moveaxis(out, 0, dim)).astype(input.dtype, copy=False)


def _logcumsumexp_vjp(g: Any, out: Any, input: Any, dim: int) -> Any:
    """exp(x[i] - out[i]) times the sum of g[k] exp(out[i] - out[k]) over k >= i, where no factor exceeds 1."""
    if not input.ndim or 0 in input.shape:
        return g
    n = out.shape[dim]
    own = _ratio(input, out)
    if n == 1:
        return g * conj(own)
    step = _ratio(narrow(out, dim, 0, n - 1), narrow(out, dim, 1, n - 1))
    return conj(own) * reverse_scan(g, conj(step), dim)


def _ratio(a: Any, b: Any) -> Any:
    """exp(a - b), 0 where a is -inf."""
    real = isfinite(a)
    return where(real, exp(where(real, a, 0) - where(real, b, 0)), 0)
