"""The compiled kernels of recurrent layers against the plain forms of their ops in float64."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="these kernels need numba")
try:
    from flambeau.backends.kernels import numba_panel, numba_recurrent, numba_setup
except ImportError as error:
    pytest.skip(f"no thread pool for numba: {error}", allow_module_level=True)
import flambeau
from flambeau import nn
from flambeau.ops._op import REGISTRY

KINDS = {"lstm": 4, "gru": 3, "rnn": 1}
lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5).map(lambda n: tuple(sorted(n, reverse=True)))


@pytest.fixture(autouse=True)
def _small_sequences_as_well(monkeypatch):
    monkeypatch.setattr(numba_recurrent, "_WORTH_CALL", 0)


def numbers(seed, *shape):
    return (np.random.default_rng(seed).standard_normal(shape) * 0.7).astype(np.float32)


def forward_arguments(kind, size, batch_sizes, reverse, seed=0, bias=True, relu=False):
    n, rows, gates = batch_sizes[0], sum(batch_sizes), KINDS[kind] * size
    x, h, w = numbers(seed, rows, gates), numbers(seed + 1, n, size), numbers(seed + 2, gates, size) / size**0.5
    if kind == "lstm":
        return x, h, numbers(seed + 3, n, size), w, None, batch_sizes, reverse
    if kind == "gru":
        return x, h, w, numbers(seed + 3, gates) if bias else None, batch_sizes, reverse
    return x, h, w, "relu" if relu else "tanh", batch_sizes, reverse


def grad_arguments(kind, arguments, results, given):
    """Of the op that walks back: cotangents, some of which may be missing, and what the forward pass left."""
    output = results[0]
    g = [numbers(7 + i, *r.shape) if keep else None for i, (r, keep) in enumerate(zip(results, given, strict=False))]
    if kind == "lstm":
        _, hx, cx, w, w_hr, *steps = arguments
        return g[0], g[1], g[2], results[3], results[4], hx, cx, w, w_hr, *steps
    if kind == "gru":
        _, hx, w, _, *steps = arguments
        return g[0], g[1], results[2], results[3], output, hx, w, *steps
    _, hx, w, nonlinearity, *steps = arguments
    return g[0], g[1], output, hx, w, nonlinearity, *steps


def plain(name, arguments):
    """The op in float64 (its kernel takes only float32)."""
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments]
    with np.errstate(all="ignore"):
        return REGISTRY[name].function(*wide)


def compare(name, arguments, tolerance=2e-6):
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    found = getattr(numba_recurrent, name)(*arguments)
    for got, expected in zip(found, plain(name, arguments), strict=True):
        assert got.dtype == np.float32 and got.shape == expected.shape
        scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=tolerance * scale)
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(a, b)
    return found


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=lengths, size=st.sampled_from([1, 3, 5, 8, 16, 33]), reverse=st.booleans(), bias=st.booleans(),
    given=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)  # fmt: skip
def test_same_as_plain(kind, n, size, reverse, bias, given):
    batch_sizes = tuple(sum(length > t for length in n) for t in range(n[0]))
    arguments = forward_arguments(kind, size, batch_sizes, reverse, bias=bias, relu=bias)
    results = compare(f"{kind}_sequence", arguments)
    compare(f"{kind}_sequence_grad", grad_arguments(kind, arguments, results, given))


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_sequence(kind):
    arguments = forward_arguments(kind, 40, (11,) * 60, False)
    results = compare(f"{kind}_sequence", arguments, 1e-5)
    compare(f"{kind}_sequence_grad", grad_arguments(kind, arguments, results, (True, True, True)), 3e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_bits(kind):
    arguments = forward_arguments(kind, 64, (23, 23, 23, 9, 9, 1) * 4, False)
    arguments = (*arguments[:-2], tuple(sorted(arguments[-2], reverse=True)), False)

    def run():
        results = getattr(numba_recurrent, f"{kind}_sequence")(*arguments)
        back = grad_arguments(kind, arguments, results, (True, True, True))
        return *results, *getattr(numba_recurrent, f"{kind}_sequence_grad")(*back)

    try:
        numba_setup.set_num_threads(1)
        one = run()
    finally:
        numba_setup.set_num_threads(0)
    for a, b in zip(one, run(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_special_values_stay_in_their_sequence(kind):
    x, *rest = forward_arguments(kind, 8, (5, 5, 5), False)
    x[0, :], x[1, :], x[2, 0], x[8, :] = np.inf, -np.inf, np.nan, 1e30
    found = compare(f"{kind}_sequence", (x, *rest))
    assert np.isnan(found[0][2]).any() and np.isfinite(found[0][4::5]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_layouts(kind):
    x, h, *rest = forward_arguments(kind, 6, (4, 4, 2), True)
    strided = np.empty((x.shape[0], 2 * x.shape[1]), np.float32)[:, ::2]
    strided[...] = x
    arguments = strided, np.asfortranarray(h), *[np.asfortranarray(a) if np.ndim(a) == 2 else a for a in rest]
    results = compare(f"{kind}_sequence", arguments)
    back = grad_arguments(kind, arguments, results, (True, True, True))
    compare(f"{kind}_sequence_grad", tuple(np.asfortranarray(a) if np.ndim(a) == 2 else a for a in back))


@pytest.mark.parametrize("kind", KINDS)
def test_declines(kind):
    arguments = forward_arguments(kind, 4, (2, 2), False)
    kernel = getattr(numba_recurrent, f"{kind}_sequence")

    def cast(dtype):
        return [a.astype(dtype) if isinstance(a, np.ndarray) else a for a in arguments]

    assert all(kernel(*cast(dtype)) is NotImplemented for dtype in ("f8", "f2", ">f4"))
    empty = (arguments[0][:0], *arguments[1:-2], (), False)
    assert kernel(*empty) is NotImplemented
    wrong = (*arguments[:-2], (2, 1), False)  # not as many rows as the steps say
    assert kernel(*wrong) is NotImplemented
    if kind == "lstm":
        x, _, c, w, _, *steps = arguments
        assert kernel(x, numbers(0, 2, 3), c, w[:, :3].copy(), numbers(1, 3, 4), *steps) is NotImplemented
    try:
        numba_setup.disabled = True  # as in a forked child
        assert kernel(*arguments) is NotImplemented
    finally:
        numba_setup.disabled = False


def test_tiny_sequences_are_left_to_numpy(monkeypatch):
    monkeypatch.undo()
    assert numba_recurrent.lstm_sequence(*forward_arguments("lstm", 4, (2, 2), False)) is NotImplemented


@given(rows=st.integers(1, 11), k=st.integers(1, 20), columns=st.integers(1, 90))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_products_on_panels(rows, k, columns):
    a, matrix = numbers(0, rows, k), numbers(1, k, columns)
    panels = numba_panel.packed(matrix)
    out = np.full((rows + 2, panels.shape[0] * numba_panel.COLUMNS), 5, np.float32)
    numba_panel.multiply(a, 0, panels, out, 1, rows)
    np.testing.assert_allclose(out[1:-1, :columns], a.astype("d") @ matrix, rtol=1e-5, atol=1e-5)
    assert (out[1:-1, columns:] == 0).all() and (out[[0, -1]] == 5).all()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_layers_use_them(kind):
    layer = getattr(nn, kind)(32, 32, num_layers=2, bidirectional=True)
    x = flambeau.randn(40, 6, 32)
    results = []
    for disabled in (False, True):
        layer.zero_grad()
        numba_setup.disabled = disabled
        try:
            output, final = layer(x)
            output.square().sum().backward()
        finally:
            numba_setup.disabled = False
        final = final if kind != "LSTM" else final[1]
        results.append([output.detach().numpy(), final.detach().numpy(), *[p.grad.numpy() for p in layer.parameters()]])
    for a, b in zip(*results, strict=True):
        assert not np.array_equal(a, b) or a.size < 100  # sums in another order: the kernels did run
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5 * max(1, np.abs(b).max()))
