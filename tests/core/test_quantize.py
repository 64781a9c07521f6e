"""Integer weights: rounding, layers, whole models, files; the kernels against the plain forms of their ops."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau
from flambeau import nn, ops, quantize
from flambeau.ops._op import REGISTRY

KINDS = [("int8", 64), ("int4", 32), ("int4", 64), ("int4", 128)]


def array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def restored(weights, w, group):
    if weights == "int8":
        return ops.dequantize_int8(*quantize.to_int8(w)).numpy()
    return ops.dequantize_int4(*quantize.to_int4(w, group), w.shape[1], group).numpy()


# ---- rounding


@given(st.integers(1, 6), st.integers(1, 200), st.sampled_from(KINDS), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_rounding_is_off_by_half_a_step_at_most(rows, features, kind, seed):
    w = array(rows, features, seed=seed)
    found = restored(kind[0], flambeau.from_numpy(w), kind[1])
    if kind[0] == "int8":
        assert (np.abs(found - w) <= np.abs(w).max(1, keepdims=True) / 127 * 0.5001).all()
    else:  # the largest may be cut for the sake of the others, but never at the cost of a larger squared error
        for i in range(0, features, kind[1]):
            part, whole = w[:, i : i + kind[1]], found[:, i : i + kind[1]]
            step = np.abs(part).max(1, keepdims=True) / 7
            plain = np.clip(np.rint(part / step), -8, 7) * step
            assert (np.square(whole - part).sum(1) <= np.square(plain - part).sum(1) * 1.0001 + 1e-12).all()


def test_nibbles_lie_as_documented():
    scale = flambeau.tensor([[2.0, 0.5]])
    packed = flambeau.tensor([[0x0F, 0x79, 0x80]], dtype=flambeau.uint8)
    assert ops.dequantize_int4(packed, scale, 5, 4).tolist() == [[14.0, -16.0, 2.0, -2.0, -4.0]]


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_zeros_stay_zeros(weights):
    assert not restored(weights, flambeau.zeros(3, 70), 64).any()


def test_numbers_that_no_integer_stands_for_are_refused():
    for value in (np.nan, np.inf):
        w = flambeau.from_numpy(np.full((2, 4), value, np.float32))
        with pytest.raises(ValueError, match="NaN or an infinity"):
            quantize.to_int8(w)
    with pytest.raises(ValueError, match="only matrices of floats"):
        quantize.to_int4(flambeau.ones(2, 3, dtype=flambeau.int64))
    with pytest.raises(ValueError, match="at least 1"):
        quantize.to_int4(flambeau.ones(2, 3), 0)


# ---- layers and models


@pytest.mark.parametrize(("weights", "group"), KINDS)
@pytest.mark.parametrize("shape", [(64, 96), (300, 256), (5, 130)])
def test_a_layer_multiplies_by_what_its_integers_stand_for(weights, group, shape):
    flambeau.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0])
    layer = quantize.QuantizedLinear(linear, weights, group)
    x = array(2, 3, shape[1])
    expected = x.astype(np.float64) @ restored(weights, linear.weight, group).T.astype(np.float64)
    found = layer(flambeau.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, expected + linear.bias.detach().numpy(), atol=2e-4)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_gradients_reach_the_input_and_the_bias(weights):
    linear = nn.Linear(70, 5)
    layer = quantize.QuantizedLinear(linear, weights)
    x = flambeau.from_numpy(array(3, 70)).requires_grad_()
    layer(x).sum().backward()
    expected = np.tile(restored(weights, linear.weight, 64).sum(0), (3, 1))
    np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-5)
    assert layer.bias.grad.tolist() == [3.0] * 5


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 64)
        self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.body(self.table(ids)))


@pytest.mark.parametrize(("weights", "group"), KINDS)
def test_a_model_goes_through_a_file(tmp_path, weights, group):
    flambeau.manual_seed(0)
    model = quantize.quantize_(Tied().eval(), weights, group, embeddings=["table"])
    flambeau.save(model.state_dict(), tmp_path / "model.safetensors")
    other = quantize.quantize_(Tied().eval(), weights, group, embeddings=["table"])
    other.load_state_dict(flambeau.load(tmp_path / "model.safetensors"))
    ids = flambeau.tensor([[1, 2, 49]])
    with flambeau.no_grad():
        assert np.array_equal(model(ids).numpy(), other(ids).numpy())
        unembedded = quantize.unembed(model.body(model.table(ids)), model.table)
        assert np.array_equal(unembedded.numpy(), model(ids).numpy())
    assert model.head.weight is model.table.weight
    assert {str(v.dtype) for k, v in model.state_dict().items() if "weight" in k} == {
        "flambeau.int8" if weights == "int8" else "flambeau.uint8"
    }


def test_unembed_of_an_embedding_that_is_not_quantized():
    table, x = nn.Embedding(7, 4), flambeau.from_numpy(array(2, 4))
    expected = x.numpy() @ table.weight.detach().numpy().T
    np.testing.assert_allclose(quantize.unembed(x, table).detach().numpy(), expected, atol=1e-6)


def test_what_is_skipped_and_what_is_shared():
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.Sequential(nn.Linear(8, 8)), shared)
    quantize.quantize_(model, skip=["1"])
    assert model[0] is model[2] and type(model[0]) is quantize.QuantizedLinear
    assert type(model[1][0]) is nn.Linear
    assert type(quantize.quantize_(nn.Linear(4, 4).eval())) is quantize.QuantizedLinear
    assert not quantize.quantize_(nn.Linear(4, 4).eval()).training


def test_wrong_arguments():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with pytest.raises(ValueError, match="'int8' or 'int4'"):
        quantize.quantize_(model, "int2")
    with pytest.raises(ValueError, match="no module 'head'"):
        quantize.quantize_(model, skip=["head"])
    with pytest.raises(ValueError, match="not an Embedding"):
        quantize.quantize_(model, embeddings=["0"])
    with pytest.raises(ValueError, match="no linear layer"):
        quantize.quantize_(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="max_norm"):
        quantize.QuantizedEmbedding(nn.Embedding(4, 4, max_norm=1.0))
    layer = quantize.QuantizedLinear(nn.Linear(8, 4))
    with pytest.raises(RuntimeError, match="the layer takes 8"):
        layer(flambeau.ones(2, 7))


# ---- kernels

numba = pytest.importorskip("numba", reason="these kernels need numba")
try:
    from flambeau.backends.kernels import numba_gemv, numba_quant, numba_setup
except ImportError as error:
    pytest.skip(f"no thread pool for numba: {error}", allow_module_level=True)

SHAPES = [(768, 768, 1), (65, 768, 3), (300, 200, 2), (257, 129, 5), (70, 3072, 20), (1000, 64, 1), (513, 1024, 8)]


def integer_case(weights, n, k, m, group):
    rng = np.random.default_rng(0)
    x, bias = rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal(n, dtype=np.float32)
    x[:, k // 2] *= 50  # an outlier, as language models have
    if weights == "int8":
        return [x, rng.integers(-128, 128, (n, k)).astype(np.int8), rng.random(n, dtype=np.float32), bias]
    scale = rng.standard_normal((n, -(-k // group)), dtype=np.float32)
    return [x, rng.integers(0, 256, (n, (k + 1) // 2)).astype(np.uint8), scale, bias, group]


def exact(weights, x, w, scale, bias, group=64):
    """The product in float64, and what the rounding of the activations may change."""
    xs, scales, k = x.astype(np.float64), scale.astype(np.float64), x.shape[1]
    raw = REGISTRY["dequantize_" + weights].forward
    values = raw(np, w, scales) if weights == "int8" else raw(np, w, scales, k, group)
    blocks = np.stack([np.abs(xs[:, i : i + 64]).max(1) for i in range(0, k, 64)], 1)
    steps = np.repeat(blocks, 64, 1)[:, :k] / 32767 * 0.51
    size = np.abs(xs) @ np.abs(values).T
    return xs @ values.T + (0 if bias is None else bias), steps @ np.abs(values).T + 1e-6 * size + 1e-6


@pytest.mark.parametrize(("weights", "group"), [*KINDS, ("int4", 256)])
@pytest.mark.parametrize(("n", "k", "m"), SHAPES)
def test_integer_kernels_do_what_the_ops_say(weights, group, n, k, m):
    arguments = integer_case(weights, n, k, m, group)
    for bias in (arguments[3], None):
        arguments[3] = bias
        found = getattr(numba_quant, "linear_" + weights)(*arguments)
        expected, allowed = exact(weights, *arguments)
        assert found.dtype == np.float32 and (np.abs(found - expected) <= allowed).all()


@pytest.mark.parametrize(("n", "k", "m"), [(768, 768, 1), (1030, 129, 3), (300, 1024, 8), (4000, 17, 2)])
def test_few_vectors(n, k, m):
    x, w, bias = array(m, k), array(n, k, seed=1), array(n, seed=2)
    for b in (bias, None):
        found = numba_gemv.linear(x, w, b)
        expected = x.astype(np.float64) @ w.T.astype(np.float64) + (0 if b is None else b)
        allowed = 1e-6 * (np.abs(x) @ np.abs(w).T) + 1e-6
        assert found.shape == (m, n) and (np.abs(found - expected) <= allowed).all()


@pytest.mark.parametrize("name", ["linear", "linear_int8", "linear_int4"])
def test_the_number_of_threads_and_of_vectors_does_not_show(name):
    if name == "linear":
        kernel, arguments = numba_gemv.linear, [array(5, 768), array(333, 768, seed=1), None]
    else:
        kernel, arguments = getattr(numba_quant, name), integer_case(name[7:], 333, 768, 5, 64)
    found = kernel(*arguments)
    before = numba_setup._wanted
    try:
        for threads in (1, 2):
            numba_setup.set_num_threads(threads)
            assert np.array_equal(kernel(*arguments), found)
    finally:
        numba_setup.set_num_threads(before)
    for i in range(5):
        assert np.array_equal(kernel(arguments[0][i : i + 1], *arguments[1:])[0], found[i])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_goes_through(value):
    x = array(1, 768)
    x[0, 5] = value
    w = np.abs(array(200, 768, seed=1)) + 0.1
    np.testing.assert_array_equal(numba_gemv.linear(x, w), np.full((1, 200), value, np.float32))
    for weights in ("int8", "int4"):
        arguments = integer_case(weights, 200, 768, 1, 64)
        arguments[0][0, 5] = value
        assert getattr(numba_quant, "linear_" + weights)(*arguments) is NotImplemented
        function = getattr(ops, "linear_" + weights)
        assert not np.isfinite(function(*arguments)).all()


def test_zeros_and_tiny_activations():
    for weights in ("int8", "int4"):
        arguments = integer_case(weights, 300, 128, 2, 64)
        arguments[0][0] = 0
        arguments[0][1] = 1e-38
        arguments[3] = None
        found = getattr(numba_quant, "linear_" + weights)(*arguments)
        assert not found[0].any() and (np.abs(found[1]) < 1e-30).all()


def test_kernels_decline():
    x, w = array(1, 768), array(200, 768, seed=1)
    assert numba_gemv.linear(x.astype(np.float64), w.astype(np.float64)) is NotImplemented
    assert numba_gemv.linear(array(9, 768), w) is NotImplemented  # many vectors
    assert numba_gemv.linear(x[:, ::2], array(200, 384)) is NotImplemented
    assert numba_gemv.linear(array(0, 768), w) is NotImplemented
    assert numba_gemv.linear(array(1, 16), array(16, 16)) is NotImplemented  # small
    assert numba_gemv.linear(x, w, array(1)) is NotImplemented
    for weights in ("int8", "int4"):
        kernel, arguments = getattr(numba_quant, "linear_" + weights), integer_case(weights, 300, 768, 1, 64)
        x, w, *rest = arguments
        assert kernel(x.astype(np.float64), w, *rest) is NotImplemented
        assert kernel(x, w[:4], rest[0][:4], None, *rest[2:]) is NotImplemented
        assert kernel(x[:, ::-1], w, *rest) is NotImplemented
        assert kernel(x[:, :700], w, *rest) is NotImplemented
    x, w, scale, bias, _ = integer_case("int4", 300, 768, 1, 48)
    assert numba_quant.linear_int4(x, w, scale, bias, 48) is NotImplemented


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_declines():
    arguments = integer_case("int8", 300, 768, 1, 64)
    assert numba_quant.linear_int8(*arguments) is not NotImplemented
    child = os.fork()
    if not child:
        os._exit(0 if numba_quant.linear_int8(*arguments) is NotImplemented else 1)
    assert os.waitpid(child, 0)[1] == 0
