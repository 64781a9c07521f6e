"""Linear algebra: what factors mean, gradients of complex and Hermitian inputs, errors, empty matrices, names."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import flambeau as fb
from flambeau import linalg
from flambeau.testing import gradcheck, gradgradcheck

RNG = np.random.default_rng(0)


def random(*shape, kind="f8", shift=0.0):
    a = RNG.standard_normal(shape)
    if kind == "c16":
        a = a + 1j * RNG.standard_normal(shape)
    return fb.tensor(a + shift * np.eye(shape[-2], shape[-1]) if shift else a)


def close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a.numpy(), b.numpy() if isinstance(b, fb.Tensor) else b, rtol=tolerance, atol=tolerance)


def adjoint(x):
    return x.transpose(-1, -2).conj()


def hermitian(x):
    return x + adjoint(x)


KINDS = pytest.mark.parametrize("kind", ["f8", "c16"])
SHAPES = pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 3), (2, 1, 3, 2), (0, 3), (3, 0), (0, 2, 2)])


# -- factors ----------------------------------------------------------------------------------------------------
@KINDS
@SHAPES
def test_svd(kind, shape):
    A = random(*shape, kind=kind)
    U, S, Vh = linalg.svd(A, full_matrices=False)
    close((U * S.unsqueeze(-2).to(U.dtype)) @ Vh, A)
    close(linalg.svdvals(A), S)
    full = linalg.svd(A)
    assert full.U.shape[-1] == shape[-2] and full.Vh.shape[-2] == shape[-1]
    old = fb.svd(A)
    close(adjoint(old.V), Vh)


@KINDS
@SHAPES
def test_qr(kind, shape):
    A = random(*shape, kind=kind)
    for mode in ("reduced", "complete"):
        Q, R = linalg.qr(A, mode)
        close(Q @ R, A)
        close(adjoint(Q) @ Q, np.broadcast_to(np.eye(Q.shape[-1]), (*shape[:-2], Q.shape[-1], Q.shape[-1])))
    assert linalg.qr(A, "r").Q.numel() == 0


@KINDS
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 3), (40, 40), (35, 50), (0, 3), (0, 2, 2)])
def test_lu(kind, shape):
    A = random(*shape, kind=kind)
    P, L, U = linalg.lu(A)
    close(P @ L @ U, A)
    assert L.numel() == 0 or abs(L).max().item() <= 1.5  # partial pivoting
    if shape[-1] == shape[-2]:
        B = random(*shape[:-1], 2, kind=kind)
        LU, pivots = linalg.lu_factor(A)
        assert pivots.dtype == fb.int32
        close(A @ linalg.lu_solve(LU, pivots, B), B, 1e-8)
        close(adjoint(A) @ linalg.lu_solve(LU, pivots, B, adjoint=True), B, 1e-8)
        close(linalg.lu_solve(LU, pivots, adjoint(B), left=False) @ A, adjoint(B), 1e-8)
        close(linalg.lu_solve(LU, pivots, adjoint(B), left=False, adjoint=True) @ adjoint(A), adjoint(B), 1e-8)


@KINDS
@pytest.mark.parametrize("n", [0, 1, 3, 16, 17, 50])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_solve_triangular(kind, n, upper, left):
    A = random(2, n, n, kind=kind) * 0.1 + fb.eye(n, dtype=fb.float64)
    T = fb.triu(A) if upper else fb.tril(A)
    B = random(n, 3, kind=kind) if left else random(3, n, kind=kind)
    X = linalg.solve_triangular(A, B, upper=upper, left=left)
    close((T @ X) if left else (X @ T), np.broadcast_to(B.numpy(), X.shape))


def test_zero_on_the_diagonal_gives_inf():
    X = linalg.solve_triangular(fb.tensor([[0.0]]), fb.tensor([[1.0]]), upper=True)
    assert X.item() == math.inf


@KINDS
def test_eigenvectors(kind):
    A = random(2, 4, 4, kind=kind)
    values, vectors = linalg.eig(A)
    assert values.dtype == fb.complex128
    close(A.to(fb.complex128) @ vectors, vectors * values.unsqueeze(-2))
    H = hermitian(A)
    for UPLO in ("L", "U"):
        values, vectors = linalg.eigh(H, UPLO)
        assert values.dtype == fb.float64
        close(H @ vectors, vectors * values.unsqueeze(-2).to(vectors.dtype))


@KINDS
@pytest.mark.parametrize("upper", [False, True])
def test_cholesky(kind, upper):
    A = random(2, 3, 3, kind=kind)
    H = A @ adjoint(A) + fb.eye(3, dtype=fb.float64)
    L = linalg.cholesky(H, upper=upper)
    close(adjoint(L) @ L if upper else L @ adjoint(L), H)
    B = random(2, 3, 2, kind=kind)
    close(H @ fb.cholesky_solve(B, L, upper), B, 1e-8)
    close(H @ fb.cholesky_inverse(L, upper), np.broadcast_to(np.eye(3), (2, 3, 3)), 1e-8)


@KINDS
@pytest.mark.parametrize("driver", [None, "gels", "gelsd"])
def test_least_squares(kind, driver):
    A, B = random(2, 5, 3, kind=kind), random(2, 5, 2, kind=kind)
    found = linalg.lstsq(A, B, driver=driver)
    close(adjoint(A) @ (A @ found.solution - B), np.zeros((2, 3, 2)), 1e-8)
    if driver:
        close(found.residuals, (abs(A @ found.solution - B) ** 2).sum(-2))
    assert found.rank.numel() == 0 if driver == "gels" else found.rank.tolist() == [3, 3]
    assert found.singular_values.shape == ((2, 3) if driver == "gelsd" else (0,))


def test_matrix_exponential():
    A = fb.tensor([[0.0, -math.pi / 2], [math.pi / 2, 0.0]], dtype=fb.float64)
    close(linalg.matrix_exp(A), [[0.0, -1.0], [1.0, 0.0]])
    close(linalg.matrix_exp(A * 40), np.eye(2), 1e-9)
    D = fb.diag(fb.tensor([1.0, -30.0, 20.0], dtype=fb.float64))
    close(linalg.matrix_exp(D), np.diag(np.exp([1.0, -30.0, 20.0])), 1e-9)


def test_determinant_and_its_gradient_at_a_singular_matrix():
    A = fb.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]], dtype=fb.float64, requires_grad=True)
    linalg.det(A).backward()
    # The cofactors, by hand.
    close(A.grad, [[4.0, 4.0, -4.0], [-2.0, -2.0, 2.0], [0.0, 0.0, 0.0]], 1e-9)


def test_products():
    a, b, c = random(5, 40), random(40, 2), random(2, 30)
    close(linalg.multi_dot([a, b, c]), a.numpy() @ b.numpy() @ c.numpy())
    close(fb.chain_matmul(a, b, c), a.numpy() @ b.numpy() @ c.numpy())
    A = random(2, 3, 3, shift=2)
    close(A.matrix_power(5), np.linalg.matrix_power(A.numpy(), 5), 1e-8)
    close(A.matrix_power(-3), np.linalg.matrix_power(A.numpy(), -3), 1e-8)
    close(A.matrix_power(0), np.linalg.matrix_power(A.numpy(), 0))
    x = random(3, 6)
    close(x.cov(), np.cov(x.numpy()))
    close(x.corrcoef(), np.corrcoef(x.numpy()))
    close(fb.kron(a[:2, :3], b[:2]), np.kron(a.numpy()[:2, :3], b.numpy()[:2]))
    close(fb.tensordot(x, x, ([0, 1], [0, 1])), np.tensordot(x.numpy(), x.numpy(), ([0, 1], [0, 1])))


@given(st.data())
def test_einsum_against_numpy(data):
    sizes = {c: data.draw(st.integers(1, 3)) for c in "abcd"}
    terms = data.draw(st.lists(st.text("abcd", min_size=0, max_size=3), min_size=1, max_size=4))
    labels = sorted(set("".join(terms)))
    output = "".join(data.draw(st.lists(st.sampled_from(labels), unique=True))) if labels else ""
    xs = [np.random.default_rng(k).standard_normal([sizes[c] for c in t]) for k, t in enumerate(terms)]
    equation = ",".join(terms) + "->" + output
    close(fb.einsum(equation, *[fb.tensor(x) for x in xs]), np.einsum(equation, *xs), 1e-9)


@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(-10, 10, width=32)))
def test_norms_against_numpy(a):
    for p in (1, -1, 2, -2, "fro", "nuc", math.inf, -math.inf):
        close(linalg.norm(fb.tensor(a), p), np.linalg.norm(a, p), 1e-9)
    for p in (0, 1, 2, 3, 2.5, math.inf, -math.inf):
        close(linalg.vector_norm(fb.tensor(a), p, dim=1), np.linalg.norm(a, p, axis=1), 1e-9)


# -- gradients --------------------------------------------------------------------------------------------------
def _phase_free(factor):
    return abs(factor) ** 2


GRADIENTS = {
    "inv": linalg.inv,
    "det": linalg.det,
    "slogdet": lambda A: linalg.slogdet(A)[1] + linalg.slogdet(A)[0],
    "solve": lambda A: linalg.solve(A, A @ A * 0.5 + 1),
    "cholesky": lambda A: linalg.cholesky(A @ adjoint(A) + 1.5 * fb.eye(A.shape[-1], dtype=fb.float64)),
    "eigh": lambda A: _phase_free(linalg.eigh(hermitian(A)).eigenvectors),
    "eigvalsh": lambda A: linalg.eigvalsh(hermitian(A)),
    "eigvals": lambda A: linalg.eigvals(A) ** 2,
    "eig": lambda A: _phase_free(linalg.eig(A).eigenvectors),
    "svd U": lambda A: _phase_free(linalg.svd(A, False).U),
    "svd Vh": lambda A: _phase_free(linalg.svd(A, False).Vh),
    "svd": lambda A: (lambda U, S, Vh: (U * (S**3).unsqueeze(-2)) @ Vh)(*linalg.svd(A, False)),
    "qr": lambda A: (lambda Q, R: Q @ fb.tanh(abs(R)).to(Q.dtype))(*linalg.qr(A)),
    "pinv": linalg.pinv,
    "lstsq": lambda A: linalg.lstsq(A, A * 2 + 1).solution,
    "lu": lambda A: (lambda P, L, U: (L * L) @ (U + 1))(*linalg.lu(A)),
    "matrix_exp": linalg.matrix_exp,
    "nuc": lambda A: linalg.norm(A, "nuc"),
    "norm 2": lambda A: linalg.norm(A, 2),
    "norm 1.5": lambda A: linalg.vector_norm(A, 1.5, 0),
    "cond": linalg.cond,
    "einsum": lambda A: fb.einsum("ij,kj,kl->il", A, A, A),
}


def _real_parts(out):
    return fb.stack([out.real, out.imag]) if out.is_complex() else out


@pytest.mark.parametrize("order", [1, 2])
@KINDS
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient(name, kind, order):
    rng = np.random.default_rng(3)
    parts = [fb.tensor(rng.standard_normal((3, 3)), requires_grad=True) for _ in range(1 + (kind == "c16"))]
    function = GRADIENTS[name]

    def call(*parts):
        return _real_parts(function(parts[0] + 1j * parts[1] if len(parts) > 1 else parts[0]))

    assert gradcheck(call, parts) if order == 1 else gradgradcheck(call, parts, atol=1e-4)


@pytest.mark.parametrize("name", ["svd U", "svd Vh", "svd", "qr", "pinv", "lstsq", "lu"])
@KINDS
@pytest.mark.parametrize("shape", [(4, 2), (2, 4), (2, 3, 2)])
def test_gradient_of_rectangles(name, kind, shape):
    rng = np.random.default_rng(5)
    parts = [fb.tensor(rng.standard_normal(shape), requires_grad=True) for _ in range(1 + (kind == "c16"))]
    function = GRADIENTS[name]
    if name == "lu":
        function = lambda A: fb.cat([(x * x).flatten() for x in linalg.lu(A)[1:]])
    if name == "qr":
        function = lambda A: fb.cat([(abs(x) ** 2).flatten() for x in linalg.qr(A)])

    def call(*parts):
        return _real_parts(function(parts[0] + 1j * parts[1] if len(parts) > 1 else parts[0]))

    assert gradcheck(call, parts)


def test_equal_singular_values_give_finite_gradients():
    A = fb.eye(3, dtype=fb.float64, requires_grad=True)
    U, S, Vh = linalg.svd(A, full_matrices=False)
    ((U * S) @ Vh).sum().backward()
    close(A.grad.diagonal(), np.ones(3))
    assert fb.isfinite(A.grad).all().item()


# -- errors -----------------------------------------------------------------------------------------------------
SINGULAR = [[1.0, 2.0], [2.0, 4.0]]


def test_singular_matrices():
    batch = fb.stack([fb.eye(2), fb.tensor(SINGULAR)])
    with pytest.raises(linalg.LinAlgError, match=r"^linalg.inv: the matrix \(batch element 1\) is singular: .* 2 "):
        linalg.inv(batch)
    with pytest.raises(RuntimeError, match=r"linalg\.solve: the matrix is singular"):
        linalg.solve(fb.tensor(SINGULAR), fb.ones(2))
    with pytest.raises(linalg.LinAlgError, match=r"linalg\.lu_factor: the matrix is singular"):
        linalg.lu_factor(fb.tensor(SINGULAR))
    inverse, info = linalg.inv_ex(batch)
    assert info.tolist() == [0, 2] and info.dtype == fb.int32
    close(inverse[0], np.eye(2))
    result, info = linalg.solve_ex(batch, fb.ones(2, 2, 1))
    assert info.tolist() == [0, 2] and result[0].flatten().tolist() == [1.0, 1.0]
    assert linalg.cond(fb.tensor(SINGULAR), 1).item() == math.inf
    assert linalg.det(batch).tolist() == [1.0, 0.0]
    assert linalg.slogdet(fb.tensor(SINGULAR)).logabsdet.item() == -math.inf


def test_not_positive_definite():
    batch = fb.stack([fb.eye(3), fb.diag(fb.tensor([1.0, -1.0, 1.0]))])
    with pytest.raises(linalg.LinAlgError, match=r"batch element 1\) is not positive-definite: .* order 2"):
        linalg.cholesky(batch)
    assert linalg.cholesky_ex(batch).info.tolist() == [0, 2]
    with pytest.raises(linalg.LinAlgError):
        linalg.cholesky_ex(batch, check_errors=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linalg.inv(fb.ones(2, 3)), "square"),
        (lambda: linalg.det(fb.ones(3)), "at least 2 dimensions"),
        (lambda: linalg.inv(fb.ones(2, 2, dtype=fb.int64)), "floating point"),
        (lambda: linalg.solve(fb.ones(2, 2), fb.ones(3, 1)), "incompatible shapes"),
        (lambda: linalg.solve(fb.ones(2, 2), fb.ones(2, 1, dtype=fb.float64)), "one dtype"),
        (lambda: linalg.norm(fb.ones(2, 2, 2), "fro"), "vector or a matrix"),
        (lambda: linalg.vector_norm(fb.ones(0), math.inf), "empty tensor"),
        (lambda: linalg.vector_norm(fb.ones(2, dtype=fb.int64)), "floating point"),
        (lambda: linalg.cross(fb.ones(2), fb.ones(2)), "length 3"),
        (lambda: linalg.multi_dot([fb.ones(2, 3)]), "at least 2"),
        (lambda: linalg.eigh(fb.ones(2, 2), "X"), "UPLO"),
        (lambda: linalg.qr(fb.ones(2, 2), "full"), "mode"),
        (lambda: linalg.svd(fb.ones(2, 2), driver="gesvd"), "driver"),
        (lambda: fb.einsum("ij,jk", fb.ones(2, 3), fb.ones(4, 5)), "sizes 3 and 4"),
        (lambda: fb.einsum("ij->ik", fb.ones(2, 3)), "no operand"),
        (lambda: fb.einsum("ijk", fb.ones(2, 3)), "2 dimensions"),
        (lambda: fb.einsum("ij,jk", fb.ones(2, 3)), "1 operands"),
        (lambda: fb.cdist(fb.ones(2, 3), fb.ones(2, 4)), "one length"),
        (lambda: fb.mm(fb.ones(2), fb.ones(2, 2)), "matrices"),
        (lambda: fb.mv(fb.ones(2, 2), fb.ones(2, 2)), "vector"),
        (lambda: fb.trace(fb.ones(2)), "matrix"),
        (lambda: fb.renorm(fb.ones(2, 2), -1, 0, 1), "positive"),
    ],
)
def test_messages(call, message):
    with pytest.raises((RuntimeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_empty_matrices():
    for batch in ((), (2,), (0,)):
        A = fb.ones(*batch, 0, 0)
        assert linalg.inv(A).shape == A.shape
        assert linalg.det(A).numpy().tolist() == np.ones(batch).tolist()
        assert linalg.cholesky(A).shape == A.shape
        assert linalg.matrix_exp(A).shape == A.shape
        assert linalg.solve(A, fb.ones(*batch, 0, 2)).shape == (*batch, 0, 2)
        assert linalg.eigh(A).eigenvalues.shape == (*batch, 0)
        assert linalg.pinv(fb.ones(*batch, 3, 0)).shape == (*batch, 0, 3)
        assert linalg.matrix_rank(A).shape == batch
    assert (fb.ones(2, 0) @ fb.ones(0, 3)).tolist() == [[0.0] * 3] * 2
    assert fb.ones(4, 2, 0).matmul(fb.ones(0, 3)).shape == (4, 2, 3)
    assert fb.cdist(fb.ones(0, 3), fb.ones(2, 3)).shape == (0, 2)


# -- names ------------------------------------------------------------------------------------------------------
def test_methods():
    names = (
        "addbmm addmm addmv addr baddbmm bmm mm mv dot vdot inner outer ger kron cross dist cholesky "
        "cholesky_inverse cholesky_solve logdet det slogdet matrix_exp matrix_power pinverse inverse trace cov "
        "corrcoef norm renorm lu lu_solve qr svd triangular_solve matmul"
    )
    assert [n for n in names.split() if not hasattr(fb.Tensor, n) or not hasattr(fb, n)] == []


def test_named_tuples():
    A = fb.eye(2)
    fields = dict(svd="U S Vh", eigh="eigenvalues eigenvectors", eig="eigenvalues eigenvectors", qr="Q R",
                  slogdet="sign logabsdet", inv_ex="inverse info", cholesky_ex="L info", lu="P L U",
                  lu_factor="LU pivots", lu_factor_ex="LU pivots info")  # fmt: skip
    for name, expected in fields.items():
        assert " ".join(getattr(linalg, name)(A)._fields) == expected
    assert " ".join(linalg.lstsq(A, A)._fields) == "solution residuals rank singular_values"
    assert " ".join(linalg.solve_ex(A, A)._fields) == "result info"


def test_float32_stays():
    A = fb.eye(3) * 2
    assert {linalg.inv(A).dtype, linalg.svd(A).S.dtype, linalg.matrix_exp(A).dtype, linalg.norm(A, 2).dtype,
            linalg.pinv(A).dtype, linalg.lu_factor(A).LU.dtype, A.cov().dtype} == {fb.float32}  # fmt: skip
    assert linalg.eig(A).eigenvalues.dtype == fb.complex64
