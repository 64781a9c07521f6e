"""Placing values along a dimension: scatter, index_add and their kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends
from ._op import method, normalize_dim, op
from .elementwise import where
from .index import _add_along, _at_least_1d, _check_index, _grid, gather, index_put
from .logic import cast, conj, eq
from .shape import expand, pad_constant, reshape

__all__ = [
    "index_add", "index_copy", "index_fill", "index_reduce", "put", "scatter", "scatter_add", "scatter_fold",
    "scatter_reduce", "scatter_src",
]  # fmt: skip


def _grown(g: Any, shape: tuple) -> Any:
    """The cotangent of the part of `src` that an index smaller than it used, zeros for the rest."""
    if tuple(g.shape) == tuple(shape) or len(shape) != g.ndim:
        return g
    return pad_constant(g, [(0, n - m) for n, m in zip(shape, g.shape, strict=True)])


def _targets(xp: Any, input: Any, dim: int, index: Any, src: Any, name: str) -> tuple:
    """A copy of the input, the places in it, and the part of `src` that goes there."""
    out = xp.array(input)  # not input.copy(), which makes a scalar of a NumPy scalar
    dim = normalize_dim(dim, input.ndim)
    target, index, src = _at_least_1d(out, index, src)
    if index.size and index.ndim != target.ndim:
        raise RuntimeError(f"{name}: index has {index.ndim} dimensions but input has {input.ndim}")
    if index.size and index.dtype.kind not in "iu":
        raise RuntimeError(f"{name} expects an integer index, not {index.dtype}")
    _check_index(index, target.shape[dim], name)
    if hasattr(src, "shape"):
        if src.ndim != index.ndim and index.size:
            raise RuntimeError(f"{name}: index has {index.ndim} dimensions but src has {src.ndim}")
        if index.size and any(n > m for n, m in zip(index.shape, src.shape, strict=True)):
            raise RuntimeError(f"{name}: index {list(index.shape)} must not be larger than src {list(src.shape)}")
        src = src[tuple(slice(0, n) for n in index.shape)] if index.size else src
    return out, target, _grid(xp, index, dim) if index.size else None, src


@op(
    vjp=dict(
        input=lambda g, dim, index: scatter_src(g, dim, index, 0),
        src=lambda g, dim, index, src_shape: _grown(gather(g, dim, index), src_shape),
    ),
    samples=lambda t: [(t(3, 4), 1, t(3, 1, low=0, high=4, dtype="int64"), t(3, 2))],
    method=False,
)
def scatter_src(xp, input, dim, index, src):
    """A copy with `src` (a tensor or a number) written at `index` along `dim`."""
    out, target, places, src = _targets(xp, input, dim, index, src, "scatter")
    if places is not None:
        target[places] = src
    return out


@op(
    vjp=dict(
        input=lambda g: g, src=lambda g, dim, index, src_shape: _grown(gather(g, dim, index), src_shape)
    ),
    samples=lambda t: [(t(3, 4), 1, t(3, 2, low=0, high=4, dtype="int64"), t(3, 3))],
)  # fmt: skip
def scatter_add(xp, input, dim, index, src):
    """A copy with `src` added at `index` along `dim`."""
    out, target, places, src = _targets(xp, input, dim, index, src, "scatter_add")
    if places is None:
        return out
    dim = normalize_dim(dim, target.ndim)
    if getattr(src, "dtype", None) != target.dtype:
        xp.add.at(target, places, src)
        return out
    return _add_along(xp, target, dim, places[dim], src).reshape(out.shape)


@method()
def scatter(input: Any, dim: int, index: Any, src: Any = None, *, reduce: str | None = None, value: Any = None) -> Any:
    """A copy with `src` (a tensor or a number, `value`) written at `index` along `dim`.

    reduce "add" adds and "multiply" multiplies to what is there.
    """
    if (src is None) == (value is None):
        raise TypeError("scatter takes src (a tensor) or value (a number)")
    given = value if src is None else src
    if reduce is None:
        return scatter_src(input, dim, index, given)
    if reduce not in ("add", "multiply"):
        raise RuntimeError(f"scatter: reduce must be 'add' or 'multiply', not {reduce!r}")
    if not hasattr(given, "shape"):
        given = cast(index * 0, "like", getattr(input, "array", input)) + given
    if reduce == "add":
        return scatter_add(input, dim, index, given)
    return scatter_fold(input, dim, index, given, "prod")


@op(
    vjp={
        ("input", "src"): lambda g, out, input, dim, index, src, reduce, need: _fold_vjp(
            g, out, input, dim, index, src, reduce
        )
    },
    samples=lambda t: [
        (t(3, 4), 1, t(3, 2, low=0, high=4, dtype="int64"), t(3, 2), "prod"),
        (t(3, 4), 0, t(5, 4, low=0, high=3, dtype="int64"), t(5, 4), "amax"),
        (t(3, 4), 0, t(5, 4, low=0, high=3, dtype="int64"), t(5, 4), "amin"),
    ],
    method=False,
)
def scatter_fold(xp, input, dim, index, src, reduce):
    """A copy where what is there and the values of `src` at `index` are multiplied, or the largest or smallest kept."""
    out, target, places, src = _targets(xp, input, dim, index, src, "scatter_reduce")
    if places is not None:
        _at(xp, {"prod": "multiply", "amax": "maximum", "amin": "minimum"}[reduce], target, places, src)
    return out


def _at(xp: Any, ufunc: str, target: Any, places: Any, src: Any) -> None:
    """`ufunc.at`, on the host for the ufuncs and dtypes that CuPy has no atomic operation for."""
    try:
        getattr(xp, ufunc).at(target, places, src)
    except (NotImplementedError, TypeError):
        if xp is np:
            raise
        host = xp.asnumpy(target)
        getattr(np, ufunc).at(
            host, tuple([xp.asnumpy(p) if hasattr(p, "dtype") else p for p in places]), xp.asnumpy(src)
        )
        target[...] = xp.asarray(host)


def _fold_vjp(g: Any, out: Any, input: Any, dim: int, index: Any, src: Any, reduce: str) -> tuple:
    shape = tuple(src.shape)
    used = src if shape == tuple(index.shape) else src[tuple(slice(0, n) for n in index.shape)]
    if reduce == "prod":
        zero, used_zero = eq(input, 0), eq(used, 0)
        ones = where(zero, 1, input)
        g_input = g * conj(scatter_fold(ones, dim, index, used, "prod") / ones)
        zeros = gather(scatter_add(cast(zero, "like", input), dim, index, cast(used_zero, "like", input)), dim, index)
        single = used_zero & eq(zeros, 1)  # the only zero of its product: the others' product counts
        without = scatter_fold(input, dim, index, where(single, 1, used), "prod")
        others = where(single, gather(without, dim, index), gather(out, dim, index) / where(used_zero, 1, used))
        return g_input, _grown(gather(g, dim, index) * conj(others), shape)
    hit = cast(eq(input, out), "like", g)
    src_hit = cast(eq(used, gather(out, dim, index)), "like", g)
    share = g / scatter_add(hit, dim, index, src_hit)
    return hit * share, _grown(src_hit * gather(share, dim, index), shape)


def _neutral(dtype: np.dtype, reduce: str) -> Any:
    """What changes nothing in a reduction."""
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    if dtype.kind in "iub":
        info = np.iinfo(dtype) if dtype.kind != "b" else None
        return (reduce == "amin") if info is None else int(info.min if reduce == "amax" else info.max)
    return -np.inf if reduce == "amax" else np.inf


@method()
def scatter_reduce(input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    """A copy where the values of `src` at `index` are reduced with what is there (or alone, without `include_self`).

    reduce: sum, prod, mean, amax or amin.

    >>> import flambeau
    >>> flambeau.zeros(3).scatter_reduce(0, flambeau.tensor([0, 0, 2]), flambeau.tensor([1.0, 5.0, 4.0]), "amax")
    tensor([5., 0., 4.])
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    raw = getattr(input, "array", input)
    base = input if include_self else scatter_src(input, dim, index, _neutral(raw.dtype, reduce))
    if reduce not in ("sum", "mean"):
        return scatter_fold(base, dim, index, src, reduce)
    total = scatter_add(base, dim, index, src)
    if reduce == "sum":
        return total
    one = getattr(input * 0 + 1, "detach", lambda: input * 0 + 1)()
    count = one if include_self else scatter_src(one, dim, index, 0)
    count = scatter_add(count, dim, index, getattr(cast(src * 0 + 1, "like", raw), "detach", lambda: src * 0 + 1)())
    count = where(eq(count, 0), 1, count)
    return total // count if raw.dtype.kind in "iu" else total / count


# -- whole slices -----------------------------------------------------------------------------------------------
def _slices(input: Any, dim: int, index: Any) -> tuple:
    raw = getattr(index, "array", index)
    if raw.ndim > 1:
        raise IndexError(f"the index of slices is supposed to be a vector, but it has {raw.ndim} dimensions")
    dim = normalize_dim(dim, input.ndim)
    _check_index(raw, input.shape[dim] if input.ndim else 1, "index")
    return (slice(None),) * dim + (raw.reshape(-1),)


def _on_slices(input: Any, dim: int, index: Any, values: Any, accumulate: bool) -> Any:
    """index_put on whole slices of `dim`; a 0-d tensor counts as one of a single element."""
    if hasattr(values, "shape") and values.ndim < max(input.ndim, 1):
        values = reshape(values, (1,) * (max(input.ndim, 1) - values.ndim) + tuple(values.shape))
    where_ = _slices(input, dim, index)
    if input.ndim == 0:
        return reshape(index_put(reshape(input, (1,)), where_, values, accumulate), ())
    return index_put(input, where_, values, accumulate)


@method()
def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    """A copy with alpha * source added to the slices of `dim` named by `index`."""
    return _on_slices(input, dim, index, source if alpha == 1 else source * alpha, True)


@method()
def index_copy(input: Any, dim: int, index: Any, source: Any) -> Any:
    """A copy with the slices of `dim` named by `index` replaced by those of `source`."""
    return _on_slices(input, dim, index, source, False)


@method()
def index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    """A copy with the slices of `dim` named by `index` filled with a number or 0-d tensor."""
    if getattr(value, "ndim", 0):
        raise RuntimeError(f"index_fill only supports a 0-dimensional value tensor, not {value.ndim} dimensions")
    raw = getattr(index, "array", index)
    return _on_slices(input, dim, backends.namespace((raw,)).unique(raw), value, False)


@method()
def index_reduce(
    input: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:  # fmt: skip
    """`scatter_reduce` (prod, mean, amax or amin) of whole slices of `dim`."""
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(f"index_reduce: reduce must be prod, mean, amax or amin, got {reduce}")
    dim = normalize_dim(dim, input.ndim)
    if source.ndim == 0:
        index, source = reshape(index, (1,)), reshape(source, (1,))
    if input.ndim == 0:
        one = reshape(input, (1,))
        return reshape(scatter_reduce(one, 0, reshape(index, (-1,)), source, reduce, include_self=include_self), ())
    wide = expand(reshape(index, (1,) * dim + (-1,) + (1,) * (source.ndim - dim - 1)), tuple(source.shape))
    return scatter_reduce(input, dim, wide, source, reduce, include_self=include_self)


@method()
def put(input: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """A copy with `source` written (or added) at positions of the flattened tensor."""
    where_ = (reshape(getattr(index, "array", index), (-1,)),)
    return reshape(index_put(reshape(input, (-1,)), where_, reshape(source, (-1,)), accumulate), tuple(input.shape))
