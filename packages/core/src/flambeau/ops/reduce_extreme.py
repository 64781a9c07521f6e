"""The largest and smallest elements and where they are."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from ._op import method, normalize_dim, op
from .logic import cast, eq
from .reduce import ValuesIndices, _axis, _kept, _spread, sum
from .shape import reshape

__all__ = ["amax", "amin", "aminmax", "argmax", "argmin", "max", "min"]

_MinMax = namedtuple("_MinMax", ["min", "max"])


def _needs_elements(input: Any, dim: Any, name: str) -> None:
    """Errors: IndexError when there is nothing to choose from."""
    kept = _kept(input.shape, dim)
    if input.size == 0 and math.prod(n for n, k in zip(input.shape, kept, strict=True) if k == 1) == 0:
        raise IndexError(f"{name}(): expected the reduction dimension to have elements, in shape {list(input.shape)}")


@op(
    vjp=dict(input=lambda g, out, input, input_shape, dim, keepdim: _to_ties(g, out, input, input_shape, dim, keepdim)),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(2, 3, 4), (0, 2), True)],
    ref=lambda x, dim=None, keepdim=False: np.maximum.reduce(
        x, axis=dim if dim is not None else tuple(range(x.ndim)), keepdims=keepdim
    ),
)
def amax(xp, input, dim=None, keepdim=False):
    """The largest element over `dim`; equal ones share the gradient."""
    _needs_elements(input, dim, "amax")
    return xp.asarray(xp.max(input, _axis(input, dim), keepdims=keepdim))


@op(
    vjp=dict(input=lambda g, out, input, input_shape, dim, keepdim: _to_ties(g, out, input, input_shape, dim, keepdim)),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(2, 3, 4), (0, 2), True)],
    ref=lambda x, dim=None, keepdim=False: np.minimum.reduce(
        x, axis=dim if dim is not None else tuple(range(x.ndim)), keepdims=keepdim
    ),
)
def amin(xp, input, dim=None, keepdim=False):
    """The smallest element over `dim`; equal ones share the gradient."""
    _needs_elements(input, dim, "amin")
    return xp.asarray(xp.min(input, _axis(input, dim), keepdims=keepdim))


def _to_ties(g: Any, out: Any, input: Any, shape: tuple, dim: Any, keepdim: bool) -> Any:
    hit = cast(eq(input, _spread(out, shape, dim, keepdim)), "like", g)
    return _spread(g, shape, dim, keepdim) * (hit / sum(hit, dim, True))


@method()
def aminmax(input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest and the largest element."""
    return _MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))


@op(samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(3, 4), 0, True)])
def argmax(xp, input, dim=None, keepdim=False):
    """The index of the first largest element along `dim` (of the flattened tensor when None)."""
    _needs_elements(input, dim, "argmax")
    return xp.asarray(xp.argmax(input, None if dim is None else normalize_dim(dim, input.ndim), keepdims=keepdim))


@op(samples=lambda t: [(t(3, 4),), (t(3, 4), 1), (t(3, 4), 0, True)])
def argmin(xp, input, dim=None, keepdim=False):
    """The index of the first smallest element along `dim` (of the flattened tensor when None)."""
    _needs_elements(input, dim, "argmin")
    return xp.asarray(xp.argmin(input, None if dim is None else normalize_dim(dim, input.ndim), keepdims=keepdim))


@method()
def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest element; with `dim` the values and their indices; with a second tensor, elementwise."""
    return _extreme(input, dim, keepdim, other, amax, argmax, "maximum")


@method()
def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest element; with `dim` the values and their indices; with a second tensor, elementwise."""
    return _extreme(input, dim, keepdim, other, amin, argmin, "minimum")


def _extreme(input, dim, keepdim, other, whole, arg, pairwise):
    from . import elementwise
    from .index import gather

    if other is not None or hasattr(dim, "dtype"):
        return getattr(elementwise, pairwise)(input, dim if other is None else other)
    if dim is None:
        return whole(input)
    index = arg(input, dim, True)
    values = gather(input, dim, index) if input.ndim else input
    if not keepdim:
        shape = tuple(n for i, n in enumerate(index.shape) if i != normalize_dim(dim, input.ndim))
        values, index = reshape(values, shape), reshape(index, shape)
    return ValuesIndices(values, index)
