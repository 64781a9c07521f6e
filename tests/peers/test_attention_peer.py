"""Attention and transformers beside PyTorch's, over every argument; initialisers by their distributions."""

import itertools
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import flambeau
from flambeau import nn

sys.path.insert(0, str(Path(__file__).parent))
from samples import draw, same

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LIBRARIES = [(torch, torch.nn), (flambeau, nn)]


def pair(make):
    """The same module in both libraries, with PyTorch's weights moved off their special starting values."""
    torch.manual_seed(0)
    theirs, mine = (make(lib, layers) for lib, layers in LIBRARIES)
    with torch.no_grad():
        for k, p in enumerate(theirs.parameters()):
            p += torch.tensor(draw(*p.shape, seed=k)) * 0.1
    state = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    assert list(mine.state_dict()) == list(state)
    mine.load_state_dict(state)
    return mine, theirs


def compare(mine, theirs, arrays, call, tolerance=1e-9):
    results = []
    for (lib, _), module in zip(LIBRARIES, (theirs, mine), strict=True):
        inputs = [lib.tensor(a, requires_grad=True) for a in arrays]
        outputs = call(lib, module, *inputs)
        outputs = [o for o in (outputs if isinstance(outputs, tuple) else (outputs,)) if o is not None]
        sum((o * o).sum() + o.sum() * (0.5 + k) for k, o in enumerate(outputs)).backward()
        results.append([outputs, [t.grad for t in inputs], [p.grad for p in module.parameters()]])
        module.zero_grad()
    same(*reversed(results), tolerance)


def masks(lib, kind, batch, heads, length, source):
    """(attn_mask, key_padding_mask) by name."""
    rng = np.random.default_rng(5)
    padding = np.zeros((batch, source), bool)
    padding[:, -1] = True
    blocked = rng.random((length, source)) < 0.3
    blocked[:, 0] = False
    stacked = rng.random((batch * heads, length, source)) < 0.3
    stacked[..., 0] = False
    additive = draw(length, source)
    return {
        "none": (None, None),
        "bool": (blocked, None),
        "float": (additive, None),
        "stacked": (stacked, padding),
        "stacked float": (draw(batch * heads, length, source), None),
        "padding": (None, padding),
        "both": (blocked, padding),
        "float padding": (additive, np.where(padding, -math.inf, 0.0)),
    }[kind]


KINDS = ("none", "bool", "float", "stacked", "stacked float", "padding", "both", "float padding")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [
    {}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 6, "vdim": 5}, {"bias": False, "batch_first": True},
    {"add_bias_kv": True, "add_zero_attn": True, "kdim": 6, "batch_first": True},
], ids=str)  # fmt: skip
def test_attention(kind, options):
    mine, theirs = pair(lambda lib, layers: layers.MultiheadAttention(8, 2, dtype=lib.float64, **options))
    batch, length, source = 3, 4, 5
    arrays = [
        draw(length, batch, 8),
        draw(source, batch, options.get("kdim", 8)),
        draw(source, batch, options.get("vdim", 8)),
    ]
    if options.get("batch_first"):
        arrays = [a.swapaxes(0, 1).copy() for a in arrays]
    for need_weights, average in [(True, True), (True, False), (False, True)]:

        def call(lib, module, q, k, v, need_weights=need_weights, average=average):
            mask, padding = (None if m is None else lib.tensor(m) for m in masks(lib, kind, batch, 2, length, source))
            return module(q, k, v, padding, need_weights, mask, average)

        compare(mine, theirs, arrays, call)


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_causal_unbatched_and_in_evaluation(need_weights):
    mine, theirs = pair(lambda lib, layers: layers.MultiheadAttention(8, 2, 0.5, dtype=lib.float64).eval())

    def causal(lib, module, x):
        mask = (torch if lib is torch else flambeau).triu(lib.ones(4, 4, dtype=lib.bool), 1)
        return module(x, x, x, attn_mask=mask, is_causal=True, need_weights=need_weights)

    compare(mine, theirs, [draw(4, 3, 8)], causal)
    compare(mine, theirs, [draw(4, 8)], causal)

    def stacked(lib, module, x):
        return module(x, x, x, lib.tensor([False, True, False, False]), need_weights, lib.tensor(draw(2, 4, 4)))

    compare(mine, theirs, [draw(4, 8)], stacked)
    for lib, module in ((torch, theirs), (flambeau, mine)):
        x = lib.tensor(draw(4, 3, 8))
        with pytest.raises(RuntimeError, match="is_causal"):
            module(x, x, x, is_causal=True)
    for _, layers in LIBRARIES:
        with pytest.raises((AssertionError, ValueError)):
            layers.MultiheadAttention(7, 2)


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_refuses_masks_of_other_shapes(need_weights):
    mine, theirs = pair(lambda lib, layers: layers.MultiheadAttention(8, 2, dtype=lib.float64))
    for lib, module in ((torch, theirs), (flambeau, mine)):
        q, k = lib.tensor(draw(4, 3, 8)), lib.tensor(draw(5, 3, 8))
        for bad in ((4, 4), (5, 4), (2, 4, 5), (1, 2, 4, 5), (1, 5)):
            with pytest.raises((RuntimeError, AssertionError, ValueError)):
                module(q, k, k, attn_mask=lib.ones(*bad, dtype=lib.float64), need_weights=need_weights)
        for bad in ((4, 3), (3, 4), (5, 3), (5,)):
            with pytest.raises((RuntimeError, AssertionError, ValueError)):
                module(q, k, k, lib.zeros(*bad, dtype=lib.bool), need_weights)
        with pytest.raises((RuntimeError, AssertionError, ValueError)):
            module(q, k[:4], k, need_weights=need_weights)
        with pytest.raises((RuntimeError, AssertionError, ValueError)):
            module(q, k[..., :6], k, need_weights=need_weights)


# -- transformers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm_first, batch_first, bias", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("activation", ["relu", "gelu", "callable"])
def test_transformer(norm_first, batch_first, bias, activation):
    def make(lib, layers):
        chosen = layers.functional.silu if activation == "callable" else activation
        return layers.Transformer(
            8, 2, 2, 2, 16, 0.0, chosen, layer_norm_eps=1e-3, batch_first=batch_first, norm_first=norm_first, bias=bias,
            dtype=lib.float64,
        )  # fmt: skip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, theirs = pair(make)
    arrays = [draw(5, 3, 8), draw(4, 3, 8)]
    if batch_first:
        arrays = [a.swapaxes(0, 1).copy() for a in arrays]

    def call(lib, module, src, tgt):
        def padding(lengths, steps):
            hidden = np.arange(steps) >= np.array(lengths)[:, None]
            return lib.tensor(np.where(hidden, -math.inf, 0.0))

        causal = module.generate_square_subsequent_mask(4, dtype=lib.float64)
        source, target = padding([5, 4, 3], 5), padding([4, 3, 4], 4)
        added = lib.tensor(draw(5, 5)), causal, lib.tensor(draw(4, 5))
        return module(src, tgt, *added, source, target, source, tgt_is_causal=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(mine, theirs, arrays, call)
        mine.eval(), theirs.eval()
        compare(mine, theirs, [a[0] if batch_first else a[:, 0] for a in arrays], lambda lib, m, s, t: m(s, t))


def test_stacks_are_copies_with_their_own_weights():
    for lib, layers in LIBRARIES:
        layer = layers.TransformerEncoderLayer(8, 2, 16, activation=layers.functional.gelu)
        stack = layers.TransformerEncoder(layer, 3, norm=layers.LayerNorm(8), enable_nested_tensor=False)
        assert len({id(p) for p in stack.parameters()}) == 3 * 12 + 2
        assert stack.layers[0].linear1.weight.tolist() == layer.linear1.weight.tolist()
        with pytest.raises((RuntimeError, ValueError)):
            layers.TransformerEncoderLayer(8, 2, activation="swish")
        model = layers.Transformer(8, 2, 1, 1, 16)
        with pytest.raises(RuntimeError):
            model(lib.ones(4, 3, 8), lib.ones(4, 2, 8))
        with pytest.raises(RuntimeError):
            model(lib.ones(4, 3, 8), lib.ones(4, 3, 7))
        custom = layers.Transformer(8, 2, custom_encoder=layers.Identity(), custom_decoder=layers.Identity())
        assert not list(custom.parameters())


# -- initialisers --------------------------------------------------------------------------------------------------
# The random bits are not PyTorch's; the distributions are.
@pytest.mark.parametrize("name, shape, arguments", [
    ("uniform_", (200, 300), {"a": -2, "b": 3}), ("normal_", (200, 300), {"mean": 1, "std": 0.3}),
    ("trunc_normal_", (200, 300), {"mean": 0.5, "std": 2.0, "a": -1.0, "b": 4.0}),
    ("trunc_normal_", (200, 300), {"mean": 0.0, "std": 1.0, "a": 2.5, "b": 4.0}),
    ("xavier_uniform_", (200, 30, 5, 3), {"gain": 2}), ("xavier_normal_", (200, 300), {"gain": 0.5}),
    ("kaiming_uniform_", (200, 30, 5, 3), {"a": 0.3, "mode": "fan_out"}),
    ("kaiming_normal_", (200, 30, 5, 3), {"nonlinearity": "relu"}), ("kaiming_normal_", (300, 200), {"a": 1.0}),
    ("kaiming_uniform_", (200, 100, 7), {"nonlinearity": "tanh"}), ("sparse_", (200, 300), {"sparsity": 0.3, "std": 2}),
])  # fmt: skip
def test_initialisers_draw_from_pytorchs_distributions(name, shape, arguments):
    samples = []
    for lib, layers in LIBRARIES:
        lib.manual_seed(1)
        tensor = lib.empty(*shape)
        assert getattr(layers.init, name)(tensor, **arguments) is tensor
        samples.append(np.sort(tensor.numpy().reshape(-1)))
    theirs, mine = samples
    spread = theirs.std()
    assert abs(mine.mean() - theirs.mean()) < 0.03 * spread and abs(mine.std() / spread - 1) < 0.02
    grid = np.linspace(0.01, 0.99, 60)
    np.testing.assert_allclose(np.quantile(mine, grid), np.quantile(theirs, grid), atol=0.06 * spread)
    if name == "sparse_":
        assert (mine == 0).sum() == (theirs == 0).sum()


@pytest.mark.parametrize("name, shape, arguments", [
    ("eye_", (4, 6), {}), ("dirac_", (6, 3, 3), {"groups": 2}), ("dirac_", (4, 5, 2, 3), {}), ("ones_", (3,), {}),
    ("dirac_", (4, 4, 3, 3, 3), {"groups": 4}), ("zeros_", (2, 3), {}), ("constant_", (2, 3), {"val": 0.3}),
])  # fmt: skip
def test_initialisers_without_chance(name, shape, arguments):
    theirs, mine = (getattr(layers.init, name)(lib.empty(*shape), **arguments) for lib, layers in LIBRARIES)
    assert mine.tolist() == theirs.tolist()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 2, 5)])
def test_orthogonal_initialiser(shape):
    w = nn.init.orthogonal_(flambeau.empty(*shape, dtype=flambeau.float64), gain=2.0).numpy().reshape(shape[0], -1)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


@pytest.mark.parametrize(
    "name", ["linear", "conv1d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
)
def test_gain(name):
    for parameter in (None, 0.2, 1) if name == "leaky_relu" else (None,):
        theirs, mine = (layers.init.calculate_gain(name, parameter) for _, layers in LIBRARIES)
        assert mine == theirs


@pytest.mark.parametrize("name, shape, arguments", [
    ("eye_", (2,), {}), ("dirac_", (2, 2), {}), ("dirac_", (3, 2, 2), {"groups": 2}), ("xavier_normal_", (3,), {}),
    ("kaiming_uniform_", (3,), {}), ("orthogonal_", (3,), {}), ("sparse_", (3,), {"sparsity": 0.1}),
    ("kaiming_normal_", (2, 2), {"mode": "other"}), ("kaiming_normal_", (2, 2), {"nonlinearity": "nothing"}),
    ("kaiming_normal_", (2, 2), {"a": True}),
])  # fmt: skip
def test_initialisers_refuse_as_pytorch(name, shape, arguments):
    for lib, layers in LIBRARIES:
        with pytest.raises(ValueError):
            getattr(layers.init, name)(lib.empty(*shape), **arguments)
