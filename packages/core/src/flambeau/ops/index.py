"""Picking and placing elements: indexing, gather, masks, positions. Parts: scatter, embedding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import method, normalize_dim, op
from .elementwise import where
from .logic import cast
from .reduce import sum
from .shape import expand, reshape


# -- [ ] --------------------------------------------------------------------------------------------------------
def _is_array(part: Any) -> bool:
    return isinstance(part, list) or (hasattr(part, "dtype") and (part.ndim > 0 or part.dtype == bool))


def _is_mask(part: Any) -> bool:
    return getattr(getattr(part, "dtype", None), "kind", "") == "b"


def _parts(index: Any) -> tuple:
    return index if isinstance(index, tuple) else (index,)


def _plain(index: Any) -> Any:
    """The index with raw arrays where it has Tensors."""
    if isinstance(index, list) and any(not isinstance(i, int | list) for i in index):
        index = tuple(index)  # a list of tensors stands for a tuple of them
    return tuple(getattr(i, "array", i) for i in index) if isinstance(index, tuple) else getattr(index, "array", index)


def _stages(index: Any) -> tuple:
    """The index in two: integers, then the rest.

    PyTorch selects with integers first, so that they do not count among the index arrays, as they do in NumPy
    (where x[0, :, i] puts the dimension of i in front).
    """
    if index.__class__ is not tuple:  # by far the most common
        return (), index
    parts = index
    whole = [isinstance(p, int | np.integer) and not isinstance(p, bool) for p in parts]
    if not any(whole) or not any(_is_array(p) for p in parts):
        return (), index
    first: list[Any] = []
    for p, number in zip(parts, whole, strict=True):
        if number or p is Ellipsis:
            first.append(p)
        elif p is not None and p is not True and p is not False:
            mask = np.asarray(p) if isinstance(p, list) else p
            first += [slice(None)] * (mask.ndim if _is_mask(mask) else 1)
    if Ellipsis not in [p for p in parts if not _is_array(p)]:
        first.append(Ellipsis)
    return tuple(first), tuple(p for p, number in zip(parts, whole, strict=True) if not number)


@op(
    vjp=dict(input=lambda g, index, input_shape: place(g, index, input_shape)),
    samples=lambda t: [
        (t(3, 4), (slice(None), 1)),
        (t(3, 4), (None, slice(0, 2), slice(None, None, 2))),
        (t(2, 3, 4), (0, slice(None), np.array([1, 1, 3]))),
    ],
    method=False,
    view=True,
)
def getitem(xp, input, index):
    """input[index] for any basic or advanced index of raw arrays, slices, integers, None and Ellipsis."""
    first, index = _stages(index)
    out = (input[first] if first else input)[index]
    # A view of one element stays a view: with an Ellipsis NumPy gives a 0-d array, not a scalar.
    return input[(*_parts(index), ...)] if isinstance(out, np.generic) and not first else out


@op(
    vjp=dict(g=lambda g, index: getitem(g, index)),
    samples=lambda t: [(t(3), (slice(None), 1), (3, 4)), (t(3, 3), (0, slice(None), np.array([1, 1, 3])), (2, 3, 4))],
    method=False,
)
def place(xp, g, index, shape):
    """Zeros of `shape` with `g` added at `index`: the gradient of getitem."""
    index = _plain(index)
    rows = _rows_of(_parts(index), g, shape)
    if rows is not None and g.dtype.kind != "b":
        return _add_slices_at(g, *rows, shape)
    out = xp.zeros(shape, g.dtype)
    _write(xp, out, index, g, True)
    return out


def _write(xp: Any, out: Any, index: Any, values: Any, accumulate: bool) -> None:
    """Writes (or adds, also where positions repeat) values at an index of an array."""
    first, rest = _stages(index)
    if first:
        out = out[first]
    parts = _parts(rest)
    arrays = [p for p in parts if _is_array(p)]
    if not accumulate:
        out[rest] = values
    elif all(_is_mask(p) for p in arrays):
        out[rest] = out[rest] + values  # masks hit every element once
    elif out.dtype.kind != "b" and (rows := _rows_of(parts, values, out.shape)) is not None:
        out[...] = _add_slices_at(values, *rows, out.shape, out)
    else:
        xp.add.at(out, rest, values)


def _rows_of(parts: tuple, values: Any, shape: tuple) -> tuple | None:
    """(dimension, 1-d integer array) where an index names whole slices of one dimension, with a value for each element."""
    if any(not _is_array(p) and not (isinstance(p, slice) and p == slice(None)) for p in parts):
        return None
    dims = [i for i, p in enumerate(parts) if _is_array(p)]
    if len(dims) != 1:
        return None
    dim, index = dims[0], parts[dims[0]]
    if getattr(index, "ndim", 0) != 1 or index.dtype.kind not in "iu":
        return None
    fits = getattr(values, "shape", None) == (*shape[:dim], len(index), *shape[dim + 1 :])
    return (dim, index) if fits else None


def _split_at(shape: tuple, dim: int) -> tuple:
    """A shape as (what lies before `dim`, `dim`, what lies behind it)."""
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])


def _add_slices_at(values: Any, dim: int, index: Any, shape: tuple, base: Any = None) -> Any:
    """Zeros of `shape`, or `base`, with slices added at positions of `dim`, also where positions repeat."""
    base = None if base is None else base.reshape(_split_at(shape, dim))
    values = values.reshape(_split_at(values.shape, dim))
    return _add_at.op.run([values, index.reshape(1, -1, 1), shape[dim], base]).reshape(shape)  # type: ignore[attr-defined]


@op(
    samples=lambda t: [
        (t(1, 5, 3), t(1, 5, 1, low=0, high=4, dtype="int64"), 4),
        (t(2, 5, 3), t(1, 5, 1, low=-4, high=4, dtype="int64"), 4, t(2, 4, 3)),
        (t(2, 5, 3), t(2, 5, 3, low=0, high=4, dtype="int64"), 4),
    ],
    method=False,
)  # fmt: skip
def _add_at(xp, source, index, size, base: Array = None):  # noqa: F821
    """`source` (p, n, q) added at `index` (p or 1, n, q or 1) to zeros or to a copy of `base` (p, size, q).

    The order of the additions is that of n.
    """
    outer, _, inner = source.shape
    out = xp.zeros((outer, size, inner), source.dtype) if base is None else xp.array(base)
    if not index.size or not source.size:
        return out
    index = xp.asarray(index)  # may be a host array, which CuPy takes in brackets but not in where
    index = xp.where(index < 0, index + size, index)
    if index.shape[0] > 1 or index.shape[2] > 1:
        xp.add.at(out, (xp.arange(outer)[:, None, None], index, xp.arange(inner)), source)
        return out
    # Sorted by target and summed in runs: much faster than one by one.
    index = index.reshape(-1)
    order = xp.argsort(index, kind="stable")
    index, source = index[order], source[:, order]
    starts = xp.flatnonzero(xp.concatenate([xp.ones(1, bool), index[1:] != index[:-1]]))
    out[:, index[starts]] += xp.add.reduceat(source, starts, 1)
    return out


@op(
    vjp=dict(
        input=lambda g, indices, accumulate: g if accumulate else index_put(g, indices, 0.0),
        values=lambda g, indices: getitem(g, _plain(indices)),
    ),
    samples=lambda t: [(t(3, 4), (slice(None), 1), t(3)), (t(3, 4), (slice(0, 2),), t(2, 4), True)],
)
def index_put(xp, input, indices, values, accumulate=False):
    """A copy with `values` written (or added) at `indices`."""
    out = input.copy()
    values = values.astype(out.dtype) if hasattr(values, "astype") else values
    _write(xp, out, _plain(indices), values, accumulate)
    return out


# -- along a dimension ------------------------------------------------------------------------------------------
def _grid(xp: Any, index: Any, dim: int) -> tuple:
    """An open mesh that picks index[...] along `dim` and the position itself elsewhere."""
    grids = []
    for d, n in enumerate(index.shape):
        if d == dim:
            grids.append(index)
        else:
            grids.append(xp.arange(n).reshape((-1,) + (1,) * (index.ndim - d - 1)))
    return tuple(grids)


def _check_index(index: Any, size: int, name: str) -> None:
    """Negative numbers are no positions here. (NumPy itself finds those beyond the end; a GPU is not waited for.)"""
    if isinstance(index, np.ndarray) and index.size:
        low = int(index.min())
        if low < 0 or int(index.max()) >= size:
            wrong = low if low < 0 else int(index.max())
            raise RuntimeError(f"{name}: index {wrong} is out of bounds for a dimension of size {size}")


def _at_least_1d(*arrays: Any) -> list:
    return [a.reshape(1) if getattr(a, "ndim", None) == 0 else a for a in arrays]


@op(
    vjp=dict(input=lambda g, input_shape, dim, index: scatter_add_zeros(g, input_shape, dim, index)),
    samples=lambda t: [
        (t(3, 4), 1, t(3, 2, low=0, high=4, dtype="int64")),
        (t(3, 4), 0, t(2, 4, low=0, high=3, dtype="int64")),
    ],
    ref=lambda x, dim, index: np.take_along_axis(x[: index.shape[0]] if dim == 1 else x, index, dim),
)
def gather(xp, input, dim, index, sparse_grad=False):
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on: values along `dim` picked by `index`."""
    dim = normalize_dim(dim, input.ndim)
    if index.size == 0:
        return xp.zeros(index.shape, input.dtype)
    source, places = _at_least_1d(input, index)
    if places.ndim != source.ndim:
        raise RuntimeError(f"index has {index.ndim} dimensions but input has {input.ndim}")
    _check_index(index, source.shape[dim], "gather")
    return source[_grid(xp, places, dim)].reshape(index.shape)


def _add_along(xp: Any, target: Any, dim: int, index: Any, source: Any) -> Any:
    """`target` with `source` added at `index` along `dim`; it may be changed."""
    shape = target.shape
    if index.shape[:dim] + index.shape[dim + 1 :] != shape[:dim] + shape[dim + 1 :] or target.dtype.kind not in "fc":
        xp.add.at(target, _grid(xp, index, dim), source)
        return target
    parts = _split_at(index.shape, dim)
    source = xp.broadcast_to(source, index.shape).reshape(parts)
    base = target.reshape(_split_at(shape, dim))
    return _add_at.op.run([source, index.reshape(parts), shape[dim], base]).reshape(shape)  # type: ignore[attr-defined]


@op(
    vjp=dict(g=lambda g, dim, index: gather(g, dim, index)),
    samples=lambda t: [(t(3, 2), (3, 4), 1, t(3, 2, low=0, high=4, dtype="int64"))],
    method=False,
)
def scatter_add_zeros(xp, g, shape, dim, index):
    """Zeros of `shape` with `g` added at `index` along `dim`: the gradient of gather."""
    out = xp.zeros(shape, g.dtype)
    if not index.size:
        return out
    dim = normalize_dim(dim, len(shape))
    target, g, index = _at_least_1d(out, g, index)
    if index.shape[dim] == 1:
        target[_grid(xp, index, dim)] = g  # every target is hit once: no need to add one by one
        return out
    return _add_along(xp, target, dim, index, g).reshape(shape)


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
    dim = normalize_dim(dim, input.ndim)
    if index.ndim > 1:
        raise IndexError(f"index_select(): index is supposed to be a vector, but it has {index.ndim} dimensions")
    _check_index(index, input.shape[dim] if input.ndim else 1, "index_select")
    return xp.take(input, index.reshape(-1), dim) if input.ndim else input.copy()


def _add_slices(g, shape, dim, index):
    if not shape:
        return g
    return place(g, (slice(None),) * normalize_dim(dim, len(shape)) + (reshape(index, (-1,)),), shape)


@method()
def take(input: Any, index: Any) -> Any:
    """The elements at positions of the flattened tensor."""
    return getitem(reshape(input, (-1,)), getattr(index, "array", index))


@method()
def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Any:
    """Values picked by `indices` along `dim`, other dimensions broadcast."""
    if dim is None:
        return take(input, reshape(indices, (-1,)))
    if input.ndim != indices.ndim:
        raise RuntimeError(f"take_along_dim: input has {input.ndim} dimensions but indices {indices.ndim}")
    dim = normalize_dim(dim, input.ndim)
    pairs = list(zip(input.shape, indices.shape, strict=True))
    indices = where(indices < 0, indices + input.shape[dim], indices)
    sizes = [a if b == 1 else b for a, b in pairs]  # what broadcasts, apart from `dim`
    wide = tuple(n if i != dim else input.shape[dim] for i, n in enumerate(sizes))
    index_shape = tuple(n if i != dim else indices.shape[dim] for i, n in enumerate(sizes))
    return gather(expand(input, wide), dim, expand(indices, index_shape))


# -- masks ------------------------------------------------------------------------------------------------------
@op(
    vjp=dict(
        input=lambda g, mask: masked_fill(g, mask, 0),
        value=lambda g, mask: sum(g * cast(mask, "like", g)),
    ),
    samples=lambda t: [(t(3, 4), t(3, 4, dtype="bool"), -1.5), (t(3, 4), t(4, dtype="bool"), t())],
    ref=lambda x, mask, value: np.choose(np.broadcast_to(mask, x.shape), [x, np.asarray(value)]),
)
def masked_fill(xp, input, mask, value):
    """A copy with `value` (a number or 0-d tensor) where the mask is True."""
    if mask.dtype != bool:
        raise RuntimeError(f"masked_fill expects a bool mask, not {mask.dtype}")
    if getattr(value, "ndim", 0):
        raise RuntimeError(f"masked_fill expects a number or a 0-dim value, not {value.ndim} dimensions")
    value = value.astype(input.dtype) if hasattr(value, "astype") else input.dtype.type(value)
    return xp.where(mask, value, input)


@method()
def masked_select(input: Any, mask: Any) -> Any:
    """The elements where the mask is True, in a 1-d tensor."""
    if getattr(mask, "array", mask).dtype != bool:
        raise RuntimeError(f"masked_select expects a bool mask, not {mask.dtype}")
    shape = np.broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    chosen = expand(mask, shape)
    out = getitem(expand(input, shape), getattr(chosen, "array", chosen))
    return reshape(out, (-1,))


@method()
def masked_scatter(input: Any, mask: Any, source: Any) -> Any:
    """A copy with the first elements of `source`, in order, where the mask is True."""
    shape = np.broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    chosen = expand(mask, shape)
    chosen = getattr(chosen, "array", chosen)
    count = int(chosen.sum())
    flat = reshape(source, (-1,))
    if flat.shape[0] < count:
        raise RuntimeError(f"masked_scatter: the mask has {count} True elements but source only {flat.shape[0]}")
    values = flat[:count] if shape else reshape(flat[:count], (1,) if count else (0,))
    return index_put(expand(input, shape), (chosen,), values)


# -- positions --------------------------------------------------------------------------------------------------
@op(samples=lambda t: [(t(3, 4, dtype="bool"),)])
def argwhere(xp, input):
    """The positions of non-zero elements, one row each."""
    return xp.argwhere(input)


@method()
def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The positions of non-zero elements: (n, ndim), or a tuple of one tensor per dimension."""
    if not as_tuple:
        return argwhere(input)
    rows = argwhere(reshape(input, (1,)) if input.ndim == 0 else input)
    return tuple(rows[:, i] for i in range(rows.shape[1]))


@method()
def is_nonzero(input: Any) -> bool:
    """Whether the only element is not zero. Errors: RuntimeError when there are more or none."""
    return bool(input)


@op(samples=lambda t: [(t(3, 4, low=0, high=9, dtype="int64"), t(3, low=0, high=9, dtype="int64"))], method=False)
def isin(xp, elements, test_elements, assume_unique=False, invert=False):
    """Which elements are among the test elements."""
    return xp.asarray(xp.isin(elements, xp.asarray(test_elements), invert=invert))


def _side(right: bool, side: str | None) -> str:
    if side not in (None, "left", "right"):
        raise RuntimeError(f"searchsorted: side must be 'left' or 'right', not {side!r}")
    if side == "left" and right:
        raise RuntimeError("searchsorted: side and right are set to opposites")
    return side or ("right" if right else "left")


@op(
    samples=lambda t: [(t(3, 4), np.array([-0.5, 0.0, 0.5]))],
    ref=lambda x, b: np.searchsorted(b, x),
    method=False,
)
def bucketize(xp, input, boundaries, out_int32=False, right=False):
    """The bucket of each value: i where boundaries[i - 1] < value <= boundaries[i] (right: <= value <)."""
    if boundaries.ndim != 1:
        raise RuntimeError(f"bucketize: boundaries must have one dimension, not {boundaries.ndim}")
    out = xp.searchsorted(boundaries, xp.asarray(input), _side(right, None))
    return xp.asarray(out).astype(np.int32 if out_int32 else np.int64)


@op(samples=lambda t: [(np.sort(t(5)), t(3, 4)), (np.sort(t(2, 5)), t(2, 3))], method=False)
def searchsorted(xp, sorted_sequence, input, out_int32=False, right=False, side=None, sorter: Array = None):  # noqa: F405
    """Where to insert the values of `input` so that the last dimension of `sorted_sequence` stays sorted."""
    side = _side(right, side)
    if sorter is not None:
        sorted_sequence = xp.take_along_axis(sorted_sequence, sorter, -1)
    values = xp.asarray(input)
    kind = np.int32 if out_int32 else np.int64
    if sorted_sequence.ndim == 1:
        return xp.asarray(xp.searchsorted(sorted_sequence, values, side)).astype(kind)
    if sorted_sequence.shape[:-1] != values.shape[:-1]:
        raise RuntimeError(
            "searchsorted: the sequence must have one dimension or the leading dimensions of the values, "
            f"not {list(sorted_sequence.shape)} with {list(values.shape)}"
        )
    out = xp.zeros(values.shape, kind)
    rows = zip(sorted_sequence.reshape(-1, sorted_sequence.shape[-1]) if sorted_sequence.size else (),
               values.reshape(-1, values.shape[-1]) if values.size else (), strict=False)  # fmt: skip
    flat = out.reshape(-1, max(values.shape[-1], 1))
    for i, (sequence, row) in enumerate(rows):
        flat[i] = xp.searchsorted(sequence, row, side)
    return out


def unravel_index(indices: Any, shape: Any) -> tuple:
    """The coordinates in `shape` of positions in the flattened tensor, one tensor per dimension."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if getattr(indices, "array", indices).dtype.kind not in "iu":
        raise ValueError(f"unravel_index expects integer indices, not {indices.dtype}")
    out: list[Any] = []
    for n in reversed(shape):
        out.append(indices % n)
        indices = indices // n
    return tuple(reversed(out))


from .index_embedding import *  # noqa: E402, F403 - the parts of this family
from .index_scatter import *  # noqa: E402, F403
