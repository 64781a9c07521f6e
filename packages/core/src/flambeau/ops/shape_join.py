"""Joining and cutting by NumPy's names, blocks, products and combinations of elements."""

from __future__ import annotations

import itertools
from typing import Any

from ._op import alias, method, normalize_dim
from .shape import cat, pad_constant, reshape, split_with_sizes, stack
from .shape_forms import flatten, meshgrid

__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "cartesian_prod", "column_stack", "combinations", "dsplit",
    "dstack", "hsplit", "hstack", "tensor_split", "vsplit", "vstack",
]  # fmt: skip


def _each(function: Any, tensors: tuple) -> Any:
    """The function of one tensor, or of each in a list or of several arguments."""
    if len(tensors) == 1 and not isinstance(tensors[0], list | tuple):
        return function(tensors[0])
    return tuple(function(x) for x in (tensors[0] if len(tensors) == 1 else tensors))


def atleast_1d(*tensors: Any) -> Any:
    """Tensors with at least one dimension."""
    return _each(lambda x: reshape(x, (1,)) if x.ndim == 0 else x, tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Tensors with at least two dimensions: new ones come first."""
    return _each(lambda x: reshape(x, (1, -1 if x.ndim == 0 else x.shape[0])) if x.ndim < 2 else x, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Tensors with at least three dimensions: (n,) becomes (1, n, 1), (m, n) becomes (m, n, 1)."""

    def widen(x: Any) -> Any:
        if x.ndim == 2:
            return reshape(x, (*x.shape, 1))
        return reshape(x, (1, x.shape[0] if x.ndim else 1, 1)) if x.ndim < 2 else x

    return _each(widen, tensors)


def hstack(tensors: Any) -> Any:
    """Tensors joined along dimension 1 (0 for 1-d ones)."""
    tensors = [atleast_1d(x) for x in tensors]
    return cat(tensors, 0 if tensors and tensors[0].ndim == 1 else 1)


def vstack(tensors: Any) -> Any:
    """Tensors joined along dimension 0, 1-d ones as rows."""
    return cat([atleast_2d(x) for x in tensors], 0)


alias(vstack, "row_stack", method=False)


def dstack(tensors: Any) -> Any:
    """Tensors joined along dimension 2."""
    return cat([atleast_3d(x) for x in tensors], 2)


def column_stack(tensors: Any) -> Any:
    """Tensors joined along dimension 1, 0-d and 1-d ones as columns."""
    return hstack([reshape(x, (-1, 1)) if x.ndim < 2 else x for x in tensors])


@method()
def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> tuple:
    """`indices_or_sections` pieces, the first ones longer by one, or pieces cut before the given positions."""
    if input.ndim == 0:
        raise RuntimeError("tensor_split expects at least a 1-dimensional tensor")
    dim, cuts = normalize_dim(dim, input.ndim), indices_or_sections
    size = input.shape[dim]
    if hasattr(cuts, "dtype"):
        cuts = cuts.tolist()
    if isinstance(cuts, int):
        if cuts <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {cuts}")
        return split_with_sizes(input, tuple(size // cuts + (i < size % cuts) for i in range(cuts)), dim)
    lead = (slice(None),) * dim
    return tuple(input[(*lead, slice(a, b))] for a, b in zip([0, *cuts], [*cuts, size], strict=True))


def _even(input: Any, cuts: Any, dim: int, name: str) -> tuple:
    if isinstance(cuts, int) and (cuts <= 0 or input.shape[dim] % cuts):
        raise RuntimeError(f"{name}: dimension {dim} of size {input.shape[dim]} is not divisible into {cuts} sections")
    return tensor_split(input, cuts, dim)


@method()
def hsplit(input: Any, indices_or_sections: Any) -> tuple:
    """Pieces along dimension 1 (0 for a 1-d tensor)."""
    if input.ndim < 1:
        raise RuntimeError("hsplit requires a tensor with at least 1 dimension")
    return _even(input, indices_or_sections, 0 if input.ndim == 1 else 1, "hsplit")


@method()
def vsplit(input: Any, indices_or_sections: Any) -> tuple:
    """Pieces along dimension 0 of a tensor with at least two dimensions."""
    if input.ndim < 2:
        raise RuntimeError(f"vsplit requires a tensor with at least 2 dimensions, not {input.ndim}")
    return _even(input, indices_or_sections, 0, "vsplit")


@method()
def dsplit(input: Any, indices_or_sections: Any) -> tuple:
    """Pieces along dimension 2."""
    if input.ndim < 3:
        raise RuntimeError(f"dsplit requires a tensor with at least 3 dimensions, not {input.ndim}")
    return _even(input, indices_or_sections, 2, "dsplit")


def block_diag(*tensors: Any) -> Any:
    """A matrix with the tensors as blocks along its diagonal, zeros elsewhere."""
    if any(x.ndim > 2 for x in tensors):
        raise RuntimeError("block_diag: the tensors must have 2 or fewer dimensions")
    blocks = [atleast_2d(x) for x in tensors]
    if not blocks:
        from .create import zeros

        return zeros(1, 0)
    total, start, rows = sum(b.shape[1] for b in blocks), 0, []
    for b in blocks:
        rows.append(pad_constant(b, [(0, 0), (start, total - start - b.shape[1])]))
        start += b.shape[1]
    return cat(rows, 0)


def cartesian_prod(*tensors: Any) -> Any:
    """All tuples with one element of each 1-d tensor, as rows (of a single tensor: the tensor)."""
    if any(x.ndim != 1 for x in tensors):
        raise RuntimeError("cartesian_prod expects 1-dimensional tensors")
    return tensors[0] if len(tensors) == 1 else stack([flatten(x) for x in meshgrid(*tensors)], 1)


def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """All combinations of `r` elements of a 1-d tensor, as rows, in lexicographic order of positions."""
    if input.ndim != 1:
        raise RuntimeError(f"combinations expects a 1-dimensional tensor, not {input.ndim} dimensions")
    if r < 0:
        raise RuntimeError(f"combinations expects a non-negative number, not {r}")
    if r == 0:
        from .create import zeros

        return zeros(0, dtype=input.dtype, device=getattr(input, "device", None))
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = [list(row) for row in choose(range(input.shape[0]), r)]
    return input[rows] if rows else reshape(input[:0], (0, r))
