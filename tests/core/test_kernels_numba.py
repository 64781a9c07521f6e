"""Kernels compiled by Numba against the plain forms of their ops."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba", reason="these kernels need numba")
try:
    from flambeau.backends.kernels import numba_eltwise, numba_setup
except ImportError as error:
    pytest.skip(f"no thread pool for numba: {error}", allow_module_level=True)
from flambeau.ops._op import REGISTRY

CASES = [("gelu", 1, ()), ("gelu", 1, ("tanh",)), ("gelu_grad", 2, ()), ("gelu_grad", 2, ("tanh",)),
         ("silu", 1, ()), ("silu_grad", 2, ()), ("sigmoid", 1, ()), ("softplus", 1, ()), ("softplus", 1, (-2.5,)),
         ("softplus", 1, (1.5, 2.0)), ("softplus_grad", 2, (1.5, 2.0)), ("softplus_curvature", 2, ()),
         ("softplus_curvature", 2, (1.5, 2.0))]  # fmt: skip
SPECIAL = [0.0, -0.0, 1e-30, -1e-30, 5.0, -5.0, 20.0, -20.0, 100.0, -100.0, np.inf, -np.inf, np.nan]


def plain(name, arrays, settings):
    """The op in float64 (its kernel takes only float32)."""
    with np.errstate(all="ignore"):
        return np.asarray(REGISTRY[name].function(*[a.astype(np.float64) for a in arrays], *settings))


def inputs(count, shape):
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(shape) * 3).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    "layout", [lambda a: a, lambda a: a.T, lambda a: a.transpose(1, 0, 2)], ids=["C", "F", "mixed"]
)
@pytest.mark.parametrize(("name", "count", "settings"), CASES)
def test_same_as_plain(name, count, settings, layout):
    arrays = [layout(a) for a in inputs(count, (7, 41, 67))]
    before = [a.copy() for a in arrays]
    out = getattr(numba_eltwise, name)(*arrays, *settings)
    assert out.dtype == np.float32 and out.strides == arrays[-1].strides
    np.testing.assert_allclose(out, plain(name, arrays, settings), rtol=2e-6, atol=4e-6)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("name", "count", "settings"), CASES)
def test_special_values(name, count, settings):
    x = np.resize(np.array(SPECIAL, np.float32), numba_setup.BLOCK)
    arrays = [np.ones_like(x)] * (count - 1) + [x]
    out = getattr(numba_eltwise, name)(*arrays, *settings)
    np.testing.assert_allclose(out, plain(name, arrays, settings), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "count", "settings"), CASES)
def test_declines(name, count, settings):
    kernel = getattr(numba_eltwise, name)
    for shape, dtype in (((0, 3), "f4"), ((5,), "f4"), ((10000,), "f8"), ((10000,), "c8"), ((10000,), ">f4")):
        assert kernel(*[np.ones(shape, dtype)] * count, *settings) is NotImplemented
    assert kernel(*[np.ones((200, 200), "f4")[:, ::2]] * count, *settings) is NotImplemented


def test_dropout_is_the_plain_form_to_the_bit():
    (x,) = inputs(1, (77, 321))
    op = REGISTRY["_dropout"]
    for p, seed in ((0.1, 0), (0.5, 2**63 - 1), (0.999, 12345678901234)):
        for array in (x, x.T):
            out = numba_eltwise._dropout(array, p, seed)
            np.testing.assert_array_equal(out, op.forward(np, array, p, seed))
            assert abs((out == 0).mean() - p) < 0.01
    assert numba_eltwise._dropout(x.astype("f8"), 0.5, 1) is NotImplemented


def test_threads_do_not_change_bits():
    (x,) = inputs(1, (100_003,))
    try:
        numba_setup.set_num_threads(1)
        one = numba_eltwise.gelu(x)
    finally:
        numba_setup.set_num_threads(0)
    np.testing.assert_array_equal(one, numba_eltwise.gelu(x))


NUMBA_AFTER_ONEDNN = """
import ctypes, numpy as np, flambeau as fb
x = fb.tensor(np.linspace(-3, 3, 2 * 16 * 8 * 8 * 16, dtype="f").reshape(2, 16, 32, 32), requires_grad=True)
net = fb.nn.Conv2d(16, 16, 3)
net(x).sum().backward()
openmp = ctypes.CDLL("libgomp.so.1")
before, weight_grad = openmp.omp_get_max_threads(), net.weight.grad.numpy().copy()
fb.nn.functional.silu(x)
net.weight.grad = None
net(x).sum().backward()
print(before, openmp.omp_get_max_threads(), (net.weight.grad.numpy() == weight_grad).all(), fb.get_num_threads())
"""


@pytest.mark.parametrize("name", ["FLAMBEAU_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_start_of_numba_leaves_onednn_its_threads(name):
    """It once raised OpenMP's number to all cores in the middle of a run, and the last bits of results changed."""
    pytest.importorskip("cffi")
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | {name: "1"}
    run = [sys.executable, "-c", NUMBA_AFTER_ONEDNN]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "1", "True", "1"], done.stdout + done.stderr


FORK = """
import os, numpy as np, flambeau as fb, sys
assert "numba" not in sys.modules
x = fb.tensor(np.linspace(-3, 3, 20000, dtype="f"))
here = fb.nn.functional.silu(x).numpy()
assert "numba" in sys.modules
pid = os.fork()
if pid == 0:
    os._exit(0 if np.allclose(fb.nn.functional.silu(x).numpy(), here, atol=1e-6) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert (fb.nn.functional.silu(x).numpy() == here).all()
"""


@pytest.mark.parametrize("home", ["writable", "readonly"])
def test_lazy_and_fork_safe(tmp_path, home):
    cache = tmp_path if home == "writable" else "/proc/none"
    env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    env.pop("NUMBA_CACHE_DIR", None)
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=120, env=env)
    assert home == "readonly" or list(tmp_path.rglob("*.nbi"))
