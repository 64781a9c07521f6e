"""Every layer beside PyTorch's: same weights and inputs, same outputs, gradients, buffers, keys and repr."""

import copy
import zlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import flambeau
from flambeau import nn
from flambeau.nn import functional as F


def draw(name, *shape, low=-2.0, high=2.0):
    generator = np.random.default_rng(zlib.crc32(f"{name}{shape}".encode()))
    return generator.uniform(low, high, shape)


def same(ours, theirs, rtol=1e-9, atol=1e-10):
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b, rtol, atol)
    elif theirs is None:
        assert ours is None
    else:
        assert tuple(ours.shape) == tuple(theirs.shape)
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=atol)


def load_theirs(ours, theirs):
    """Give our module the other's weights; the keys must be the same."""
    state = {key: value.detach().numpy() for key, value in theirs.state_dict().items()}
    assert str(ours.load_state_dict(state)) == "<All keys matched successfully>"
    assert list(ours.state_dict()) == list(theirs.state_dict())


def total(output):
    """A scalar that depends on every output in its own way."""
    parts = output if isinstance(output, tuple | list) else [output]
    flat = [part for item in parts if item is not None for part in (item if isinstance(item, tuple) else [item])]
    return sum((part * part).sum() + part.sum() * (i + 0.5) for i, part in enumerate(flat))


def compare(ours, theirs, arrays, rtol=1e-9, atol=1e-10, call=lambda module, *inputs: module(*inputs)):
    mine = [flambeau.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    other = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    out_mine, out_other = call(ours, *mine), call(theirs, *other)
    same(out_mine, out_other, rtol, atol)
    scalar = total(out_other)
    if scalar.requires_grad:
        total(out_mine).backward()
        scalar.backward()
        for a, b in zip(mine, other, strict=True):
            same(a.grad, b.grad, rtol, atol)
        for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            same(a.grad, b.grad, rtol, atol), name
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        same(a, b, rtol, atol)


# (class, constructor arguments, keyword arguments, input shapes)
LAYERS = [
    ("Identity", (), {}, [(2, 3)]),
    ("Linear", (4, 3), {}, [(2, 4)]),
    ("Linear", (4, 3), {"bias": False}, [(2, 5, 4)]),
    ("Linear", (4, 3), {}, [(4,)]),
    ("Bilinear", (3, 4, 2), {}, [(5, 3), (5, 4)]),
    ("Bilinear", (3, 4, 2), {"bias": False}, [(2, 5, 3), (2, 5, 4)]),
    ("Conv1d", (4, 6, 3), {}, [(2, 4, 9)]),
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}, [(2, 4, 9)]),
    ("Conv1d", (4, 6, 4), {"padding": "same"}, [(2, 4, 9)]),
    ("Conv1d", (4, 6, 3), {"padding": 2, "padding_mode": "circular"}, [(4, 9)]),
    ("Conv2d", (3, 4, 3), {}, [(2, 3, 7, 6)]),
    ("Conv2d", (3, 4, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "bias": False}, [(2, 3, 7, 6)]),
    ("Conv2d", (4, 4, 3), {"groups": 4, "padding": 1, "stride": 2}, [(2, 4, 7, 6)]),
    ("Conv2d", (3, 4, (3, 2)), {"padding": "same", "dilation": 2}, [(2, 3, 7, 6)]),
    ("Conv2d", (3, 4, 3), {"padding": "valid"}, [(3, 7, 6)]),
    ("Conv2d", (3, 4, 3), {"padding": (1, 2), "padding_mode": "reflect"}, [(2, 3, 7, 6)]),
    ("Conv2d", (3, 4, 3), {"padding": 1, "padding_mode": "replicate", "stride": 2}, [(2, 3, 7, 6)]),
    ("Conv2d", (3, 4, (3, 4)), {"padding": "same", "padding_mode": "circular"}, [(2, 3, 7, 6)]),
    ("Conv3d", (2, 3, 2), {"stride": (1, 2, 1), "padding": 1}, [(2, 2, 4, 5, 3)]),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, [(2, 4, 5)]),
    ("ConvTranspose2d", (3, 4, 3), {}, [(2, 3, 5, 4)]),
    ("ConvTranspose2d", (4, 6, (3, 2)), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, [(2, 4, 5, 4)]),
    ("ConvTranspose2d", (3, 4, 3), {"dilation": 2, "bias": False}, [(3, 5, 4)]),
    ("ConvTranspose3d", (2, 3, 2), {"stride": 2}, [(1, 2, 3, 2, 3)]),
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, [(2, 3, 9)]),
    ("MaxPool2d", (2,), {}, [(2, 3, 7, 6)]),
    ("MaxPool2d", ((3, 2),), {"stride": (2, 1), "padding": (1, 0), "ceil_mode": True}, [(2, 3, 7, 6)]),
    ("MaxPool2d", (2,), {"dilation": 2, "stride": 1}, [(3, 7, 6)]),
    ("MaxPool3d", (2,), {}, [(1, 2, 4, 5, 6)]),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1}, [(2, 3, 9)]),
    ("AvgPool2d", (2,), {}, [(2, 3, 7, 6)]),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False, "ceil_mode": True}, [(2, 3, 7, 6)]),
    ("AvgPool2d", (3,), {"divisor_override": 5}, [(2, 3, 7, 6)]),
    ("AvgPool3d", (2,), {"stride": 1}, [(1, 2, 4, 3, 3)]),
    ("LPPool1d", (2, 3), {}, [(2, 3, 9)]),
    ("LPPool2d", (2, (3, 2)), {"stride": 2}, [(2, 3, 7, 6)]),
    ("AdaptiveAvgPool1d", (4,), {}, [(2, 3, 9)]),
    ("AdaptiveAvgPool2d", ((3, None),), {}, [(2, 3, 7, 6)]),
    ("AdaptiveAvgPool2d", (1,), {}, [(2, 3, 7, 6)]),
    ("AdaptiveAvgPool3d", ((2, 3, 1),), {}, [(1, 2, 4, 5, 3)]),
    ("AdaptiveMaxPool1d", (4,), {}, [(2, 3, 9)]),
    ("AdaptiveMaxPool2d", ((3, 4),), {}, [(2, 3, 7, 6)]),
    ("AdaptiveMaxPool3d", ((2, 3, 1),), {}, [(1, 2, 4, 5, 3)]),
    ("BatchNorm1d", (3,), {}, [(5, 3)]),
    ("BatchNorm1d", (3,), {"momentum": None}, [(5, 3, 4)]),
    ("BatchNorm2d", (3,), {}, [(4, 3, 5, 2)]),
    ("BatchNorm2d", (3,), {"affine": False, "eps": 1e-3}, [(4, 3, 5, 2)]),
    ("BatchNorm2d", (3,), {"track_running_stats": False, "bias": False}, [(4, 3, 5, 2)]),
    ("BatchNorm3d", (3,), {"momentum": 0.3}, [(2, 3, 2, 3, 2)]),
    ("InstanceNorm1d", (3,), {}, [(2, 3, 7)]),
    ("InstanceNorm1d", (3,), {}, [(3, 7)]),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, [(2, 3, 5, 4)]),
    ("InstanceNorm3d", (3,), {"affine": True}, [(2, 3, 3, 2, 2)]),
    ("LayerNorm", (5,), {}, [(2, 3, 5)]),
    ("LayerNorm", ([3, 5],), {"eps": 1e-3}, [(2, 3, 5)]),
    ("LayerNorm", (5,), {"bias": False}, [(2, 3, 5)]),
    ("LayerNorm", (5,), {"elementwise_affine": False}, [(2, 3, 5)]),
    ("RMSNorm", (5,), {}, [(2, 3, 5)]),
    ("RMSNorm", ((3, 5),), {"eps": 1e-2, "elementwise_affine": False}, [(2, 3, 5)]),
    ("GroupNorm", (2, 6), {}, [(2, 6, 4)]),
    ("GroupNorm", (3, 6), {"affine": False}, [(2, 6, 4, 3)]),
    ("LocalResponseNorm", (2,), {}, [(2, 5, 4, 3)]),
    ("LocalResponseNorm", (3,), {"alpha": 0.5, "k": 2.0}, [(2, 5, 4)]),
    ("Flatten", (), {}, [(2, 3, 4)]),
    ("Flatten", (0, 1), {}, [(2, 3, 4)]),
    ("Unflatten", (1, (2, 3)), {}, [(4, 6, 2)]),
    ("Unfold", ((2, 3),), {"padding": 1, "stride": 2}, [(2, 3, 5, 6)]),
    ("Unfold", (2,), {"dilation": 2}, [(3, 5, 6)]),
    ("Fold", ((4, 5), (2, 3)), {}, [(2, 12, 9)]),
    ("Fold", ((4, 5), 2), {"padding": 1, "stride": 2}, [(2, 8, 9)]),
    ("Upsample", (), {"scale_factor": 2}, [(2, 3, 4, 5)]),
    ("Upsample", (), {"size": (7, 3)}, [(2, 3, 4, 5)]),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, [(2, 3, 4, 5)]),
    ("Upsample", (), {"size": (7, 3), "mode": "bilinear", "align_corners": True}, [(2, 3, 4, 5)]),
    ("Upsample", (), {"scale_factor": 1.7, "mode": "linear"}, [(2, 3, 6)]),
    ("Upsample", (), {"scale_factor": (2, 1.5, 1), "mode": "trilinear"}, [(1, 2, 3, 4, 3)]),
    ("UpsamplingNearest2d", (), {"scale_factor": 3}, [(2, 3, 4, 5)]),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, [(2, 3, 4, 5)]),
    ("PixelShuffle", (2,), {}, [(2, 8, 3, 4)]),
    ("PixelUnshuffle", (2,), {}, [(2, 3, 4, 6)]),
    ("ChannelShuffle", (2,), {}, [(2, 6, 3, 4)]),
    ("ZeroPad1d", (2,), {}, [(2, 3, 4)]),
    ("ZeroPad2d", ((1, 0, 2, 1),), {}, [(2, 3, 4, 5)]),
    ("ZeroPad2d", ((1, -1, 2, 1),), {}, [(2, 3, 4, 5)]),
    ("ZeroPad3d", (1,), {}, [(1, 2, 3, 4, 2)]),
    ("ConstantPad1d", (2, 3.5), {}, [(2, 3, 4)]),
    ("ConstantPad2d", (2, 3.5), {}, [(2, 3, 4, 5)]),
    ("ConstantPad3d", (1, -1.0), {}, [(1, 2, 3, 4, 2)]),
    ("ReflectionPad1d", (2,), {}, [(2, 3, 4)]),
    ("ReflectionPad2d", ((1, 2, 2, 0),), {}, [(2, 3, 4, 5)]),
    ("ReflectionPad3d", (1,), {}, [(1, 2, 3, 4, 2)]),
    ("ReplicationPad1d", (2,), {}, [(3, 4)]),
    ("ReplicationPad2d", ((1, 2, 2, 0),), {}, [(2, 3, 4, 5)]),
    ("ReplicationPad3d", (1,), {}, [(1, 2, 3, 4, 2)]),
    ("CircularPad1d", (2,), {}, [(2, 3, 4)]),
    ("CircularPad2d", ((1, 2, 2, 0),), {}, [(2, 3, 4, 5)]),
    ("CircularPad3d", (1,), {}, [(1, 2, 3, 4, 2)]),
    ("ReLU", (), {}, [(3, 4)]),
    ("ReLU6", (), {}, [(30, 4)]),
    ("Hardtanh", (-0.5, 1.5), {}, [(3, 4)]),
    ("Sigmoid", (), {}, [(3, 4)]),
    ("Hardsigmoid", (), {}, [(3, 4)]),
    ("Tanh", (), {}, [(3, 4)]),
    ("SiLU", (), {}, [(3, 4)]),
    ("Mish", (), {}, [(3, 4)]),
    ("Hardswish", (), {}, [(3, 4)]),
    ("ELU", (), {"alpha": 0.7}, [(3, 4)]),
    ("CELU", (), {"alpha": 0.7}, [(3, 4)]),
    ("SELU", (), {}, [(3, 4)]),
    ("GLU", (), {}, [(3, 4)]),
    ("GLU", (1,), {}, [(3, 4, 2)]),
    ("GELU", (), {}, [(3, 4)]),
    ("GELU", (), {"approximate": "tanh"}, [(3, 4)]),
    ("Hardshrink", (), {}, [(3, 4)]),
    ("LeakyReLU", (), {}, [(3, 4)]),
    ("LeakyReLU", (0.2,), {}, [(3, 4)]),
    ("LogSigmoid", (), {}, [(3, 4)]),
    ("Softplus", (), {"beta": 2.0, "threshold": 2.0}, [(3, 4)]),
    ("Softshrink", (0.3,), {}, [(3, 4)]),
    ("PReLU", (), {}, [(3, 4)]),
    ("PReLU", (4, 0.1), {}, [(3, 4, 2)]),
    ("Softsign", (), {}, [(3, 4)]),
    ("Tanhshrink", (), {}, [(3, 4)]),
    ("Threshold", (0.1, 20.0), {}, [(3, 4)]),
    ("Softmin", (1,), {}, [(3, 4)]),
    ("Softmax", (-1,), {}, [(3, 4)]),
    ("Softmax2d", (), {}, [(2, 3, 4, 2)]),
    ("LogSoftmax", (1,), {}, [(3, 4, 2)]),
    ("Dropout", (0.0,), {}, [(3, 4)]),
    ("Dropout2d", (0.0,), {"inplace": True}, [(2, 3, 4, 4)]),
    ("CosineSimilarity", (1,), {}, [(3, 4), (3, 4)]),
    ("PairwiseDistance", (), {"p": 3.0, "keepdim": True}, [(3, 4), (3, 4)]),
    ("RNN", (4, 5), {}, [(6, 3, 4)]),
    ("RNN", (4, 5, 2, "relu"), {"bidirectional": True, "batch_first": True}, [(3, 6, 4)]),
    ("GRU", (4, 5), {}, [(6, 3, 4)]),
    ("GRU", (4, 5, 2), {"bidirectional": True, "bias": False}, [(6, 3, 4)]),
    ("LSTM", (4, 5), {}, [(6, 3, 4)]),
    ("LSTM", (4, 5, 2), {"bidirectional": True, "batch_first": True}, [(3, 6, 4)]),
    ("LSTM", (4, 5, 2), {"proj_size": 3, "bidirectional": True}, [(6, 3, 4)]),
    ("LSTM", (4, 5), {}, [(6, 4)]),
    ("RNNCell", (4, 5), {}, [(3, 4)]),
    ("RNNCell", (4, 5), {"nonlinearity": "relu", "bias": False}, [(3, 4), (3, 5)]),
    ("LSTMCell", (4, 5), {}, [(3, 4)]),
    ("GRUCell", (4, 5), {}, [(3, 4), (3, 5)]),
    ("GRUCell", (4, 5), {}, [(4,)]),
    ("MultiheadAttention", (8, 2), {}, [(5, 3, 8), (4, 3, 8), (4, 3, 8)]),
    ("MultiheadAttention", (8, 2), {"batch_first": True, "bias": False}, [(3, 5, 8), (3, 4, 8), (3, 4, 8)]),
    ("MultiheadAttention", (8, 4), {"kdim": 6, "vdim": 5}, [(5, 3, 8), (4, 3, 6), (4, 3, 5)]),
    ("MultiheadAttention", (8, 2), {"add_bias_kv": True, "add_zero_attn": True}, [(5, 3, 8), (4, 3, 8), (4, 3, 8)]),
    ("MultiheadAttention", (8, 2), {}, [(5, 8), (4, 8), (4, 8)]),
    ("TransformerEncoderLayer", (8, 2, 16, 0.0), {}, [(5, 3, 8)]),
    (
        "TransformerEncoderLayer",
        (8, 2, 16, 0.0, "gelu"),
        {"norm_first": True, "batch_first": True, "bias": False},
        [(3, 5, 8)],
    ),
    ("TransformerDecoderLayer", (8, 2, 16, 0.0), {}, [(5, 3, 8), (4, 3, 8)]),
    ("TransformerDecoderLayer", (8, 2, 16, 0.0), {"norm_first": True, "batch_first": True}, [(3, 5, 8), (3, 4, 8)]),
    ("Transformer", (8, 2, 2, 2, 16, 0.0), {"batch_first": True}, [(3, 5, 8), (3, 4, 8)]),
]
IDS = [f"{i}-{name}" for i, (name, *_) in enumerate(LAYERS)]


@pytest.mark.parametrize("case", LAYERS, ids=IDS)
def test_layer(case):
    name, args, kwargs, shapes = case
    ours, theirs = getattr(nn, name)(*args, **kwargs).double(), getattr(torch.nn, name)(*args, **kwargs).double()
    for key, value in theirs.state_dict().items():  # away from the ones and zeros of norms
        if value.is_floating_point():
            value.copy_(torch.tensor(draw(key, *value.shape, low=0.2, high=1.0)))
    load_theirs(ours, theirs)
    assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")
    arrays = [draw(f"{name}{i}", *shape) for i, shape in enumerate(shapes)]
    rtol = 1e-7 if name in ("Hardsigmoid", "CELU") else 1e-9  # PyTorch keeps their constants in float32
    compare(ours, theirs, arrays, rtol)
    ours.zero_grad(), theirs.zero_grad()
    compare(ours.eval(), theirs.eval(), arrays, rtol)


def test_every_layer_of_the_table_has_pytorchs_parameters():
    """Constructor arguments: same names, same order, same defaults."""
    import inspect

    special = {"Identity", "RNN", "LSTM", "GRU"}  # PyTorch declares *args
    for name in {name for name, *_ in LAYERS} - special:
        mine = inspect.signature(getattr(nn, name).__init__).parameters
        other = inspect.signature(getattr(torch.nn, name).__init__).parameters
        names = [n for n in other if n not in ("args", "kwargs", "min_value", "max_value")]
        assert list(mine) == names, name
        for n in names:
            default = other[n].default
            assert callable(default) or mine[n].default == default, (name, n)


def test_embedding():
    for padding_idx in (None, 2, -1):
        theirs = torch.nn.Embedding(6, 4, padding_idx=padding_idx).double()
        ours = nn.Embedding(6, 4, padding_idx=padding_idx).double()
        load_theirs(ours, theirs)
        assert repr(ours) == repr(theirs)
        compare(ours, theirs, [np.array([[1, 2, 5], [2, 2, 0]])])


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["bool", "float", "heads", "padding", "both", "extra"])
def test_attention_masks(kind, need_weights):
    extra = {"add_bias_kv": True, "add_zero_attn": True} if kind == "extra" else {}
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True, **extra).double()
    ours = nn.MultiheadAttention(8, 2, batch_first=True, **extra).double()
    load_theirs(ours, theirs)
    attend = np.triu(np.ones((5, 4), bool), 2)
    padding = np.array([[False] * 4, [False, False, False, True], [False, False, True, True]])
    float_padding = np.where(padding, -np.inf, 0.0)
    masks = {
        "bool": dict(attn_mask=attend),
        "float": dict(attn_mask=draw("mask", 5, 4)),
        "heads": dict(attn_mask=draw("mask", 6, 5, 4)),
        "padding": dict(key_padding_mask=padding),
        "both": dict(attn_mask=draw("mask", 5, 4), key_padding_mask=float_padding),
        "extra": dict(attn_mask=draw("mask", 5, 4), key_padding_mask=float_padding),
    }[kind]

    def call(module, query, key, value):
        library = flambeau if isinstance(module, nn.Module) else torch
        given = {name: library.tensor(mask) for name, mask in masks.items()}
        return module(query, key, value, need_weights=need_weights, average_attn_weights=False, **given)

    compare(ours, theirs, [draw("q", 3, 5, 8), draw("k", 3, 4, 8), draw("v", 3, 4, 8)], call=call)


def test_attention_of_a_tensor_with_itself():
    theirs = torch.nn.MultiheadAttention(8, 2).double()
    ours = nn.MultiheadAttention(8, 2).double()
    load_theirs(ours, theirs)
    compare(ours, theirs, [draw("x", 5, 3, 8)], call=lambda module, x: module(x, x, x))
    compare(ours, theirs, [draw("x", 5, 3, 8), draw("y", 4, 3, 8)], call=lambda module, x, y: module(x, y, y))


def test_transformer_encoder_and_decoder_with_masks():
    theirs = torch.nn.Transformer(8, 2, 2, 1, 16, 0.0).double()
    ours = nn.Transformer(8, 2, 2, 1, 16, 0.0).double()
    load_theirs(ours, theirs)
    padding = np.array([[False, False, False, True, True], [False] * 5])

    def call(module, src, tgt):
        library = flambeau if isinstance(module, nn.Module) else torch
        causal = module.generate_square_subsequent_mask(4, dtype=library.float64)
        pad = library.tensor(padding)
        return module(src, tgt, tgt_mask=causal, src_key_padding_mask=pad, memory_key_padding_mask=pad)

    compare(ours, theirs, [draw("src", 5, 2, 8), draw("tgt", 4, 2, 8)], call=call)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_recurrent_initial_state(name):
    theirs, ours = getattr(torch.nn, name)(4, 5, 2).double(), getattr(nn, name)(4, 5, 2).double()
    load_theirs(ours, theirs)
    state = [draw("h", 2, 3, 5), draw("c", 2, 3, 5)]

    def call(module, x, *state):
        return module(x, tuple(state) if name == "LSTM" else state[0])

    compare(ours, theirs, [draw("x", 6, 3, 4), *state[: 2 if name == "LSTM" else 1]], call=call)


def test_max_pool_indices():
    ours, theirs = nn.MaxPool2d(3, 2, 1, return_indices=True), torch.nn.MaxPool2d(3, 2, 1, return_indices=True)
    x = draw("x", 2, 3, 7, 6)
    same(ours(flambeau.tensor(x)), theirs(torch.tensor(x)))


def test_conv_transpose_output_size():
    theirs, ours = torch.nn.ConvTranspose2d(3, 4, 3, 2, 1).double(), nn.ConvTranspose2d(3, 4, 3, 2, 1).double()
    load_theirs(ours, theirs)
    compare(ours, theirs, [draw("x", 2, 3, 5, 4)], call=lambda m, x: m(x, output_size=(10, 7)))
    with pytest.raises(ValueError, match="9 to 10"):
        ours(flambeau.zeros(2, 3, 5, 4, dtype=flambeau.float64), output_size=(11, 7))


# -- losses ----------------------------------------------------------------------------------------------------------

X = draw("input", 4, 5)
Y = draw("target", 4, 5)
P = draw("probability", 4, 5, low=0.05, high=0.95)
Q = draw("target probability", 4, 5, low=0.05, high=0.95)
SIGN = np.where(Y > 0, 1.0, -1.0)
LABEL = np.array([1, 0, 4, 2])
IGNORED = np.array([1, -100, 4, 2])
WEIGHT = draw("weight", 5, low=0.2, high=2.0)
MAP = draw("map", 2, 5, 3, 4)
MAP_LABEL = np.array([i % 5 for i in range(24)]).reshape(2, 3, 4)
LOSSES = [
    ("L1Loss", {}, [X], [Y]),
    ("MSELoss", {}, [X], [Y]),
    ("SmoothL1Loss", {"beta": 0.7}, [X], [Y]),
    ("SmoothL1Loss", {"beta": 0.0}, [X], [Y]),
    ("HuberLoss", {"delta": 0.6}, [X], [Y]),
    ("BCELoss", {}, [P], [Q]),
    ("BCELoss", {"weight": WEIGHT}, [P], [Q]),
    ("BCEWithLogitsLoss", {}, [X], [Q]),
    ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT}, [X], [Q]),
    ("KLDivLoss", {}, [np.log(P)], [Q]),
    ("KLDivLoss", {"log_target": True}, [np.log(P)], [np.log(Q)]),
    ("PoissonNLLLoss", {}, [X], [3 * Q]),
    ("PoissonNLLLoss", {"log_input": False, "full": True}, [P], [3 * Q]),
    ("GaussianNLLLoss", {"full": True}, [X], [Y, P]),
    ("GaussianNLLLoss", {"eps": 0.3}, [X], [Y, P]),
    ("SoftMarginLoss", {}, [X], [SIGN]),
    ("HingeEmbeddingLoss", {"margin": 0.8}, [X], [SIGN]),
    ("MarginRankingLoss", {"margin": 0.3}, [X, Y], [SIGN]),
    ("CosineEmbeddingLoss", {"margin": 0.1}, [X, Y], [np.array([1.0, -1.0, 1.0, -1.0])]),
    ("TripletMarginLoss", {}, [X, Y, P], []),
    ("TripletMarginLoss", {"swap": True, "p": 1.0, "margin": 3.0}, [X, Y, P], []),
    ("TripletMarginWithDistanceLoss", {"margin": 3.0}, [X, Y, P], []),
    ("MultiLabelSoftMarginLoss", {"weight": WEIGHT}, [X], [(Y > 0).astype(float)]),
    ("MultiMarginLoss", {}, [X], [LABEL]),
    ("MultiMarginLoss", {"p": 2, "margin": 0.7, "weight": WEIGHT}, [X], [LABEL]),
    ("NLLLoss", {}, [X], [LABEL]),
    ("NLLLoss", {"weight": WEIGHT}, [X], [IGNORED]),
    ("NLLLoss", {"ignore_index": 2}, [MAP], [MAP_LABEL]),
    ("CrossEntropyLoss", {}, [X], [LABEL]),
    ("CrossEntropyLoss", {}, [X[0]], [np.array(3)]),
    ("CrossEntropyLoss", {"weight": WEIGHT}, [X], [IGNORED]),
    ("CrossEntropyLoss", {"label_smoothing": 0.2}, [X], [IGNORED]),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "weight": WEIGHT}, [MAP], [MAP_LABEL]),
    ("CrossEntropyLoss", {"ignore_index": 1, "label_smoothing": 0.1}, [MAP], [MAP_LABEL]),
    ("CrossEntropyLoss", {}, [X], [Q / Q.sum(1, keepdims=True)]),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, [X], [Q / Q.sum(1, keepdims=True)]),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", LOSSES, ids=[f"{i}-{name}" for i, (name, *_) in enumerate(LOSSES)])
def test_loss(case, reduction):
    name, kwargs, inputs, targets = case
    mine, other = ({k: lib.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
                   for lib in (flambeau, torch))  # fmt: skip
    ours = getattr(nn, name)(**mine, reduction=reduction)
    theirs = getattr(torch.nn, name)(**other, reduction=reduction)
    assert repr(ours) == repr(theirs)

    def call(module, *inputs):
        library = flambeau if isinstance(module, nn.Module) else torch
        return module(*inputs, *[library.tensor(t) for t in targets])

    compare(ours, theirs, inputs, call=call)


def test_losses_at_their_edges():
    """Saturated probabilities, large logits, empty distributions: finite values and PyTorch's gradients."""
    probability, target = np.array([0.0, 1.0, 0.0, 1.0, 0.3]), np.array([0.0, 0.0, 1.0, 1.0, 0.0])
    compare(nn.BCELoss(), torch.nn.BCELoss(), [probability], rtol=1e-8, call=lambda m, x: m(x, _like(x, target)))
    logits = np.array([-1e4, 1e4, -800.0, 800.0, 0.0])
    bce = nn.BCEWithLogitsLoss(), torch.nn.BCEWithLogitsLoss()
    compare(*bce, [logits], call=lambda m, x: m(x, _like(x, target)))
    kl = nn.KLDivLoss(reduction="sum"), torch.nn.KLDivLoss(reduction="sum")
    compare(*kl, [np.log(P)], call=lambda m, x: m(x, _like(x, np.where(Q > 0.5, Q, 0.0))))
    ce = nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()
    compare(*ce, [X * 1e4], call=lambda m, x: m(x, _like(x, LABEL)))


def test_losses_with_weights_per_element_and_small_variances():
    for name in ("mse_loss", "l1_loss", "huber_loss"):
        for reduction in ("mean", "sum", "none"):
            compare_function(name, [X, Y], weight=P, reduction=reduction)
    compare_function("gaussian_nll_loss", [X, Y, P], eps=0.4)
    compare_function("cosine_embedding_loss", [X * np.array([[1e-4], [1], [1], [1e-4]]), Y], extra=[SIGN[:, 0]])
    compare_function("hinge_embedding_loss", [X], extra=[np.round(Y)])


def compare_function(name, inputs, extra=(), **kwargs):
    results = []
    for library in (flambeau, torch):
        tensors = [library.tensor(a, requires_grad=True) for a in inputs]
        given = {k: library.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
        function = getattr(library.nn.functional, name)
        output = function(*tensors, *[library.tensor(a) for a in extra], **given)
        total(output).backward()
        results.append([output, *[t.grad for t in tensors]])
    same(*results)


def _like(tensor, values):
    return (flambeau if isinstance(tensor, flambeau.Tensor) else torch).tensor(values)


FUNCTIONS = [
    ("gumbel_softmax", None),
    ("pixel_shuffle", lambda f, x: f(x, 2)),
    ("normalize", lambda f, x: f(x, dim=1)),
    ("normalize", lambda f, x: f(x, p=1.0, dim=-1)),
    ("rrelu", lambda f, x: f(x)),
    ("alpha_dropout", lambda f, x: f(x, 0.3, training=False)),
    ("softmax", lambda f, x: f(x, dim=1)),
    ("logsigmoid", lambda f, x: f(x)),
]


@pytest.mark.parametrize("case", [c for c in FUNCTIONS if c[1]], ids=lambda c: c[0])
def test_function(case):
    name, call = case
    x = draw(name, 2, 4, 3, 3)
    mine, other = flambeau.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    a, b = call(getattr(F, name), mine), call(getattr(torch.nn.functional, name), other)
    same(a, b)
    total(a).backward(), total(b).backward()
    same(mine.grad, other.grad)


# -- utils -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf")])
def test_clip_grad_norm(norm_type):
    theirs, ours = torch.nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    load_theirs(ours, theirs)
    x = draw("x", 5, 4)
    total(ours(flambeau.tensor(x))).backward()
    total(theirs(torch.tensor(x))).backward()
    for limit in (1e6, 0.5):
        mine = nn.utils.clip_grad_norm_(ours.parameters(), limit, norm_type)
        other = torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit, norm_type)
        same(mine, other)
        same([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()])
    nn.utils.clip_grad_value_(ours.parameters(), 0.01)
    torch.nn.utils.clip_grad_value_(theirs.parameters(), 0.01)
    same([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()])


def test_parameters_to_vector():
    theirs, ours = torch.nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    load_theirs(ours, theirs)
    vector = nn.utils.parameters_to_vector(ours.parameters())
    same(vector, torch.nn.utils.parameters_to_vector(theirs.parameters()))
    nn.utils.vector_to_parameters(vector * 2, ours.parameters())
    same(ours.weight, theirs.weight * 2)


@pytest.mark.parametrize("bias", [True, False])
def test_fuse_conv_bn(bias):
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=bias), torch.nn.BatchNorm2d(4)).double()
    ours = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4)).double()
    load_theirs(ours, theirs)
    x = draw("x", 6, 3, 5, 5)
    ours(flambeau.tensor(x)), theirs(torch.tensor(x))
    fused = nn.utils.fuse_conv_bn_eval(ours[0].eval(), ours[1].eval())
    same(fused(flambeau.tensor(x)), theirs.eval()(torch.tensor(x)))
    other = torch.nn.utils.fuse_conv_bn_eval(copy.deepcopy(theirs[0]), theirs[1])
    same(list(fused.state_dict().values()), list(other.state_dict().values()))


# -- initialisers: the same distributions, not the same draws --------------------------------------------------------

INITS = [
    ("uniform_", (-0.5, 2.0)),
    ("normal_", (1.0, 0.3)),
    ("trunc_normal_", (0.5, 1.0, -1.0, 1.0)),
    ("trunc_normal_", (0.0, 1.0, 2.5, 3.5)),
    ("constant_", (0.3,)),
    ("ones_", ()),
    ("zeros_", ()),
    ("eye_", ()),
    ("xavier_uniform_", (1.5,)),
    ("xavier_normal_", ()),
    ("kaiming_uniform_", (5**0.5,)),
    ("kaiming_uniform_", (0, "fan_out", "relu")),
    ("kaiming_normal_", (0, "fan_out", "relu")),
    ("sparse_", (0.3, 0.1)),
]


@pytest.mark.parametrize("case", INITS, ids=lambda c: c[0])
def test_init_statistics(case):
    name, args = case
    ours = getattr(nn.init, name)(flambeau.empty(200, 100), *args).numpy()
    theirs = getattr(torch.nn.init, name)(torch.empty(200, 100), *args).numpy()
    spread = theirs.std() + 1e-12
    assert abs(ours.mean() - theirs.mean()) < 0.05 * spread
    np.testing.assert_allclose(ours.std(), theirs.std(), rtol=0.03)
    if "uniform" in name or "trunc" in name:
        np.testing.assert_allclose([ours.min(), ours.max()], [theirs.min(), theirs.max()], atol=0.05 + 0.1 * spread)
    quantiles = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(np.quantile(ours, quantiles), np.quantile(theirs, quantiles), atol=0.1 * spread + 1e-6)


@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (3, 2, 2)])
def test_init_orthogonal(shape):
    w = nn.init.orthogonal_(flambeau.empty(*shape), gain=2.0).numpy().reshape(shape[0], -1)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


@pytest.mark.parametrize("shape, groups", [((6, 3, 3), 1), ((6, 3, 3), 2), ((4, 4, 3, 4), 1), ((4, 2, 3, 3, 3), 2)])
def test_init_dirac(shape, groups):
    same(nn.init.dirac_(flambeau.empty(*shape), groups), torch.nn.init.dirac_(torch.empty(*shape), groups))


@pytest.mark.parametrize("name", ["linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gain(name):
    assert nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)


DEFAULTS = [
    ("Linear", (50, 400)),
    ("Conv2d", (20, 100, 5)),
    ("ConvTranspose2d", (20, 30, 5)),
    ("LSTM", (30, 50)),
    ("Embedding", (100, 50)),
    ("MultiheadAttention", (64, 4)),
    ("Bilinear", (20, 20, 40)),
    ("GRUCell", (30, 50)),
]


@pytest.mark.parametrize("name, args", DEFAULTS)
def test_default_initialisation(name, args):
    """The bounds and spread of each default, parameter by parameter."""
    torch.manual_seed(0)
    ours, theirs = getattr(nn, name)(*args), getattr(torch.nn, name)(*args)
    for (key, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        a, b = a.detach().numpy(), b.detach().numpy()
        if b.std() == 0:
            np.testing.assert_array_equal(a, b, key)
        else:
            np.testing.assert_allclose(a.std(), b.std(), rtol=0.2 if a.size < 2000 else 0.05, err_msg=key)
            if name != "Embedding":
                np.testing.assert_allclose(a.max(), b.max(), rtol=0.2, err_msg=key)
