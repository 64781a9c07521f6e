"""Rearranging elements: reshape, permute, expand, concatenate, pad. Views share memory where NumPy lets them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import normalize_dim, op


# -- views ------------------------------------------------------------------------------------------------------
@op(
    vjp=dict(input=lambda g, input_shape: reshape(g, input_shape)),
    samples=lambda t: [(t(3, 4), (2, 6)), (t(3, 4), (-1,)), (t(2, 3, 2), (6, -1))],
    ref=lambda x, shape: x.ravel().reshape(shape),
    view=True,
    method=False,
)
def reshape(xp, input, shape):
    """The same elements in another shape; one size may be -1. Shares memory when it can."""
    try:
        return input.reshape(shape)
    except ValueError:
        raise RuntimeError(f"shape {list(shape)} is invalid for input of size {input.size}") from None


@op(
    vjp=dict(input=lambda g: g),  # the engine sums over expanded dimensions
    samples=lambda t: [(t(3, 1), (3, 4)), (t(3), (2, 3)), (t(3, 1), (2, -1, 4))],
    ref=lambda x, shape: x * np.ones([n if n > 0 else 3 for n in shape]),
    view=True,
    method=False,
)
def expand(xp, input, shape):
    """Repeats dimensions of size 1 without copying; -1 keeps a size."""
    lead = len(shape) - input.ndim
    sizes = tuple(input.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(shape))
    try:
        return xp.broadcast_to(input, sizes)
    except ValueError:
        message = f"the expanded size {list(shape)} does not match the tensor's shape {list(input.shape)}"
        raise RuntimeError(message) from None


@op(
    vjp=dict(input=lambda g, dims: permute(g, _inverse(dims))),
    samples=lambda t: [(t(2, 3, 4), (2, 0, 1)), (t(2, 3), (-1, 0))],
    ref=lambda x, dims: np.moveaxis(x, dims, range(len(dims))),
    view=True,
    method=False,
)
def permute(xp, input, dims):
    """Dimensions in another order."""
    if len(dims) != input.ndim:
        raise RuntimeError(f"permute: {len(dims)} dims given for a tensor with {input.ndim} dimensions")
    return input.transpose(normalize_dim(tuple(dims), input.ndim))


def _inverse(dims):
    order = normalize_dim(tuple(dims), len(dims))
    return tuple(order.index(i) for i in range(len(order)))


@op(
    vjp=dict(input=lambda g, dim0, dim1: transpose(g, dim0, dim1)),
    samples=lambda t: [(t(2, 3, 4), 0, 2), (t(3, 2), -1, -2)],
    ref=np.swapaxes,
    view=True,
)
def transpose(xp, input, dim0, dim1):
    """Two dimensions swapped."""
    if input.ndim == 0:
        return input
    return input.swapaxes(normalize_dim(dim0, input.ndim), normalize_dim(dim1, input.ndim))


@op(
    vjp=dict(input=lambda g, input_shape: reshape(g, input_shape)),
    samples=lambda t: [(t(3, 1, 4, 1),), (t(3, 1, 4), 1), (t(3, 4), 1), (t(1, 3, 1), (0, 2))],
    view=True,
)
def squeeze(xp, input, dim=None):
    """Without the dimensions of size 1 (all, or those named)."""
    dims = normalize_dim(tuple(range(input.ndim)) if dim is None else dim, input.ndim) if input.ndim else ()
    dims = dims if isinstance(dims, tuple) else (dims,)
    return input.reshape(tuple(n for i, n in enumerate(input.shape) if i not in dims or n != 1))


@op(
    vjp=dict(input=lambda g, input_shape: reshape(g, input_shape)),
    samples=lambda t: [(t(3, 4), 0), (t(3, 4), -1), (t(3, 4), 1)],
    ref=np.expand_dims,
    view=True,
)
def unsqueeze(xp, input, dim):
    """With a dimension of size 1 put in at `dim`."""
    return xp.expand_dims(input, normalize_dim(dim, input.ndim + 1))


@op(
    vjp=dict(
        input=lambda g, input_shape, dim, start, length: pad_constant(g, _around(input_shape, dim, start, length))
    ),
    samples=lambda t: [(t(5, 3), 0, 1, 3), (t(2, 6), -1, 2, 2)],
    ref=lambda x, dim, start, length: np.take(x, range(start, start + length), dim),
    view=True,
)
def narrow(xp, input, dim, start, length):
    """The slice start : start + length of dimension `dim`."""
    dim = normalize_dim(dim, input.ndim)
    size = input.shape[dim]
    start = start + size if start < 0 else start
    if not 0 <= start <= size or start + length > size:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({size})")
    return input[(slice(None),) * dim + (slice(start, start + length),)]


def _around(shape, dim, start, length):
    dim = normalize_dim(dim, len(shape))
    start = start + shape[dim] if start < 0 else start
    return [(start, n - start - length) if i == dim else (0, 0) for i, n in enumerate(shape)]


@op(
    vjp=dict(input=lambda g, dims: flip(g, dims)),
    samples=lambda t: [(t(3, 4), (0,)), (t(3, 4), (0, 1))],
    ref=np.flip,
    method=False,
)
def flip(xp, input, dims):
    """The order along the dims reversed (a copy, as in PyTorch)."""
    dims = normalize_dim(tuple(dims) if isinstance(dims, list | tuple) else (dims,), input.ndim)
    if input.ndim == 0:
        return input.copy()
    return xp.ascontiguousarray(xp.flip(input, dims))


@op(
    vjp=dict(input=lambda g, shifts, dims: roll(g, _negative(shifts), dims)),
    samples=lambda t: [(t(3, 4), 1), (t(3, 4), 1, 0), (t(3, 4), (1, -1), (0, 1))],
    ref=np.roll,
)
def roll(xp, input, shifts, dims=None):
    """Elements shifted along dims, those pushed out coming back at the other end."""
    return xp.roll(input, shifts, dims)


def _negative(shifts):
    return tuple(-s for s in shifts) if isinstance(shifts, list | tuple) else -shifts


# -- copies -----------------------------------------------------------------------------------------------------
@op(vjp=dict(input=lambda g: g), samples=lambda t: [(t(3, 4),)], ref=lambda x: x + 0)
def clone(xp, input):
    """A copy that gradients flow through."""
    return input.copy()


@op(vjp=dict(input=lambda g: g), samples=lambda t: [(t(3, 4),)], ref=lambda x: x + 0, view=True)
def contiguous(xp, input):
    """Row-major in memory; the tensor's own memory when it is already."""
    return xp.ascontiguousarray(input) if input.ndim else input


@op(
    vjp=dict(tensors=lambda g, tensors_shape, dim: _cut(g, tensors_shape, dim)),
    samples=lambda t: [([t(2, 3), t(1, 3)],), ([t(2, 3), t(2, 1), t(2, 2)], 1), ([t(3), t(2)], -1)],
    ref=lambda xs, dim=0: np.hstack(xs) if dim and xs[0].ndim > 1 else np.concatenate(xs),
    promote="arith",
)
def cat(xp, tensors, dim=0):
    """The tensors one after the other along `dim`. Their other sizes must be equal."""
    dim = normalize_dim(dim, max(a.ndim for a in tensors))
    return xp.concatenate([a for a in tensors if a.shape != (0,)] or tensors, dim)


def _cut(g, shapes, dim):
    dim = normalize_dim(dim, max(len(s) for s in shapes))
    parts, start = [], 0
    for s in shapes:
        if s == (0,):
            parts.append(None)
            continue
        parts.append(narrow(g, dim, start, s[dim]))
        start += s[dim]
    return parts


@op(
    vjp=dict(tensors=lambda g, tensors_shape, dim: [select(g, dim, i) for i in range(len(tensors_shape))]),
    samples=lambda t: [([t(2, 3), t(2, 3)],), ([t(2, 3), t(2, 3)], 1), ([t(2), t(2)], -1)],
    ref=lambda xs, dim=0: np.stack(xs, dim),
    promote="arith",
)
def stack(xp, tensors, dim=0):
    """The tensors side by side along a new dimension."""
    return xp.stack(tensors, normalize_dim(dim, tensors[0].ndim + 1))


@op(
    vjp=dict(
        input=lambda g, input_shape, dim, index: reshape(
            pad_constant(
                unsqueeze(g, dim if dim >= 0 else dim + len(input_shape)), _around(input_shape, dim, index, 1)
            ),
            input_shape,
        )
    ),
    samples=lambda t: [(t(3, 4), 0, 1), (t(3, 4), -1, -1)],
    ref=lambda x, dim, index: np.take(x, index, dim),
    view=True,
)
def select(xp, input, dim, index):
    """The slice at `index` of dimension `dim`, without that dimension."""
    dim = normalize_dim(dim, input.ndim)
    if not -input.shape[dim] <= index < input.shape[dim]:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {input.shape[dim]}")
    return input[(slice(None),) * dim + (index,)]


@op(
    vjp=dict(input=lambda g, widths: _crop(g, widths)),
    samples=lambda t: [(t(2, 3), [(1, 0), (2, 1)]), (t(2, 3), [(0, 0), (0, 2)], 1.5)],
    ref=lambda x, widths, value=0.0: np.pad(x, widths, constant_values=value),
    method=False,
)
def pad_constant(xp, input, widths, value=0.0):
    """Padded with a constant; widths: (before, after) for every dimension."""
    out = xp.full(tuple(n + a + b for n, (a, b) in zip(input.shape, widths, strict=True)), value, input.dtype)
    out[tuple(slice(a, a + n) for n, (a, _) in zip(input.shape, widths, strict=True))] = input
    return out


def _crop(g, widths):
    return g[tuple(slice(a, n - b) for n, (a, b) in zip(g.shape, widths, strict=True))]


@op(
    vjp=dict(input=lambda g, input_shape, repeats: _fold_repeats(g, input_shape, repeats)),
    samples=lambda t: [(t(2, 3), (2, 1)), (t(3), (2, 2))],
    ref=lambda x, repeats: np.tile(x, repeats),
    method=False,
)
def repeat(xp, input, repeats):
    """The whole tensor repeated along each dimension (copies, unlike expand)."""
    if len(repeats) < input.ndim:
        raise RuntimeError(f"repeat: {len(repeats)} counts for a tensor with {input.ndim} dimensions")
    return xp.tile(input, tuple(repeats))


def _fold_repeats(g, shape, repeats):
    from .reduce import sum

    lead = len(repeats) - len(shape)
    sizes: list[int] = []
    for r, n in zip(repeats, (1,) * lead + tuple(shape), strict=True):
        sizes += [r, n]
    return reshape(sum(reshape(g, tuple(sizes)), tuple(range(0, len(sizes), 2))), shape)


@op(
    vjp=dict(input=lambda g, diagonal: tril(g, diagonal)),
    samples=lambda t: [(t(3, 4),), (t(2, 3, 3), -1)],
    ref=np.tril,
)
def tril(xp, input, diagonal=0):
    """The lower triangle of the last two dimensions; zeros above `diagonal`."""
    return xp.tril(input, diagonal)


@op(
    vjp=dict(input=lambda g, diagonal: triu(g, diagonal)),
    samples=lambda t: [(t(3, 4),), (t(2, 3, 3), 1)],
    ref=np.triu,
)
def triu(xp, input, diagonal=0):
    """The upper triangle of the last two dimensions; zeros below `diagonal`."""
    return xp.triu(input, diagonal)


# -- composed ---------------------------------------------------------------------------------------------------
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions start_dim … end_dim joined into one."""
    if input.ndim == 0:
        return reshape(input, (1,))
    a, b = normalize_dim(start_dim, input.ndim), normalize_dim(end_dim, input.ndim)
    shape = tuple(input.shape)
    return reshape(input, shape[:a] + (math.prod(shape[a : b + 1]),) + shape[b + 1 :])


def unflatten(input: Any, dim: int, sizes: Any) -> Any:
    """Dimension `dim` split into `sizes`."""
    dim = normalize_dim(dim, input.ndim)
    shape = tuple(input.shape)
    return reshape(input, shape[:dim] + tuple(sizes) + shape[dim + 1 :])


def split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> tuple:
    """Pieces of the given size (the last may be smaller) or sizes along `dim`."""
    dim = normalize_dim(dim, tensor.ndim)
    total = tensor.shape[dim]
    sizes = split_size_or_sections
    if isinstance(sizes, int):
        sizes = [min(sizes, total - i) for i in range(0, total, sizes)] or [0]
    if sum(sizes) != total:
        raise RuntimeError(f"split: sizes {list(sizes)} do not add up to {total}, the size of dimension {dim}")
    parts, start = [], 0
    for n in sizes:
        parts.append(narrow(tensor, dim, start, n))
        start += n
    return tuple(parts)


def chunk(input: Any, chunks: int, dim: int = 0) -> tuple:
    """At most `chunks` pieces of equal size along `dim` (the last may be smaller)."""
    return split(input, max(-(-input.shape[dim] // chunks), 1), dim)


def unbind(input: Any, dim: int = 0) -> tuple:
    """The slices along `dim`, without it."""
    return tuple(select(input, dim, i) for i in range(input.shape[dim]))


def movedim(input: Any, source: Any, destination: Any) -> Any:
    """Dimensions moved to new places, the others in order."""
    src = (source,) if isinstance(source, int) else tuple(source)
    dst = (destination,) if isinstance(destination, int) else tuple(destination)
    src, dst = normalize_dim(src, input.ndim), normalize_dim(dst, input.ndim)
    order = [i for i in range(input.ndim) if i not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return permute(input, tuple(order))


def t(input: Any) -> Any:
    """The transpose of a matrix."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with at most 2 dimensions, but it has {input.ndim}")
    return transpose(input, 0, 1) if input.ndim == 2 else input


def broadcast_to(input: Any, shape: Any) -> Any:
    """`expand` as a function."""
    return expand(input, tuple(shape))


def broadcast_tensors(*tensors: Any) -> tuple:
    """All tensors expanded to their common shape."""
    shape = np.broadcast_shapes(*[tuple(x.shape) for x in tensors])
    return tuple(expand(x, shape) for x in tensors)


def repeat_interleave(input: Any, repeats: int, dim: int | None = None) -> Any:
    """Each element `repeats` times in place, along `dim` (of the flattened tensor when None)."""
    if not isinstance(repeats, int):
        raise NotImplementedError("repeat_interleave with a tensor of counts is not available yet; give an int")
    if dim is None:
        input, dim = flatten(input), 0
    dim = normalize_dim(dim, input.ndim)
    shape = tuple(input.shape)
    wide = expand(unsqueeze(input, dim + 1), shape[: dim + 1] + (repeats,) + shape[dim + 1 :])
    return reshape(wide, (*shape[:dim], shape[dim] * repeats, *shape[dim + 1 :]))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple:
    """Coordinate grids of 1-d tensors."""
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = tuple(tensors[0])
    n = len(tensors)
    grids = [reshape(x, (1,) * i + (-1,) + (1,) * (n - 1 - i)) for i, x in enumerate(tensors)]
    grids = list(broadcast_tensors(*grids))
    return tuple(transpose(g, 0, 1) for g in grids) if indexing == "xy" and n > 1 else tuple(grids)


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """Padding as PyTorch gives it: (left, right, top, bottom, …) from the last dimension backwards.

    mode: constant, reflect, replicate or circular. Negative widths crop (constant only).
    """
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    lead = input.ndim - len(pairs)
    if lead < 0:
        raise RuntimeError(f"padding of {len(pairs)} dimensions for a tensor with {input.ndim}")
    widths = [(0, 0)] * lead + pairs
    if mode == "constant":
        if any(a < 0 or b < 0 for a, b in widths):
            crop = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(input.shape, widths, strict=True))
            input = input[crop]
            widths = [(max(a, 0), max(b, 0)) for a, b in widths]
        return pad_constant(input, widths, 0.0 if value is None else value)
    from .index import index_select

    for d, (a, b) in enumerate(widths):
        if a or b:
            input = index_select(input, d, _border(mode, input.shape[d], a, b))
    return input


def _border(mode: str, n: int, a: int, b: int) -> np.ndarray:
    """Source positions of a padded dimension."""
    i = np.arange(-a, n + b)
    if mode == "replicate":
        return np.clip(i, 0, n - 1)
    if mode == "circular":
        return i % n
    if mode == "reflect":
        if max(a, b) >= n:
            raise RuntimeError(f"reflect padding ({a}, {b}) must be smaller than the dimension ({n})")
        i = np.abs(i)
        return np.where(i >= n, 2 * (n - 1) - i, i)
    raise ValueError(f"padding mode {mode!r} is not known; use constant, reflect, replicate or circular")
