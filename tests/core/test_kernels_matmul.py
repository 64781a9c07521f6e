"""Matrix products and linear layers on oneDNN against NumPy's in float64."""

import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau as fb
from flambeau import ops

pytest.importorskip("cffi", reason="the fast kernels need cffi")
try:
    from flambeau.backends.kernels import _onednn, onednn_matmul
except ImportError as error:
    pytest.skip(f"the fast kernels need oneDNN: {error}", allow_module_level=True)
if onednn_matmul._library() is None:
    pytest.skip("oneDNN's products need an x86 processor with AVX2", allow_module_level=True)

NONE = NotImplemented


def rand(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def close(actual, a, b, bias=0.0):
    """Within the error of a sum of k products in float32, whatever its order: k units of |a| @ |b|."""
    assert actual is not NONE and actual.dtype == np.float32
    a, b = a.astype(float), b.astype(float)
    expected = np.matmul(a, b) + bias
    assert actual.shape == expected.shape
    bound = np.matmul(np.abs(a), np.abs(b)) + np.abs(bias)
    assert (np.abs(actual - expected) <= 2**-24 * (a.shape[-1] + 4) * bound).all()


@pytest.fixture
def everything(monkeypatch):
    """Products of all sizes come to oneDNN, on all its threads."""
    for name in ("_ALONE", "_ALONE_VECTOR", "_ONE_THREAD", "_ONE_THREAD_VECTOR", "_BATCH_ENTRY", "_WORTH_PLAN"):
        monkeypatch.setattr(onednn_matmul, name, 0)


LAYOUTS = {
    "C": lambda m, n: rand(m, n),
    "transposed": lambda m, n: rand(n, m).T,
    "columns of a wider one": lambda m, n: rand(m, n + 5)[:, 2 : n + 2],
    "transposed part": lambda m, n: rand(n, m + 3)[:, 3:].T,
    "every second line": lambda m, n: rand(2 * m, n)[::2],
    "every second column": lambda m, n: rand(m, 2 * n)[:, ::2],
    "backwards": lambda m, n: rand(m, n)[::-1],
    "one line repeated": lambda m, n: np.broadcast_to(rand(1, n), (m, n)),
    "one column repeated": lambda m, n: np.broadcast_to(rand(m, 1), (m, n)),
}


@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
def test_layouts(everything, left, right):
    for m, k, n in [(13, 7, 5), (1, 6, 9), (8, 1, 3), (5, 4, 1), (1, 9, 1), (33, 40, 65)]:
        a, b = LAYOUTS[left](m, k), LAYOUTS[right](k, n)
        before = a.copy(), b.copy()
        close(onednn_matmul.matmul(a, b), a, b)
        assert (a == before[0]).all() and (b == before[1]).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_batches(data):
    m, k, n = (data.draw(st.integers(1, 9)) for _ in range(3))
    lead = data.draw(st.lists(st.integers(1, 3), max_size=3))
    limits = {name: getattr(onednn_matmul, name) for name in ("_ALONE", "_ALONE_VECTOR", "_ONE_THREAD", "_BATCH_ENTRY")}

    def operand(rows, columns):
        kept = data.draw(st.integers(0, len(lead)))
        shape = [1 if data.draw(st.booleans()) else size for size in lead[len(lead) - kept :]] + [rows, columns]
        order = data.draw(st.permutations(range(len(shape))))
        return rand(*[shape[i] for i in order]).transpose(np.argsort(order))

    a, b = operand(m, k), operand(k, n)
    for name in limits:
        setattr(onednn_matmul, name, 0)
    try:
        out = onednn_matmul.matmul(a, b)
    finally:
        for name, value in limits.items():
            setattr(onednn_matmul, name, value)
    close(out, a, b)


def test_vectors_and_repeated_matrices(everything):
    a, b = rand(40, 30), rand(30)
    close(onednn_matmul.matmul(a, b), a, b)
    close(onednn_matmul.matmul(rand(40), a), rand(40), a)
    close(onednn_matmul.matmul(b, b), b, b)
    stack = rand(3, 40, 30)
    close(onednn_matmul.matmul(stack, b), stack, b)
    repeated = np.broadcast_to(rand(1, 30, 8), (3, 30, 8))
    close(onednn_matmul.matmul(stack, repeated), stack, repeated)


@pytest.mark.parametrize(
    "m, k, n", [(1, 768, 256), (2048, 65, 2), (70, 70, 70), (160, 160, 160), (300, 200, 300), (64, 40, 1024)]
)
def test_sizes_that_come_by_themselves(m, k, n):
    a, b = rand(m, k), rand(k, n)
    close(onednn_matmul.matmul(a, b), a, b)
    close(onednn_matmul.matmul(b.T, a.T), b.T, a.T)
    out = np.full((m, n), np.nan, np.float32)
    assert onednn_matmul.product(a, b, out) is out
    close(out, a, b)


def test_lines_that_alias_in_the_cache():
    a, b = rand(512, 64), rand(64, 512)
    close(onednn_matmul.matmul(a, b), a, b)
    close(onednn_matmul.matmul(a.T.copy().T, b), a, b)
    close(onednn_matmul.matmul(b, a.T.copy().T), b, a)


@pytest.mark.parametrize("worth_plan", [0, 1 << 62], ids=["plan", "gemm"])
@pytest.mark.parametrize("shape", [(7, 40), (2, 5, 40), (1, 40), (40,)])
def test_linear(everything, monkeypatch, shape, worth_plan):
    monkeypatch.setattr(onednn_matmul, "_WORTH_PLAN", worth_plan)
    x, w, bias = rand(*shape), rand(30, 40), rand(60)[::2]
    close(onednn_matmul.linear(x, w, bias), x, w.T, bias)
    close(onednn_matmul.linear(x, w), x, w.T)
    close(onednn_matmul.linear(x, rand(40, 30).T), x, rand(40, 30))


@pytest.mark.parametrize("kind", ["relu", "gelu", "gelu_tanh", "silu"])
def test_linear_with_activation(everything, kind):
    x, w, bias = rand(6, 40, 50), rand(30, 50) / 4, rand(30)
    for b in (bias, None):
        out = onednn_matmul.linear_activation(x, w, b, kind)
        expected = ops.linear_activation(*[v if v is None else v.astype(float) for v in (x, w, b)], kind)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="kind must be one of relu"):
        ops.linear_activation(x, w, bias, "cube")


def test_gradient_of_linear_with_activation():
    values = [rand(9, 300, seed=1), rand(120, 300), rand(120)]
    for kind in ("relu", "gelu", "gelu_tanh", "silu"):
        found = []
        for fused in (True, False):
            x, w, b = (fb.tensor(v, requires_grad=True) for v in values)
            if fused:
                out = ops.linear_activation(x, w, b, kind)
            else:
                z = fb.nn.functional.linear(x, w, b)
                name, _, approximate = kind.partition("_")
                out = fb.nn.functional.gelu(z, approximate=approximate or "none") if name == "gelu" else (
                    getattr(fb.nn.functional, name)(z)
                )  # fmt: skip
            (out * out).sum().backward()
            found.append([t.grad.numpy() for t in (x, w, b)])
        for fused_grad, plain in zip(*found, strict=True):
            np.testing.assert_allclose(fused_grad, plain, rtol=0, atol=1e-4 * np.abs(plain).max())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(everything, value):
    a, b, bias = rand(20, 30), rand(30, 10), rand(10)
    a[3, 4] = value
    for out in (onednn_matmul.matmul(a, b), onednn_matmul.linear(a, b.T, bias)):
        assert np.isfinite(np.delete(out, 3, 0)).all()
        np.testing.assert_array_equal(out[3], a.astype(float)[3] @ b + bias)


def test_declines(everything):
    a, b = rand(20, 30), rand(30, 40)
    other = b.astype(float)
    assert onednn_matmul.matmul(a, other) is NONE
    assert onednn_matmul.matmul(a.astype(float), other) is NONE
    assert onednn_matmul.matmul(a.astype(">f4"), b) is NONE
    assert onednn_matmul.matmul(a, b[:29]) is NONE
    assert onednn_matmul.matmul(a[:0], b) is NONE
    assert onednn_matmul.matmul(np.stack([a, a]), np.stack([b[:29], b[:29]])) is NONE
    assert onednn_matmul.product(a, b, np.empty((20, 41), np.float32)) is NONE
    assert onednn_matmul.product(a, b, np.empty((40, 20), np.float32).T) is NONE
    assert onednn_matmul.linear(a, b.T, rand(1, 40)) is NONE
    assert onednn_matmul.linear(a, b.T, rand(40).astype(float)) is NONE
    assert onednn_matmul.linear_activation(a, b.T, rand(40), "cube") is NONE


def test_small_products_are_left_to_numpy():
    a = rand(60, 60)
    assert onednn_matmul.matmul(a, a) is NONE
    assert onednn_matmul.linear(a, a, a[0]) is NONE
    assert onednn_matmul.matmul(rand(90), rand(90, 90)) is NONE
    stack = rand(4, 60, 60)
    assert onednn_matmul.matmul(stack, stack) is NONE


def test_the_number_of_threads_stays():
    threads = onednn_matmul._library().threads
    before = threads()
    onednn_matmul.matmul(rand(90, 90), rand(90, 90))
    assert threads() == before


def test_same_bits_again():
    a, b = rand(3, 150, 200), rand(200, 260)
    bias = rand(260)
    for call in (lambda: onednn_matmul.matmul(a, b), lambda: onednn_matmul.linear(a, b.T, bias)):
        first = call()
        assert first is not NONE
        assert all((call() == first).all() for _ in range(5))


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")
def test_a_forked_child_uses_numpy(monkeypatch):
    onednn_matmul.matmul(rand(90, 90), rand(90, 90))
    monkeypatch.setattr(_onednn, "disabled", True)  # what the hook of a fork sets
    assert onednn_matmul.matmul(rand(90, 90), rand(90, 90)) is NONE
    assert onednn_matmul.linear(rand(300, 300), rand(300, 300), rand(300)) is NONE
    assert onednn_matmul.matmul(rand(9, 90, 90), rand(9, 90, 90)) is NONE


@pytest.mark.parametrize("dtype", [fb.float16, fb.bfloat16])
def test_16_bit_floats_are_summed_in_float32(dtype):
    a, b = fb.tensor(rand(40, 700)).to(dtype), fb.tensor(rand(700, 30)).to(dtype)
    for out in (a @ b, fb.nn.functional.linear(a, b.T)):
        assert out.dtype == dtype
        exact = a.float().numpy().astype(float) @ b.float().numpy().astype(float)
        step = {fb.float16: 2**-11, fb.bfloat16: 2**-8}[dtype]
        np.testing.assert_allclose(out.float().numpy(), exact, rtol=step, atol=1e-3)


def test_addmm_with_a_vector():
    bias, a, b = (fb.tensor(rand(*shape), requires_grad=True) for shape in ((30,), (20, 40), (40, 30)))
    out = fb.addmm(bias, a, b)
    close(out.detach().numpy(), a.detach().numpy(), b.detach().numpy(), bias.detach().numpy())
    found = fb.autograd.grad((out * out).sum(), [bias, a, b])
    expected = fb.autograd.grad(((a @ b + bias) ** 2).sum(), [bias, a, b])
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-4, atol=1e-4)
