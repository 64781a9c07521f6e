"""Views of a part of a tensor (diagonals, windows, strides, strict `view`) and what writes into such a part."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes
from ._op import method, normalize_dim, op
from .logic import cast
from .shape import clone, flip, narrow, reshape, transpose
from .shape_forms import movedim

__all__ = [
    "as_strided", "diag", "diag_embed", "diagflat", "diagonal", "diagonal_scatter", "fliplr", "flipud", "narrow_copy",
    "place_diagonal", "place_strided", "place_windows", "rot90", "select_scatter", "slice_scatter", "unfold", "view",
    "view_dtype",
]  # fmt: skip


# -- diagonals --------------------------------------------------------------------------------------------------
def _diagonal_view(xp: Any, array: Any, offset: int, dim1: int, dim2: int) -> Any:
    """The diagonal of two dimensions, put last, as a view that can be written to."""
    array = xp.moveaxis(array, (dim1, dim2), (-2, -1))
    array = array[..., max(-offset, 0) :, max(offset, 0) :]
    n = min(array.shape[-2:])
    strides = (*array.strides[:-2], array.strides[-2] + array.strides[-1])
    return xp.lib.stride_tricks.as_strided(array, (*array.shape[:-2], n), strides)


def _pair(ndim: int, dim1: int, dim2: int, name: str) -> tuple:
    if ndim < 2:
        raise IndexError(f"{name}: at least two dimensions are needed, but there are {ndim}")
    dim1, dim2 = normalize_dim(dim1, ndim), normalize_dim(dim2, ndim)
    if dim1 == dim2:
        raise RuntimeError(f"{name}: the diagonal dimensions cannot be identical ({dim1} and {dim2})")
    return dim1, dim2


@op(
    vjp=dict(input=lambda g, input_shape, offset, dim1, dim2: place_diagonal(g, input_shape, offset, dim1, dim2)),
    samples=lambda t: [(t(3, 4),), (t(2, 3, 3), -1, 1, 2), (t(3, 2, 4), 1, 0, 2)],
    ref=lambda x, offset=0, dim1=0, dim2=1: x.diagonal(offset, dim1, dim2),
    view=True,
)
def diagonal(xp, input, offset=0, dim1=0, dim2=1):
    """The diagonal of the dimensions dim1 and dim2, `offset` places above (below when negative), as the last one."""
    return _diagonal_view(xp, input, offset, *_pair(input.ndim, dim1, dim2, "diagonal"))


@op(
    vjp=dict(g=lambda g, offset, dim1, dim2: diagonal(g, offset, dim1, dim2)),
    samples=lambda t: [(t(3), (3, 4)), (t(2, 2), (2, 3, 3), -1, 1, 2)],
    method=False,
)
def place_diagonal(xp, g, shape, offset=0, dim1=0, dim2=1):
    """Zeros of `shape` with `g` on the diagonal: the gradient of `diagonal`."""
    out = xp.zeros(shape, g.dtype)
    if out.size and g.size:
        _diagonal_view(xp, out, offset, *_pair(out.ndim, dim1, dim2, "diagonal"))[...] = g
    return out


@method()
def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Square matrices (dimensions dim1 and dim2) with the last dimension of `input` on a diagonal."""
    if input.ndim == 0:
        raise IndexError("diag_embed: the input needs at least one dimension")
    dim1, dim2 = _pair(input.ndim + 1, dim1, dim2, "diag_embed")
    n = input.shape[-1] + abs(offset)
    shape = list(input.shape[:-1])
    for d in sorted((dim1, dim2)):
        shape.insert(d, n)
    return place_diagonal(input, tuple(shape), offset, dim1, dim2)


@method()
def diag(input: Any, diagonal: int = 0) -> Any:
    """A matrix with the 1-d tensor on a diagonal, or a copy of a matrix's diagonal."""
    if input.ndim not in (1, 2):
        raise RuntimeError(f"diag expects a 1-d or 2-d tensor, not {input.ndim} dimensions")
    return diag_embed(input, diagonal) if input.ndim == 1 else clone(globals()["diagonal"](input, diagonal))


@method()
def diagflat(input: Any, offset: int = 0) -> Any:
    """A matrix with all elements on a diagonal."""
    return diag_embed(reshape(input, (-1,)), offset)


# -- a copy with a part replaced --------------------------------------------------------------------------------
def _put(input: Any, index: tuple, src: Any, shape: tuple, name: str) -> Any:
    from .index import index_put

    if tuple(src.shape) != shape:
        raise RuntimeError(f"{name}: src has shape {list(src.shape)} but the part it replaces has {list(shape)}")
    return index_put(input, index, src)


@method()
def select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
    """A copy with `src` in the place of the slice `index` of dimension `dim`."""
    dim = normalize_dim(dim, input.ndim)
    if not -input.shape[dim] <= index < input.shape[dim]:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {input.shape[dim]}")
    shape = tuple(input.shape)
    return _put(input, (slice(None),) * dim + (int(index),), src, shape[:dim] + shape[dim + 1 :], "select_scatter")


@method()
def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """A copy with `src` in the place of start : end : step of dimension `dim`."""
    dim, shape = normalize_dim(dim, input.ndim), tuple(input.shape)
    n = len(range(*slice(start, end, step).indices(shape[dim])))
    index = (slice(None),) * dim + (slice(start, end, step),)
    return _put(input, index, src, (*shape[:dim], n, *shape[dim + 1 :]), "slice_scatter")


@method()
def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """A copy with `src` in the place of a diagonal."""
    dim1, dim2 = _pair(input.ndim, dim1, dim2, "diagonal_scatter")
    front = movedim(input, (dim1, dim2), (0, 1))
    rows, columns = front.shape[0], front.shape[1]
    n = max(min(rows + min(offset, 0), columns - max(offset, 0)), 0)
    index = ([i + max(-offset, 0) for i in range(n)], [i + max(offset, 0) for i in range(n)])
    rest = tuple(front.shape[2:])
    if tuple(src.shape) != (*rest, n):
        raise RuntimeError(f"diagonal_scatter: src has shape {list(src.shape)} but the diagonal has {[*rest, n]}")
    return movedim(_put(front, index, movedim(src, -1, 0), (n, *rest), "diagonal_scatter"), (0, 1), (dim1, dim2))


# -- windows and strides ----------------------------------------------------------------------------------------
@op(
    vjp=dict(input=lambda g, input_shape, dimension, size, step: place_windows(g, input_shape, dimension, size, step)),
    samples=lambda t: [(t(7), 0, 3, 2), (t(2, 5), 1, 2, 1)],
    view=True,
)
def unfold(xp, input, dimension, size, step):
    """All windows of `size` elements along a dimension, `step` apart: their elements are a new last dimension.

    >>> import flambeau
    >>> flambeau.arange(5).unfold(0, 2, 2)
    tensor([[0, 1],
            [2, 3]])
    """
    dim = normalize_dim(dimension, input.ndim)
    total = input.shape[dim] if input.ndim else 1
    if step <= 0 or size < 0 or size > total:
        raise RuntimeError(f"unfold: windows of {size} elements, {step} apart, do not fit a dimension of size {total}")
    if input.ndim == 0:
        return input.reshape(1)[:size]
    shape, strides = [*input.shape, size], [*input.strides, input.strides[dim]]
    shape[dim], strides[dim] = (total - size) // step + 1, strides[dim] * step
    return xp.lib.stride_tricks.as_strided(input, tuple(shape), tuple(strides))


@op(
    vjp=dict(g=lambda g, dimension, size, step: unfold(g, dimension, size, step)),
    samples=lambda t: [(t(3, 3), (7,), 0, 3, 2)],
    method=False,
)
def place_windows(xp, g, shape, dimension, size, step):
    """The windows added up at their places in zeros of `shape`: the gradient of `unfold`."""
    if not shape:
        return g.sum() if size else xp.zeros((), g.dtype)
    out = xp.zeros(shape, g.dtype)
    dim = normalize_dim(dimension, len(shape))
    lead, n = (slice(None),) * dim, g.shape[dim]
    for k in range(size):
        out[(*lead, slice(k, k + step * (n - 1) + 1, step))] += g[..., k]
    return out


def _strided(xp: Any, array: Any, size: tuple, stride: tuple, start: int) -> Any:
    """The view of a flat array that starts at element `start`. Errors: RuntimeError beyond its end."""
    last = start + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    empty = 0 in size
    if start < 0 or min(stride, default=0) < 0 or (not empty and last >= array.size):
        raise RuntimeError(
            f"as_strided: size {list(size)}, stride {list(stride)} and offset {start} "
            f"are out of bounds for storage of {array.size} elements"
        )
    if empty:
        return xp.zeros(size, array.dtype)
    item = array.itemsize
    return xp.lib.stride_tricks.as_strided(array[start:], size, tuple(s * item for s in stride))


def _storage(array: Any) -> tuple:
    """The whole memory behind an array as a flat array, and the place of the array's first element in it."""
    owner = array
    while getattr(owner, "base", None) is not None and isinstance(owner.base, type(array)):
        owner = owner.base
    flat = owner if owner.flags.c_contiguous else owner.T
    if owner.dtype != array.dtype or not flat.flags.c_contiguous:
        return array.reshape(-1), 0
    start = _address(array) - _address(owner)
    return flat.reshape(-1), start // max(array.itemsize, 1)


def _address(array: Any) -> int:
    return array.data.ptr if hasattr(array.data, "ptr") else array.__array_interface__["data"][0]


@op(
    vjp=dict(
        input=lambda g, input, size, stride, storage_offset: place_strided(g, input, size, stride, storage_offset)
    ),
    samples=lambda t: [(t(12), (2, 3), (0, 0))],  # other strides depend on the memory layout: tests of their own
    view=True,
)
def as_strided(xp, input, size, stride, storage_offset=None):
    """Any strided view (strides and offset in elements) of the memory behind `input`. Elements may repeat."""
    flat, start = _storage(input)
    return _strided(xp, flat, tuple(size), tuple(stride), start if storage_offset is None else storage_offset)


@op(
    vjp=dict(
        g=lambda g, like, size, stride, storage_offset: as_strided(_laid_like(g, like), size, stride, storage_offset)
    ),
    samples=lambda t: [(t(2, 3), t(12), (2, 3), (0, 0))],
    method=False,
)
def place_strided(xp, g, like, size, stride, storage_offset=None):
    """Elements of `g` added up where `as_strided` reads them in `like`: its gradient."""
    flat, start = _storage(like)
    total = xp.zeros(flat.shape, g.dtype)
    offset = start if storage_offset is None else storage_offset
    where = _strided(xp, xp.arange(flat.size), tuple(size), tuple(stride), offset)
    xp.add.at(total, where.reshape(-1), g.reshape(-1))
    steps = tuple(s // like.itemsize for s in like.strides)
    return _strided(xp, total, like.shape, steps, start).copy()


def _laid_like(g: Any, like: Any) -> Any:
    """`g` with the memory layout of `like` (rows after each other is all that second order needs)."""
    array = getattr(like, "array", like)
    if not array.flags.c_contiguous or _storage(array)[0].size != array.size:
        raise NotImplementedError("the second gradient of as_strided is available for contiguous tensors only")
    return clone(g)


@op(
    vjp=dict(input=lambda g, input_shape: reshape(g, input_shape)),
    samples=lambda t: [(t(3, 4), (2, 6)), (t(3, 4), (-1,))],
    ref=lambda x, shape: x.ravel().reshape(shape),
    method=False,
    view=True,
)
def view(xp, input, shape):
    """The same memory in another shape. Errors: RuntimeError when only a copy could have it."""
    try:
        out = input.reshape(shape)
    except ValueError:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {input.size}") from None
    if input.size and not xp.may_share_memory(out, input):
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces); use .reshape(...) instead"
        )
    return out


@op(samples=lambda t: [(t(3, 4, dtype="bool"), "uint8")], method=False, view=True)
def view_dtype(xp, input, dtype):
    """The same bytes read as another element type; the last dimension grows or shrinks when the sizes differ."""
    kind = dtypes.as_dtype(dtype).numpy
    if input.dtype.itemsize != kind.itemsize and input.ndim == 0:
        raise RuntimeError(f"view: a 0-dim tensor cannot be read as {dtype}, which has another element size")
    return input.reshape(1).view(kind).reshape(()) if input.ndim == 0 else input.view(kind)


@method("view")
def _view_method(self: Any, *size: Any) -> Any:
    """`view(*shape)` or `view(dtype)`: the same memory, never a copy."""
    if len(size) == 1 and not isinstance(size[0], list | tuple) and not hasattr(size[0], "__index__"):
        return view_dtype(self, size[0])
    sizes = size[0] if len(size) == 1 and isinstance(size[0], list | tuple) else size
    return view(self, tuple(int(n) for n in sizes))


@method("view_as")
def _view_as(self: Any, other: Any) -> Any:
    """`view` with the shape of another tensor."""
    return view(self, tuple(other.shape))


@method("sum_to_size")
def _sum_to_size(self: Any, *size: Any) -> Any:
    """The sum over what broadcasting `size` to this shape repeats."""
    from .reduce import sum_to

    size = tuple(size[0]) if len(size) == 1 and isinstance(size[0], list | tuple) else size
    tail = tuple(self.shape)[self.ndim - len(size) :]
    if len(size) > self.ndim or any(n not in (1, m) for n, m in zip(size, tail, strict=True)):
        raise RuntimeError(f"size {list(size)} is not expandable to size {list(self.shape)}")
    if self.array.dtype.kind in "biu" and (not size or size != tuple(self.shape)):
        self = cast(self, np.int64)  # integers add up in int64, as in `sum`
    return sum_to(self, size)


# -- turned and copied ------------------------------------------------------------------------------------------
@method()
def narrow_copy(input: Any, dim: int, start: int, length: int) -> Any:
    """A copy of `narrow`."""
    return clone(narrow(input, dim, start, length))


@method()
def fliplr(input: Any) -> Any:
    """Left and right (dimension 1) exchanged."""
    if input.ndim < 2:
        raise RuntimeError(f"fliplr needs at least 2 dimensions, not {input.ndim}")
    return flip(input, (1,))


@method()
def flipud(input: Any) -> Any:
    """Up and down (dimension 0) exchanged."""
    if input.ndim < 1:
        raise RuntimeError("flipud needs at least 1 dimension")
    return flip(input, (0,))


@method()
def rot90(input: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    """Turned by k quarter turns in the plane of two dimensions, from the first towards the second."""
    if len(dims) != 2 or input.ndim < 2:
        raise RuntimeError(f"rot90 needs two dims and at least as many dimensions, not {dims} of {input.ndim}")
    a, b = normalize_dim(tuple(dims), input.ndim)
    turns = k % 4
    if turns == 0:
        return clone(input)
    if turns == 2:
        return flip(input, (a, b))
    return transpose(flip(input, (b,)), a, b) if turns == 1 else flip(transpose(input, a, b), (b,))
