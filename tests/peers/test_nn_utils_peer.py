"""nn.utils and packed sequences beside PyTorch's: same numbers, state-dict keys and refusals."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.utils.prune")

import flambeau
from flambeau import nn

sys.path.insert(0, str(Path(__file__).parent))
from samples import draw, same

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
LIBRARIES = [(torch, torch.nn), (flambeau, nn)]


def load(mine, theirs):
    """Gives our module PyTorch's values; the keys must be the same."""
    state = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    assert list(mine.state_dict()) == list(state)
    mine.load_state_dict(state)


def leaves(*arrays):
    return [[lib.tensor(a, requires_grad=True) for a in arrays] for lib, _ in LIBRARIES]


# -- packed sequences ------------------------------------------------------------------------------------------------
LENGTHS = [[5, 3, 3, 1], [2, 5, 1, 4], [4, 4, 4, 4], [3, 2, 1, 1]]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_packing_and_padding(lengths, batch_first):
    results = []
    x = draw(*((4, 5, 2) if batch_first else (5, 4, 2)))
    for lib, layers in LIBRARIES:
        rnn = layers.utils.rnn
        t = lib.tensor(x, requires_grad=True)
        packed = rnn.pack_padded_sequence(t, lib.tensor(lengths), batch_first, enforce_sorted=False)
        padded, found = rnn.pad_packed_sequence(packed, batch_first, -3.0, 7)
        (padded * padded).sum().backward()
        parts = rnn.unpack_sequence(packed)
        again = rnn.pack_sequence(parts, enforce_sorted=False)
        results.append([*packed, padded, found, t.grad, *parts, *again])
    same(*reversed(results))


def test_packing_without_sorting_and_conversions():
    results = []
    for lib, layers in LIBRARIES:
        packed = layers.utils.rnn.pack_padded_sequence(lib.tensor(draw(5, 3, 2)), [5, 2, 2])
        assert packed.sorted_indices is None and packed.unsorted_indices is None and not packed.is_cuda
        half = packed.to(lib.float32)
        assert isinstance(half, layers.utils.rnn.PackedSequence) and packed.float().data.dtype is lib.float32
        results.append([packed.data, packed.batch_sizes, half.data, packed.cpu().double().data])
        results[-1].append(layers.utils.rnn.invert_permutation(lib.tensor([2, 0, 3, 1])))
        assert layers.utils.rnn.invert_permutation(None) is None
    same(*reversed(results))


@pytest.mark.parametrize("lengths, enforce_sorted", [
    ([2, 3], True), ([3, 0], True), ([3], True), ([7, 2], True), ([3, -1], False), ([[3, 2]], True),
])  # fmt: skip
def test_bad_lengths_raise(lengths, enforce_sorted):
    for lib, layers in LIBRARIES:
        if lib is torch and lengths[0] == 7:
            continue  # PyTorch takes a length beyond the input and returns fewer steps
        with pytest.raises((RuntimeError, IndexError, ValueError)):
            layers.utils.rnn.pack_padded_sequence(lib.ones(5, 2, 1), lib.tensor(lengths), enforce_sorted=enforce_sorted)
    packed = nn.utils.rnn.pack_sequence([flambeau.ones(3, 1), flambeau.ones(2, 1)])
    with pytest.raises(ValueError, match="total_length=2 and max sequence length being 3"):
        nn.utils.rnn.pad_packed_sequence(packed, total_length=2)
    with pytest.raises(ValueError, match="batch_sizes"):
        nn.utils.rnn.PackedSequence(flambeau.ones(3))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_lists(batch_first, side):
    results = []
    for lib, layers in LIBRARIES:
        parts = [lib.tensor(draw(n, 2), requires_grad=True) for n in (3, 5, 1)]
        padded = layers.utils.rnn.pad_sequence(parts, batch_first, 2.5, side)
        (padded * padded).sum().backward()
        results.append([padded, *[p.grad for p in parts]])
        if side == "right":
            results[-1] += layers.utils.rnn.unpad_sequence(padded.detach().clone(), lib.tensor([3, 5, 1]), batch_first)
    same(*reversed(results))


# -- recurrent layers ------------------------------------------------------------------------------------------------
RECURRENT = [
    ("LSTM", {}), ("LSTM", {"num_layers": 2, "bidirectional": True}), ("LSTM", {"proj_size": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 2, "num_layers": 2, "bias": False}), ("GRU", {}), ("GRU", {"num_layers": 2, "bias": False}),
    ("GRU", {"num_layers": 2, "bidirectional": True}), ("RNN", {"bidirectional": True, "num_layers": 2}),
    ("RNN", {"nonlinearity": "relu", "bias": False}),
]  # fmt: skip
recurrent = pytest.mark.parametrize("name, options", RECURRENT, ids=lambda v: str(v).replace(" ", ""))


def layer_pair(name, options):
    theirs = getattr(torch.nn, name)(3, 4, **options).double()
    mine = getattr(nn, name)(3, 4, **options).double()
    load(mine, theirs)
    return mine, theirs


def states(module, name, options, batch):
    rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    parts = [draw(rows, batch, options.get("proj_size") or 4, seed=1)]
    return [*parts, draw(rows, batch, 4, seed=2)] if name == "LSTM" else parts


def check_gradients(mine, theirs, out_mine, out_theirs, inputs_mine, inputs_theirs, order=1):
    def flat(value):
        return [t for v in value for t in flat(v)] if isinstance(value, tuple | list) else [value]

    same(flat(out_mine), flat(out_theirs))
    for outputs, inputs, module, lib in (
        (out_mine, inputs_mine, mine, flambeau), (out_theirs, inputs_theirs, theirs, torch)
    ):  # fmt: skip
        total = sum((o * (0.3 + k) + o * o).sum() for k, o in enumerate(flat(outputs)))
        if order == 2:
            first = lib.autograd.grad(total, [*inputs, *module.parameters()], create_graph=True)
            total = sum((g * g).sum() for g in first)
        total.backward()
    same([t.grad for t in inputs_mine], [t.grad for t in inputs_theirs])
    same([p.grad for p in mine.parameters()], [p.grad for p in theirs.parameters()])


@recurrent
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS[:3])
def test_recurrent_layers_on_packed_sequences(name, options, given, lengths):
    mine, theirs = layer_pair(name, options)
    arrays = [draw(5, 4, 3), *(states(mine, name, options, 4) if given else [])]
    (x_theirs, *h_theirs), (x_mine, *h_mine) = leaves(*arrays)
    results = []
    for layers, module, x, h in ((nn, mine, x_mine, h_mine), (torch.nn, theirs, x_theirs, h_theirs)):
        packed = layers.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        state = (tuple(h) if name == "LSTM" else h[0]) if given else None
        output, final = module(packed, state)
        assert isinstance(output, layers.utils.rnn.PackedSequence)
        results.append([output.data, final, layers.utils.rnn.pad_packed_sequence(output)[0]])
    check_gradients(mine, theirs, *results, [x_mine, *h_mine], [x_theirs, *h_theirs])


@recurrent
def test_recurrent_layers_with_state_and_in_second_order(name, options):
    mine, theirs = layer_pair(name, options)
    (x_theirs, *h_theirs), (x_mine, *h_mine) = leaves(draw(3, 2, 3), *states(mine, name, options, 2))
    results = [
        module(x, tuple(h) if name == "LSTM" else h[0])
        for module, x, h in ((mine, x_mine, h_mine), (theirs, x_theirs, h_theirs))
    ]
    check_gradients(mine, theirs, *results, [x_mine, *h_mine], [x_theirs, *h_theirs], order=2)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_in_single_and_low_precision(name):
    theirs = getattr(torch.nn, name)(8, 16, 2)
    mine = getattr(nn, name)(8, 16, 2)
    load(mine, theirs)
    x = draw(20, 4, 8).astype(np.float32)
    same(mine(flambeau.tensor(x))[0], theirs(torch.tensor(x))[0], 2e-6)
    for dtype in (flambeau.float16, flambeau.bfloat16):
        low = copy.deepcopy(mine).to(dtype)
        output, _ = low(flambeau.tensor(x).to(dtype))
        assert output.dtype is dtype
        np.testing.assert_allclose(
            output.float().detach().numpy(), mine(flambeau.tensor(x))[0].detach().numpy(), atol=0.05
        )
        output.float().sum().backward()
        assert low.weight_hh_l0.grad.dtype is dtype and np.isfinite(low.weight_hh_l0.grad.float().numpy()).all()


def test_recurrent_layers_refuse():
    for lib, layers in LIBRARIES:
        lstm = layers.LSTM(3, 4)
        for bad, kind in [
            ((lib.ones(2, 2, 5),), RuntimeError), ((lib.ones(2),), ValueError), ((lib.ones(0, 2, 3),), RuntimeError),
            ((lib.ones(2, 2, 3), (lib.ones(1, 3, 4), lib.ones(1, 3, 4))), RuntimeError),
            ((lib.ones(2, 3), (lib.ones(1, 1, 4), lib.ones(1, 1, 4))), RuntimeError),
            ((lib.ones(2, 2, 3, dtype=lib.float64),), ValueError),
        ]:  # fmt: skip
            with pytest.raises(kind):
                lstm(*bad)
        with pytest.raises(ValueError):
            layers.GRU(3, 4, dropout=2.0)


# -- clipping and vectors --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm_type", [1.0, 2, 3.0, float("inf"), 0.5, "inf"])
def test_clipping(norm_type):
    results = []
    for lib, layers in LIBRARIES:
        parameters = [lib.tensor(draw(*s), requires_grad=True) for s in ((3, 4), (5,))] + [lib.ones(1)]
        for p in parameters[:2]:
            p.grad = lib.tensor(draw(*p.shape, seed=5))
        utils = layers.utils
        total = utils.get_total_norm([p.grad for p in parameters[:2]], norm_type)
        norm = utils.clip_grad_norm_(parameters, 0.7, norm_type, foreach=False)
        first = [p.grad * 1 for p in parameters[:2]]
        utils.clip_grads_with_norm_(parameters, 0.1, norm)
        second = [p.grad * 1 for p in parameters[:2]]
        utils.clip_grad_value_(parameters, 0.01)
        single = utils.clip_grad_norm_(parameters[0], 100.0)
        results.append([total, norm, *first, *second, *[p.grad for p in parameters[:2]], single])
        with pytest.raises(RuntimeError, match="finite"):
            utils.get_total_norm([lib.tensor([float("nan")])], error_if_nonfinite=True)
        assert float(utils.clip_grad_norm_([], 1.0)) == 0.0
    same(*reversed(results), 1e-8)


def test_vectors():
    results = []
    for lib, layers in LIBRARIES:
        net = layers.Linear(2, 3, dtype=lib.float64)
        layers.utils.vector_to_parameters(lib.arange(9, dtype=lib.float64), net.parameters())
        results.append([*net.parameters(), layers.utils.parameters_to_vector(net.parameters())])
        assert isinstance(net.weight, layers.Parameter) and net.weight.is_leaf
    same(*reversed(results))


# -- fusing ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "ConvTranspose2d", "Linear"])
def test_fusing_batch_norm(kind, affine, bias):
    if kind == "Linear" and not affine:
        pytest.skip("PyTorch fails here")
    results = []
    size = {"Conv1d": (2, 3, 7), "Linear": (4, 3)}.get(kind, (2, 3, 6, 6))
    for lib, layers in LIBRARIES:
        arguments = () if kind == "Linear" else (3,)
        layer = getattr(layers, kind)(3, 4, *arguments, bias=bias, dtype=lib.float64)
        bn = getattr(layers, "BatchNorm2d" if "2d" in kind else "BatchNorm1d")(4, affine=affine, dtype=lib.float64)
        for k, t in enumerate([*layer.parameters(), *bn.parameters()]):
            t.data = lib.tensor(draw(*t.shape, seed=k))
        bn.running_mean, bn.running_var = lib.tensor(draw(4)), lib.tensor(draw(4) ** 2 + 0.1)
        layer.eval()
        bn.eval()
        utils = layers.utils
        fuse = utils.fuse_linear_bn_eval if kind == "Linear" else utils.fuse_conv_bn_eval
        fused = fuse(layer, bn, *([True] if "Transpose" in kind else []))
        x = lib.tensor(draw(*size))
        assert fused is not layer and isinstance(fused.bias, layers.Parameter)
        np.testing.assert_allclose(fused(x).tolist(), bn(layer(x)).tolist(), rtol=1e-9, atol=1e-9)
        results.append([fused.weight, fused.bias])
    same(*reversed(results))


def test_skip_init():
    layer = nn.utils.skip_init(nn.Linear, 3, 4, dtype=flambeau.float64)
    assert layer.weight.shape == (4, 3) and layer.weight.dtype is flambeau.float64
    flambeau.manual_seed(0)
    a = nn.Linear(3, 4).weight.tolist()
    flambeau.manual_seed(0)
    nn.utils.skip_init(nn.Linear, 300, 4)
    assert nn.Linear(3, 4).weight.tolist() == a, "no draw was spent"
    with pytest.raises(RuntimeError, match="Module class"):
        nn.utils.skip_init(dict)


# -- parametrisations ------------------------------------------------------------------------------------------------
def symmetric(layers):
    class Symmetric(layers.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).transpose(-1, -2)

        def right_inverse(self, x):
            return x.triu()

    return Symmetric()


def test_parametrize():
    results = []
    for lib, layers in LIBRARIES:
        parametrize = layers.utils.parametrize
        layer = layers.Linear(3, 3, dtype=lib.float64)
        layer.weight.data, layer.bias.data = lib.tensor(draw(3, 3)), lib.tensor(draw(3))
        original = layer.weight
        assert parametrize.register_parametrization(layer, "weight", symmetric(layers)) is layer
        assert layer.parametrizations.weight.original is original
        assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
        assert not parametrize.is_parametrized(layer, "bias")
        assert type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, layers.Linear)
        assert parametrize.type_before_parametrizations(layer) is layers.Linear
        trace = [list(layer.state_dict()), [k for k, _ in layer.named_parameters()]]
        with parametrize.cached():
            assert layer.weight is layer.weight
        assert layer.weight is not layer.weight
        layer(lib.ones(1, 3, dtype=lib.float64)).sum().backward()
        values = [layer.weight, original.grad]
        layer.weight = lib.tensor(draw(3, 3, seed=4))
        values += [layer.weight, layer.parametrizations.weight.original]
        twin = copy.deepcopy(layer)
        assert twin.parametrizations.weight.original is not layer.parametrizations.weight.original
        twin.weight = lib.zeros(3, 3, dtype=lib.float64)
        values += [layer.weight, twin.weight]
        parametrize.register_parametrization(layer, "bias", layers.Tanh(), unsafe=True)
        trace.append(list(layer.state_dict()))
        with pytest.raises(RuntimeError):
            layer.bias = lib.zeros(3, dtype=lib.float64)
        with pytest.raises(ValueError):
            parametrize.register_parametrization(layer, "nothing", layers.Tanh())
        parametrize.register_parametrization(layer, "weight", layers.Sigmoid())
        values += [layer.weight, layer.bias]
        parametrize.remove_parametrizations(layer, "bias", leave_parametrized=False)
        trace.append(list(layer.state_dict()))
        parametrize.remove_parametrizations(layer, "weight")
        assert type(layer) is layers.Linear and not parametrize.is_parametrized(layer)
        trace.append((list(layer.state_dict()), isinstance(layer.weight, layers.Parameter)))
        values += [layer.weight, layer.bias]
        results.append((trace, values))
    assert results[0][0] == results[1][0]
    same(results[1][1], results[0][1])


@pytest.mark.parametrize("dim", [0, 1, None, -1])
@pytest.mark.parametrize("form", ["parametrizations", "hook"])
def test_weight_norm(form, dim):
    results = []
    trees = []
    for lib, layers in LIBRARIES:
        utils = layers.utils
        layer = layers.Conv1d(2, 3, 2, dtype=lib.float64)
        layer.weight.data, layer.bias.data = lib.tensor(draw(3, 2, 2)), lib.tensor(draw(3))
        apply = utils.parametrizations.weight_norm if form == "parametrizations" else utils.weight_norm
        apply(layer, "weight", dim)
        trees.append(list(layer.state_dict()))
        if form == "hook":
            layer.weight_g.data = layer.weight_g.detach() * 2
        else:
            layer.parametrizations.weight.original0.data = layer.parametrizations.weight.original0.detach() * 2
        out = layer(lib.tensor(draw(2, 2, 5)))
        (out * out).sum().backward()
        results.append([out, *[p.grad for p in layer.parameters()], layer.weight])
        if form == "hook":
            utils.remove_weight_norm(layer)
        else:
            utils.parametrize.remove_parametrizations(layer, "weight")
        trees.append(sorted(layer.state_dict()))
        results[-1].append(layer.weight)
    assert trees[:2] == trees[2:]
    same(*reversed(results))


def test_old_weight_norm_checkpoints_load_into_the_new_form():
    old = nn.utils.weight_norm(nn.Linear(2, 3))
    new = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    new.load_state_dict(old.state_dict())
    x = flambeau.ones(1, 2)
    np.testing.assert_allclose(new(x).tolist(), old(x).tolist(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose2d"])
@pytest.mark.parametrize("form", ["parametrizations", "hook"])
def test_spectral_norm(form, kind):
    made = []
    for _, layers in LIBRARIES:
        layer = layers.Linear(4, 3) if kind == "Linear" else getattr(layers, kind)(4, 3, 2)
        utils = layers.utils
        apply = utils.parametrizations.spectral_norm if form == "parametrizations" else utils.spectral_norm
        made.append(apply(layer.double(), n_power_iterations=2))
    theirs, mine = made
    load(mine, theirs)
    x = draw(2, 4) if kind == "Linear" else draw(2, 4, 3, 3)
    for training in (True, True, False):
        outputs = []
        for (lib, _), layer in zip(LIBRARIES, made, strict=True):
            layer.train(training).zero_grad()
            out = layer(lib.tensor(x))
            (out * out).sum().backward()
            outputs.append([out, *[p.grad for p in layer.parameters()], *layer.buffers()])
        same(*reversed(outputs))
    for (_, layers), layer in zip(LIBRARIES, made, strict=True):
        if form == "hook":
            layers.utils.remove_spectral_norm(layer)
        else:
            layers.utils.parametrize.remove_parametrizations(layer, "weight")
    assert sorted(mine.state_dict()) == sorted(theirs.state_dict())
    same(mine.weight, theirs.weight)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("orthogonal_map", ["matrix_exp", "cayley", "householder", None])
def test_orthogonal(shape, orthogonal_map):
    made = [
        layers.utils.parametrizations.orthogonal(
            layers.Linear(shape[1], shape[0], dtype=lib.float64), "weight", orthogonal_map
        )
        for lib, layers in LIBRARIES
    ]
    theirs, mine = made
    w = mine.weight.detach().numpy()
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-9)
    load(mine, theirs)
    step = draw(*shape) * 0.3
    results = []
    for (lib, _), layer in zip(LIBRARIES, made, strict=True):
        original = layer.parametrizations.weight.original
        original.data = original.detach() + lib.tensor(step)
        (layer.weight * lib.tensor(draw(*shape, seed=3))).sum().backward()
        results.append([layer.weight, original.grad])
    same(*reversed(results))
    q = np.linalg.qr(draw(5, 5))[0][: shape[0], : shape[1]] if shape == (5, 3) else np.linalg.qr(draw(*shape[:1], 5))[0]
    if q.shape == shape:
        mine.weight = flambeau.tensor(q)
        np.testing.assert_allclose(mine.weight.detach().numpy(), q, atol=1e-9)


# -- pruning ---------------------------------------------------------------------------------------------------------
def test_pruning():
    results = []
    for lib, layers in LIBRARIES:
        prune = layers.utils.prune
        layer = layers.Conv2d(3, 4, 2, dtype=lib.float64)
        layer.weight.data, layer.bias.data = lib.tensor(draw(4, 3, 2, 2)), lib.tensor(draw(4))
        values, trace = [], []
        assert not prune.is_pruned(layer)
        prune.l1_unstructured(layer, "weight", 0.3)
        values.append(layer.weight)
        prune.ln_structured(layer, "weight", 1, n=2, dim=0)
        values.append(layer.weight)
        prune.ln_structured(layer, "weight", 0.4, n=float("inf"), dim=1)
        values.append(layer.weight)
        prune.custom_from_mask(layer, "bias", lib.tensor([1, 0, 1, 1]))
        trace.append((list(layer.state_dict()), prune.is_pruned(layer), len(layer._forward_pre_hooks)))
        out = layer(lib.tensor(draw(1, 3, 4, 4)))
        (out * out).sum().backward()
        values += [out, layer.weight_orig.grad, layer.weight_mask, layer.bias_mask]
        prune.remove(layer, "weight")
        trace.append((list(layer.state_dict()), [k for k, _ in layer.named_parameters()]))
        values.append(layer.weight)
        prune.l1_unstructured(layer, "weight", 5, importance_scores=lib.tensor(draw(4, 3, 2, 2, seed=8)))
        values.append(layer.weight_mask)
        a, b = layers.Linear(2, 3, dtype=lib.float64), layers.Linear(3, 1, dtype=lib.float64)
        for k, p in enumerate([*a.parameters(), *b.parameters()]):
            p.data = lib.tensor(draw(*p.shape, seed=k + 20))
        pairs = [(a, "weight"), (b, "weight")]
        prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=0.5)
        prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=2)
        values += [a.weight, b.weight, a.weight_mask]
        prune.identity(a, "bias")
        trace.append(list(a.state_dict()))
        prune.random_unstructured(a, "bias", 2)
        prune.random_structured(layer, "weight", 2, dim=1)
        counts = [int(a.bias_mask.sum()), [float(s) for s in layer.weight_mask.sum((0, 2, 3))].count(0.0)]
        trace.append(counts)
        for bad, kind in [((-0.1,), ValueError), ((1.5,), ValueError), ((100,), ValueError)]:
            with pytest.raises(kind):
                prune.l1_unstructured(layers.Linear(2, 2), "weight", *bad)
        with pytest.raises(ValueError):
            prune.remove(b, "bias")
        results.append((trace, values))
    assert results[0][0] == results[1][0]
    same(results[1][1], results[0][1])


# -- calling with other parameters -----------------------------------------------------------------------------------
def test_functional_call():
    results = []
    for lib, layers in LIBRARIES:
        call = layers.utils.stateless.functional_call if lib is flambeau else torch.func.functional_call
        net = layers.Sequential(layers.Linear(2, 2, dtype=lib.float64), layers.BatchNorm1d(2, dtype=lib.float64))
        net.append(layers.Linear(2, 2, bias=False, dtype=lib.float64))
        net[2].weight = net[0].weight
        before = [p.tolist() for p in net.parameters()]
        w = lib.tensor(draw(2, 2), requires_grad=True)
        mean = lib.zeros(2, dtype=lib.float64)
        x = lib.tensor(draw(3, 2))
        with lib.no_grad():
            net[0].bias.data = lib.tensor(draw(2))
        before[1] = net[0].bias.tolist()
        out = call(net, {"0.weight": w, "1.running_mean": mean}, (x,))
        (out * out).sum().backward()
        assert [p.tolist() for p in net.parameters()] == before and net[0].weight.grad is None
        untied = call(net, {"0.weight": w * 2, "2.weight": w}, x, tie_weights=False)
        results.append([out, w.grad, mean, untied])
        with pytest.raises(ValueError):
            call(net, {"0.weight": w, "2.weight": w * 2}, x)
        with pytest.raises(RuntimeError):
            call(net, {"0.weight": w}, x, strict=True)
        with pytest.raises((AttributeError, KeyError, RuntimeError)):
            call(net, {"0.nothing.weight": w}, x)
    same(*reversed(results))
