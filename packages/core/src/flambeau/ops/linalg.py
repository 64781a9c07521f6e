"""Linear algebra: decompositions, solvers, norms, products. The parts are in `linalg_*.py`, one for each subject."""

from __future__ import annotations

from .linalg_eigen import (
    linalg_cond,
    linalg_eig,
    linalg_eigh,
    linalg_eigvals,
    linalg_eigvalsh,
    linalg_lstsq,
    linalg_matrix_rank,
    linalg_pinv,
    linalg_qr,
    linalg_svd,
    linalg_svdvals,
    pinverse,
    qr,
    svd,
)  # fmt: skip
from .linalg_einsum import einsum
from .linalg_norm import cdist, dist, linalg_matrix_norm, linalg_norm, linalg_vector_norm, pdist, renorm
from .linalg_products import (
    addbmm,
    addmv,
    addr,
    chain_matmul,
    corrcoef,
    cov,
    cross,
    inner,
    kron,
    linalg_cross,
    linalg_diagonal,
    linalg_matrix_exp,
    linalg_matrix_power,
    linalg_multi_dot,
    linalg_vander,
    linalg_vecdot,
    tensordot,
    trace,
    vdot,
)  # fmt: skip
from .linalg_solve import (
    linalg_det,
    linalg_inv,
    linalg_inv_ex,
    linalg_slogdet,
    linalg_solve,
    linalg_solve_ex,
    linalg_tensorinv,
    linalg_tensorsolve,
    logdet,
)  # fmt: skip
from .linalg_triangle import (
    cholesky,
    cholesky_inverse,
    cholesky_solve,
    linalg_cholesky,
    linalg_cholesky_ex,
    linalg_householder_product,
    linalg_lu,
    linalg_lu_factor,
    linalg_lu_factor_ex,
    linalg_lu_solve,
    linalg_solve_triangular,
    lu,
    lu_solve,
    lu_unpack,
    triangular_solve,
)  # fmt: skip

__all__ = [
    "addbmm", "addmv", "addr", "cdist", "chain_matmul", "cholesky", "cholesky_inverse",
    "cholesky_solve", "corrcoef", "cov", "cross", "dist", "einsum", "inner", "kron", "linalg_cholesky",
    "linalg_cholesky_ex", "linalg_cond", "linalg_cross", "linalg_det", "linalg_diagonal",
    "linalg_eig", "linalg_eigh", "linalg_eigvals",
    "linalg_eigvalsh", "linalg_householder_product", "linalg_inv", "linalg_inv_ex", "linalg_lstsq", "linalg_lu",
    "linalg_lu_factor", "linalg_lu_factor_ex", "linalg_lu_solve", "linalg_matrix_exp", "linalg_matrix_norm",
    "linalg_matrix_power", "linalg_matrix_rank", "linalg_multi_dot", "linalg_norm", "linalg_pinv", "linalg_qr",
    "linalg_slogdet", "linalg_solve", "linalg_solve_ex", "linalg_solve_triangular", "linalg_svd", "linalg_svdvals",
    "linalg_tensorinv", "linalg_tensorsolve", "linalg_vander", "linalg_vecdot", "linalg_vector_norm", "logdet", "lu",
    "lu_solve", "lu_unpack", "pdist", "pinverse", "qr", "renorm", "svd", "tensordot", "trace", "triangular_solve",
    "vdot",
]  # fmt: skip
