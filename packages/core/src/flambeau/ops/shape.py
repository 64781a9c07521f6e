"""Rearranging elements: reshape, permute, expand, concatenate, pad. Views share memory where NumPy lets them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import alias, method, normalize_dim, op


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
    dims = normalize_dim(tuple(range(input.ndim)) if dim is None else dim, input.ndim)
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
    if input.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor; reshape it to (1,) first")
    dim, start = normalize_dim(dim, input.ndim), int(start)
    size = input.shape[dim]
    start = start + size if start < 0 else start
    if length < 0:
        raise RuntimeError(f"narrow: length must not be negative, but it is {length}")
    if not 0 <= start <= size or start + length > size:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({size})")
    return input[(slice(None),) * dim + (slice(start, start + length),)]


def _around(shape, dim, start, length):
    dim, start = normalize_dim(dim, len(shape)), int(start)
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
    """Elements shifted along dims (None: flattened), those pushed out coming back at the other end."""
    if dims is None or dims == () or dims == []:
        return xp.roll(input, shifts[0] if isinstance(shifts, list | tuple) else shifts)
    counts = [len(v) if isinstance(v, list | tuple) else 1 for v in (shifts, dims)]
    if counts[0] != counts[1]:
        raise RuntimeError(f"roll: shifts and dims must align, but there are {counts[0]} shifts and {counts[1]} dims")
    if input.ndim == 0:
        return input.copy()
    return xp.roll(input, shifts, dims)


def _negative(shifts):
    return tuple(-s for s in shifts) if isinstance(shifts, list | tuple) else -shifts


# -- copies -----------------------------------------------------------------------------------------------------
@op(vjp=dict(input=lambda g: g), samples=lambda t: [(t(3, 4),)], ref=lambda x: x + 0)
def clone(xp, input, memory_format=None):
    """A copy that gradients flow through."""
    return input.copy()


@op(vjp=dict(input=lambda g: g), samples=lambda t: [(t(3, 4),)], ref=lambda x: x + 0, view=True)
def contiguous(xp, input, memory_format=None):
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
    if any(a.ndim == 0 for a in tensors):
        raise RuntimeError("zero-dimensional tensors cannot be concatenated; use stack()")
    dim = normalize_dim(dim, max(a.ndim for a in tensors))
    try:
        return xp.concatenate([a for a in tensors if a.shape != (0,)] or tensors, dim)
    except ValueError as e:
        raise RuntimeError(f"sizes must match except in dimension {dim} ({e})") from None


alias(cat, "concat", "concatenate", method=False)


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
    if any(a.shape != tensors[0].shape for a in tensors):
        raise RuntimeError("stack expects each tensor to be equal size")
    return xp.stack(tensors, normalize_dim(dim, tensors[0].ndim + 1))


@op(
    vjp=dict(
        input=lambda g, input_shape, dim, index: reshape(
            pad_constant(unsqueeze(g, normalize_dim(dim, len(input_shape))), _around(input_shape, dim, index, 1)),
            input_shape,
        )
    ),
    samples=lambda t: [(t(3, 4), 0, 1), (t(3, 4), -1, -1)],
    ref=lambda x, dim, index: np.take(x, index, dim),
    view=True,
)
def select(xp, input, dim, index):
    """The slice at `index` of dimension `dim`, without that dimension."""
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor; use item() for its value")
    dim, index = normalize_dim(dim, input.ndim), int(index)
    if not -input.shape[dim] <= index < input.shape[dim]:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {input.shape[dim]}")
    return input[(slice(None),) * dim + (index, ...)]  # the Ellipsis keeps a 0-d result a view


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


# -- pieces -----------------------------------------------------------------------------------------------------
@op(
    vjp=dict(
        input=lambda g, input_shape, split_sizes, dim: cat(_filled(g, _part_shapes(input_shape, split_sizes, dim)), dim)
    ),
    samples=lambda t: [(t(5, 2), [2, 3]), (t(2, 6), [1, 2, 3], -1)],
    view=True,
)
def split_with_sizes(xp, input, split_sizes, dim=0):
    """Pieces of the given sizes along `dim`."""
    dim = normalize_dim(dim, input.ndim)
    total = input.shape[dim] if input.ndim else 0
    if input.ndim == 0 or any(n < 0 for n in split_sizes) or sum(split_sizes) != total:
        raise RuntimeError(f"split sizes {list(split_sizes)} do not add up to {total}, the size of dimension {dim}")
    lead, parts, start = (slice(None),) * dim, [], 0
    for n in split_sizes:
        parts.append(input[(*lead, slice(start, start + n))])
        start += n
    return tuple(parts)


@op(
    vjp=dict(input=lambda g, input_shape, dim: stack(_filled(g, [_without(input_shape, dim)] * len(g)), dim)),
    samples=lambda t: [(t(3, 2),), (t(2, 3), -1)],
    view=True,
)
def unbind(xp, input, dim=0):
    """The slices along `dim`, without it."""
    if input.ndim == 0:
        raise RuntimeError("unbind: a 0-dim tensor has no dimension to unbind")
    lead = (slice(None),) * normalize_dim(dim, input.ndim)
    return tuple(input[(*lead, i, ...)] for i in range(input.shape[len(lead)]))


def _without(shape, dim):
    dim = normalize_dim(dim, len(shape))
    return shape[:dim] + shape[dim + 1 :]


def _part_shapes(shape, sizes, dim):
    dim = normalize_dim(dim, len(shape))
    return [(*shape[:dim], n, *shape[dim + 1 :]) for n in sizes]


def _filled(parts, shapes):
    """The cotangents of several outputs, zeros in the place of those that nobody used."""
    given = next(p for p in parts if p is not None)
    zero = reshape(given, (-1,))[:1] * 0  # of the right dtype, on the right device
    if 0 in given.shape:
        zero = pad_constant(zero, [(0, 1)])
    return [expand(zero, tuple(s)) if p is None else p for p, s in zip(parts, shapes, strict=True)]


@method()
def split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> tuple:
    """Pieces of the given size (the last may be smaller) or sizes along `dim`."""
    sizes = split_size_or_sections
    if hasattr(sizes, "__index__"):
        size, total = int(sizes), tensor.shape[normalize_dim(dim, tensor.ndim)] if tensor.ndim else 0
        if size < 0 or (size == 0 and total):
            raise RuntimeError(f"split: split_size must be positive, but it is {size}")
        sizes = [min(size, total - i) for i in range(0, total, max(size, 1))] or [0]
    return split_with_sizes(tensor, tuple(int(n) for n in sizes), dim)


@method()
def chunk(input: Any, chunks: int, dim: int = 0) -> tuple:
    """At most `chunks` pieces of equal size along `dim` (the last may be smaller)."""
    if chunks <= 0:
        raise RuntimeError(f"chunk expects chunks to be greater than 0, got {chunks}")
    size = -(-input.shape[dim] // chunks)
    return split(input, size, dim) if size else split_with_sizes(input, (0,) * chunks, dim)


alias(split, "unsafe_split")
alias(chunk, "unsafe_chunk")
alias(split_with_sizes, "unsafe_split_with_sizes")


from .shape_calculus import *  # noqa: E402, F403 - the parts of this family
from .shape_forms import *  # noqa: E402, F403
from .shape_join import *  # noqa: E402, F403
from .shape_pad import *  # noqa: E402, F403
from .shape_view import *  # noqa: E402, F403
