"""Differences, slopes and areas along a dimension, and Vandermonde matrices."""

from __future__ import annotations

from typing import Any

from ._op import alias, method, normalize_dim
from .shape import cat, expand, flip, narrow, reshape, unsqueeze

__all__ = ["cumulative_trapezoid", "diff", "gradient", "trapezoid", "vander"]


def _dtype(x: Any) -> Any:
    return getattr(x, "array", x).dtype


@method()
def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The n-th difference of neighbours along `dim`."""
    from .logic import logical_xor

    if input.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    dim = normalize_dim(dim, input.ndim)
    if n == 0:
        return input
    parts = [x for x in (prepend, input, append) if x is not None]
    if len(parts) > 1:
        input = cat(parts, dim)
    for _ in range(min(n, input.shape[dim])):
        size = max(input.shape[dim] - 1, 0)
        later, earlier = narrow(input, dim, min(1, input.shape[dim]), size), narrow(input, dim, 0, size)
        input = logical_xor(later, earlier) if _dtype(input).kind == "b" else later - earlier
    return input


def _steps(y: Any, x: Any, dim: int) -> Any:
    """The widths of the intervals of sample points, shaped to meet y along `dim`."""
    if x.ndim == 0:
        raise RuntimeError("trapezoid: the points x must have at least one dimension")
    if x.ndim == 1:
        if x.shape[0] != y.shape[dim]:
            raise RuntimeError(f"trapezoid: there are {x.shape[0]} points but {y.shape[dim]} values along dim {dim}")
        return reshape(diff(x), (-1,) + (1,) * (y.ndim - dim - 1))
    if x.ndim < y.ndim:
        x = reshape(x, (1,) * (y.ndim - x.ndim) + tuple(x.shape))
    return diff(x, 1, dim)


def _areas(y: Any, x: Any, dx: Any, dim: int) -> tuple:
    if x is not None and dx is not None:
        raise TypeError("trapezoid takes x or dx, not both")
    dim = normalize_dim(dim, y.ndim)
    size = max(y.shape[dim] - 1, 0)
    if y.shape[dim] == 0:
        return narrow(y, dim, 0, 0) * 0.5, dim
    pairs = narrow(y, dim, 1, size) + narrow(y, dim, 0, size)
    return pairs * 0.5 * ((1 if dx is None else dx) if x is None else _steps(y, x, dim)), dim


def trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Any:
    """The integral along `dim` by the trapezoidal rule, at points `x` or spacing `dx` (1).

    >>> import flambeau
    >>> trapezoid(flambeau.tensor([1.0, 2.0, 3.0]))
    tensor(4.)
    """
    from .reduce import sum

    areas, dim = _areas(y, x, dx, dim)
    return sum(areas, dim)


alias(trapezoid, "trapz", method=False)


def cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Any:
    """The running integral along `dim` by the trapezoidal rule."""
    from .reduce import cumsum

    areas, dim = _areas(y, x, dx, dim)
    return cumsum(areas, dim)


def gradient(input: Any, *, spacing: Any = None, dim: Any = None, edge_order: int = 1) -> tuple:
    """Slopes along the dims by central differences; one-sided ones of order `edge_order` (1 or 2) at the ends.

    spacing: a number, a number for each dim, or coordinates (1-d tensors) for each dim.
    """
    dims = range(input.ndim) if dim is None else dim
    dims = [normalize_dim(d, input.ndim) for d in ((dims,) if isinstance(dims, int) else dims)]
    if edge_order not in (1, 2):
        raise RuntimeError(f"gradient only supports edge_order=1 and edge_order=2, not {edge_order}")
    spacing = 1 if spacing is None else spacing
    many = isinstance(spacing, list | tuple)
    spaces = list(spacing) if many else [spacing] * len(dims)
    if len(spaces) != len(dims):
        raise RuntimeError(f"gradient: {len(spaces)} spacings for {len(dims)} dims")
    return tuple(_slope(input, h, d, edge_order) for h, d in zip(spaces, dims, strict=True))


def _slope(f: Any, h: Any, dim: int, edge_order: int) -> Any:
    n = f.shape[dim]
    if n < edge_order + 1:
        raise RuntimeError(f"gradient: dimension {dim} must have at least {edge_order + 1} elements, but has {n}")
    if getattr(h, "ndim", 0) == 1:
        if h.shape[0] != n:
            raise RuntimeError(f"gradient: there are {h.shape[0]} coordinates for dimension {dim} of size {n}")
        steps = reshape(diff(h), (-1,) + (1,) * (f.ndim - dim - 1))
        axis = -f.ndim + dim  # steps have the dimensions from `dim` on

        def step(i: int, count: int = 1) -> Any:
            return narrow(steps, axis, i if i >= 0 else n - 1 + i, count)

        left, right = step(0, n - 2), step(1, n - 2)
    else:
        step = lambda i, count=1: h
        left = right = h

    def part(i: int, count: int = 1) -> Any:
        return narrow(f, dim, i if i >= 0 else n + i, count)

    pieces = []
    if edge_order == 1:
        first, last = (part(1) - part(0)) / step(0), (part(-1) - part(-2)) / step(-1)
    else:
        first = _three(step(0), step(1), part(0), part(1), part(2))
        last = -_three(step(-1), step(-2), part(-1), part(-2), part(-3))
    pieces.append(first)
    if n > 2:
        before, middle, after = part(0, n - 2), part(1, n - 2), part(2, n - 2)
        total = left + right
        pieces.append(
            -before * (right / (left * total)) + middle * ((right - left) / (left * right))
            + after * (left / (right * total))
        )  # fmt: skip
    pieces.append(last)
    return cat(pieces, dim)


def _three(a: Any, b: Any, f0: Any, f1: Any, f2: Any) -> Any:
    """The slope at the first of three points that are a and b apart, of second order."""
    return -f0 * ((2 * a + b) / (a * (a + b))) + f1 * ((a + b) / (a * b)) - f2 * (a / (b * (a + b)))


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """Rows of powers x ** (N - 1), …, x ** 0 (or the other way round) of a 1-d tensor."""
    from .reduce import cumprod

    if x.ndim != 1:
        raise RuntimeError(f"vander: x must be a one-dimensional tensor, not {x.ndim}-dimensional")
    count = x.shape[0] if N is None else N
    if count < 0:
        raise RuntimeError(f"vander: N must be non-negative, not {count}")
    ones = reshape(x * 0 + 1, (-1, 1))
    powers = narrow(ones, 1, 0, min(count, 1))
    if count > 1:
        repeated = expand(unsqueeze(x, 1), (x.shape[0], count - 1))
        powers = cat([ones, cumprod(repeated, 1)], 1)
    return powers if increasing else flip(powers, (1,))
