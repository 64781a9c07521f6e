"""Winograd's convolution against float64 sums; tolerances are parts of the largest expected value."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba", reason="Winograd's kernels need Numba")
pytest.importorskip("cffi", reason="the fast kernels need cffi")
try:
    from flambeau.backends.kernels import onednn_conv, winograd
except ImportError as error:
    pytest.skip(f"the fast kernels need oneDNN: {error}", allow_module_level=True)

TOLERANCE = 1e-5  # measured: 2e-6 at most


def rand(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def channels_last(array):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def strided(array):
    return np.repeat(array, 2, -1)[..., ::2]


def padded(x, p):
    return np.pad(x.astype(float), [(0, 0), (0, 0), (p, p), (p, p)])


def reference(x, w, bias, p):
    x = padded(x, p)
    high, wide = x.shape[2] - 2, x.shape[3] - 2
    taps = [(w[:, :, i, j].astype(float), x[:, :, i : i + high, j : j + wide]) for i in range(3) for j in range(3)]
    return sum(np.einsum("oc,nchw->nohw", a, b) for a, b in taps) + bias[:, None, None]


def reference_grads(g, x, w, p):
    g, x = g.astype(float), padded(x, p)
    dx, dw = np.zeros_like(x), np.zeros(w.shape)
    high, wide = g.shape[2:]
    for i in range(3):
        for j in range(3):
            where = (slice(None), slice(None), slice(i, i + high), slice(j, j + wide))
            dx[where] += np.einsum("oc,nohw->nchw", w[:, :, i, j].astype(float), g)
            dw[:, :, i, j] = np.tensordot(g, x[where], [[0, 2, 3]] * 2)
    return dx[:, :, p : x.shape[2] - p, p : x.shape[3] - p], dw


def close(actual, expected, tolerance=TOLERANCE):
    assert actual is not None and actual.shape == expected.shape and actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def geometry(x, w, p):
    return x.shape, w.shape, (1, 1), (p, p), (1, 1), 1


@pytest.fixture
def every_size(monkeypatch):
    monkeypatch.setattr(winograd, "_WORTH_NUMBA", 0)


SHAPES = [  # input, outputs, padding
    ((2, 16, 20, 12), 16, 1),
    ((3, 24, 9, 11), 40, 1),  # odd sizes, outputs that do not fill the last panel of 16
    ((2, 16, 12, 15), 24, 0),
    ((3, 32, 9, 7), 16, 2),
    ((40, 16, 4, 4), 16, 1),
    ((1, 64, 30, 30), 128, 1),
    ((1, 16, 41, 67), 16, 1),
    ((1, 72, 13, 14), 200, 1),  # more inputs than are transformed at a time
    ((2, 200, 13, 14), 72, 0),
    ((32, 256, 2, 2), 256, 1),
    ((5, 16, 33, 3), 48, 1),
    ((7, 40, 5, 6), 16, 2),
]


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last, strided])
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_against_sums(case, layout, every_size):
    shape, outs, p = case
    x, w, bias = rand(*shape), rand(outs, shape[1], 3, 3), rand(outs)
    where, expected = geometry(x, w, p), reference(x, w, bias, p)
    out = winograd.convolution(layout(x), w, bias, where)
    close(out, expected)
    assert (out.transpose(0, 2, 3, 1) if layout is channels_last else out).flags.c_contiguous
    close(winograd.convolution(layout(x), strided(w), None, where), reference(x, w, np.zeros(outs), p))
    g = rand(*expected.shape, seed=1)
    dx, dw = reference_grads(g, x, w, p)
    close(winograd.input_grad(layout(g), w, where), dx)
    close(winograd.weight_grad(layout(g), x, where), dw)
    close(winograd.weight_grad(g, layout(x), where), dw)


def test_gradient_of_kernels_in_several_chunks(every_size, monkeypatch):
    x, w = rand(6, 16, 21, 18), rand(24, 16, 3, 3)
    g = rand(6, 24, 21, 18, seed=1)
    monkeypatch.setattr(winograd, "_HELD", 36 * 40 * 30)
    close(winograd.weight_grad(g, x, geometry(x, w, 1)), reference_grads(g, x, w, 1)[1])


def test_rounding_beside_the_direct_kernel(monkeypatch):
    x, w = rand(4, 128, 28, 28), rand(128, 128, 3, 3) / np.float32(34)
    expected = reference(x, w, np.zeros(128), 1)
    fast = onednn_conv.convolution(x, w, None, *geometry(x, w, 1)[2:])
    monkeypatch.setattr(winograd, "_fits", lambda geometry, least: False)
    direct = onednn_conv.convolution(x, w, None, *geometry(x, w, 1)[2:])
    errors = [np.sqrt(np.mean((out - expected) ** 2)) / expected.std() for out in (fast, direct)]
    assert errors[0] < 2e-6 and errors[0] < 12 * errors[1], errors
    assert not np.array_equal(fast, direct)  # Winograd did run


def test_declined():
    x, w = rand(8, 64, 32, 32), rand(64, 64, 3, 3)
    fits = winograd._fits
    assert fits(geometry(x, w, 1), 4)
    assert not fits(geometry(x, w, 3), 4)
    assert not fits((x.shape, w.shape, (2, 2), (1, 1), (1, 1), 1), 4)
    assert not fits((x.shape, w.shape, (1, 1), (1, 1), (2, 2), 1), 4)
    assert not fits((x.shape, w.shape, (1, 1), (1, 0), (1, 1), 1), 4)
    assert not fits(((8, 64, 32, 32), (64, 32, 3, 3), (1, 1), (1, 1), (1, 1), 2), 4)
    assert not fits(geometry(x, rand(64, 64, 5, 5), 1), 4)
    for ins, outs in ((3, 64), (64, 3), (8, 64), (60, 64), (64, 60)):
        assert not fits(geometry(rand(8, ins, 32, 32), rand(outs, ins, 3, 3), 1), 4), (ins, outs)


def test_infinities_and_nan_reach_their_outputs(every_size):
    x, w = rand(1, 16, 24, 24), rand(16, 16, 3, 3)
    x[0, 3, 5, 5] = np.nan
    x[0, 4, 18, 18] = np.inf
    out = winograd.convolution(x, w, None, geometry(x, w, 1))
    assert np.isnan(out[0, :, 4:7, 4:7]).all() and not np.isfinite(out[0, :, 17:20, 17:20]).any()
    assert np.isfinite(out[0, :, 8:16, 8:16]).all()  # other tiles are untouched


def test_inputs_unchanged_and_bits_repeat():
    x, w, g = rand(4, 64, 32, 32), rand(64, 64, 3, 3), rand(4, 64, 32, 32, seed=1)
    kept = x.copy(), w.copy(), g.copy()
    where = geometry(x, w, 1)
    for call in (
        lambda: winograd.convolution(x, w, None, where),
        lambda: winograd.input_grad(g, w, where),
        lambda: winograd.weight_grad(g, x, where),
    ):
        assert np.array_equal(call(), call())
    assert all(np.array_equal(a, b) for a, b in zip(kept, (x, w, g)))


_BITS = """
import hashlib, numpy as np
from flambeau.backends.kernels import winograd
r = np.random.default_rng(0)
x, w, g = (r.standard_normal(s, dtype=np.float32) for s in ((4, 64, 32, 32), (64, 64, 3, 3), (4, 64, 32, 32)))
where = x.shape, w.shape, (1, 1), (1, 1), (1, 1), 1
outs = winograd.convolution(x, w, None, where), winograd.input_grad(g, w, where), winograd.weight_grad(g, x, where)
print(hashlib.sha256(b"".join(o.tobytes() for o in outs)).hexdigest())
"""


def test_bits_do_not_depend_on_the_number_of_threads():
    found = set()
    for threads in ("1", "2"):
        env = {**os.environ, "FLAMBEAU_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        found.add(subprocess.run([sys.executable, "-c", _BITS], env=env, capture_output=True, check=True).stdout)
    assert len(found) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_decline():
    x, w = rand(8, 64, 32, 32), rand(64, 64, 3, 3)
    assert winograd.convolution(x, w, None, geometry(x, w, 1)) is not None
    child = os.fork()
    if not child:
        os._exit(0 if winograd.convolution(x, w, None, geometry(x, w, 1)) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize(
    "shape", [(1, 1, 16, 16), (7, 2, 128, 64), (14, 14, 64, 64), (128, 32, 32, 32), (40, 3, 24, 512)]
)
def test_tasks_take_all_rows_and_outputs(shape, threads):
    total, wide, outs, ins = shape
    rows, parts = winograd._division(total, wide, outs, ins, threads)
    assert 1 <= rows <= total and 1 <= parts <= -(-outs // 16)
    tasks = -(-total // rows)
    assert total * wide <= winograd._FEW or -(-tasks // threads) * rows <= -(-total // threads) + rows


def test_bits_do_not_depend_on_the_division(monkeypatch):
    x, w = rand(3, 32, 21, 30), rand(72, 32, 3, 3)
    found = []
    for rows, parts in ((1, 1), (3, 2), (18, 5)):
        monkeypatch.setattr(winograd, "_division", lambda *_, division=(rows, parts): division)
        found.append(winograd.convolution(x, w, None, geometry(x, w, 1)))
    monkeypatch.setattr(winograd, "_KERNELS", 0)
    monkeypatch.setattr(winograd, "_HELD", 1 << 40)
    found.append(winograd.convolution(x, w, None, geometry(x, w, 1)))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
