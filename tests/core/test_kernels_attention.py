"""The attention kernel against its plain form in float64."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="these kernels need numba")
try:
    from flambeau.backends.kernels import numba_attention, numba_setup
except ImportError as error:
    pytest.skip(f"no thread pool for numba: {error}", allow_module_level=True)
import flambeau as fb
from flambeau.ops._op import REGISTRY

# (batch, heads), queries, keys, width of keys, width of values, causal, dropout, shape of the mask
CASES = [
    ((2, 3), 100, 130, 40, 24, False, 0.0, None),
    ((1, 2), 256, 256, 64, 64, True, 0.0, None),
    ((2, 2), 97, 33, 17, 5, True, 0.0, None),
    ((2, 2), 30, 200, 16, 16, True, 0.0, None),
    ((3,), 70, 70, 8, 8, False, 0.0, (3, 1, 70)),
    ((2, 3), 64, 48, 16, 16, False, 0.0, (48,)),
    ((2, 3), 50, 70, 33, 17, False, 0.2, (2, 1, 1, 70)),
    ((2, 3), 50, 70, 33, 17, False, 0.0, (2, 3, 50, 70)),
    ((1, 2), 400, 400, 16, 16, True, 0.1, None),
    ((1, 12), 1, 300, 64, 64, False, 0.0, None),
    ((2, 2), 3, 200, 20, 12, True, 0.0, None),
    ((2, 2), 4, 200, 20, 12, False, 0.0, (2, 1, 4, 200)),
    ((1, 1), 6, 3000, 16, 16, False, 0.0, None),
]
SEED = 12345678901234


def layouts(lead, rows, columns, rng, order):
    """The same numbers in memory as (…, rows, heads, columns), or in C's order, or with steps between columns."""
    dense = rng.standard_normal((*lead, rows, columns)).astype(np.float32)
    if order == "heads inside" and len(lead) == 2:
        return np.ascontiguousarray(dense.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    return np.repeat(dense, 2, -1)[..., ::2] if order == "steps" else dense


def arguments(case, kind=None, order="C"):
    lead, length, count, depth, width, causal, p, mask_shape = case
    rng = np.random.default_rng(0)
    q, k, v, g = (
        layouts(lead, n, d, rng, order) for n, d in ((length, depth), (count, depth), (count, width), (length, width))
    )
    mask = None
    if mask_shape is not None:
        mask = rng.random(mask_shape) < 0.7 if kind == "bool" else rng.standard_normal(mask_shape).astype(np.float32)
        if mask.ndim > 2:
            mask[0] = False if kind == "bool" else -np.inf  # queries that may look nowhere
    return (q, k, v), g, (mask, causal, depth**-0.5, p, SEED)


def plain(arrays, g, g_logs, settings):
    wide = [a.astype(np.float64) for a in (*arrays, g)]
    out, logs = REGISTRY["attention"].forward(np, *wide[:3], *settings)
    with np.errstate(invalid="ignore"):
        grads = REGISTRY["attention_grad"].forward(wide[3], g_logs, *wide[:3], out, logs, *settings)
    return out, logs, grads


@pytest.mark.parametrize("order", ["C", "heads inside", "steps"])
@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_as_plain(case, kind, order):
    if (case[-1] is None and kind == "float") or (order != "C" and case is CASES[-1]):
        pytest.skip("the same as another case")
    arrays, g, settings = arguments(case, kind, order)
    kept = [a.copy() for a in arrays]
    out, logs = numba_attention.attention(*arrays, *settings)
    g_logs = None if settings[0] is not None else np.linspace(-1, 1, logs.size, dtype="f").reshape(logs.shape)
    grads = numba_attention.attention_grad(g, g_logs, *arrays, out, logs, *settings)
    expected_out, expected_logs, expected_grads = plain(arrays, g, g_logs, settings)
    np.testing.assert_allclose(out, expected_out, rtol=0, atol=2e-6)
    np.testing.assert_allclose(logs, expected_logs, rtol=2e-6, atol=2e-6)
    for a, e, given in zip(grads, expected_grads, arrays, strict=True):
        assert a.shape == given.shape and a.dtype == np.float32
        np.testing.assert_allclose(a, e, rtol=0, atol=2e-5 * max(1, np.abs(e).max()))
    for a, b in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers_come_through(bad):
    (q, k, v), _, settings = arguments(CASES[0])
    q[0, 1, 7, 3] = bad
    v[1, 2, 5, 4] = bad
    out, _ = numba_attention.attention(q, k, v, *settings)
    assert np.isnan(out[0, 1, 7]).all() and np.isfinite(np.delete(out[0, 1], 7, 0)).all()
    assert not np.isfinite(out[1, 2, :, 4]).any() and np.isfinite(np.delete(out[1, 2], 4, 1)).all()


def test_large_scores():
    q = np.full((1, 4, 64, 32), 40, np.float32)
    out, logs = numba_attention.attention(q, q, q, None, True, 1.0)
    np.testing.assert_allclose(out, q, rtol=1e-6)
    np.testing.assert_allclose(logs[0, 0], 40 * 40 * 32 + np.log(np.arange(1, 65)), rtol=1e-6)


def test_declines():
    (q, k, v), g, settings = arguments(CASES[0])
    mask = np.ones((2, 3, 100, 130), bool)
    take = numba_attention.attention
    assert take(*[a.astype("f8") for a in (q, k, v)], *settings) is NotImplemented
    assert take(q, k[..., :0, :], v[..., :0, :]) is NotImplemented
    assert take(q[0, 0], k[0, 0], v[0, 0]) is NotImplemented  # no heads
    assert take(q[:, :1], k, v) is NotImplemented  # broadcast
    assert take(q, k, v, mask[..., :7]) is NotImplemented
    assert take(q[0], k[0], v[0], mask) is NotImplemented  # the mask has a dimension more
    assert take(q[..., :1, :2], k[..., :3, :2], v[..., :3, :2]) is NotImplemented  # not worth it
    out, logs = take(q, k, v)
    assert numba_attention.attention_grad(g[..., :1], None, q, k, v, out, logs) is NotImplemented


def test_threads_do_not_change_bits():
    (q, k, v), g, settings = arguments(CASES[8])

    def both():
        out, logs = numba_attention.attention(q, k, v, *settings)
        return out, logs, *numba_attention.attention_grad(g, None, q, k, v, out, logs, *settings)

    try:
        numba_setup.set_num_threads(1)
        one = both()
    finally:
        numba_setup.set_num_threads(0)
    for a, b in zip(one, both(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_function_uses_it_and_dropout_follows_the_generator():
    (q, k, v), _, _ = arguments(((2, 2), 64, 64, 16, 16, True, 0.5, None))
    tensors = [fb.tensor(a, requires_grad=True) for a in (q, k, v)]
    state = fb.get_rng_state()
    first = fb.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True, dropout_p=0.5)
    second = fb.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True, dropout_p=0.5)
    fb.set_rng_state(state)
    again = fb.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True, dropout_p=0.5)
    assert (first == again).all() and not (first == second).all()
    # Dropout is linear in the values: the output does not change along its gradient's null space, its mean does.
    (slope,) = fb.autograd.grad(first.sum(), tensors[2])
    assert abs(float((slope * tensors[2]).sum() - first.sum())) < 1e-3 * float(first.abs().sum())


def test_gradient_of_a_gradient():
    (q, k, v), _, _ = arguments(((1, 2), 64, 64, 16, 16, True, 0.0, None))

    def curvature(dtype):
        x, y, z = (fb.tensor(a.astype(dtype), requires_grad=True) for a in (q, k, v))
        out = fb.nn.functional.scaled_dot_product_attention(x, y, z, is_causal=True)
        (first,) = fb.autograd.grad(out.square().sum(), y, create_graph=True)
        return [t.numpy() for t in fb.autograd.grad(first.square().sum(), (x, y, z))]

    for a, e in zip(curvature("f4"), curvature("f8"), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-4 * np.abs(e).max())
