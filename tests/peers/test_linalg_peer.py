"""Linear algebra against PyTorch: its own sample inputs in complex128 and float32, forward and vector-Jacobian product.

Eigenvectors, singular vectors and Q are unique up to a phase of each column only (and LAPACK builds differ there):
what is compared of them is what does not depend on it.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # PyTorch's sample inputs need it
from torch.testing._internal.common_methods_invocations import op_db

import flambeau as fb
import flambeau.linalg

sys.path.insert(0, str(Path(__file__).parent))
from samples import array, leaves, ours, walk

SAMPLES = {torch.complex128: 5, torch.float32: 3}
NAMES = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "mm", "mv", "dot", "vdot", "inner", "outer", "kron",
    "tensordot", "cross", "cdist", "dist", "cholesky", "cholesky_inverse", "cholesky_solve", "logdet", "pinverse",
    "trace", "cov", "corrcoef", "norm", "renorm", "matmul", "matrix_exp", "triangular_solve", "lu", "lu_solve",
    "lu_unpack", "qr", "svd", "linalg.cholesky", "linalg.cholesky_ex", "linalg.cond", "linalg.cross", "linalg.det",
    "linalg.eig", "linalg.eigh", "linalg.eigvals", "linalg.eigvalsh", "linalg.householder_product", "linalg.inv",
    "linalg.inv_ex", "linalg.lstsq", "linalg.lu", "linalg.lu_factor", "linalg.lu_factor_ex", "linalg.lu_solve",
    "linalg.matrix_norm", "linalg.matrix_power", "linalg.matrix_rank", "linalg.multi_dot", "linalg.norm",
    "linalg.pinv", "linalg.qr", "linalg.slogdet", "linalg.solve", "linalg.solve_ex", "linalg.solve_triangular",
    "linalg.svd", "linalg.svdvals", "linalg.tensorinv", "linalg.tensorsolve", "linalg.vander", "linalg.vecdot",
    "linalg.vector_norm",
]  # fmt: skip
# The samples of these are inputs of a wrapper (A = X Y^H), not of the function.
WRAPPED = {("linalg.pinv", "singular"), ("linalg.lstsq", "grad_oriented")}
HERMITIAN = ("linalg.eigh", "linalg.eigvalsh")


def _entries():
    for op in op_db:
        if op.name not in NAMES or (op.name, op.variant_test_name) in WRAPPED:
            continue
        for dtype in (torch.complex128, torch.float32):
            if dtype in op.dtypes:
                kind = str(dtype).split(".")[1]
                yield pytest.param(op, dtype, id="-".join(n for n in (op.name, op.variant_test_name, kind) if n))


def _find(name):
    found = fb
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _unique(name, out):
    """The parts of a result that do not depend on the phase of columns; sorted where there is no order."""
    if name == "linalg.eigh":
        return [out[0], abs(out[1])]
    if name == "linalg.eig":
        values, vectors = out
        return [values.real, values.imag, abs(vectors)]
    if name in ("linalg.svd", "svd"):
        k = out[1].shape[-1]
        last = out[2][..., :k, :] if name == "linalg.svd" else out[2][..., :, :k]
        return [abs(out[0][..., :, :k]), out[1], abs(last)]
    if name in ("linalg.qr", "qr"):
        k = min(out[1].shape[-2:])
        return [abs(out[0][..., :, :k]) if out[0].numel() else out[0], abs(out[1])]
    return out


def _number(t):
    return array(t) if isinstance(t, torch.Tensor) else t.detach().numpy()


@pytest.mark.parametrize(("op", "dtype"), list(_entries()))
def test_against_pytorch(op, dtype):
    function = _find(op.name)
    double = dtype == torch.complex128
    close = dict(rtol=1e-6, atol=1e-8) if double else dict(rtol=2e-3, atol=2e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        samples = list(op.sample_inputs("cpu", dtype, requires_grad=op.supports_autograd))
        step = max(len(samples) / SAMPLES[dtype], 1)
        picked = [samples[int(i * step)] for i in range(min(SAMPLES[dtype], len(samples)))]
        for s in picked:
            args = [s.input, list(s.args), dict(s.kwargs)]
            mine = walk(args, ours)
            want = leaves(_unique(op.name, op(s.input, *s.args, **s.kwargs)), torch.Tensor)
            have = leaves(_unique(op.name, function(mine[0], *mine[1], **mine[2])), fb.Tensor)
            assert len(want) == len(have)
            for w, h in zip(want, have, strict=True):
                assert _number(h).dtype == _number(w).dtype
                np.testing.assert_allclose(_number(h), _number(w), **close)
            pairs = [(w, h) for w, h in zip(want, have, strict=True) if w.requires_grad and w.numel()]
            inputs = [t for t in leaves(args, torch.Tensor) if t.requires_grad]
            if not pairs or not inputs:
                continue
            cotangents = [torch.randn(w.shape, dtype=w.dtype) for w, _ in pairs]
            try:
                gradients = torch.autograd.grad([w for w, _ in pairs], inputs, cotangents, allow_unused=True)
            except RuntimeError:  # PyTorch has no gradient here (full Q or U)
                continue
            sources = [t for t in leaves(mine, fb.Tensor) if t.requires_grad]
            got = fb.autograd.grad([h for _, h in pairs], sources, [ours(c) for c in cotangents], allow_unused=True)
            for w, h in zip(gradients, got, strict=True):
                if w is None:
                    continue
                if h is None:
                    assert not w.any()
                else:
                    scale = max(1.0, float(w.abs().max())) if w.numel() else 1.0
                    np.testing.assert_allclose(_number(h) / scale, _number(w) / scale, **close)


EQUATIONS = [
    ("ij,jk->ik", [(3, 4), (4, 5)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("iij->j", [(3, 3, 2)]),
    ("ij->ji", [(2, 3)]),
    ("ij", [(2, 3)]),
    ("ba", [(2, 3)]),
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
    ("...ii->...i", [(2, 3, 3)]),
    ("i,j,k->ijk", [(2,), (3,), (4,)]),
    ("ab,bc,cd,de->ae", [(2, 3), (3, 4), (4, 2), (2, 3)]),
    ("bn,anm,bm->ba", [(2, 5), (3, 5, 4), (2, 4)]),
    ("i...->...", [(2, 3)]),
    ("...->", [(2, 3)]),
    ("ij,ij->", [(3, 4), (3, 4)]),
    ("ij,kj->ik", [(3, 1), (2, 4)]),
    ("aab,bc->ac", [(2, 2, 3), (3, 4)]),
    (",ij->ij", [(), (2, 3)]),
    ("b...c,cd->b...d", [(2, 3, 0), (0, 4)]),
    ("Aa,aA->", [(2, 3), (3, 2)]),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["float64", "complex128"])
@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS, ids=[e for e, _ in EQUATIONS])
def test_einsum(equation, shapes, dtype):
    torch.manual_seed(0)
    xs = [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]
    ys = [ours(x) for x in xs]
    want, have = torch.einsum(equation, *xs), fb.einsum(equation, *ys)
    np.testing.assert_allclose(_number(have), _number(want), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(_number(fb.einsum(equation, ys)), _number(want), rtol=1e-10, atol=1e-12)
    c = torch.randn(want.shape, dtype=dtype)
    gradients = torch.autograd.grad(want, xs, c)
    for w, h in zip(gradients, fb.autograd.grad(have, ys, ours(c)), strict=True):
        np.testing.assert_allclose(_number(h), _number(w), rtol=1e-10, atol=1e-12)


def test_einsum_sublists():
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    for labels in ([[..., 0, 1], [..., 1, 2], [..., 0, 2]], [[0, 1, 2], [0, 2, 30], [30, 1]], [[0, 1, 2], [0, 2, 3]]):
        args = [v for pair in zip((a, b), labels[:2], strict=True) for v in pair] + labels[2:]
        np.testing.assert_allclose(
            _number(fb.einsum(*walk(args, ours))), _number(torch.einsum(*args)), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, float("inf"), float("-inf")])
def test_norm_gradient_at_zero(p):
    for values in ([0.0, 0.0], [0.0, 2.0], [1.0, -1.0, 1.0]):
        x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        y = ours(x)
        torch.linalg.vector_norm(x, p).backward()
        fb.linalg.vector_norm(y, p).backward()
        want = np.zeros(len(values)) if x.grad is None else _number(x.grad)
        np.testing.assert_allclose(_number(y.grad), want, rtol=1e-12)
