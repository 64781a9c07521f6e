"""Kernels that work on rows, groups and planes (softmax, cross-entropy, normalisation) against the plain forms."""

import os

import numpy as np
import pytest

import flambeau as fb

pytest.importorskip("numba", reason="these kernels need numba")
try:
    from flambeau.backends.kernels import numba_loss, numba_norm, numba_rows, numba_setup
except ImportError as error:
    pytest.skip(f"no thread pool for numba: {error}", allow_module_level=True)
from flambeau.ops._op import REGISTRY

numba_norm._WORTH_EVAL = numba_setup.BLOCK  # else the shapes below are too small for one of the kernels
WHERE = {name: module for module in (numba_rows, numba_loss, numba_norm) for name in module.__all__
         if name in REGISTRY}  # fmt: skip


def rand(*shape, seed=0, scale=1.0, shift=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale + shift).astype(np.float32)


def plain(name, *args):
    """The op in float64 (the kernels take only float32)."""
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a for a in args]
    with np.errstate(all="ignore"):
        return REGISTRY[name].function(*wide)


def fast(name, *args):
    kept = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    out = getattr(WHERE[name], name)(*args)
    assert out is not NotImplemented
    for a, b in zip(args, kept, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
    return out


def close(actual, expected, tolerance=2e-6, floor=0.0):
    """Within `tolerance` of the largest finite entry, or of `floor`; NaN and infinities in the same places."""
    if isinstance(expected, tuple | list):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            if e is not None:
                close(a, e, tolerance, floor)
        return
    assert actual.shape == expected.shape
    if expected.dtype == np.bool_:
        np.testing.assert_array_equal(actual, expected)
        return
    assert actual.dtype == np.float32
    size = max(floor, np.abs(expected[np.isfinite(expected)]).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=tolerance * size)


def channels_last(a):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def strided(a):
    return np.repeat(a, 2, -1)[..., ::2]


LAYOUTS = pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, strided])


# -- softmax ----------------------------------------------------------------------------------------------------------
@LAYOUTS
@pytest.mark.parametrize("shape", [(9, 1000), (4, 5, 6, 81), (3, 40_001), (9000, 1), (5000, 2), (1, 8192), (8192,)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name, shape, layout):
    x = layout(rand(*shape, scale=4, shift=30))
    out, expected = fast(name, x, -1), plain(name, x, -1)
    close(out, expected)
    g = layout(rand(*shape, seed=1))
    close(fast(f"{name}_grad", g, out, x.ndim - 1), plain(f"{name}_grad", g, out, -1), 4e-6)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_rows_that_are_not_finite(name):
    x = rand(12, 1000)
    x[0], x[1, 1:], x[2, 500] = -np.inf, -np.inf, -np.inf
    x[3, 7], x[4, 0], x[5, 3], x[6, :] = np.nan, np.nan, np.inf, np.inf
    x[7, 3] = np.array(0xFFC00123, np.uint32).view(np.float32)  # NaN with a sign and a payload
    x[8], x[9, 0], x[10], x[11] = 0, 1e30, -1e30, rand(1000, scale=1e3)
    out, expected = fast(name, x, -1), plain(name, x, -1)
    for actual, wanted in zip(out, expected, strict=True):
        close(actual, wanted)
    assert np.isnan(out[[0, 3, 4, 5, 6, 7]]).all() and np.isfinite(out[8]).all()


def test_softmax_sums_to_one():
    np.testing.assert_allclose(fast("softmax", rand(100, 3000, scale=10), -1).sum(-1, dtype=np.float64), 1, rtol=1e-6)


# -- cross-entropy ----------------------------------------------------------------------------------------------------
def targets(shape, ignored=-100):
    target = np.random.default_rng(2).integers(0, shape[1], (shape[0], *shape[2:]))
    target.flat[::5] = ignored
    return target


SETTINGS = pytest.mark.parametrize("settings", [(-100,), (-100, 0.1), (1, 0.0), (0, 1.0)], ids=str)


@SETTINGS
@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last, strided])
@pytest.mark.parametrize(
    "shape", [(40, 257), (3, 50_257), (9000, 2), (9000, 1), (2, 5, 70, 30), (2, 21, 701), (9000, 3, 1), (1, 8192)]
)
def test_cross_entropy(shape, layout, settings):
    x, target = layout(rand(*shape, scale=4, shift=-20)), targets(shape, settings[0])
    out, expected = (call("class_cross_entropy", x, target, *settings) for call in (fast, plain))
    close(out, expected, 4e-6)
    g = rand(*target.shape, seed=1)
    for cotangent in (g, np.broadcast_to(np.float32(0.25), g.shape)):
        dx = fast("class_cross_entropy_grad", cotangent, x, target, *out[2:], *settings)
        wanted = plain("class_cross_entropy_grad", cotangent, x, target, *expected[2:], *settings)
        close(dx, wanted, 4e-6, floor=1)  # one class, or smoothing: a difference of numbers of size 1
    assert (np.moveaxis(dx, 1, -1)[target == settings[0]] == 0).all()


@pytest.mark.parametrize("shape", [(16, 600), (2, 60, 100)])
def test_cross_entropy_of_values_that_are_not_finite(shape):
    x, target = rand(*shape), targets(shape)
    rows = np.moveaxis(x, 1, -1)
    rows[0, ..., :], rows[1, ..., 3] = -np.inf, np.nan
    if len(shape) == 2:
        rows[2, ::2], rows[3, 5] = -np.inf, np.inf
    out, expected = fast("class_cross_entropy", x, target), plain("class_cross_entropy", x, target)
    for k in (0, 1, 3):
        np.testing.assert_allclose(out[k], expected[k], rtol=2e-6, atol=4e-6)
    np.testing.assert_array_equal(out[2][np.isfinite(out[3])], expected[2][np.isfinite(expected[3])])
    g = np.ones(target.shape, np.float32)
    dx = fast("class_cross_entropy_grad", g, x, target, *out[2:])
    wanted = np.array(plain("class_cross_entropy_grad", g, x, target, *expected[2:]))
    np.moveaxis(wanted, 1, -1)[target == -100] = 0  # the plain form multiplies NaN by 0
    np.testing.assert_allclose(dx, wanted, atol=4e-6)


@pytest.mark.parametrize("dtype", ["i4", "u1", "i8"])
def test_cross_entropy_takes_any_integers(dtype):
    x, target = rand(100, 200), np.arange(100).astype(dtype)
    close(fast("class_cross_entropy", x, target), plain("class_cross_entropy", x, target.astype("i8")), 4e-6)


def test_cross_entropy_leaves_wrong_targets_to_the_op():
    x = rand(100, 200)
    for wrong in (200, -1):
        target = np.full(100, wrong)
        assert numba_loss.class_cross_entropy(x, target) is NotImplemented
        assert numba_loss.class_cross_entropy(x, target, wrong) is not NotImplemented
        with pytest.raises(IndexError, match="out of bounds"):
            REGISTRY["class_cross_entropy"].function(x, target)


# -- normalisation ----------------------------------------------------------------------------------------------------
AFFINE = pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
NEED = (True, True, True)


@AFFINE
@LAYOUTS
@pytest.mark.parametrize(
    ("shape", "k"), [((300, 257), 1), ((7, 33, 64), 1), ((50, 20, 30), 2), ((3, 40_000), 1), ((900, 10), 1)]
)
def test_layer_and_rms_norm(shape, k, layout, affine):
    x, g, ends = layout(rand(*shape, scale=3, shift=5)), layout(rand(*shape, seed=1)), shape[-k:]
    weight, bias = (rand(*ends, seed=2), rand(*ends, seed=3)) if affine else (None, None)
    out = fast("native_layer_norm", x, ends, weight, bias, 1e-5)
    expected = plain("native_layer_norm", x, ends, weight, bias, 1e-5)
    close(out, expected)
    dx = fast("layer_norm_grad", g, x, *out[1:], weight, k, NEED)
    close(dx, plain("layer_norm_grad", g, x, *out[1:], weight, k, NEED), 4e-6)
    out = fast("fused_rms_norm", x, ends, weight, 1e-5)
    close(out, plain("fused_rms_norm", x, ends, weight, 1e-5))
    close(fast("rms_norm_grad", g, x, out[1], weight, k), plain("rms_norm_grad", g, x, out[1], weight, k), 4e-6)


@AFFINE
@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last, strided])
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 64, 9, 11), 8), ((3, 6, 700), 3), ((2, 12, 5, 5, 40), 2), ((2, 8, 1000), 8),
                          ((1, 4, 40_000), 1), ((500, 20, 1), 4)],
)  # fmt: skip
def test_group_norm(shape, groups, layout, affine):
    x, g, channels = layout(rand(*shape, scale=3, shift=5)), layout(rand(*shape, seed=1)), shape[1]
    weight, bias = (rand(channels, seed=2), rand(channels, seed=3)) if affine else (None, None)
    out = fast("native_group_norm", x, groups, weight, bias, 1e-5)
    close(out, plain("native_group_norm", x, groups, weight, bias, 1e-5))
    dx = fast("group_norm_grad", g, x, *out[1:], weight, groups)
    close(dx, plain("group_norm_grad", g, x, *out[1:], weight, groups), 4e-6)


@AFFINE
@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
@pytest.mark.parametrize("shape", [(2, 64, 9, 11), (3, 7, 900), (100, 90), (2, 3, 4, 20, 20)])
def test_batch_norm_eval(shape, layout, affine):
    x, channels = layout(rand(*shape, scale=3, shift=5)), shape[1]
    weight, bias = (rand(channels, seed=2), rand(channels, seed=3)) if affine else (None, None)
    args = x, rand(channels, seed=4), rand(channels, seed=5) ** 2, weight, bias, 1e-5
    out = fast("batch_norm_eval", *args)
    close(out, plain("batch_norm_eval", *args))
    assert out.strides == x.strides


def test_norms_of_what_is_not_finite():
    x = rand(20, 600)
    x[0, 3], x[1, 5], x[2] = np.nan, np.inf, 4
    for name, args in (("native_layer_norm", ((600,), None, None, 1e-5)), ("fused_rms_norm", ((600,), None, 1e-5))):
        for actual, expected in zip(fast(name, x, *args), plain(name, x, *args), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6)
    out = fast("native_group_norm", x.reshape(20, 6, 100), 2)
    np.testing.assert_allclose(out[0], plain("native_group_norm", x.reshape(20, 6, 100), 2)[0], rtol=2e-6, atol=2e-6)


# -- all --------------------------------------------------------------------------------------------------------------
def calls(x, g):
    """Each kernel on arrays (n, c) or a shape of as many elements."""
    n, c = x.shape
    target, row, v = np.zeros(n, np.int64), x[:, :1], x[0]
    image, slope = x.reshape(n, c, 1), g.reshape(n, c, 1)
    return {
        "softmax": (x, -1), "log_softmax": (x, -1), "softmax_grad": (g, x, -1), "log_softmax_grad": (g, x, -1),
        "class_cross_entropy": (x, target), "class_cross_entropy_grad": (g[:, 0], x, target, row, row),
        "native_layer_norm": (x, (c,), v, v, 1e-5), "layer_norm_grad": (g, x, row, row, v, 1, NEED),
        "fused_rms_norm": (x, (c,), v, 1e-5), "rms_norm_grad": (g, x, row, v, 1),
        "native_group_norm": (image, 2, v, v, 1e-5), "group_norm_grad": (slope, image, x[:, :2], x[:, :2], v, 2),
        "batch_norm_eval": (image, v, v, v, v, 1e-5),
    }  # fmt: skip


def test_all_kernels_are_tried():
    assert calls(rand(4, 4), rand(4, 4)).keys() == WHERE.keys()


@pytest.mark.parametrize("name", sorted(WHERE))
def test_declines(name):
    kernel = getattr(WHERE[name], name)
    for shape, dtype in (((0, 4), "f4"), ((20, 4), "f4"), ((100, 100), "f8"), ((100, 100), "f2"), ((100, 100), ">f4")):
        x = np.ones(shape, dtype) if shape[0] else np.ones((1, 4), dtype)[:0]
        if x.size:
            assert kernel(*calls(x, x)[name]) is NotImplemented
    x = rand(100, 100)
    assert kernel(*calls(x, x)[name]) is not NotImplemented


@pytest.mark.parametrize(
    "args", [(rand(100, 100), 0), (rand(100, 100), None), (rand(100, 100), -1, np.float64), (rand(100, 100), 5)]
)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_declines_other_dimensions(name, args):
    assert getattr(numba_rows, name)(*args) is NotImplemented


@pytest.mark.parametrize("name", sorted(WHERE))
def test_threads_do_not_change_bits(name):
    args = calls(np.abs(rand(1000, 70)), rand(1000, 70, seed=1))[name]
    try:
        numba_setup.set_num_threads(1)
        one = fast(name, *args)
    finally:
        numba_setup.set_num_threads(0)
    for a, b in zip(*[r if isinstance(r, tuple) else (r,) for r in (one, fast(name, *args))], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_forked_child_declines():
    x = rand(100, 100)
    numba_rows.softmax(x, -1)
    child = os.fork()
    if child == 0:
        os._exit(0 if numba_rows.softmax(x, -1) is NotImplemented else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("ignored", [0, 5, 17])
def test_the_mean_of_the_loss_divides_by_the_targets_that_count(ignored):
    x = fb.tensor(np.random.default_rng(3).standard_normal((17, 10), dtype=np.float32), requires_grad=True)
    target = fb.arange(17) % 10
    target[:ignored] = -100
    losses = fb.nn.functional.cross_entropy(x, target, reduction="none")
    mean = fb.nn.functional.cross_entropy(x, target)
    assert mean.dtype == fb.float32
    np.testing.assert_array_equal(mean.detach().numpy(), (losses.sum() / (target != -100).sum()).detach().numpy())
