"""Picking and placing elements: indexing, gather, scatter, embedding, masks, sorting out positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import normalize_dim, op
from .logic import cast, logical_not
from .reduce import sum
from .shape import expand, reshape, unsqueeze


def _has_arrays(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(hasattr(i, "dtype") or isinstance(i, list) for i in parts)


def _plain(index: Any) -> Any:
    """The index with raw arrays where it has Tensors."""
    return tuple(getattr(i, "array", i) for i in index) if isinstance(index, tuple) else index


@op(
    vjp=dict(input=lambda g, index, input_shape: place(g, index, input_shape)),
    samples=lambda t: [(t(3, 4), (slice(None), 1)), (t(3, 4), (None, slice(0, 2), slice(None, None, 2)))],
    method=False,
    view=True,
)
def getitem(xp, input, index):
    """input[index] for any basic or advanced index of raw arrays, slices, integers, None and Ellipsis."""
    return input[index]


@op(
    vjp=dict(g=lambda g, index: getitem(g, index)),
    samples=lambda t: [(t(3), (slice(None), 1), (3, 4))],
    method=False,
)
def place(xp, g, index, shape):
    """Zeros of `shape` with `g` added at `index`: the gradient of getitem."""
    out = xp.zeros(shape, g.dtype)
    if _has_arrays(index):
        xp.add.at(out, index, g)
    else:
        out[index] = g
    return out


@op(
    vjp=dict(
        input=lambda g, index, values, accumulate: g if accumulate else index_put(g, index, 0.0),
        values=lambda g, index: getitem(g, _plain(index)),
    ),
    samples=lambda t: [(t(3, 4), (slice(None), 1), t(3)), (t(3, 4), (slice(0, 2),), t(2, 4), True)],
    method=False,
)
def index_put(xp, input, index, values, accumulate=False):
    """A copy with `values` written (or added) at `index`."""
    out = input.copy()
    index = _plain(index)
    values = values.astype(out.dtype) if hasattr(values, "astype") else values
    if accumulate:
        xp.add.at(out, index, values)
    else:
        out[index] = values
    return out


def _grid(xp: Any, index: Any, dim: int) -> tuple:
    """An open mesh that picks index[...] along `dim` and the position itself elsewhere."""
    grids = []
    for d, n in enumerate(index.shape):
        if d == dim:
            grids.append(index)
        else:
            grids.append(xp.arange(n).reshape((-1,) + (1,) * (index.ndim - d - 1)))
    return tuple(grids)


@op(
    vjp=dict(input=lambda g, input_shape, dim, index: scatter_add_zeros(g, input_shape, dim, index)),
    samples=lambda t: [
        (t(3, 4), 1, t(3, 2, low=0, high=4, dtype="int64")),
        (t(3, 4), 0, t(2, 4, low=0, high=3, dtype="int64")),
    ],
    ref=lambda x, dim, index: np.take_along_axis(x[: index.shape[0]] if dim == 1 else x, index, dim),
)
def gather(xp, input, dim, index):
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on: values along `dim` picked by `index`."""
    if index.size == 0:
        return xp.zeros(index.shape, input.dtype)
    if input.ndim == 0:
        return xp.broadcast_to(input, index.shape).copy()
    if index.ndim != input.ndim:
        raise RuntimeError(f"index has {index.ndim} dimensions but input has {input.ndim}")
    return input[_grid(xp, index, normalize_dim(dim, input.ndim))]


@op(
    vjp=dict(g=lambda g, dim, index: gather(g, dim, index)),
    samples=lambda t: [(t(3, 2), (3, 4), 1, t(3, 2, low=0, high=4, dtype="int64"))],
    method=False,
)
def scatter_add_zeros(xp, g, shape, dim, index):
    """Zeros of `shape` with `g` added at `index` along `dim`: the gradient of gather."""
    out = xp.zeros(shape, g.dtype)
    if out.ndim == 0 or not index.size:
        return out + g.sum()
    dim = normalize_dim(dim, len(shape))
    if index.shape[dim] == 1:
        out[_grid(xp, index, dim)] = g  # every target is hit once: no need to add one by one
    else:
        xp.add.at(out, _grid(xp, index, dim), g)
    return out


@op(
    vjp=dict(input=lambda g: g, src=lambda g, dim, index: gather(g, dim, index)),
    samples=lambda t: [(t(3, 4), 1, t(3, 2, low=0, high=4, dtype="int64"), t(3, 2))],
)
def scatter_add(xp, input, dim, index, src):
    """A copy with `src` added at `index` along `dim`."""
    out = input.copy()
    cut = tuple(slice(0, n) for n in index.shape)
    xp.add.at(out, _grid(xp, index, normalize_dim(dim, input.ndim)), src[cut])
    return out


@op(
    vjp=dict(
        input=lambda g, dim, index: scatter(g, dim, index, 0.0),
        src=lambda g, dim, index: gather(g, dim, index),
    ),
    samples=lambda t: [(t(3, 4), 1, t(3, 1, low=0, high=4, dtype="int64"), t(3, 1))],
)
def scatter(xp, input, dim, index, src):
    """A copy with `src` (a tensor or a number) written at `index` along `dim`."""
    out = input.copy()
    where = _grid(xp, index, normalize_dim(dim, input.ndim))
    out[where] = src[tuple(slice(0, n) for n in index.shape)] if hasattr(src, "shape") and src.ndim else src
    return out


@op(
    vjp=dict(input=lambda g, input_shape, dim, index: _add_slices(g, input_shape, dim, index)),
    samples=lambda t: [
        (t(3, 4), 0, t(5, low=0, high=3, dtype="int64")),
        (t(3, 4), -1, t(2, low=0, high=4, dtype="int64")),
    ],
    ref=lambda x, dim, index: np.take(x, index, dim),
)
def index_select(xp, input, dim, index):
    """The slices of `dim` named by a 1-d index."""
    return xp.take(input, index, normalize_dim(dim, input.ndim)) if input.ndim else input.copy()


def _add_slices(g, shape, dim, index):
    return place(g, (slice(None),) * normalize_dim(dim, len(shape)) + (index,), shape) if shape else g


def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    """A copy with alpha * source added to the slices of `dim` named by `index`."""
    if input.ndim == 0:
        return reshape(index_add(reshape(input, (1,)), 0, index, reshape(source, (1,)), alpha=alpha), ())
    where = (slice(None),) * normalize_dim(dim, input.ndim) + (getattr(index, "array", index),)
    return index_put(input, where, source if alpha == 1 else source * alpha, True)


def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Any:
    """Values picked by `indices` along `dim`, other dimensions broadcast."""
    if dim is None:
        return gather(reshape(input, (-1,)), 0, reshape(indices, (-1,)))
    dim = normalize_dim(dim, input.ndim)
    shape = [max(a, b) for a, b in zip(input.shape, indices.shape, strict=True)]
    wide = [n if i != dim else input.shape[dim] for i, n in enumerate(shape)]
    index_shape = [n if i != dim else indices.shape[dim] for i, n in enumerate(shape)]
    return gather(expand(input, tuple(wide)), dim, expand(indices, tuple(index_shape)))


@op(
    vjp=dict(
        input=lambda g, mask: g * cast(logical_not(mask), "like", g),
        value=lambda g, mask: sum(g * cast(mask, "like", g)),
    ),
    samples=lambda t: [(t(3, 4), t(3, 4, dtype="bool"), -1.5), (t(3, 4), t(4, dtype="bool"), t())],
    ref=lambda x, mask, value: np.choose(np.broadcast_to(mask, x.shape), [x, np.asarray(value)]),
)
def masked_fill(xp, input, mask, value):
    """A copy with `value` (a number or 0-d tensor) where the mask is True."""
    if mask.dtype != bool:
        raise RuntimeError(f"masked_fill expects a bool mask, not {mask.dtype}")
    value = value.astype(input.dtype) if hasattr(value, "astype") else input.dtype.type(value)
    return xp.where(mask, value, input)


def masked_select(input: Any, mask: Any) -> Any:
    """The elements where the mask is True, in a 1-d tensor."""
    shape = np.broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    chosen = expand(mask, shape)
    return getitem(expand(input, shape), getattr(chosen, "array", chosen))


@op(samples=lambda t: [(t(3, 4, dtype="bool"),)], method=False)
def argwhere(xp, input):
    """The positions of non-zero elements, one row each."""
    return xp.argwhere(input)


def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The positions of non-zero elements: (n, ndim), or a tuple of one tensor per dimension."""
    rows = argwhere(input)
    return tuple(rows[:, i] for i in range(input.ndim)) if as_tuple else rows


@op(
    vjp=dict(weight=lambda g, input, weight_shape, padding_idx: embedding_grad(g, input, weight_shape, padding_idx)),
    samples=lambda t: [
        (t(2, 3, low=0, high=5, dtype="int64"), t(5, 4)),
        (t(4, low=0, high=5, dtype="int64"), t(5, 4), 1),
    ],
    ref=lambda input, weight, padding_idx=None: np.take(weight, input, 0),
    method=False,
)
def embedding(xp, input, weight, padding_idx=None):
    """Rows of `weight` (V, D) for the integers `input`; the row `padding_idx` gets no gradient."""
    if input.dtype.kind not in "iu":
        raise TypeError(f"embedding expects integer indices, not {input.dtype}; use .long()")
    if input.size and (int(input.max()) >= weight.shape[0] or int(input.min()) < 0):
        raise IndexError(
            f"index out of range: the indices span {int(input.min())} to {int(input.max())} "
            f"but the table has {weight.shape[0]} rows"
        )
    return xp.take(weight, input, 0)


@op(
    vjp=dict(g=lambda g, index, padding_idx: _embed_unpadded(g, index, padding_idx)),
    samples=lambda t: [
        (t(4, 3), t(4, low=0, high=5, dtype="int64"), (5, 3)),
        (t(4, 3), t(4, low=0, high=5, dtype="int64"), (5, 3), 1),
    ],
    method=False,
)
def embedding_grad(xp, g, index, shape, padding_idx=None):
    """Rows of `g` added up at `index` into zeros of `shape`: the gradient of an embedding table."""
    rows = g.reshape(-1, shape[1])
    index = index.reshape(-1)
    if padding_idx is not None:
        keep = index != padding_idx
        rows, index = rows[keep], index[keep]
    out = xp.zeros(shape, g.dtype)
    if index.size == 0:
        return out
    # Rows sorted by target and summed in runs: much faster than adding one by one, and always in the same order.
    order = xp.argsort(index, kind="stable")
    index, rows = index[order], rows[order]
    first = xp.concatenate([xp.ones(1, bool), index[1:] != index[:-1]])
    starts = xp.flatnonzero(first)
    out[index[starts]] = xp.add.reduceat(rows, starts, 0)
    return out


def _embed_unpadded(g, index, padding_idx):
    out = embedding(index, g)
    if padding_idx is None:
        return out
    return out * cast(unsqueeze(index != padding_idx, -1), "like", out)


@op(samples=lambda t: [(t(4, low=0, high=3, dtype="int64"), 3)], method=False)
def one_hot(xp, input, num_classes=-1):
    """0/1 rows (int64): a 1 at the class. Classes are counted from the data when num_classes is -1."""
    n = int(input.max()) + 1 if num_classes == -1 else num_classes
    if input.size and (int(input.max()) >= n or int(input.min()) < 0):
        raise RuntimeError(f"class values must be between 0 and num_classes - 1 ({n - 1})")
    return (input[..., None] == xp.arange(n)).astype(np.int64)
