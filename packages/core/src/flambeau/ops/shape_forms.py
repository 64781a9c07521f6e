"""Shapes composed of the primitives: flattened, moved and broadcast dimensions, grids and repeated elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tensor import Size
from ._op import alias, method, normalize_dim
from .logic import conj
from .shape import expand, permute, repeat, reshape, transpose, unsqueeze

__all__ = [
    "adjoint", "broadcast_shapes", "broadcast_tensors", "broadcast_to", "flatten", "meshgrid", "movedim", "ravel",
    "repeat_interleave", "swapaxes", "t", "tile", "unflatten",
]  # fmt: skip


@method()
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions start_dim … end_dim joined into one."""
    a, b = normalize_dim(start_dim, input.ndim), normalize_dim(end_dim, input.ndim)
    if input.ndim == 0:
        return reshape(input, (1,))
    if a > b:
        raise RuntimeError(f"flatten: start_dim ({start_dim}) must not come after end_dim ({end_dim})")
    shape = tuple(input.shape)
    return reshape(input, shape[:a] + (math.prod(shape[a : b + 1]),) + shape[b + 1 :])


@method()
def ravel(input: Any) -> Any:
    """All elements in one dimension."""
    return reshape(input, (-1,))


@method()
def unflatten(input: Any, dim: int, sizes: Any) -> Any:
    """Dimension `dim` split into `sizes`, one of which may be -1."""
    dim = normalize_dim(dim, input.ndim)
    shape, sizes = tuple(input.shape), [int(n) for n in sizes]
    known = math.prod(n for n in sizes if n != -1)
    if -1 in sizes and known:
        sizes[sizes.index(-1)] = shape[dim] // known
    if not sizes or math.prod(sizes) != shape[dim]:
        raise RuntimeError(f"unflatten: sizes {sizes} don't multiply up to {shape[dim]}, the size of dimension {dim}")
    return reshape(input, shape[:dim] + tuple(sizes) + shape[dim + 1 :])


@method()
def movedim(input: Any, source: Any, destination: Any) -> Any:
    """Dimensions moved to new places, the others in order."""
    src = (source,) if isinstance(source, int) else tuple(source)
    dst = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(src) != len(dst):
        raise RuntimeError(f"movedim: source {list(src)} and destination {list(dst)} must have as many dims")
    if input.ndim == 0:
        normalize_dim(src, 0), normalize_dim(dst, 0)
        return input
    src, dst = normalize_dim(src, input.ndim), normalize_dim(dst, input.ndim)
    order = [i for i in range(input.ndim) if i not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return permute(input, tuple(order))


def swapaxes(input: Any, axis0: int, axis1: int) -> Any:
    """`transpose` by NumPy's name."""
    return transpose(input, axis0, axis1)


alias(movedim, "moveaxis")
alias(swapaxes, "swapaxes")
alias(transpose, "swapdims")


@method()
def t(input: Any) -> Any:
    """The transpose of a matrix."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with at most 2 dimensions, but it has {input.ndim}")
    return transpose(input, 0, 1) if input.ndim == 2 else input


@method()
def adjoint(input: Any) -> Any:
    """The last two dimensions swapped and the elements conjugated: the property `mH`."""
    if input.ndim == 1:
        raise RuntimeError("adjoint: a 1-dim tensor has no two last dimensions; use conj()")
    return conj(transpose(input, -2, -1) if input.ndim else input)


def _hermitian(input: Any) -> Any:
    """The conjugate transpose of a matrix: the property `H`."""
    if input.ndim not in (0, 2):
        raise RuntimeError(f"tensor.H is only for matrices (2-D tensors), not {input.ndim}-D ones; use tensor.mH")
    return adjoint(input)


@method()
def broadcast_to(input: Any, size: Any) -> Any:
    """`expand` as a function."""
    return expand(input, tuple(size))


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that the shapes broadcast to. Errors: RuntimeError when they do not."""
    shapes = tuple((s,) if isinstance(s, int) else tuple(s) for s in shapes)
    try:
        return Size(np.broadcast_shapes(*shapes))
    except ValueError:
        raise RuntimeError(f"shapes {', '.join(str(list(s)) for s in shapes)} do not broadcast to one shape") from None


def broadcast_tensors(*tensors: Any) -> tuple:
    """All tensors expanded to their common shape."""
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = tuple(tensors[0])
    shape = tuple(broadcast_shapes(*[tuple(x.shape) for x in tensors]))
    return tuple(expand(x, shape) for x in tensors)


@method("tile")
def _tile(input: Any, *dims: Any) -> Any:
    return tile(input, dims[0] if len(dims) == 1 and isinstance(dims[0], list | tuple) else dims)


def tile(input: Any, dims: Any) -> Any:
    """`repeat`, with missing leading counts taken as 1."""
    return repeat(input, (1,) * (input.ndim - len(dims)) + tuple(dims))


alias(tile, "tile", method=False)


@method()
def repeat_interleave(
    input: Any, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Any:
    """Each element `repeats` times in place (a number, or a count for each slice), along `dim` (flattened when None).

    With counts alone: each position as often as its count says.

    >>> import flambeau
    >>> flambeau.tensor([7, 8]).repeat_interleave(flambeau.tensor([1, 2]))
    tensor([7, 8, 8])
    """
    if repeats is None:
        repeats, input = input, _positions(input)
    elif dim is None:
        input, dim = flatten(input), 0
    dim = normalize_dim(dim or 0, input.ndim)
    shape = tuple(input.shape)
    counts = getattr(repeats, "array", repeats)
    if getattr(counts, "size", 1) == 1 and getattr(counts, "ndim", 0) <= 1:
        n = int(counts) if isinstance(counts, int) else int(counts.reshape(()))
        if n < 0:
            raise RuntimeError(f"repeat_interleave: repeats must not be negative, but it is {n}")
        wide = expand(unsqueeze(input, dim + 1), (*shape[: dim + 1], n, *shape[dim + 1 :]))
        out = reshape(wide, (*shape[:dim], shape[dim] * n, *shape[dim + 1 :])) if input.ndim else wide
    else:
        from .index import index_select

        if counts.ndim != 1 or counts.shape[0] != shape[dim]:
            raise RuntimeError(f"repeat_interleave: {counts.size} repeats for a dimension of size {shape[dim]}")
        if bool((counts < 0).any()):
            raise RuntimeError("repeat_interleave: repeats must not be negative")
        out = index_select(input, dim, _positions(counts).repeat(counts.tolist()))
    if output_size is not None and out.shape[dim] != output_size:
        raise RuntimeError(f"repeat_interleave: output_size {output_size} but the repeats add up to {out.shape[dim]}")
    return out


def _positions(counts: Any) -> Any:
    """0 … n - 1 on the device of `counts`, wrapped as it is."""
    array = getattr(counts, "array", counts)
    places = (array * 0 + 1).astype(np.int64).cumsum() - 1
    return places if array is counts else type(counts)._wrap(places)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple:
    """Coordinate grids of 1-d tensors; indexing "ij" (the default) or "xy"."""
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = tuple(tensors[0])
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(f'meshgrid: indexing must be "ij" or "xy", not {indexing!r}')
    n = len(tensors)
    grids = [reshape(x, (1,) * i + (-1,) + (1,) * (n - 1 - i)) for i, x in enumerate(tensors)]
    grids = list(broadcast_tensors(*grids))
    return tuple(transpose(g, 0, 1) for g in grids) if indexing == "xy" and n > 1 else tuple(grids)
