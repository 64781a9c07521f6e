"""The kernels for one token: against the ops' plain forms in float64, on odd sizes, NaN and infinities, and threads."""

import numpy as np
import pytest

import flambeau
from flambeau.ops._op import REGISTRY

numba = pytest.importorskip("numba")
pytest.importorskip("llvmlite")
kernels = pytest.importorskip("flambeau.backends.kernels.numba_decode")
eltwise = pytest.importorskip("flambeau.backends.kernels.numba_eltwise")
norm = pytest.importorskip("flambeau.backends.kernels.numba_norm")


def array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def plain(name, *args):
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a for a in args]
    with np.errstate(all="ignore"):
        return REGISTRY[name].forward(np, *wide)


@pytest.mark.parametrize(
    "batch, heads, capacity, width, length",
    [(1, 12, 73, 64, 65), (2, 8, 5, 96, 1), (3, 171, 9, 3, 9), (1, 1, 40, 521, 17), (1, 12, 600, 64, 599)],
)
def test_cached_attention_is_the_ops(batch, heads, capacity, width, length):
    q = array(batch, 1, heads * width)
    keys, values = array(batch, heads, capacity, width, seed=1), array(batch, heads, capacity, width, seed=2)
    keys[:, :, length:] = np.nan  # what lies behind the tokens must not be read
    found = kernels.cached_attention(q, keys, values, length)
    expected = plain("cached_attention", q, keys, values, length)
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(values).max())
    assert np.array_equal(found, kernels.cached_attention(q, keys, values, np.array(length)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["q", "keys", "values"])
def test_nan_and_infinities_of_attention(value, place):
    given = dict(q=array(1, 1, 512), keys=array(1, 8, 6, 64), values=array(1, 8, 6, 64))
    given[place].reshape(-1)[70] = value
    found = kernels.cached_attention(*given.values(), 5)
    expected = plain("cached_attention", *given.values(), 5)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_number_of_threads_does_not_change_attention():
    args = array(1, 1, 768), array(1, 12, 512, 64, seed=1), array(1, 12, 512, 64, seed=2), 511
    before, found = flambeau.get_num_threads(), []
    try:
        for threads in (1, 2):
            flambeau.set_num_threads(threads)
            found.append(kernels.cached_attention(*args))
    finally:
        flambeau.set_num_threads(before)
    assert np.array_equal(*found)
    alone = np.empty((1, 12, 64), np.float32)
    kernels._alone(args[0].reshape(1, 12, 64), *args[1:3], 511, np.float32(1 / 8), alone)
    assert np.array_equal(alone.reshape(1, 1, 768), found[0])


@pytest.mark.parametrize("change", ["double", "narrow", "length", "heads", "strided"])
def test_attention_declines(change):
    q, keys, values, length = array(1, 1, 512), array(1, 8, 6, 64), array(1, 8, 6, 64), 6
    if change == "double":
        q, keys, values = (a.astype(np.float64) for a in (q, keys, values))
    elif change == "narrow":
        q, keys, values = q[..., :64].copy(), keys[:, :1].copy(), values[:, :1].copy()
    elif change == "length":
        length = 7
    elif change == "heads":
        values = values[:, :4].copy()
    else:
        keys = array(1, 6, 8, 64).swapaxes(1, 2)
    assert kernels.cached_attention(q, keys, values, length) is NotImplemented


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("size", [2048, 2049, 3072])
def test_gelu_of_one_row(approximate, size):
    x = array(1, 1, size) * 4
    x[0, 0, :4] = np.nan, np.inf, -np.inf, 0
    found, expected = eltwise.gelu(x, approximate), plain("gelu", x, approximate)
    ordinary = np.isfinite(expected)
    assert np.array_equal(np.isnan(found)[0, 0, [0, 3]], [True, False]) and found[0, 0, 1] == np.inf
    np.testing.assert_allclose(found[ordinary], expected[ordinary], atol=2e-6)
    assert eltwise.gelu(x[..., :2047], approximate) is NotImplemented
    assert eltwise.gelu(x.astype(np.float64), approximate) is NotImplemented
    assert eltwise.gelu(np.repeat(x, 2, -1)[..., ::2], approximate) is NotImplemented


@pytest.mark.parametrize("rows, width", [(1, 512), (1, 768), (3, 1023), (1, 5000)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_of_few_rows(rows, width, affine):
    x = array(rows, width) + 3
    w, b = (array(width, seed=1), array(width, seed=2)) if affine else (None, None)
    found = norm.native_layer_norm(x, (width,), w, b, 1e-5)
    expected = plain("native_layer_norm", x, (width,), w, b, 1e-5)
    for part, whole in zip(found, expected, strict=True):
        assert part.shape == whole.shape
        np.testing.assert_allclose(part, whole, atol=4e-6 * np.abs(whole).max())
    # As in a matrix large enough for all threads.
    large = norm.native_layer_norm(np.tile(x, (20, 1)), (width,), w, b, 1e-5)
    assert np.array_equal(large[0][:rows], found[0])


def test_layer_norm_of_short_rows_declines():
    assert norm.native_layer_norm(array(2, 511), (511,), None, None, 1e-5) is NotImplemented
