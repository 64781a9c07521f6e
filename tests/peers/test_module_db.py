"""PyTorch's own database of modules: each of its samples beside ours, same weights, same inputs.

For every sample: the keys of the state dict, the output, the gradients of inputs and parameters for a random
cotangent, and the buffers afterwards; in training and in evaluation mode, in float64, and for some in float32.
"""

import warnings
import zlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
module_db = pytest.importorskip("torch.testing._internal.common_modules").module_db

import flambeau
from flambeau import nn

# Where we differ, and why. Each entry is checked: it fails once it does not differ any more.
DIFFERS = {
    "LinearCrossEntropyLoss": "not there: PyTorch's newest fused loss; CrossEntropyLoss on a Linear gives the same",
}
RANDOM = ("FractionalMaxPool2d", "FractionalMaxPool3d")  # draw their regions unless given; compared with given ones
SINGLE = ("BatchNorm2d", "Conv2d", "ConvTranspose2d", "Linear", "LayerNorm", "LSTM", "GRU", "RNN", "CrossEntropyLoss")
SINGLE += ("MultiheadAttention", "TransformerEncoderLayer", "GroupNorm", "AvgPool2d", "MaxPool2d", "GELU", "Softmax")

INFOS = {info.name.removeprefix("nn."): info for info in module_db if not info.name.startswith("nn.Lazy")}
counts = {"modules": set(), "samples": 0, "gradients": 0}


def ours(value):
    """The same argument for us: tensors, dtypes, layers and functions of PyTorch by their names."""
    if isinstance(value, torch.Tensor):
        tensor = flambeau.tensor(value.detach().clone().numpy())
        return tensor.requires_grad_() if value.requires_grad else tensor
    if isinstance(value, torch.dtype):
        return getattr(flambeau, str(value).removeprefix("torch."))
    if isinstance(value, torch.nn.TransformerEncoderLayer):
        layer = nn.TransformerEncoderLayer(
            value.linear1.in_features,
            value.self_attn.num_heads,
            value.linear1.out_features,
            value.dropout.p,
            activation=value.activation.__name__,
            batch_first=value.self_attn.batch_first,
            norm_first=value.norm_first,
            bias=value.linear1.bias is not None,
        )
        return layer.to(ours(value.linear1.weight.dtype))
    if type(value) in (list, tuple):
        return type(value)(ours(v) for v in value)
    if isinstance(value, dict):
        return {k: ours(v) for k, v in value.items() if k != "device"}
    if callable(value):
        return getattr(nn.functional, value.__name__)
    return value


def fresh(value):
    """The same argument as leaves of a new graph."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if type(value) in (list, tuple):
        return type(value)(fresh(v) for v in value)
    return {k: fresh(v) for k, v in value.items()} if isinstance(value, dict) else value


def tensors(value, kind):
    """All tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, kind):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in tensors(v, kind)] if isinstance(value, list | tuple) else []


def same(a, b, tolerance, what):
    if b is None:
        assert a is None or not a.numpy().any(), f"{what}: a gradient where PyTorch has none"
        return
    assert a is not None, f"{what} is missing"
    a, b = a.detach().numpy(), b.detach().numpy()
    assert a.dtype == b.dtype, f"{what}: {a.dtype}, PyTorch {b.dtype}"
    assert a.shape == b.shape, f"{what}: {a.shape}, PyTorch {b.shape}"
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=what)


def check(name, sample, dtype, training, tolerance):
    """One sample, as the module's docstring says."""
    made, call = sample.constructor_input, sample.forward_input
    theirs = getattr(torch.nn, name)(*made.args, **{k: v for k, v in made.kwargs.items() if k != "device"})
    mine = getattr(nn, name)(*ours(made.args), **ours(made.kwargs))
    theirs.to(dtype).train(training)
    mine.to(ours(dtype)).train(training)
    state = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    assert list(mine.state_dict()) == list(state)
    assert str(mine.load_state_dict(state)) == "<All keys matched successfully>"

    args, kwargs = fresh(call.args), fresh(call.kwargs)
    my_args, my_kwargs = ours(args), ours(kwargs)
    expected = tensors(theirs(*args, **kwargs), torch.Tensor)
    actual = tensors(mine(*my_args, **my_kwargs), flambeau.Tensor)
    assert len(actual) == len(expected), f"{len(actual)} outputs, PyTorch {len(expected)}"
    for k, (a, b) in enumerate(zip(actual, expected, strict=True)):
        same(a, b, tolerance, f"output {k}")
    counts["modules"].add(name)
    counts["samples"] += 1

    wanted = [k for k, b in enumerate(expected) if b.requires_grad]
    if wanted:
        cotangents = [torch.randn_like(expected[k]) for k in wanted]
        torch.autograd.backward([expected[k] for k in wanted], cotangents)
        flambeau.autograd.backward([actual[k] for k in wanted], [ours(c) for c in cotangents])
        inputs = zip(tensors([my_args, my_kwargs], flambeau.Tensor), tensors([args, kwargs], torch.Tensor), strict=True)
        for k, (a, b) in enumerate(inputs):
            if b.requires_grad:
                same(a.grad, b.grad, 10 * tolerance, f"gradient of input {k}")
        for (key, a), (_, b) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
            same(a.grad, b.grad, 10 * tolerance, f"gradient of {key}")
        counts["gradients"] += 1
    for (key, a), (_, b) in zip(mine.named_buffers(), theirs.named_buffers(), strict=True):
        same(a, b, tolerance, f"buffer {key}")


def differences(name, dtype, training, tolerance):
    """What goes wrong with the samples of a module, one line each."""
    torch.manual_seed(zlib.crc32(name.encode()))
    np.random.seed(0)
    info = INFOS[name]
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = info.module_inputs_func(info, "cpu", dtype, True, training)
        for k, sample in enumerate(samples[:20] if name in DIFFERS else samples):
            if name in RANDOM and "_random_samples" not in sample.constructor_input.kwargs:
                continue
            try:
                check(name, sample, dtype, training, tolerance)
            except Exception as error:
                text = " ".join(str(error).split())
                found.append(f"sample {k} ({sample.desc or sample.constructor_input}): {type(error).__name__}: {text}")
    return found


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", [n for n in sorted(INFOS) if n not in DIFFERS])
def test_module(name, training):
    found = differences(name, torch.float64, training, 1e-7)
    assert not found, f"{len(found)} differ:\n" + "\n".join(line[:300] for line in found[:5])


@pytest.mark.parametrize("name", SINGLE)
def test_module_float32(name):
    found = differences(name, torch.float32, True, 2e-5)
    assert not found, f"{len(found)} differ:\n" + "\n".join(line[:300] for line in found[:5])


@pytest.mark.parametrize("name", sorted(DIFFERS))
def test_what_differs_really_differs(name):
    assert differences(name, torch.float64, True, 1e-7), f"{name} agrees now: take it out of DIFFERS"


def test_counts(record_property):
    record_property("modules", len(counts["modules"]))
    record_property("module_samples", counts["samples"])
    record_property("module_gradients", counts["gradients"])
    print(f"{len(counts['modules'])} modules, {counts['samples']} samples, {counts['gradients']} with gradients agree")
