"""Decompositions into orthogonal, diagonal and triangular factors, and what is made of them.

Gradients with respect to eigenvectors and singular vectors divide by gaps between eigenvalues. A gap of exactly 0
contributes nothing, so that the gradient stays finite (PyTorch's is NaN there); what turns vectors within the space of
equal eigenvalues is then not in it.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from .. import backends
from ._op import method, op
from .elementwise import abs, true_divide, where
from .linalg_common import (
    LinAlgError,
    _array,
    _by,
    _check_float,
    _check_matrix,
    _check_square,
    _diagonal,
    _dtype,
    _eye,
    _like,
    _mH,
)  # fmt: skip
from .linalg_solve import _linalg_inv, _linalg_solve
from .linalg_triangle import linalg_solve_triangular
from .logic import conj, eq, real
from .matmul import matmul
from .reduce import sum
from .shape import cat, squeeze, triu, unsqueeze

Eig = namedtuple("linalg_eig", ["eigenvalues", "eigenvectors"])
Eigh = namedtuple("linalg_eigh", ["eigenvalues", "eigenvectors"])
SVD = namedtuple("linalg_svd", ["U", "S", "Vh"])
OldSVD = namedtuple("svd", ["U", "S", "V"])
QR = namedtuple("linalg_qr", ["Q", "R"])
Lstsq = namedtuple("linalg_lstsq", ["solution", "residuals", "rank", "singular_values"])


def _by_gaps(x: Any, gaps: Any) -> Any:
    """x / gaps, and 0 where a gap is 0."""
    flat = eq(gaps, 0)
    return where(flat, 0.0, true_divide(x, where(flat, 1.0, gaps)))


def _outer_difference(values: Any) -> Any:
    """d[i, j] = values[j] - values[i]."""
    return unsqueeze(values, -2) - unsqueeze(values, -1)


def _embed(values: Any) -> Any:
    """Matrices with `values` on the diagonal."""
    return where(_eye(values, values.shape[-1], np.dtype(bool)), unsqueeze(values, -2), 0.0)


# -- Hermitian matrices -----------------------------------------------------------------------------------------
@op(
    vjp=dict(A=lambda g, out: _eigh_vjp(*g, *out)),
    samples=lambda t: [(t(1, 1),), (t(2, 1, 1),)],
    method=False,
)
def _linalg_eigh(xp, A, UPLO="L"):
    """Eigenvalues in ascending order and orthonormal eigenvectors (columns) of Hermitian matrices."""
    try:
        values, vectors = xp.linalg.eigh(A, UPLO)
    except np.linalg.LinAlgError as e:
        raise LinAlgError(f"linalg.eigh: the algorithm failed to converge ({e}); look for NaN or inf") from None
    return values, vectors


def _eigh_vjp(gL: Any, gQ: Any, L: Any, Q: Any) -> Any:
    if gQ is None:
        return matmul(Q * unsqueeze(gL, -2), _mH(Q))
    inside = _by_gaps(matmul(_mH(Q), gQ), _outer_difference(L))
    if gL is not None:
        inside = inside + _embed(gL)
    out = matmul(Q, matmul(inside, _mH(Q)))
    return (out + _mH(out)) * 0.5


def _triangle_name(name: str, UPLO: str) -> str:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"{name}: UPLO must be 'L' or 'U', not {UPLO!r}")
    return UPLO.upper()


def linalg_eigh(A: Any, UPLO: str = "L") -> Eigh:
    """Eigenvalues (ascending) and eigenvectors of Hermitian matrices; only the triangle `UPLO` is read.

    >>> import flambeau
    >>> flambeau.linalg.eigh(flambeau.tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues.tolist()
    [1.0, 2.0]
    """
    _check_square("linalg.eigh", A)
    return Eigh(*_linalg_eigh(A, _triangle_name("linalg.eigh", UPLO)))


def linalg_eigvalsh(A: Any, UPLO: str = "L") -> Any:
    """The eigenvalues of Hermitian matrices, ascending."""
    return linalg_eigh(A, UPLO).eigenvalues


# -- general matrices -------------------------------------------------------------------------------------------
def _on_host(xp: Any, function: Any, A: Any) -> tuple:
    """NumPy's form of a decomposition that CuPy does not have."""
    host = A if isinstance(A, np.ndarray) else A.get()
    return tuple(xp.asarray(o) for o in function(host))


@op(
    vjp=dict(A=lambda g, out: _eig_vjp(*g, *out)),
    samples=lambda t: [(t(1, 1),), (t(2, 1, 1),)],
    method=False,
)
def _linalg_eig(xp, A):
    """Complex eigenvalues and unit eigenvectors of square matrices."""
    kind = np.complex64 if A.dtype.itemsize == 4 or A.dtype == np.complex64 else np.complex128
    try:
        values, vectors = _on_host(xp, np.linalg.eig, A)
    except np.linalg.LinAlgError as e:
        raise LinAlgError(f"linalg.eig: the algorithm failed to converge ({e}); look for NaN or inf") from None
    return values.astype(kind), vectors.astype(kind)


def _eig_vjp(gL: Any, gV: Any, L: Any, V: Any) -> Any:
    """Boeddeker et al., "On the computation of complex-valued gradients" (2017), for vectors of norm 1."""
    VH = _mH(V)
    if gV is None:
        return _linalg_solve(VH, unsqueeze(gL, -1) * VH)[0]
    inside = matmul(VH, gV)
    inside = inside - matmul(VH, V) * unsqueeze(real(_diagonal(inside)), -2)
    inside = _by_gaps(inside, conj(_outer_difference(L)))
    if gL is not None:
        inside = inside + _embed(gL)
    return _linalg_solve(VH, matmul(inside, VH))[0]


def linalg_eig(A: Any) -> Eig:
    """Complex eigenvalues, in no order, and eigenvectors of norm 1 (columns) of square matrices."""
    _check_square("linalg.eig", A)
    return Eig(*_linalg_eig(A))


def linalg_eigvals(A: Any) -> Any:
    """The complex eigenvalues of square matrices."""
    _check_square("linalg.eigvals", A)
    return _linalg_eig(A)[0]


# -- singular values --------------------------------------------------------------------------------------------
@op(
    vjp=dict(A=lambda g, out: _svd_vjp(*g, *out)),
    samples=lambda t: [(t(3, 3),), (t(2, 4, 2),), (t(2, 3),)],
    method=False,
)
def _linalg_svd(xp, A, full_matrices=False):
    """U, S (descending) and V^H of A = U diag(S) V^H."""
    try:
        U, S, Vh = xp.linalg.svd(A, full_matrices)
    except np.linalg.LinAlgError as e:
        raise LinAlgError(f"linalg.svd: the algorithm failed to converge ({e}); look for NaN or inf") from None
    return U, S, Vh


def _svd_vjp(gU: Any, gS: Any, gVh: Any, U: Any, S: Any, Vh: Any) -> Any:
    """Townsend, "Differentiating the singular value decomposition" (2016); Wan and Zhang (2019) for complex phases."""
    m, n, k = U.shape[-2], Vh.shape[-1], S.shape[-1]
    U, Vh = U[..., :, :k], Vh[..., :k, :]
    # With full_matrices the added columns are any basis: what is asked of them does not count, as in PyTorch.
    gU = None if gU is None else gU[..., :, :k]
    gVh = None if gVh is None else gVh[..., :k, :]
    if gU is None and gVh is None:
        return matmul(U * unsqueeze(gS, -2), Vh)
    total = unsqueeze(S, -1) + unsqueeze(S, -2)
    left = matmul(_mH(U), gU) if gU is not None else None
    right = matmul(Vh, _mH(gVh)) if gVh is not None else None
    left = left - _mH(left) if left is not None else 0.0
    right = right - _mH(right) if right is not None else 0.0
    # (left s_j + right s_i) / (s_j^2 - s_i^2), so arranged that only left + right, which is 0 for equal singular
    # values unless the function depends on the choice of basis, is divided by the gap.
    inside = _by_gaps(_by_gaps(left + right, _outer_difference(S)) * unsqueeze(S, -2) - right, total)
    if _dtype(U).kind == "c":
        inside = inside + _embed(_by_gaps(_diagonal(left + right), S * 2))
    if gS is not None:
        inside = inside + _embed(gS)
    out = matmul(matmul(U, inside), Vh)
    if gU is not None and m > k:
        scaled = _by_gaps(gU, unsqueeze(S, -2))
        out = out + matmul(scaled - matmul(U, matmul(_mH(U), scaled)), Vh)
    if gVh is not None and n > k:
        scaled = _by_gaps(gVh, unsqueeze(S, -1))
        out = out + matmul(U, scaled - matmul(matmul(scaled, _mH(Vh)), Vh))
    return out


def _check_driver(name: str, driver: Any, known: tuple = ()) -> None:
    if driver is not None and driver not in known:
        allowed = f"None or one of {', '.join(known)}" if known else "None: cuSOLVER's drivers are not used here"
        raise RuntimeError(f"{name}: driver must be {allowed}, not {driver!r}")


def linalg_svd(A: Any, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """U, S (descending) and Vh of A = U diag(S) Vh; with full_matrices U and Vh are square.

    Gradients through U and Vh need distinct singular values; columns that full_matrices adds get none.

    >>> import flambeau
    >>> flambeau.linalg.svd(flambeau.tensor([[3.0, 0.0], [0.0, 4.0]])).S.tolist()
    [4.0, 3.0]
    """
    _check_matrix("linalg.svd", A)
    _check_float("linalg.svd", A)
    _check_driver("linalg.svd", driver)
    return SVD(*_linalg_svd(A, full_matrices))


def linalg_svdvals(A: Any, *, driver: str | None = None) -> Any:
    """The singular values, descending."""
    return linalg_svd(A, False, driver=driver).S


@method()
def svd(input: Any, some: bool = True, compute_uv: bool = True) -> OldSVD:
    """U, S and V (not its adjoint) of input = U diag(S) V^H; reduced when `some`."""
    U, S, Vh = linalg_svd(input, not some)
    V = _mH(Vh)
    return OldSVD(U, S, V) if compute_uv else OldSVD(U * 0, S, V * 0)


# -- QR ---------------------------------------------------------------------------------------------------------
@op(
    vjp=dict(A=lambda g, out, A, mode: _qr_vjp(*g, *out, A, mode)),
    samples=lambda t: [(t(3, 3),), (t(2, 4, 2),), (t(2, 3),)],
    method=False,
)
def _linalg_qr(xp, A, mode="reduced"):
    """Q with orthonormal columns and upper triangular R of A = Q R."""
    if mode == "r":
        return xp.zeros((0,), A.dtype), xp.linalg.qr(A, "r")
    return tuple(xp.linalg.qr(A, mode))


def _qr_vjp(gQ: Any, gR: Any, Q: Any, R: Any, A: Any, mode: str) -> Any:
    """Walter and Lehmann (2018), Liao et al., "Differentiable programming tensor networks" (2019)."""
    m, n = A.shape[-2:]
    if mode == "r":
        raise RuntimeError("linalg.qr: mode 'r' gives no Q, which the gradient needs; use 'reduced'")
    if mode == "complete" and m > n:
        raise RuntimeError("linalg.qr: the gradient of mode 'complete' needs at least as many columns as rows; "
                           "use 'reduced'")  # fmt: skip
    if m >= n:
        return _qr_tall_vjp(gQ, gR, Q, R)
    rest = None
    first = None
    if gR is not None:
        first, rest = gR[..., :, :m], gR[..., :, m:]
        turn = matmul(A[..., :, m:], _mH(rest))
        gQ = turn if gQ is None else gQ + turn
    left = _qr_tall_vjp(gQ, first, Q, R[..., :, :m])
    return cat([left, matmul(Q, rest) if rest is not None else A[..., :, m:] * 0], -1)


def _qr_tall_vjp(gQ: Any, gR: Any, Q: Any, R: Any) -> Any:
    inside: Any = 0.0
    if gR is not None:
        inside = matmul(gR, _mH(R))
    if gQ is not None:
        inside = inside - matmul(_mH(Q), gQ)
    upper = triu(inside)
    both = upper + _mH(upper)
    both = both - _embed(_diagonal(both)) * 0.5
    rows = matmul(Q, both)
    return linalg_solve_triangular(_mH(R), rows if gQ is None else gQ + rows, False, False)


def linalg_qr(A: Any, mode: str = "reduced") -> QR:
    """Q and R of A = Q R. mode: "reduced", "complete" (square Q) or "r" (an empty Q)."""
    _check_matrix("linalg.qr", A)
    _check_float("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"linalg.qr: mode must be 'reduced', 'complete' or 'r', not {mode!r}")
    return QR(*_linalg_qr(A, mode))


@method()
def qr(input: Any, some: bool = True) -> QR:
    """Q and R of input = Q R; square Q unless `some`."""
    return linalg_qr(input, "reduced" if some else "complete")


# -- pseudo-inverse, least squares, rank ------------------------------------------------------------------------
@op(
    vjp=dict(A=lambda g, out, A: _pinv_vjp(g, out, A)),
    samples=lambda t: [(t(3, 3),), (t(4, 2),), (t(2, 2, 3),)],
    ref=lambda A: np.linalg.pinv(A),
    method=False,
)
def _linalg_pinv(xp, A, atol=0.0, rtol=1e-15, hermitian=False):
    """The pseudo-inverse; singular values up to max(atol, rtol * the largest) count as 0."""
    if not A.size:
        return xp.zeros((*A.shape[:-2], A.shape[-1], A.shape[-2]), A.dtype)
    if hermitian:
        values, vectors = xp.linalg.eigh(A)
        left, size, right = vectors, values, vectors
    else:
        left, size, Vh = xp.linalg.svd(A, False)
        right = xp.conj(Vh.swapaxes(-1, -2))
    bound = xp.maximum(atol, rtol * xp.abs(size).max(-1))[..., None]
    inverse = xp.where(xp.abs(size) > bound, 1 / xp.where(size == 0, 1, size), 0).astype(size.dtype)
    return xp.matmul(right * inverse[..., None, :], xp.conj(left.swapaxes(-1, -2)))


def _pinv_vjp(g: Any, P: Any, A: Any) -> Any:
    """Golub and Pereyra (1973): the derivative of the pseudo-inverse at constant rank."""
    PH, gH = _mH(P), _mH(g)
    inner = -matmul(matmul(PH, g), PH)
    outside = gH - matmul(A, matmul(P, gH))
    beside = gH - matmul(matmul(gH, P), A)
    return inner + matmul(outside, matmul(P, PH)) + matmul(matmul(PH, P), beside)


def _tolerances(A: Any, atol: Any, rtol: Any) -> tuple[Any, Any]:
    """PyTorch's rule: rtol is the larger side times epsilon, unless a positive atol is given."""
    given = atol is not None
    atol = _array(atol) if given else 0.0
    if rtol is None:
        default = max(A.shape[-2:]) * float(np.finfo(_dtype(A)).eps)
        rtol = np.where(np.asarray(atol) > 0, 0.0, default) if given else default
    return atol, _array(rtol)


def linalg_pinv(A: Any, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Any:
    """The Moore-Penrose inverse; singular values up to max(atol, rtol * the largest) count as 0.

    `rcond` is an older name of rtol. The gradient is that at constant rank.
    """
    _check_matrix("linalg.pinv", A)
    _check_float("linalg.pinv", A)
    atol, rtol = _tolerances(A, atol, rcond if rtol is None else rtol)
    return _linalg_pinv(A, atol, rtol, hermitian)


@method()
def pinverse(input: Any, rcond: float = 1e-15) -> Any:
    """The Moore-Penrose inverse (`linalg.pinv`)."""
    return linalg_pinv(input, rcond)


def linalg_matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Any:
    """How many singular values are above max(atol, rtol * the largest); `tol` is an older name of atol."""
    _check_matrix("linalg.matrix_rank", A)
    _check_float("linalg.matrix_rank", A)
    if tol is not None:
        atol, rtol = tol, 0.0
    atol, rtol = _tolerances(A, atol, rtol)
    raw = _array(A)
    xp = backends.namespace([raw])
    if not raw.size:
        return _like(A, xp.zeros(raw.shape[:-2], np.int64))
    size = xp.abs(xp.linalg.eigvalsh(raw)) if hermitian else xp.linalg.svd(raw, compute_uv=False)
    bound = xp.maximum(atol, rtol * size.max(-1))
    return _like(A, xp.asarray((size > bound[..., None]).sum(-1)))


def linalg_cond(A: Any, p: Any = None) -> Any:
    """The condition number in norm `p` (2 when None): norm(A) * norm(inv(A)), inf where singular."""
    from .linalg_norm import linalg_matrix_norm

    _check_matrix("linalg.cond", A)
    if p in (None, 2, -2):
        s = linalg_svdvals(A)
        top, low = s[..., 0], s[..., s.shape[-1] - 1]
        return true_divide(low, top) if p == -2 else true_divide(top, low)
    _check_square("linalg.cond", A)
    inverse, info = _linalg_inv(A)
    value = linalg_matrix_norm(A, p) * linalg_matrix_norm(inverse, p)
    return where(eq(info, 0), value, float("inf")) if bool((_array(info) != 0).any()) else value


def linalg_lstsq(A: Any, B: Any, rcond: Any = None, *, driver: str | None = None) -> Lstsq:
    """Least squares solutions X of A X = B, of least norm where A lacks rank.

    driver: "gelsy" (default), "gelss", "gelsd" or "gels"; it says, as in PyTorch, which of the further results are
    filled: residuals for tall A of full rank (not "gelsy"), the rank (not "gels"), singular values ("gelss", "gelsd").
    """
    _check_matrix("linalg.lstsq", A)
    _check_float("linalg.lstsq", A, B)
    _check_driver("linalg.lstsq", driver, ("gels", "gelsy", "gelsd", "gelss"))
    vector = A.ndim - 1 == B.ndim and tuple(B.shape) == tuple(A.shape[:-1])
    columns = unsqueeze(B, -1) if vector else B
    if columns.ndim < 2 or columns.shape[-2] != A.shape[-2]:
        raise RuntimeError(f"linalg.lstsq: A ({_by(A)}) and B ({_by(B)}) must have as many rows")
    X = matmul(linalg_pinv(A, rcond), columns)
    driver = driver or "gelsy"
    raw = _array(A)
    xp = backends.namespace([raw])
    m, n = A.shape[-2:]
    empty = _like(A, xp.zeros((0,), np.abs(np.empty(0, raw.dtype)).dtype))
    rank = linalg_matrix_rank(A, rtol=rcond)
    full = driver == "gels" or bool((_array(rank) == n).all())
    residuals = empty
    if m > n and full and driver != "gelsy":
        error = abs(matmul(A, X) - columns)
        residuals = sum(error * error, -2)
    values = linalg_svdvals(A) if driver in ("gelss", "gelsd") else empty
    shown = _like(A, xp.zeros((0,), np.int64)) if driver == "gels" else rank
    return Lstsq(squeeze(X, -1) if vector else X, residuals, shown, values)
