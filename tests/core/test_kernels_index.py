"""Adding up at positions: the kernel against NumPy in float64, and the functions that use it."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="these kernels need numba")
try:
    from flambeau.backends.kernels import numba_index, numba_setup
except ImportError as error:
    pytest.skip(f"no thread pool for numba: {error}", allow_module_level=True)
import flambeau as fb

# source (p, n, q), size, index (p or 1, n, q or 1), whether there is a base
CASES = [
    ((1, 1920, 64), 128, (1, 1920, 1), False),
    ((1, 3000, 3), 17, (1, 3000, 1), True),
    ((1, 5000, 1), 7, (1, 5000, 1), False),
    ((3, 300, 70), 20, (1, 300, 1), True),
    ((2, 100, 130), 33, (2, 100, 130), True),
    ((5, 200, 1), 9, (5, 200, 1), False),
    ((4, 1, 200), 3, (1, 1, 1), False),
]


def expected(source, index, size, base):
    out = np.zeros((source.shape[0], size, source.shape[2])) if base is None else base.astype(np.float64)
    grid = (np.arange(source.shape[0])[:, None, None], index, np.arange(source.shape[2]))
    np.add.at(out, grid, source.astype(np.float64))
    return out


@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_as_numpy(case, dtype):
    shape, size, index_shape, based = case
    rng = np.random.default_rng(0)
    source = rng.standard_normal(shape).astype(np.float32)
    index = rng.integers(0, size, index_shape).astype(dtype)
    base = rng.standard_normal((shape[0], size, shape[2])).astype(np.float32) if based else None
    kept = None if base is None else base.copy()
    out = numba_index._add_at(source, index, size, base)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected(source, index, size, base), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(numba_index._add_at(source[:, ::-1], index[:, ::-1], size), numba_index._add_at(
        np.ascontiguousarray(source[:, ::-1]), np.ascontiguousarray(index[:, ::-1]), size))  # fmt: skip
    if base is not None:
        np.testing.assert_array_equal(base, kept)


def test_bad_numbers_and_threads():
    source = np.ones((1, 4000, 200), np.float32)
    source[0, 5, 3], source[0, 6, 150] = np.nan, np.inf
    index = np.arange(4000).reshape(1, -1, 1) % 50
    try:
        numba_setup.set_num_threads(1)
        one = numba_index._add_at(source, index, 50)
    finally:
        numba_setup.set_num_threads(0)
    np.testing.assert_array_equal(one, numba_index._add_at(source, index, 50))
    assert np.isnan(one[0, 5, 3]) and np.isinf(one[0, 6, 150]) and np.isfinite(one).sum() == one.size - 2


def test_declines():
    source, index = np.ones((1, 1000, 8), np.float32), np.zeros((1, 1000, 1), np.int64)
    assert numba_index._add_at(source.astype("f8"), index, 3) is NotImplemented
    assert numba_index._add_at(source[:, :2], index[:, :2], 3) is NotImplemented
    assert numba_index._add_at(source, index - 1, 3) is NotImplemented
    assert numba_index._add_at(source, index + 3, 3) is NotImplemented
    assert numba_index._add_at(source, index, 3, np.zeros((1, 3, 8))) is NotImplemented


def test_functions_that_add():
    rng = np.random.default_rng(1)
    x, index = rng.standard_normal((40, 1000)).astype(np.float32), rng.integers(0, 6, 1000)
    out = fb.zeros(40, 6).index_add(1, fb.tensor(index), fb.tensor(x)).numpy()
    wanted = np.stack([x[:, index == i].astype("f8").sum(1) for i in range(6)], 1)
    np.testing.assert_allclose(out, wanted, atol=1e-4)
    wide = np.broadcast_to(index, x.shape)
    np.testing.assert_array_equal(fb.zeros(40, 6).scatter_add(1, fb.tensor(wide.copy()), fb.tensor(x)).numpy(), out)
    table = fb.zeros(6, 40, requires_grad=True)
    (fb.nn.functional.embedding(fb.tensor(index), table) * fb.tensor(x.T.copy())).sum().backward()
    np.testing.assert_allclose(table.grad.numpy(), wanted.T, atol=1e-4)
    source = fb.zeros(40, 6, requires_grad=True)
    (source[:, fb.tensor(index)] * fb.tensor(x)).sum().backward()
    np.testing.assert_allclose(source.grad.numpy(), wanted, atol=1e-4)
    with pytest.raises(IndexError):
        fb.zeros(6, 40)[fb.tensor(index + 1)]
