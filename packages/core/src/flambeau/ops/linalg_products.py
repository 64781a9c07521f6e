"""Products of vectors and matrices beside matmul; powers and the exponential; covariance."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ._op import alias, method, normalize_dim, op
from .elementwise import clamp, sqrt, true_divide, where
from .linalg_common import _by, _check_square, _diagonal, _dtype, _eye, _like, _mH
from .logic import cast, conj
from .matmul import _added, bmm, matmul, mv, outer
from .reduce import cumprod, mean, sum
from .shape import cat, expand, permute, reshape, roll, squeeze, unsqueeze


@method()
def addbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * the sum over the batch of bmm(batch1, batch2)."""
    return _added(input, sum(bmm(batch1, batch2), 0), beta, alpha)


@method()
def addmv(input: Any, mat: Any, vec: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * mat @ vec."""
    return _added(input, mv(mat, vec), beta, alpha)


@method()
def addr(input: Any, vec1: Any, vec2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * outer(vec1, vec2)."""
    return _added(input, outer(vec1, vec2), beta, alpha)


@method()
def vdot(input: Any, other: Any) -> Any:
    """The inner product of two vectors, the first conjugated."""
    if input.ndim != 1 or other.ndim != 1 or input.shape != other.shape:
        raise RuntimeError(f"vdot expects two vectors of one size, not {_by(input)} and {_by(other)}")
    return matmul(conj(input), other)


@method()
def inner(input: Any, other: Any) -> Any:
    """The sum of products over the last dimension of both; a plain product when one has no dimension."""
    if not input.ndim or not other.ndim:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise RuntimeError(f"inner: the last dimensions must match, not {_by(input)} and {_by(other)}")
    return tensordot(input, other, ([-1], [-1]))


def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """The contraction over the last `dims` dimensions of `a` and the first of `b`, or over the pairs (list, list)."""
    if isinstance(dims, int) or (hasattr(dims, "ndim") and dims.ndim == 0):
        dims = int(dims)
        if not 0 <= dims <= min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot: dims is {dims} for tensors with {a.ndim} and {b.ndim} dimensions")
        left, right = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    else:
        left, right = (d.tolist() if hasattr(d, "tolist") else d for d in dims)
        left, right = (list(d) if isinstance(d, list | tuple) else [d] for d in (left, right))
        if len(left) != len(right):
            raise RuntimeError(f"tensordot: both lists of dims must have one length, not {len(left)} and {len(right)}")
        left, right = list(normalize_dim(left, a.ndim)), list(normalize_dim(right, b.ndim))
    for i, j in zip(left, right, strict=True):
        if a.shape[i] != b.shape[j]:
            if a.shape[i] == 1:
                b = sum(b, j, True)
            elif b.shape[j] == 1:
                a = sum(a, i, True)
            else:
                raise RuntimeError(
                    f"tensordot: dimension {i} of the first has {a.shape[i]} entries, {j} of the second {b.shape[j]}"
                )
    rows = [i for i in range(a.ndim) if i not in left]
    cols = [j for j in range(b.ndim) if j not in right]
    shape = tuple(a.shape[i] for i in rows) + tuple(b.shape[j] for j in cols)
    inside = math.prod(a.shape[i] for i in left)
    lines = math.prod(a.shape[i] for i in rows)
    columns = math.prod(b.shape[j] for j in cols)
    a = reshape(permute(a, (*rows, *left)), (lines, inside))
    b = reshape(permute(b, (*right, *cols)), (inside, columns))
    return reshape(matmul(a, b), shape)


@method()
def kron(input: Any, other: Any) -> Any:
    """The Kronecker product, over all dimensions."""
    n = max(input.ndim, other.ndim)
    a = (1,) * (n - input.ndim) + tuple(input.shape)
    b = (1,) * (n - other.ndim) + tuple(other.shape)
    left = tuple(v for size in a for v in (size, 1))
    right = tuple(v for size in b for v in (1, size))
    return reshape(reshape(input, left) * reshape(other, right), tuple(p * q for p, q in zip(a, b, strict=True)))


def linalg_cross(input: Any, other: Any, *, dim: int = -1) -> Any:
    """The cross product of vectors of three along `dim`; the rest broadcasts."""
    if input.ndim != other.ndim:
        raise RuntimeError(f"linalg.cross: both need one number of dimensions, not {input.ndim} and {other.ndim}")
    dim = normalize_dim(dim, input.ndim)
    if input.shape[dim] != 3 or other.shape[dim] != 3:
        raise RuntimeError(f"linalg.cross: dimension {dim} must have length 3 in {_by(input)} and {_by(other)}")
    shape = np.broadcast_shapes(tuple(input.shape), tuple(other.shape))
    a, b = expand(input, shape), expand(other, shape)
    return roll(a, -1, dim) * roll(b, -2, dim) - roll(a, -2, dim) * roll(b, -1, dim)


@method()
def cross(input: Any, other: Any, dim: int | None = None) -> Any:
    """The cross product along `dim`, by default the first dimension of length 3."""
    if dim is None:
        shape = np.broadcast_shapes(tuple(input.shape), tuple(other.shape))
        if 3 not in shape:
            raise RuntimeError(f"cross: no dimension of length 3 in {_by(input)}")
        dim = shape.index(3)
    return linalg_cross(input, other, dim=dim)


def linalg_vecdot(x: Any, y: Any, *, dim: int = -1) -> Any:
    """The inner products along `dim`, `x` conjugated; the rest broadcasts."""
    return sum(conj(x) * y, dim)


def linalg_multi_dot(tensors: Any) -> Any:
    """The product of two or more matrices in the cheapest order; the first and the last may be vectors."""
    tensors = list(tensors)
    if len(tensors) < 2:
        raise RuntimeError(f"linalg.multi_dot expects at least 2 tensors, not {len(tensors)}")
    row, column = tensors[0].ndim == 1, tensors[-1].ndim == 1
    if row:
        tensors[0] = unsqueeze(tensors[0], 0)
    if column:
        tensors[-1] = unsqueeze(tensors[-1], -1)
    for k, (x, y) in enumerate(itertools.pairwise(tensors)):
        if x.ndim != 2 or y.ndim != 2:
            raise RuntimeError("linalg.multi_dot: all tensors between the first and the last must be matrices")
        if x.shape[1] != y.shape[0]:
            raise RuntimeError(f"linalg.multi_dot: tensors {k} ({_by(x)}) and {k + 1} ({_by(y)}) cannot be multiplied")
    out = _chain(tensors, _best_splits(tensors), 0, len(tensors) - 1)
    gone = (0,) * row + (-1,) * column
    return squeeze(out, tuple(d % 2 for d in gone)) if gone else out


def _best_splits(tensors: list) -> list[list[int]]:
    """The cheapest split of every run of matrices, by dynamic programming (Cormen et al., section 15.2)."""
    sizes = [x.shape[0] for x in tensors] + [tensors[-1].shape[1]]
    n = len(tensors)
    cost = [[0] * n for _ in range(n)]
    split = [[0] * n for _ in range(n)]
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            cost[i][j], split[i][j] = min(
                (cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            )
    return split


def _chain(tensors: list, split: list[list[int]], i: int, j: int) -> Any:
    if i == j:
        return tensors[i]
    k = split[i][j]
    return matmul(_chain(tensors, split, i, k), _chain(tensors, split, k + 1, j))


def chain_matmul(*matrices: Any) -> Any:
    """The product of matrices in the cheapest order."""
    if len(matrices) == 1:
        return matrices[0]
    return linalg_multi_dot(matrices)


def linalg_matrix_power(A: Any, n: int) -> Any:
    """The n-th power of square matrices, by repeated squaring; a negative `n` inverts.

    Errors: RuntimeError when not square, LinAlgError when singular and `n` is negative.
    """
    from .linalg_solve import linalg_inv

    if n < 0:
        A, n = linalg_inv(A), -n
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise RuntimeError(f"linalg.matrix_power: the input must be batches of square matrices, not {_by(A)}")
    if n == 0:
        return where(True, _eye(A, A.shape[-1]), A)  # in the graph as PyTorch has it, with a gradient of 0
    out = None
    while True:
        if n & 1:
            out = A if out is None else matmul(out, A)
        n >>= 1
        if not n:
            return out if out is not A else A + 0
        A = matmul(A, A)


# The coefficients of the [13/13] Padé approximant of exp, and the norm below which it needs no scaling
# (Higham, "The scaling and squaring method for the matrix exponential revisited", 2005).
_PADE = [math.factorial(26 - k) * math.factorial(13) / (math.factorial(26) * math.factorial(13 - k) * math.factorial(k))
         for k in range(14)]  # fmt: skip
_THETA = 5.371920351148152


@op(
    vjp=dict(A=lambda g, A: _matrix_exp_vjp(g, A)),
    samples=lambda t: [(t(3, 3),), (t(2, 2, 2, low=-3, high=3),)],
    method=False,
)
def linalg_matrix_exp(xp, A):
    """The matrix exponential: a Padé approximant with scaling and squaring (Higham, 2005)."""
    _check_square("linalg.matrix_exp", A)
    if not A.size:
        return A.copy()
    size = xp.abs(A).sum(-2).max(-1)
    steps = xp.ceil(xp.log2(xp.maximum(size / _THETA, 1)))
    steps = xp.where(xp.isfinite(steps), steps, 0)[..., None, None]
    one = xp.eye(A.shape[-1], dtype=A.dtype)
    B = (A / xp.exp2(steps)).astype(A.dtype)
    B2 = xp.matmul(B, B)
    B4 = xp.matmul(B2, B2)
    B6 = xp.matmul(B4, B2)
    p = _PADE
    odd = xp.matmul(B6, p[13] * B6 + p[11] * B4 + p[9] * B2) + p[7] * B6 + p[5] * B4 + p[3] * B2 + p[1] * one
    odd = xp.matmul(B, odd)
    even = xp.matmul(B6, p[12] * B6 + p[10] * B4 + p[8] * B2) + p[6] * B6 + p[4] * B4 + p[2] * B2 + p[0] * one
    out = xp.linalg.solve(even - odd, even + odd)
    for k in range(int(steps.max())):
        out = xp.where(steps > k, xp.matmul(out, out), out)
    return out


def _matrix_exp_vjp(g: Any, A: Any) -> Any:
    """The upper right block of exp([[A^H, g], [0, A^H]]) (Mathias, 1996)."""
    B = _mH(A)
    n = A.shape[-1]
    block = cat([cat([B, g], -1), cat([B * 0, B], -1)], -2)
    return linalg_matrix_exp(block)[..., :n, n:]


@method()
def trace(input: Any) -> Any:
    """The sum of a matrix's diagonal."""
    if input.ndim != 2:
        raise RuntimeError(f"trace expects a matrix, not a tensor with {input.ndim} dimensions")
    return sum(_diagonal(input))


@method()
def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """The covariance matrix of variables (rows) over observations (columns).

    fweights: how often each observation counts (integers); aweights: how much.
    """
    if input.ndim > 2:
        raise RuntimeError(f"cov expects at most two dimensions, not {input.ndim}")
    scalar = input.ndim < 2 or input.shape[0] == 1
    x = input if input.ndim == 2 else reshape(input, (1, -1))
    if _dtype(x).kind not in "fcV":
        x = x * 1.0
    count = x.shape[1]
    weights = None
    for name, w in (("fweights", fweights), ("aweights", aweights)):
        if w is None:
            continue
        if w.ndim > 1 or math.prod(w.shape) != count:
            raise RuntimeError(f"cov: {name} must be one weight for each of the {count} observations, not {_by(w)}")
        w = cast(reshape(w, (-1,)), np.abs(np.empty(0, _dtype(x))).dtype) if _dtype(w).kind not in "fV" else w
        weights = w if weights is None else weights * w
    if weights is None:
        total: Any = count
        norm: Any = max(count - correction, 0)
        centred = x - mean(x, 1, True)
        product = matmul(centred, _mH(centred))
    else:
        total = sum(weights)
        centred = x - true_divide(sum(x * weights, 1, True), total)
        spread = total if aweights is None else true_divide(sum(weights * aweights), total)
        norm = clamp(total - correction * (spread if aweights is not None else 1), min=0)
        product = matmul(centred * weights, _mH(centred))
    out = true_divide(product, norm if hasattr(norm, "shape") else _like(x, np.asarray(norm, _dtype(product))))
    return reshape(out, ()) if scalar else out


@method()
def corrcoef(input: Any) -> Any:
    """The matrix of Pearson's correlation coefficients of variables (rows)."""
    c = cov(input)
    if not c.ndim:
        return true_divide(c, c)
    size = sqrt(_real_diagonal(c))
    out = true_divide(true_divide(c, unsqueeze(size, -1)), unsqueeze(size, 0))
    if _dtype(out).kind != "c":
        return clamp(out, -1, 1)
    return out


def _real_diagonal(c: Any) -> Any:
    from .logic import real

    d = _diagonal(c)
    return real(d) if _dtype(d).kind == "c" else d


def linalg_diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """The diagonals of matrices, in the last dimension."""
    from .shape_view import diagonal

    return diagonal(A, offset, dim1, dim2)


def linalg_vander(x: Any, *, N: int | None = None) -> Any:
    """Vandermonde matrices: the powers 0 … N-1 of each entry of `x`, in a new last dimension."""
    x = x if x.ndim else reshape(x, (1,))
    N = x.shape[-1] if N is None else N
    if N < 1:
        raise RuntimeError(f"linalg.vander: N must be at least 1, not {N}")
    column = unsqueeze(x, -1)
    shape = (*x.shape, N - 1)
    return cat([expand(column * 0 + 1, (*x.shape, 1)), cumprod(expand(column, shape), -1)], -1)


alias(linalg_matrix_power, "matrix_power")
alias(linalg_matrix_exp, "matrix_exp")
