"""Inverses, linear systems and determinants."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from ._op import alias, method, normalize_dim, op
from .elementwise import log, where
from .linalg_common import (
    SINGULAR,
    _array,
    _by,
    _check_square,
    _dtype,
    _eye,
    _failing,
    _mH,
    _raise_on,
)  # fmt: skip
from .linalg_triangle import _lu
from .logic import conj, imag
from .matmul import matmul
from .reduce import prod
from .shape import permute, reshape, squeeze, unsqueeze

InvEx = namedtuple("linalg_inv_ex", ["inverse", "info"])
SolveEx = namedtuple("linalg_solve_ex", ["result", "info"])
Slogdet = namedtuple("linalg_slogdet", ["sign", "logabsdet"])


# -- inverse ----------------------------------------------------------------------------------------------------
@op(
    vjp=dict(A=lambda g, out: -matmul(matmul(_mH(out[0]), g[0]), _mH(out[0]))),
    samples=lambda t: [(t(3, 3, low=-0.2, high=0.2) + np.eye(3),), (t(2, 2, 2, low=-0.2, high=0.2) + np.eye(2),)],
    ref=lambda A: (np.linalg.solve(A, np.eye(A.shape[-1])), np.zeros(A.shape[:-2])),
    method=False,
)
def _linalg_inv(xp, A):
    """The inverse, and per matrix 0 or the first zero on its U factor's diagonal; NaN where singular."""
    try:
        out = xp.linalg.inv(A)
    except np.linalg.LinAlgError:
        out = _failing(np.linalg.inv, A)
    return out, _zero_pivots(xp, out, A)


def _zero_pivots(xp: Any, out: Any, A: Any) -> Any:
    """Per matrix the first zero pivot, or 0; where the result is finite there can be none (CuPy raises no error)."""
    return xp.zeros(A.shape[:-2], dtype=np.int32) if xp.isfinite(out).all() else _lu(xp, A)[2]


def linalg_inv_ex(A: Any, *, check_errors: bool = False) -> InvEx:
    """The inverse and, per matrix, 0 or the place of the first zero pivot (the inverse is then NaN)."""
    _check_square("linalg.inv_ex", A)
    out, info = _linalg_inv(A)
    if check_errors:
        _raise_on("linalg.inv_ex", info, SINGULAR)
    return InvEx(out, info)


def linalg_inv(A: Any) -> Any:
    """The inverse of square matrices. Errors: LinAlgError where singular.

    >>> import flambeau
    >>> flambeau.linalg.inv(flambeau.tensor([[2.0, 0.0], [0.0, 4.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    _check_square("linalg.inv", A)
    out, info = _linalg_inv(A)
    _raise_on("linalg.inv", info, SINGULAR)
    return out


# -- systems ----------------------------------------------------------------------------------------------------
@op(
    vjp={("A", "B"): lambda g, out, A, need: _solve_vjp(g[0], out[0], A, need)},
    samples=lambda t: [
        (t(3, 3, low=-0.2, high=0.2) + np.eye(3), t(3, 2)),
        (t(2, 1, 2, 2, low=-0.2, high=0.2) + np.eye(2), t(3, 2, 1)),
    ],
    ref=lambda A, B: (np.linalg.inv(A) @ B, np.zeros(A.shape[:-2])),
    method=False,
)
def _linalg_solve(xp, A, B):
    """X of A X = B for matrices B, and per matrix 0 or the first zero on A's U factor's diagonal."""
    try:
        out = xp.linalg.solve(A, B)
    except np.linalg.LinAlgError:
        lead = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
        wide = np.broadcast_to(A, lead + A.shape[-2:])
        out = _failing(np.linalg.solve, wide, np.broadcast_to(B, lead + B.shape[-2:]))
    return out, _zero_pivots(xp, out, A)


def _solve_vjp(g: Any, X: Any, A: Any, need: tuple) -> tuple:
    gB = _linalg_solve(_mH(A), g)[0]
    return (-matmul(gB, _mH(X)) if need[0] else None), gB


def _solve_as(name: str, A: Any, B: Any, left: bool) -> tuple[Any, Any]:
    _check_square(name, A)
    vector = B.ndim == 1 or (A.ndim - 1 == B.ndim and tuple(B.shape) == tuple(A.shape[:-1]))
    if _dtype(A) != _dtype(B):
        raise RuntimeError(f"{name}: A and B must have one dtype, not {_dtype(A)} and {_dtype(B)}")
    if vector:
        if not left:
            raise RuntimeError(f"{name}: with a vector B, X A = B is not defined; use left=True or a matrix")
        B = unsqueeze(B, -1)
    if A.shape[-1] != B.shape[-2 if left else -1]:
        raise RuntimeError(f"{name}: incompatible shapes of A ({_by(A)}) and B ({_by(B)})")
    if left:
        X, info = _linalg_solve(A, B)
    else:
        X, info = _linalg_solve(_mH(A), _mH(B))
        X = _mH(X)
    return (squeeze(X, -1) if vector else X), info


def linalg_solve(A: Any, B: Any, *, left: bool = True) -> Any:
    """X of A X = B (X A = B when not `left`); B is a vector, a matrix or a batch of either.

    Errors: LinAlgError where A is singular.

    >>> import flambeau
    >>> flambeau.linalg.solve(flambeau.tensor([[2.0, 0.0], [0.0, 4.0]]), flambeau.tensor([2.0, 8.0])).tolist()
    [1.0, 2.0]
    """
    X, info = _solve_as("linalg.solve", A, B, left)
    _raise_on("linalg.solve", info, SINGULAR)
    return X


def linalg_solve_ex(A: Any, B: Any, *, left: bool = True, check_errors: bool = False) -> SolveEx:
    """As `linalg.solve`, with per matrix 0 or the place of the first zero pivot (the result is then NaN)."""
    X, info = _solve_as("linalg.solve_ex", A, B, left)
    if check_errors:
        _raise_on("linalg.solve_ex", info, SINGULAR)
    return SolveEx(X, info)


def linalg_tensorinv(A: Any, ind: int = 2) -> Any:
    """The inverse of `tensordot(A, ·, ind)`: A's first `ind` dimensions have the product of the others."""
    if ind <= 0:
        raise RuntimeError(f"linalg.tensorinv: ind must be positive, not {ind}")
    rows, columns = tuple(A.shape[:ind]), tuple(A.shape[ind:])
    if math.prod(rows) != math.prod(columns):
        raise RuntimeError(f"linalg.tensorinv: the first {ind} dimensions of {_by(A)} must have the others' product")
    return reshape(linalg_inv(reshape(A, (math.prod(rows), math.prod(columns)))), columns + rows)


def linalg_tensorsolve(A: Any, B: Any, dims: Any = None) -> Any:
    """X of tensordot(A, X, X.ndim) = B; `dims` of A are moved to its end first."""
    if dims is not None:
        dims = normalize_dim(tuple(dims), A.ndim)
        A = permute(A, (*[i for i in range(A.ndim) if i not in dims], *dims))
    shape = tuple(A.shape[B.ndim :])
    size = math.prod(B.shape)
    if math.prod(shape) != size:
        raise RuntimeError(f"linalg.tensorsolve: A ({_by(A)}) must be square beside B ({_by(B)})")
    return reshape(linalg_solve(reshape(A, (size, size)), reshape(B, (-1,))), shape)


# -- determinants -----------------------------------------------------------------------------------------------
@op(
    vjp=dict(A=lambda g, out, A: _det_vjp(g, out, A)),
    samples=lambda t: [(t(3, 3),), (t(2, 2, 2),), (t(1, 1),)],
    ref=lambda A: np.linalg.eigvals(A).prod(-1).real,
    method=False,
)
def linalg_det(xp, A):
    """The determinant of square matrices."""
    _check_square("linalg.det", A)
    return xp.asarray(xp.linalg.det(A))


def _det_vjp(g: Any, det: Any, A: Any) -> Any:
    """g times the conjugate cofactors: det inv(A), or for singular matrices by way of the SVD."""
    host = _array(det)
    if bool(((host != 0) & (abs(host) < float("inf"))).all()):
        return unsqueeze(unsqueeze(g * conj(det), -1), -1) * _mH(_linalg_inv(A)[0])
    from .linalg_eigen import linalg_svd

    U, S, Vh = linalg_svd(A)
    n = A.shape[-1]
    # The product of all singular values but one, for each: ones on the diagonal of a matrix of copies.
    others = prod(where(_eye(S, n, np.dtype(bool)), 1.0, unsqueeze(S, -2)), -1)
    turn = conj(linalg_det(U) * linalg_det(Vh))
    return unsqueeze(unsqueeze(g * turn, -1), -1) * matmul(U * unsqueeze(others, -2), Vh)


@op(
    vjp=dict(A=lambda g, out, A: _slogdet_vjp(g, out, A)),
    samples=lambda t: [(t(3, 3),), (t(2, 2, 2),)],
    method=False,
)
def _linalg_slogdet(xp, A):
    """The determinant's sign (complex: its phase) and the logarithm of its modulus."""
    sign, value = xp.linalg.slogdet(A)
    return xp.asarray(sign), xp.asarray(value)


def _slogdet_vjp(g: tuple, out: tuple, A: Any) -> Any:
    g_sign, g_log = g
    weight = g_log
    if _dtype(A).kind == "c" and g_sign is not None:
        turn = imag(conj(g_sign) * out[0]) * -1j
        weight = turn if g_log is None else g_log + turn
    if weight is None:
        return A * 0
    return unsqueeze(unsqueeze(weight, -1), -1) * _mH(linalg_inv(A))


def linalg_slogdet(A: Any) -> Slogdet:
    """The sign (complex: the phase) of the determinant and the logarithm of its modulus, -inf where singular."""
    _check_square("linalg.slogdet", A)
    return Slogdet(*_linalg_slogdet(A))


@method()
def logdet(input: Any) -> Any:
    """The logarithm of the determinant: NaN where it is negative, -inf where it is 0."""
    sign, value = linalg_slogdet(input)
    if _dtype(sign).kind == "c":
        return log(sign) + value
    return where(sign < 0, float("nan"), value)


alias(linalg_det, "det")
alias(linalg_inv, "inverse")
alias(linalg_slogdet, "slogdet")
