"""Triangular systems and what rests on them: Cholesky and LU factors, and solving with factors.

NumPy has no batched triangular solve. Going through a general solve would pivot (a zero on the diagonal then raises
where PyTorch answers inf) and cost n**3 for a single right-hand side, so `linalg_solve_triangular` substitutes by
itself: the system is halved down to blocks of a few rows, and all else is matrix products.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from ._op import alias, method, op
from .elementwise import where
from .linalg_common import (
    NOT_POSITIVE,
    SINGULAR,
    _array,
    _by,
    _check_float,
    _check_matrix,
    _check_square,
    _dtype,
    _eye,
    _like,
    _mH,
    _mT,
    _raise_on,
)  # fmt: skip
from .matmul import matmul
from .shape import cat, expand, tril, triu

CholeskyEx = namedtuple("linalg_cholesky_ex", ["L", "info"])
LUFactor = namedtuple("linalg_lu_factor", ["LU", "pivots"])
LUFactorEx = namedtuple("linalg_lu_factor_ex", ["LU", "pivots", "info"])
LU = namedtuple("linalg_lu", ["P", "L", "U"])
TriangularSolve = namedtuple("triangular_solve", ["solution", "cloned_coefficient"])
_BLOCK = 16


# -- triangular systems -----------------------------------------------------------------------------------------
def _substitute(xp: Any, A: Any, B: Any, upper: bool, unit: bool) -> None:
    """Solves A X = B for triangular A, in B's memory."""
    n = A.shape[-1]
    if n > _BLOCK:
        h = n // 2
        first, second = (slice(h, n), slice(0, h)) if upper else (slice(0, h), slice(h, n))
        _substitute(xp, A[..., first, first], B[..., first, :], upper, unit)
        B[..., second, :] -= xp.matmul(A[..., second, first], B[..., first, :])
        _substitute(xp, A[..., second, second], B[..., second, :], upper, unit)
        return
    for i in range(n - 1, -1, -1) if upper else range(n):
        known = slice(i + 1, n) if upper else slice(0, i)
        row = B[..., i : i + 1, :]
        row -= xp.matmul(A[..., i : i + 1, known], B[..., known, :])
        if not unit:
            row /= A[..., i : i + 1, i : i + 1]


def _swapped(x: Any) -> Any:
    return x.swapaxes(-1, -2)


@op(
    vjp={("A", "B"): lambda g, out, A, upper, left, unitriangular, need: _solve_triangular_vjp(
        g, out, A, upper, left, unitriangular, need)},
    samples=lambda t: [
        (t(3, 3, low=1, high=2), t(3, 2), False), (t(2, 3, 3, low=1, high=2), t(3, 2), True),
        (t(3, 3, low=1, high=2), t(2, 2, 3), True, False), (t(18, 18, low=-0.1, high=0.1), t(18, 1), False, True, True),
    ],
    method=False,
)  # fmt: skip
def linalg_solve_triangular(xp, A, B, upper, left=True, unitriangular=False):
    """X of A X = B (X A = B when not `left`) for triangular A; only that triangle is read, batches broadcast."""
    name = "linalg.solve_triangular"
    _check_square(name, A)
    _check_matrix(name, B)
    if A.shape[-1] != B.shape[-2 if left else -1]:
        raise RuntimeError(f"{name}: incompatible shapes of A ({_by(A)}) and B ({_by(B)})")
    if A.dtype != B.dtype:
        raise RuntimeError(f"{name}: A and B must have one dtype, not {A.dtype} and {B.dtype}")
    if not left:
        A, B, upper = _swapped(A), _swapped(B), not upper
    lead = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    X = xp.array(xp.broadcast_to(B, lead + B.shape[-2:]))
    with np.errstate(divide="ignore", invalid="ignore"):
        _substitute(xp, A, X, upper, unitriangular)
    return X if left else xp.ascontiguousarray(_swapped(X))


def _solve_triangular_vjp(g: Any, X: Any, A: Any, upper: bool, left: bool, unit: bool, need: tuple) -> tuple:
    gB = linalg_solve_triangular(_mH(A), g, not upper, left, unit)
    if not need[0]:
        return None, gB
    gA = -matmul(gB, _mH(X)) if left else -matmul(_mH(X), gB)
    return (triu(gA, int(unit)) if upper else tril(gA, -int(unit))), gB


@method()
def triangular_solve(
    input: Any, A: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> TriangularSolve:
    """X of A X = input (A.mT X = input when `transpose`) for triangular A, and A."""
    used = _mT(A) if transpose else A
    return TriangularSolve(linalg_solve_triangular(used, input, upper != transpose, True, unitriangular), A)


# -- Cholesky ---------------------------------------------------------------------------------------------------
@op(
    vjp=dict(A=lambda g, out, upper: _cholesky_vjp(g[0], out[0], upper)),
    samples=lambda t: [(t(1, 1, low=1, high=2),), (t(3, 1, 1, low=1, high=2), True)],
    method=False,
)
def _linalg_cholesky(xp, A, upper=False):
    """L of A = L L^H or U of A = U^H U, and per matrix 0 or the order of the first minor that is not positive."""
    if upper:
        L, info = _linalg_cholesky(xp.conj(_swapped(A)))
        return xp.conj(_swapped(L)), info
    try:
        L = xp.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        L = np.stack([_cholesky_of(a) for a in A.reshape(-1, *A.shape[-2:])]).reshape(A.shape)
    failed = xp.isnan(xp.diagonal(L, 0, -2, -1))
    order = xp.argmax(failed, -1) + 1 if A.shape[-1] else 0
    return L, xp.where(failed.any(-1), order, 0).astype(np.int32)


def _cholesky_of(a: np.ndarray) -> np.ndarray:
    """The factor, or as much of it as there is before the first minor that fails, and NaN on the diagonal there."""
    L = np.zeros_like(a)
    for k in range(1, len(a) + 1):
        try:
            L[:k, :k] = np.linalg.cholesky(a[:k, :k])
        except np.linalg.LinAlgError:
            L[k - 1, k - 1] = np.nan
            break
    return L


def _cholesky_vjp(g: Any, L: Any, upper: bool) -> Any:
    """Murray, "Differentiation of the Cholesky decomposition" (2016), spread over both triangles."""
    if upper:
        g, L = _mH(g), _mH(L)
    inside = tril(matmul(_mH(L), g))
    inside = inside + _mH(tril(inside, -1))  # twice the Hermitian part of the lower triangle with a halved diagonal
    LH = _mH(L)
    return linalg_solve_triangular(LH, linalg_solve_triangular(L, inside, False, False), True) * 0.5


def linalg_cholesky_ex(input: Any, *, upper: bool = False, check_errors: bool = False) -> CholeskyEx:
    """The Cholesky factor and, per matrix, 0 or the order of the first leading minor that is not positive."""
    _check_square("linalg.cholesky_ex", input)
    L, info = _linalg_cholesky(input, upper)
    if check_errors:
        _raise_on("linalg.cholesky_ex", info, NOT_POSITIVE)
    return CholeskyEx(L, info)


def linalg_cholesky(A: Any, *, upper: bool = False) -> Any:
    """The lower L of A = L L^H (upper: U of A = U^H U) for Hermitian positive-definite matrices.

    Errors: LinAlgError where a matrix is not positive-definite.

    >>> import flambeau
    >>> flambeau.linalg.cholesky(flambeau.tensor([[4.0, 2.0], [2.0, 5.0]])).tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    _check_square("linalg.cholesky", A)
    L, info = _linalg_cholesky(A, upper)
    _raise_on("linalg.cholesky", info, NOT_POSITIVE)
    return L


@method()
def cholesky(input: Any, upper: bool = False) -> Any:
    """The Cholesky factor, lower or upper (`linalg.cholesky`)."""
    return linalg_cholesky(input, upper=upper)


@op(
    vjp={("input", "L"): lambda g, out, L, upper, need: _cholesky_solve_vjp(g, out, L, upper, need)},
    samples=lambda t: [(t(1, 2), t(1, 1, low=1, high=2)), (t(2, 1, 2), t(1, 1, low=1, high=2), True)],
)
def cholesky_solve(xp, input, L, upper=False):
    """X of A X = input, from A's Cholesky factor (only its triangle is read)."""
    _check_square("cholesky_solve", L)
    _check_matrix("cholesky_solve", input)
    if upper:
        L = xp.conj(_swapped(L))
    first = linalg_solve_triangular(L, input, False)
    return linalg_solve_triangular(xp.conj(_swapped(L)), first, True)


def _cholesky_solve_vjp(g: Any, X: Any, L: Any, upper: bool, need: tuple) -> tuple:
    """As for A = L L^H with all of L, which is PyTorch's convention: the other triangle gets a gradient too."""
    gB = cholesky_solve(g, L, upper)
    gA = matmul(gB, _mH(X))
    gA = gA + _mH(gA)
    return gB, (-(matmul(L, gA) if upper else matmul(gA, L)) if need[1] else None)


@method()
def cholesky_inverse(L: Any, upper: bool = False) -> Any:
    """The inverse of A, from its Cholesky factor."""
    _check_square("cholesky_inverse", L)
    return cholesky_solve(expand(_eye(L, L.shape[-1]), tuple(L.shape)), L, upper)


# -- LU ---------------------------------------------------------------------------------------------------------
def _size(xp: Any, x: Any) -> Any:
    """What LAPACK compares to find a pivot: for complex numbers |re| + |im|."""
    return xp.abs(x.real) + xp.abs(x.imag) if x.dtype.kind == "c" else xp.abs(x)


def _lu(xp: Any, A: Any, pivot: bool = True) -> tuple[Any, Any, Any]:
    """(LU, pivots counted from 1, info) by Gaussian elimination with partial pivoting, over a whole batch at once.

    Panels of columns are eliminated one column at a time, the rest follows by matrix products.
    """
    m, n = A.shape[-2:]
    a = xp.array(A).reshape(math.prod(A.shape[:-2]), m, n)
    count, k = a.shape[0], min(m, n)
    pivots = xp.tile(xp.arange(1, k + 1, dtype=np.int32), (count, 1))
    info = xp.zeros(count, dtype=np.int32)
    each = xp.arange(count)
    for start in range(0, k, 32):
        stop = min(start + 32, k)
        for j in range(start, stop):
            if pivot:
                p = j + xp.argmax(_size(xp, a[:, j:, j]), axis=1)
                pivots[:, j] = p + 1
                a[each, p], a[:, j] = a[:, j].copy(), a[each, p]
            d = a[:, j, j]
            zero = d == 0
            info = xp.where(zero & (info == 0), j + 1, info).astype(np.int32)
            a[:, j + 1 :, j] /= xp.where(zero, 1, d)[:, None]
            a[:, j + 1 :, j + 1 : stop] -= a[:, j + 1 :, j : j + 1] * a[:, j : j + 1, j + 1 : stop]
        if stop < n:
            _substitute(xp, a[:, start:stop, start:stop], a[:, start:stop, stop:], False, True)
            a[:, stop:, stop:] -= xp.matmul(a[:, stop:, start:stop], a[:, start:stop, stop:])
    lead = A.shape[:-2]
    return a.reshape(A.shape), pivots.reshape(*lead, k), info.reshape(lead)


@op(
    vjp=dict(A=lambda g, out: _lu_vjp(g[0], out[0], out[1])),
    samples=lambda t: [(t(3, 3),), (t(2, 2, 3),), (t(4, 2),)],
    method=False,
)
def _linalg_lu_factor(xp, A, pivot=True):
    """L and U in one matrix, the row swaps counted from 1, and the first zero on U's diagonal (or 0)."""
    return _lu(xp, A, pivot)


def _lu_vjp(g: Any, LU: Any, pivots: Any) -> Any:
    """From A = P L U, for square, wide and tall matrices."""
    P, L, U = lu_unpack(LU, pivots)
    m, n = LU.shape[-2:]
    k = min(m, n)
    gL, gU = tril(g, -1)[..., :, :k], triu(g)[..., :k, :]
    L1, U1 = L[..., :k, :], U[..., :, :k]
    low, high = matmul(_mH(L1), gL[..., :k, :]), matmul(gU[..., :, :k], _mH(U1))
    if m < n:
        low = low - matmul(gU[..., :, k:], _mH(U[..., :, k:]))
    if m > n:
        high = high - matmul(_mH(L[..., k:, :]), gL[..., k:, :])
    inside = tril(low, -1) + triu(high)
    rows = linalg_solve_triangular(_mH(L1), inside, True, True, True)
    out = linalg_solve_triangular(_mH(U1), rows, False, False)
    if m < n:
        out = cat([out, linalg_solve_triangular(_mH(L1), gU[..., :, k:], True, True, True)], -1)
    if m > n:
        out = cat([out, linalg_solve_triangular(_mH(U1), gL[..., k:, :], False, False)], -2)
    return matmul(P, out)


@op(samples=lambda t: [(np.array([2, 2, 3], np.int32), 3, np.dtype("f8"))], method=False)
def _permutation(xp, pivots, m, dtype):
    """The matrix P of A = P L U."""
    lead, k = pivots.shape[:-1], pivots.shape[-1]
    flat = pivots.reshape(math.prod(lead), k)
    order = xp.tile(xp.arange(m), (flat.shape[0], 1))
    each = xp.arange(flat.shape[0])
    for j in range(k):
        p = flat[:, j] - 1
        order[each, p], order[:, j] = order[:, j].copy(), order[each, p]
    return (order[:, None, :] == xp.arange(m)[:, None]).astype(dtype).reshape(*lead, m, m)


def lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True) -> LU:
    """P, L and U from `linalg.lu_factor`'s result (empty where not asked for)."""
    m, n = LU_data.shape[-2:]
    k = min(m, n)
    empty = _like(LU_data, _array(LU_data)[..., :0, :0].reshape(-1)[:0])
    P = _permutation(LU_pivots, m, _dtype(LU_data)) if unpack_pivots else empty
    if not unpack_data:
        return LU(P, empty, empty)
    L = tril(LU_data[..., :, :k], -1)
    one = _eye(LU_data, m)[:, :k]
    return LU(P, L + one, triu(LU_data[..., :k, :]))


def linalg_lu_factor_ex(A: Any, *, pivot: bool = True, check_errors: bool = False) -> LUFactorEx:
    """The compact LU factors, the pivots (from 1), and per matrix 0 or the first zero on U's diagonal."""
    _check_matrix("linalg.lu_factor_ex", A)
    _check_float("linalg.lu_factor_ex", A)
    out, pivots, info = _linalg_lu_factor(A, pivot)
    if check_errors:
        _raise_on("linalg.lu_factor_ex", info, SINGULAR)
    return LUFactorEx(out, pivots, info)


def linalg_lu_factor(A: Any, *, pivot: bool = True) -> LUFactor:
    """The compact LU factors of A = P L U and the row swaps, counted from 1. Errors: LinAlgError when singular."""
    out, pivots, info = linalg_lu_factor_ex(A, pivot=pivot)
    _raise_on("linalg.lu_factor", info, SINGULAR)
    return LUFactor(out, pivots)


def linalg_lu(A: Any, *, pivot: bool = True) -> LU:
    """P, L and U of A = P L U; without `pivot` P is empty."""
    out, pivots, _ = linalg_lu_factor_ex(A, pivot=pivot)
    return lu_unpack(out, pivots, unpack_pivots=pivot)


@method()
def lu(A: Any, pivot: bool = True, get_infos: bool = False) -> tuple:
    """(LU, pivots), with `get_infos` the info too (torch.lu)."""
    out = linalg_lu_factor_ex(A, pivot=pivot)
    if not get_infos:
        _raise_on("lu", out.info, SINGULAR)
    return tuple(out) if get_infos else (out.LU, out.pivots)


def linalg_lu_solve(LU: Any, pivots: Any, B: Any, *, left: bool = True, adjoint: bool = False) -> Any:
    """X of A X = B (X A = B when not `left`; A^H when `adjoint`) from A's LU factors."""
    P, L, U = lu_unpack(LU, pivots)
    if left != adjoint:  # A X = B, or X A^H = B, which is A X^H = B^H
        rhs = B if left else _mH(B)
        out = linalg_solve_triangular(L, matmul(_mT(P), rhs), False, True, True)
        out = linalg_solve_triangular(U, out, True)
        return out if left else _mH(out)
    rhs = B if left else _mH(B)
    out = linalg_solve_triangular(_mH(U), rhs, False)
    out = matmul(P, linalg_solve_triangular(_mH(L), out, True, True, True))
    return out if left else _mH(out)


@method()
def lu_solve(b: Any, LU_data: Any, LU_pivots: Any) -> Any:
    """X of A X = b from A's LU factors."""
    return linalg_lu_solve(LU_data, LU_pivots, b)


def linalg_householder_product(A: Any, tau: Any) -> Any:
    """The first columns of the product of Householder reflections 1 - tau v v^H, v in A's columns below a one."""
    _check_matrix("linalg.householder_product", A)
    m, n = A.shape[-2:]
    if n > m or tau.shape[-1] > n:
        raise RuntimeError(f"linalg.householder_product: A must be tall and tau no longer than wide, not {_by(A)}")
    one = _eye(A, m)
    V = tril(A, -1)
    out = where(True, one[:, :n], A)
    for j in range(tau.shape[-1] - 1, -1, -1):
        v = V[..., :, j : j + 1] + one[:, j : j + 1]
        out = out - matmul(v * tau[..., j : j + 1, None], matmul(_mH(v), out))
    return out


alias(linalg_householder_product, "orgqr")
