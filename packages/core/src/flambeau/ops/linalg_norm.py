"""Norms of vectors and matrices, and the distances made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import method, normalize_dim, op
from .elementwise import abs, clamp, mul, pow, sign, sqrt, true_divide, where
from .index import index_select
from .linalg_common import _array, _check_float, _check_matrix, _dtype, _last_two, _mT
from .logic import cast, eq
from .matmul import matmul
from .reduce import _spread, amax, amin, sum
from .shape import squeeze, unsqueeze

INF = float("inf")


@op(
    samples=lambda t: [([t(3, 4), t(2), t()],), ([t(5)],)],
    ref=lambda tensors: np.linalg.norm(np.concatenate([x.ravel() for x in tensors])),
    method=False,
)
def _root_of_squares(xp, tensors):
    """The Euclidean norm of all elements of real arrays of one dtype."""
    total: Any = 0.0
    for vector in [x.ravel("K") for x in tensors]:
        total = total + vector.dot(vector).astype(np.float64)
    return xp.sqrt(total).astype(tensors[0].dtype)


@op(
    vjp=dict(x=lambda g, out, x, x_shape, ord, dim, keepdim: _norm_vjp(g, out, x, x_shape, ord, dim, keepdim)),
    samples=lambda t: [
        (t(3, 4),), (t(3, 4), 3, 1), (t(2, 3, 4), 1.5, (0, 2), True), (t(3, 4), 1, 0), (t(3, 4), INF, 1),
        (t(3, 4), -INF, 1), (t(3, 4), 0, 1), (t(3), -2.0), (t(3), 0.5),
    ],
    method=False,
)  # fmt: skip
def linalg_vector_norm(xp, x, ord=2, dim=None, keepdim=False, dtype=None):
    """(sum |x|**ord)**(1/ord) over `dim` (all elements when None); inf and -inf take the extremes, 0 counts.

    Where the norm has a corner, the gradient is PyTorch's subgradient: 0 at the origin.
    """
    if dtype is not None:
        x = x.astype(getattr(dtype, "numpy", dtype))
    _check_float("linalg.vector_norm", x)
    axis = _dims(dim, x.ndim)
    size = xp.abs(x)
    narrow = size.dtype.itemsize <= 2
    if narrow:
        size = size.astype(xp.float32)
    if size.size == 0 and (ord < 0 or ord == INF) and _reduces_nothing(x.shape, axis):
        raise RuntimeError(
            f"linalg.vector_norm cannot compute the {ord} norm of an empty tensor: there is no smallest or largest"
        )
    if ord == INF:
        out = size.max(axis, keepdims=keepdim)
    elif ord == -INF:
        out = size.min(axis, keepdims=keepdim)
    elif ord == 0:
        out = (size != 0).sum(axis, keepdims=keepdim).astype(size.dtype)
    elif ord == 1:
        out = size.sum(axis, keepdims=keepdim)
    elif ord == 2:
        out = xp.sqrt((size * size).sum(axis, keepdims=keepdim))
    else:
        ord = float(ord)
        out = xp.power(xp.power(size, ord).sum(axis, keepdims=keepdim), 1 / ord)
    out = xp.asarray(out)
    return out.astype(x.dtype) if narrow else out


def _dims(dim: Any, ndim: int) -> Any:
    if dim is None or (isinstance(dim, list | tuple) and not dim) or not ndim:
        return None
    dims = normalize_dim(dim, ndim)
    return dims if isinstance(dims, tuple) else (dims,)


def _reduces_nothing(shape: tuple, axis: Any) -> bool:
    return not all(n for i, n in enumerate(shape) if axis is None or i in axis)


def _unit(x: Any) -> Any:
    """x / |x|, and 0 at 0."""
    if _dtype(x).kind != "c":
        return sign(x)
    zero = eq(x, 0)
    return where(zero, 0.0, true_divide(x, where(zero, 1.0, abs(x))))


def _norm_vjp(g: Any, out: Any, x: Any, shape: tuple, ord: float, dim: Any, keepdim: bool) -> Any:
    if ord == 0:
        return x * 0
    axis = _dims(dim, len(shape))
    g, out = _spread(g, shape, axis, keepdim), _spread(out, shape, axis, keepdim)
    if ord == 1:
        return _unit(x) * g
    if ord in (INF, -INF):
        top = cast(eq(abs(x), out), "like", g)
        return _unit(x) * (true_divide(top, sum(top, axis, True)) * g)
    flat = eq(out, 0)
    if ord == 2:
        return x * where(flat, 0.0, true_divide(g, where(flat, 1.0, out)))
    zero = eq(x, 0)
    size = where(zero, 1.0, abs(x))
    # x |x|**(p-2) g / norm**(p-1); 0 where x is (for p < 1 the derivative is infinite there), or the norm.
    slope = where(zero, 0.0, pow(size, ord - 2))
    return x * (slope * where(flat, 0.0, true_divide(g, pow(where(flat, 1.0, out), ord - 1))))


def linalg_matrix_norm(
    A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """The norm of matrices in the dims `dim`: "fro", "nuc", inf, -inf, 1, -1, 2 or -2."""
    from .linalg_eigen import linalg_svdvals

    if dtype is not None:
        A = cast(A, dtype)
    _check_matrix("linalg.matrix_norm", A)
    _check_float("linalg.matrix_norm", A)
    if isinstance(dim, int) or len(dim) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a tuple of two dimensions, not {dim}")
    rows, columns = normalize_dim(tuple(dim), A.ndim)
    if ord == "fro":
        return linalg_vector_norm(A, 2, (rows, columns), keepdim)
    if ord in ("nuc", 2, -2):
        s = linalg_svdvals(_last_two(A, (rows, columns)))
        out = sum(s, -1) if ord == "nuc" else amax(s, -1) if ord == 2 else amin(s, -1)
        if keepdim:
            for d in sorted((rows, columns)):
                out = unsqueeze(out, d)
        return out
    if ord not in (1, -1, INF, -INF):
        raise ValueError(f"linalg.matrix_norm: ord must be 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, not {ord!r}")
    first, second = (columns, rows) if ord in (INF, -INF) else (rows, columns)
    lines = linalg_vector_norm(A, 1, first, True)
    out = amax(lines, second, True) if ord > 0 else amin(lines, second, True)
    return out if keepdim else squeeze(out, (rows, columns))


def linalg_norm(A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """A vector norm (ord a number, one dim) or a matrix norm (two dims); without `ord` the 2-norm of all elements.

    >>> import flambeau
    >>> flambeau.linalg.norm(flambeau.tensor([[3.0, 0.0], [0.0, 4.0]]), "nuc").item()
    7.0
    """
    dims = (dim,) if isinstance(dim, int) else None if dim is None else tuple(dim)
    if ord is None or (dims is None and A.ndim < 2 and not isinstance(ord, str)) or (dims and len(dims) == 1):
        if isinstance(ord, str):
            raise RuntimeError(f"linalg.norm: ord {ord!r} is a matrix norm and needs two dims")
        return linalg_vector_norm(A, 2 if ord is None else ord, dims, keepdim, dtype)
    if dims is None and A.ndim != 2:
        raise RuntimeError(f"linalg.norm: without dim, ord {ord!r} needs a vector or a matrix, not {A.ndim} dimensions")
    return linalg_matrix_norm(A, ord, (-2, -1) if dims is None else dims, keepdim, dtype=dtype)


def _norm(input: Any, p: Any, dim: Any, keepdim: bool, dtype: Any) -> Any:
    """`flambeau.norm`: a number is a vector norm even over two dims."""
    if p == "nuc":
        if dim is None and input.ndim != 2:
            raise RuntimeError(f"norm: without dim the nuclear norm needs a matrix, not {input.ndim} dimensions")
        return linalg_matrix_norm(input, "nuc", (0, 1) if dim is None else dim, keepdim, dtype=dtype)
    if isinstance(p, str) and p != "fro":
        raise RuntimeError(f"norm: p must be a number, 'fro' or 'nuc', not {p!r}")
    return linalg_vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim, dtype)


@method()
def dist(input: Any, other: Any, p: float = 2) -> Any:
    """The p-norm of input - other."""
    return linalg_vector_norm(input - other, p)


@method()
def renorm(input: Any, p: float, dim: int, maxnorm: float) -> Any:
    """Scales each slice along `dim` whose p-norm is above `maxnorm` down to it."""
    if input.ndim < 2:
        raise RuntimeError(f"renorm needs at least 2 dimensions, not {input.ndim}")
    if p <= 0:
        raise RuntimeError(f"renorm: p must be positive, not {p}")
    dim = normalize_dim(dim, input.ndim)
    size = linalg_vector_norm(input, p, tuple(i for i in range(input.ndim) if i != dim), True)
    over = size > maxnorm
    return input * where(over, true_divide(maxnorm, where(over, size, 1.0) + 1e-7), 1.0)


_DIRECT = "donot_use_mm_for_euclid_dist"
_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", _DIRECT)


def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: str = _MODES[0]) -> Any:
    """The p-norm distances of all rows of `x1` (…, P, M) to all of `x2` (…, R, M): (…, P, R).

    Euclidean distances of more than 25 rows go through one matrix product, as in PyTorch.
    """
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(
            f"cdist needs rows of one length in two or more dimensions, not {tuple(x1.shape)} and {tuple(x2.shape)}"
        )
    if p < 0:
        raise RuntimeError(f"cdist only supports non-negative p values, not {p}")
    if compute_mode not in _MODES:
        raise ValueError(f"cdist: compute_mode must be one of {', '.join(_MODES)}, not {compute_mode!r}")
    many = compute_mode == _MODES[1] or (compute_mode == _MODES[0] and max(x1.shape[-2], x2.shape[-2]) > 25)
    if p == 2 and many:
        a, b = sum(mul(x1, x1), -1, True), sum(mul(x2, x2), -1, True)
        square = clamp(a + _mT(b) - matmul(x1, _mT(x2)) * 2, min=0)
        zero = eq(square, 0)
        return where(zero, 0.0, sqrt(where(zero, 1.0, square)))
    return linalg_vector_norm(unsqueeze(x1, -2) - unsqueeze(x2, -3), p, -1)


def pdist(input: Any, p: float = 2) -> Any:
    """The p-norm distances of all pairs of rows of a matrix (n, m): (n (n - 1) / 2)."""
    from ..backends import namespace

    if input.ndim != 2:
        raise RuntimeError(f"pdist expects a matrix, not a tensor with {input.ndim} dimensions")
    if p < 0:
        raise RuntimeError(f"pdist only supports non-negative p values, not {p}")
    i, j = namespace([_array(input)]).triu_indices(input.shape[0], 1)
    return linalg_vector_norm(index_select(input, 0, i) - index_select(input, 0, j), p, -1)
