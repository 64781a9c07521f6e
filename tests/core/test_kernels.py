"""Fast CPU kernels against slow float64 references written with loops over the kernel's positions."""

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cffi", reason="the fast kernels need cffi")
try:
    from flambeau.backends.kernels import _onednn, onednn_conv, onednn_eltwise, onednn_norm, onednn_pool
except ImportError as error:
    pytest.skip(f"the fast kernels need oneDNN: {error}", allow_module_level=True)


def rand(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def channels_last(array):
    """The same values with the channels innermost in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def close(actual, expected, tolerance=2e-5):
    assert actual is not NotImplemented
    assert actual.shape == expected.shape
    scale = max(np.abs(expected).max(), 1e-6)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def windows(kernel, stride, dilation, out):
    for position in np.ndindex(*kernel):
        axes = zip(position, dilation, stride, out)
        yield position, (slice(None), slice(None), *[slice(i * d, i * d + s * (n - 1) + 1, s) for i, d, s, n in axes])


def padded(x, padding, value=0.0):
    return np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]], constant_values=value)


def crop(x, padding):
    return x[(slice(None), slice(None), *[slice(p, n - p) for p, n in zip(padding, x.shape[2:])])]


def conv_reference(x, w, b, stride, padding, dilation, groups):
    x, w = padded(x.astype(float), padding), w.astype(float)
    out = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], w.shape[2:], stride, dilation)]
    result = np.zeros((x.shape[0], w.shape[0], *out))
    step_in, step_out = w.shape[1], w.shape[0] // groups
    for position, window in windows(w.shape[2:], stride, dilation, out):
        for g in range(groups):
            ins, outs = slice(g * step_in, (g + 1) * step_in), slice(g * step_out, (g + 1) * step_out)
            result[:, outs] += np.einsum("oc,nc...->no...", w[(outs, slice(None), *position)], x[window][:, ins])
    return result if b is None else result + b.reshape(-1, *[1] * len(out))


def conv_grads_reference(g, x, w, stride, padding, dilation, groups):
    g, x, w = g.astype(float), padded(x.astype(float), padding), w.astype(float)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    step_in, step_out = w.shape[1], w.shape[0] // groups
    for position, window in windows(w.shape[2:], stride, dilation, g.shape[2:]):
        for i in range(groups):
            ins, outs = slice(i * step_in, (i + 1) * step_in), slice(i * step_out, (i + 1) * step_out)
            where = (outs, slice(None), *position)
            dw[where] = np.tensordot(g[:, outs], x[window][:, ins], [[0, *range(2, g.ndim)]] * 2)
            dx[window][:, ins] += np.einsum("oc,no...->nc...", w[where], g[:, outs])
    return crop(dx, padding), dw


CONVOLUTIONS = [  # input, weight, stride, padding, dilation, groups
    ((2, 3, 12, 9), (16, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 16, 12, 9), (8, 16, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    ((2, 16, 12, 9), (24, 16, 3, 3), (1, 1), (4, 4), (4, 4), 1),
    ((2, 16, 12, 9), (16, 1, 3, 3), (1, 1), (1, 1), (1, 1), 16),
    ((2, 12, 12, 9), (18, 4, 3, 2), (2, 1), (0, 1), (1, 2), 3),
    ((2, 16, 12, 9), (5, 16, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 16, 12, 9), (8, 16, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    ((1, 1, 3, 3), (1, 1, 3, 3), (1, 1), (3, 3), (1, 1), 1),
    ((3, 5, 17), (7, 5, 3), (2,), (1,), (1,), 1),
    ((1, 4, 5, 6, 7), (8, 4, 3, 3, 3), (1, 2, 1), (1, 1, 1), (1, 1, 1), 1),
]


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last, lambda a: np.repeat(a, 2, -1)[..., ::2]])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(case, layout):
    input_shape, weight_shape, *rest = case
    x, w, b = rand(*input_shape), rand(*weight_shape), rand(weight_shape[0])
    expected = conv_reference(x, w, b, *rest)
    close(onednn_conv.convolution(layout(x), w, b, *rest), expected)
    close(onednn_conv.convolution(layout(x), w, None, *rest), conv_reference(x, w, None, *rest))
    g = rand(*expected.shape, seed=1)
    dx, dw = conv_grads_reference(g, x, w, *rest)
    close(onednn_conv.convolution_input_grad(layout(g), w, input_shape, *rest), dx)
    close(onednn_conv.convolution_weight_grad(layout(g), layout(x), weight_shape, *rest), dw)
    close(onednn_conv.convolution_weight_grad(g, layout(x), weight_shape, *rest), dw)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_convolution_geometry(data):
    draw = data.draw
    groups, rank = draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 3))
    ints = lambda low, high: tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))
    kernel, stride, dilation, padding, spatial = ints(1, 3), ints(1, 3), ints(1, 3), ints(0, 3), ints(1, 7)
    if any(n + 2 * p < d * (k - 1) + 1 for n, p, d, k in zip(spatial, padding, dilation, kernel)):
        return
    x = rand(draw(st.integers(1, 2)), groups * draw(st.integers(1, 9)), *spatial)
    w = rand(groups * draw(st.integers(1, 9)), x.shape[1] // groups, *kernel)
    expected = conv_reference(x, w, None, stride, padding, dilation, groups)
    out = onednn_conv.convolution(x, w, None, stride, padding, dilation, groups)
    if out is not NotImplemented:
        close(out, expected)
    g = rand(*expected.shape, seed=1)
    dx, dw = conv_grads_reference(g, x, w, stride, padding, dilation, groups)
    for actual, reference in (
        (onednn_conv.convolution_input_grad(g, w, x.shape, stride, padding, dilation, groups), dx),
        (onednn_conv.convolution_weight_grad(g, x, w.shape, stride, padding, dilation, groups), dw),
    ):
        if actual is not NotImplemented:
            close(actual, reference)


def test_output_lies_in_memory_as_the_input():
    x, w = rand(2, 8, 5, 6), rand(16, 8, 3, 3)
    rest = (1, 1), (1, 1), (1, 1), 1
    plain, last = onednn_conv.convolution(x, w, None, *rest), onednn_conv.convolution(channels_last(x), w, None, *rest)
    assert plain.flags.c_contiguous
    assert last.transpose(0, 2, 3, 1).flags.c_contiguous


def test_declined_arrays():
    x, w, rest = rand(2, 8, 5, 6), rand(16, 8, 3, 3), ((1, 1), (1, 1), (1, 1), 1)
    for bad in (x.astype(np.float64), x.astype(">f4"), x[:0], rand(2, 7, 5, 6), rand(2, 8, 5), x.astype(np.float16)):
        assert onednn_conv.convolution(bad, w, None, *rest) is NotImplemented
    assert onednn_conv.convolution(x, rand(16, 8, 9, 9), None, *rest) is NotImplemented  # larger than the input
    assert onednn_conv.convolution(x, w, rand(16).astype(np.float64), *rest) is NotImplemented
    assert onednn_pool.max_pool(x.astype(np.float64), (2, 2), (2, 2), (0, 0), (1, 1)) is NotImplemented
    assert onednn_pool.max_pool(x, (2, 2), (2, 2), (0, 0), (2, 2)) is NotImplemented
    assert onednn_norm.batch_norm_train(x[:, :, 0, 0], None, None, 1e-5) is NotImplemented


def test_inputs_are_not_changed_and_outputs_do_not_alias():
    x, w = rand(2, 16, 8, 8), rand(16, 16, 3, 3)
    x.flags.writeable = w.flags.writeable = False
    rest = (1, 1), (1, 1), (1, 1), 1
    first = onednn_conv.convolution(x, w, None, *rest)
    kept = first.copy()
    second = onednn_conv.convolution(x * 2, w, None, *rest)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


def test_results_are_reproducible_to_the_bit():
    x, w, g = rand(4, 16, 40, 30), rand(16, 16, 3, 3), rand(4, 16, 40, 30, seed=1)
    rest = (1, 1), (1, 1), (1, 1), 1
    for function, args in (
        (onednn_conv.convolution, (x, w, None)),
        (onednn_conv.convolution_input_grad, (g, w, x.shape)),
        (onednn_conv.convolution_weight_grad, (g, x, w.shape)),
    ):
        first = function(*args, *rest)
        for offset in range(3):  # memory at other alignments
            moved = [a if isinstance(a, tuple) or a is None else _moved(a, offset) for a in args]
            np.testing.assert_array_equal(function(*moved, *rest), first)
    norm = onednn_norm.batch_norm_train(x, None, None, 1e-5)
    again = onednn_norm.batch_norm_train(x, None, None, 1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(norm, again))


def _moved(array, offset):
    buffer = np.empty(array.size + 16, np.float32)
    view = buffer[offset : offset + array.size].reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
@pytest.mark.parametrize(
    "shape", [(4, 16, 9, 7), (4, 3, 9, 7), (4, 12, 5, 5), (3, 8, 33), (2, 24, 3, 4, 5), (3, 1, 4, 4)]
)
def test_batch_norm(shape, layout):
    channels, axes, column = shape[1], (0, *range(2, len(shape))), (1, -1, *[1] * (len(shape) - 2))
    x, g, w, b = rand(*shape) + 2, rand(*shape, seed=1), rand(channels) + 3, rand(channels, seed=1)
    exact = x.astype(float)
    mean, var = exact.mean(axes), exact.var(axes)
    hat = (exact - mean.reshape(column)) / np.sqrt(var + 1e-5).reshape(column)
    out, m, v = onednn_norm.batch_norm_train(layout(x), w, b, 1e-5)
    close(out, hat * w.reshape(column) + b.reshape(column))
    close(m, mean)
    close(v, var)
    close(onednn_norm.batch_norm_train(layout(x), None, None, 1e-5)[0], hat)
    dbias, dweight = g.sum(axes), (g * hat).sum(axes)
    n = x.size // channels
    slope = (w / np.sqrt(var + 1e-5)).reshape(column)
    dx = (g - (dbias.reshape(column) + hat * dweight.reshape(column)) / n) * slope
    for actual, expected in zip(onednn_norm.batch_norm_grad(layout(g), layout(x), m, v, w, 1e-5), (dx, dweight, dbias)):
        close(actual, expected)


def pool_sizes(shape, kernel, stride, padding, ceil_mode):
    out = []
    for n, k, s, p in zip(shape[2:], kernel, stride, padding):
        m = (n + 2 * p - k + (s - 1 if ceil_mode else 0)) // s + 1
        out.append(m - 1 if ceil_mode and (m - 1) * s >= n + p else m)
    return tuple(out)


def max_pool_reference(x, kernel, stride, padding, ceil_mode):
    """Values and plane indices by looking into every window."""
    out = pool_sizes(x.shape, kernel, stride, padding, ceil_mode)
    values, indices = np.zeros((*x.shape[:2], *out), x.dtype), np.zeros((*x.shape[:2], *out), np.int64)
    plane = np.arange(np.prod(x.shape[2:])).reshape(x.shape[2:])
    for cell in np.ndindex(*out):
        axes = zip(cell, kernel, stride, padding)
        window = tuple(slice(max(i * s - p, 0), i * s - p + k) for i, k, s, p in axes)
        flat = x[(slice(None), slice(None), *window)].reshape(*x.shape[:2], -1)
        best = flat.argmax(-1)
        values[(slice(None), slice(None), *cell)] = flat.max(-1)
        indices[(slice(None), slice(None), *cell)] = plane[window].ravel()[best]
    return values, indices


POOLS = [
    ((2, 16, 12, 10), 2, 2, 0), ((2, 3, 13, 11), 3, 2, 1), ((2, 8, 13, 11), 2, 2, 0), ((2, 5, 20), 3, 2, 1),
    ((1, 9, 6, 7, 8), 2, 2, 1), ((1, 8, 9, 9), 5, 1, 2), ((1, 8, 9, 9), 2, 3, 0),
]  # fmt: skip


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_max_pool(case, layout, ceil_mode):
    shape, *args = case
    kernel, stride, padding = ((a,) * (len(shape) - 2) for a in args)
    x = np.round(rand(*shape) * 4)  # with ties: the first maximum wins
    values, indices = max_pool_reference(x, kernel, stride, padding, ceil_mode)
    out, found = onednn_pool.max_pool(layout(x), kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    np.testing.assert_array_equal(out, values)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, indices)
    g = rand(*out.shape)
    dx = np.zeros((*shape[:2], np.prod(shape[2:])))
    for n, c in np.ndindex(*shape[:2]):
        np.add.at(dx[n, c], indices[n, c].ravel(), g[n, c].ravel())
    close(onednn_pool.max_pool_grad(layout(g), found, shape), dx.reshape(shape))


def test_max_pool_grad_wants_the_indices_that_it_gave():
    x = rand(1, 8, 4, 4)
    out, indices = onednn_pool.max_pool(x, (2, 2), (2, 2), (0, 0), (1, 1))
    assert onednn_pool.max_pool_grad(out, indices.copy(), x.shape) is NotImplemented
    assert onednn_pool.max_pool_grad(out, indices, (1, 8, 5, 5)) is NotImplemented
    del indices
    gc.collect()
    assert not onednn_pool._positions_of


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_max_pool_leaves_what_is_not_finite_to_numpy(value):
    x = rand(1, 8, 4, 4)
    x[0, 3, 1, 1] = value
    assert onednn_pool.max_pool(x, (2, 2), (2, 2), (0, 0), (1, 1)) is NotImplemented


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_avg_pool(case, layout, include):
    shape, *args = case
    kernel, stride, padding = ((a,) * (len(shape) - 2) for a in args)
    x = rand(*shape)
    out = pool_sizes(shape, kernel, stride, padding, False)
    ones, full = (1,) * len(kernel), padded(x.astype(float), padding)
    inside = np.ones_like(full) if include else padded(np.ones(shape), padding)
    total, count = np.zeros((*shape[:2], *out)), np.zeros((*shape[:2], *out))
    for _, window in windows(kernel, stride, ones, out):
        total += full[window]
        count += inside[window]
    close(onednn_pool.avg_pool(layout(x), kernel, stride, padding, False, include), total / count)
    g, dx = rand(*total.shape, seed=1), np.zeros_like(full)
    for _, window in windows(kernel, stride, ones, out):
        dx[window] += g / count
    actual = onednn_pool.avg_pool_grad(layout(g), shape, kernel, stride, padding, False, include)
    close(actual, crop(dx, padding))


def test_avg_pool_declines_windows_past_the_padding():
    x = rand(1, 8, 5, 5)
    assert onednn_pool.avg_pool(x, (2, 2), (2, 2), (0, 0), True) is NotImplemented
    assert onednn_pool.avg_pool(x, (2, 2), (2, 2), (0, 0), False, True, 3) is NotImplemented


def test_relu_grad():
    out, g = np.maximum(rand(4, 16, 30, 20), 0), rand(4, 16, 30, 20, seed=1)
    expected = np.where(out > 0, g, 0)
    np.testing.assert_array_equal(onednn_eltwise.relu_grad(g, out), expected)
    last = onednn_eltwise.relu_grad(channels_last(g), channels_last(out))
    np.testing.assert_array_equal(last, expected)
    assert last.strides == channels_last(g).strides
    assert onednn_eltwise.relu_grad(g, channels_last(out)) is NotImplemented  # different orders in memory
    gaps = np.repeat(g, 2, -1)[..., ::2]
    np.testing.assert_array_equal(onednn_eltwise.relu_grad(gaps, out), expected)
    spread = np.broadcast_to(g[:, :, :1, :1], g.shape)  # as from a mean over each plane
    np.testing.assert_array_equal(onednn_eltwise.relu_grad(spread, out), np.where(out > 0, spread, 0))
    assert onednn_eltwise.relu_grad(gaps, np.repeat(out, 2, -1)[..., ::2]) is NotImplemented
    assert onednn_eltwise.relu_grad(g[:1, :1], out[:1, :1]) is NotImplemented  # too small to be worth it
    assert (
        onednn_eltwise.relu_grad(np.broadcast_to(g[:1], g.shape), np.broadcast_to(out[:1], g.shape)) is NotImplemented
    )


def test_blocked_descriptor_is_the_layout_that_it_names():
    """The numbers of oneDNN's format tags are written down here, not read from its header."""
    for shape in ((2, 32, 6), (2, 32, 3, 4), (2, 32, 2, 3, 2)):
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        source, target = _onednn.descriptor(shape, _onednn.dense_strides(shape)), _onednn.blocked(shape)
        make, engine = _onednn.lib.dnnl_reorder_primitive_desc_create, _onednn._engine
        desc = _onednn.create(make, source, engine, target, engine, _onednn.attributes())
        out = np.empty(x.size, np.float32)
        _onednn.Plan(desc, [(_onednn.SRC, source)], [(_onednn.DST, target)])(x, out)
        block = 16 if _onednn.lib.dnnl_get_effective_cpu_isa() & 0x20 else 8
        expected = np.moveaxis(x.reshape(2, 32 // block, block, *shape[2:]), 2, -1)
        np.testing.assert_array_equal(out, expected.ravel())


def test_plans_are_cached_and_bounded(monkeypatch):
    calls = []
    monkeypatch.setattr(_onednn, "_CACHE_SIZE", 3)
    monkeypatch.setattr(_onednn, "_plans", type(_onednn._plans)())
    build = lambda key: calls.append(key) or key
    for key in (1, 2, 3, 1, 4, 1, 2):  # 4 drops 2, the least recently used
        assert _onednn.cached(build, key) == key
    assert calls == [1, 2, 3, 4, 2]
    assert len(_onednn._plans) == 3


def test_threads_share_the_plans():
    x, w = rand(2, 16, 20, 20), rand(16, 16, 3, 3)
    rest = (1, 1), (1, 1), (1, 1), 1
    inputs = [x * (i + 1) for i in range(4)]
    expected = [onednn_conv.convolution(a, w, None, *rest) for a in inputs]
    wrong = []

    def work(i):
        for _ in range(20):
            if not np.array_equal(onednn_conv.convolution(inputs[i], w, None, *rest), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


STAYS = """
from flambeau.backends.kernels import _onednn
_onednn.ffi.dlclose(_onednn.lib)
print("libdnnl" in open("/proc/self/maps").read())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_the_library_stays_loaded_to_the_very_end():
    """OpenMP's threads may still run its code when the interpreter closes it: one exit in ten was a crash."""
    done = subprocess.run([sys.executable, "-c", STAYS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


CHILD = """
import os, numpy as np
from flambeau.backends.kernels import onednn_conv
x, w, rest = np.ones((2, 8, 9, 9), "f"), np.ones((8, 8, 3, 3), "f"), ((1, 1), (1, 1), (1, 1), 1)
assert onednn_conv.convolution(x, w, None, *rest) is not NotImplemented
child = os.fork()
if not child:
    os._exit(0 if onednn_conv.convolution(x, w, None, *rest) is NotImplemented else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert onednn_conv.convolution(x, w, None, *rest) is not NotImplemented
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kernels_decline_in_a_forked_child():
    subprocess.run([sys.executable, "-c", CHILD], check=True, timeout=60)


def test_number_of_threads_changes_no_result():
    code = "import numpy as np; from flambeau.backends.kernels import _onednn, onednn_conv as c; {}" + (
        "x = np.random.default_rng(0).standard_normal((4, 16, 20, 20), dtype='f');"
        "print(c.convolution(x, x[:, :, :3, :3].copy(), None, (1, 1), (1, 1), (1, 1), 1).sum(dtype=float).hex())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code.format(setup)], env={**os.environ, **env}, check=True, capture_output=True
        ).stdout
        for setup, env in (
            ("", {"FLAMBEAU_NUM_THREADS": "1"}),
            ("", {"FLAMBEAU_NUM_THREADS": "2"}),
            ("_onednn.set_num_threads(1);", {}),
        )
    ]
    assert runs[0] and runs[0] == runs[1] == runs[2]


def test_an_unusable_library_is_named():
    code = "import flambeau.backends.kernels._onednn"
    env = {**os.environ, "FLAMBEAU_ONEDNN_LIBRARY": "/nowhere/libdnnl.so.3"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode and "/nowhere/libdnnl.so.3" in run.stderr and "flambeau-core[fast]" in run.stderr


REGISTERED = """
import sys
import numpy as np
import flambeau
from flambeau import ops
from flambeau.backends import kernels
kernels.register()
assert "cffi" not in sys.modules, "loaded before any op ran"
x, w = np.ones((2, 8, 9, 9), "f"), np.ones((8, 8, 3, 3), "f")
out = ops.convolution(x, w, None, (1, 1), (1, 1), (1, 1), 1)
assert out.shape == x.shape and out[0, 0, 4, 4] == 72
loaded = "flambeau.backends.kernels._onednn" in sys.modules
print(loaded, ops.REGISTRY["convolution"].kernel is not None, kernels.load())
"""


@pytest.mark.parametrize(
    "library, expected", [(None, "True True True"), ("/nowhere/libdnnl.so.3", "False False False")]
)
def test_kernels_are_loaded_by_the_first_op_that_has_one(library, expected):
    env = {**os.environ, **({"FLAMBEAU_ONEDNN_LIBRARY": library} if library else {})}
    run = subprocess.run([sys.executable, "-c", REGISTERED], env=env, capture_output=True, text=True)
    assert run.stdout.strip() == expected, run.stderr
