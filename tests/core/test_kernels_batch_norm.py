"""Batch normalisation in training and relu with Numba, against float64; tolerances are parts of the largest entry."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="these kernels need Numba")
pytest.importorskip("cffi", reason="the fast kernels need cffi")
try:
    from flambeau.backends.kernels import numba_batch_norm, numba_eltwise, numba_setup, onednn_norm
except ImportError as error:
    pytest.skip(f"the fast kernels need oneDNN and a thread pool for Numba: {error}", allow_module_level=True)

import flambeau

SHAPES = [
    (4, 16, 9, 7), (5, 3, 40, 40), (3, 8, 33), (2, 5, 3, 4, 5), (3, 1, 90, 100), (9, 2, 1),  # planes
    (32, 50, 2, 2), (70, 300, 1, 1), (131, 7, 5, 5), (1, 9, 4, 4), (2, 1, 31),  # blocks of channels
]  # fmt: skip


def rand(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def close(actual, expected, tolerance=3e-6):
    assert actual.shape == expected.shape and actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def reference(g, x, w, b, eps=1e-5):
    axes, column = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    g, x, w, b = (a.astype(float) for a in (g, x, w, b))
    mean, var = x.mean(axes), x.var(axes)
    rstd = 1 / np.sqrt(var + eps).reshape(column)
    hat = (x - mean.reshape(column)) * rstd
    dbias, dweight = g.sum(axes), (g * hat).sum(axes)
    dx = (g - (dbias.reshape(column) + hat * dweight.reshape(column)) * len(w) / x.size) * rstd * w.reshape(column)
    return (hat * w.reshape(column) + b.reshape(column), mean, var), (dx, dweight, dbias)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm(shape):
    x, g, w, b = rand(*shape) + 2, rand(*shape, seed=1), rand(shape[1]) + 3, rand(shape[1], seed=1)
    there, back = reference(g, x, w, b)
    found = numba_batch_norm.forward(x, w, b, 1e-5)
    for actual, expected in zip(found, there, strict=True):
        close(actual, expected)
    for actual, expected in zip(numba_batch_norm.backward(g, x, *found[1:], w, 1e-5), back, strict=True):
        close(actual, expected, 1e-5)


def test_a_mean_far_from_zero_keeps_the_variance():
    x = rand(4, 8, 60, 60) + 1000
    _, mean, var = numba_batch_norm.forward(x, np.ones(8, "f"), np.zeros(8, "f"), 1e-5)
    np.testing.assert_allclose(mean, x.astype(float).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(var, x.astype(float).var((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 6, 20, 20), (4, 6, 3, 3)])
def test_what_is_not_finite_stays_in_its_channel(shape):
    x = rand(*shape)
    x[0, 2, 0, 0], x[1, 4, 1, 1] = np.nan, np.inf
    out, mean, var = numba_batch_norm.forward(x, np.ones(6, "f"), np.zeros(6, "f"), 1e-5)
    for mask in (np.isfinite(out).all((0, 2, 3)), np.isfinite(mean), np.isfinite(var)):
        np.testing.assert_array_equal(mask, [True, True, False, True, False, True])
    assert np.isnan(out[:, 2]).all()


def test_the_op_takes_it_for_large_images_alone(monkeypatch):
    x, v = rand(4, 8, 30, 30), np.ones(8, np.float32)
    monkeypatch.setattr(onednn_norm, "_WORTH_NUMBA", x.size)
    called = []
    for name in ("forward", "backward"):
        code = getattr(numba_batch_norm, name)
        monkeypatch.setattr(numba_batch_norm, name, lambda *a, code=code, name=name: called.append(name) or code(*a))
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    found = [onednn_norm.batch_norm_train(a, None, None, 1e-5) for a in (x[:3], last, x)]
    assert called == ["forward"]
    close(found[2][0], found[1][0])
    strided = np.repeat(x, 2, -1)[..., ::2]
    grads = [onednn_norm.batch_norm_grad(g, x, *found[2][1:], None, 1e-5) for g in (x, strided, last)]
    assert called == ["forward", *["backward"] * 3]
    for other in grads[1:]:
        for a, b in zip(other, grads[0], strict=True):
            np.testing.assert_array_equal(a, b)
    assert onednn_norm.batch_norm_train(x, v.astype(float), None, 1e-5) is NotImplemented


def bits(shape):
    x, g, v = rand(*shape), rand(*shape, seed=1), rand(shape[1])
    found = numba_batch_norm.forward(x, v, v, 1e-5)
    return [*found, *numba_batch_norm.backward(g, x, *found[1:], v, 1e-5)]


@pytest.mark.parametrize("shape", [(6, 20, 40, 40), (40, 200, 3, 3)])
def test_threads_do_not_change_bits(shape):
    found = []
    try:
        for threads in (1, 2):
            numba_setup.set_num_threads(threads)
            found.append(bits(shape))
    finally:
        numba_setup.set_num_threads(0)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_relu():
    x = rand(3, 5, 100, 71)
    x[0, 0, 0, :4] = np.nan, np.inf, -np.inf, -0.0
    expected = np.where(x <= 0, 0, x)
    np.testing.assert_array_equal(numba_eltwise.relu(x), expected)
    turned = x.transpose(0, 2, 3, 1)
    out = numba_eltwise.relu(turned)
    np.testing.assert_array_equal(out, expected.transpose(0, 2, 3, 1))
    assert out.strides == turned.strides
    assert numba_eltwise.relu(x[:1, :1]) is NotImplemented  # small
    assert numba_eltwise.relu(x[..., ::2]) is NotImplemented  # gaps
    assert numba_eltwise.relu(x.astype(float)) is NotImplemented
    with flambeau.no_grad():
        t = flambeau.from_numpy(x)
        again = flambeau.relu_(t)
    assert again is t and t.array is x
    np.testing.assert_array_equal(x, expected)


def test_relu_in_place_counts_as_a_change():
    w = flambeau.ones(300, 300, requires_grad=True)
    y = w.exp()
    loss = (y * y).sum()
    with flambeau.no_grad():
        y.relu_()
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        loss.backward()
    v = flambeau.randn(4, 4)
    view = v[1:3]
    with flambeau.no_grad():
        flambeau.nn.functional.relu(view, inplace=True)
    assert (v.numpy()[1:3] >= 0).all()
