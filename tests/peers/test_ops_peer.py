"""Ops against PyTorch: its own operator sample inputs, forward and vector-Jacobian product in float64."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # PyTorch's sample inputs need it
from torch.testing._internal.common_methods_invocations import op_db

import flambeau as fb
import flambeau.nn.functional

SAMPLES = 5
# What is not as PyTorch yet, with the reason. An entry that agrees again must be taken out: the test fails on it.
NO_EMPTY = "shapes with a dimension of size 0 are not handled yet"
DIFFERS = {
    "nn.functional.embedding": "the sample passes its arguments in another order than the public function",
    "nn.functional.triplet_margin_with_distance_loss": "the sample passes one of PyTorch's own functions",
    "where": "the sample calls the method's order of arguments",
    "einsum": "the sample passes the operands first",
    "nn.functional.silu.complex": "complex activations are not there yet",
    "nn.functional.batch_norm.without_cudnn": "a variant for cuDNN",
    "nn.functional.interpolate.area": "mode area is not there yet",
    "nn.functional.interpolate.bicubic": "mode bicubic is not there yet",
    "nn.functional.adaptive_max_pool1d": "return_indices is not there yet",
    "nn.functional.adaptive_max_pool2d": "return_indices is not there yet",
    "nn.functional.adaptive_max_pool3d": "return_indices is not there yet",
    "nn.functional.multi_margin_loss": "0-d inputs",
    "nn.functional.gaussian_nll_loss": "a variance without the last dimension",
    "nn.functional.group_norm": NO_EMPTY,
    "nn.functional.batch_norm": NO_EMPTY,
    "nn.functional.pixel_shuffle": NO_EMPTY,
    "nn.functional.pixel_unshuffle": NO_EMPTY,
    "scatter": "second gradients of 0-d inputs",
    "div.floor_rounding": "floor division records no (zero) gradient",
    "norm.nuc": "the nuclear norm is not there yet",
    "repeat_interleave": "a tensor of counts is not there yet",
    "unique": "the argument dim is not there yet",
    "cumprod": "the gradient at zeros is not there yet",
}
SKIPPED = ("jiterator", "sparse", "_refs", "torch.", "masked.", "special.", "signal.", "fft.")


def _find(dotted):
    found = fb
    for part in dotted.split("."):
        found = getattr(found, part, None)
        if found is None:
            return None
    return found if callable(found) and not isinstance(found, fb.dtype) else None


def _entries():
    for op in op_db:
        if op.name.startswith(SKIPPED) or torch.float64 not in op.dtypes:
            continue
        if _find(op.name) is None or op.name in RANDOM or ("." in op.name and not op.name.startswith("nn.functional")):
            continue
        yield op


RANDOM = {
    "nn.functional.scaled_dot_product_attention",  # the samples draw dropout masks; see test_nn_peer
    "bernoulli", "multinomial", "normal", "rand_like", "randn_like", "randint", "randn", "empty", "empty_like",
    "nn.functional.dropout", "nn.functional.alpha_dropout", "nn.functional.dropout2d", "nn.functional.dropout3d",
    "nn.functional.feature_alpha_dropout", "nn.functional.rrelu", "nn.functional.feature_dropout",
}  # fmt: skip
ENTRIES = list(_entries())


def _convert(value):
    if isinstance(value, torch.Tensor):
        array = value.detach().resolve_conj().resolve_neg().numpy().copy()
        t = fb.tensor(array)
        return t.requires_grad_() if value.requires_grad else t
    if isinstance(value, torch.dtype):
        return getattr(fb, str(value).removeprefix("torch."))
    if isinstance(value, list | tuple):
        items = [_convert(v) for v in value]
        return items if isinstance(value, list) else tuple(items)
    return {k: _convert(v) for k, v in value.items()} if isinstance(value, dict) else value


def _tensors(value, kind, found):
    if isinstance(value, kind):
        found.append(value)
    elif isinstance(value, list | tuple):
        for v in value:
            _tensors(v, kind, found)
    elif isinstance(value, dict):
        _tensors(list(value.values()), kind, found)
    return found


def _compare(op, sample):
    reference = _tensors(op(sample.input, *sample.args, **sample.kwargs), torch.Tensor, [])
    arguments = _convert([sample.input, list(sample.args), dict(sample.kwargs)])
    first, rest, named = arguments
    named = {k: v for k, v in named.items() if k not in ("device", "layout", "pin_memory")}
    ours = _tensors(_find(op.name)(first, *rest, **named), fb.Tensor, [])
    assert len(ours) == len(reference)
    for have, want in zip(ours, reference, strict=True):
        array = want.detach().resolve_conj().resolve_neg().numpy()
        assert have.array.shape == array.shape and have.array.dtype == array.dtype
        np.testing.assert_allclose(have.array, array, rtol=1e-6, atol=1e-7)
    pairs = [(h, w) for h, w in zip(ours, reference, strict=True) if w.requires_grad and not w.is_complex()]
    leaves = [t for t in _tensors([sample.input, sample.args, sample.kwargs], torch.Tensor, []) if t.requires_grad]
    if not pairs or not leaves or not op.supports_autograd:
        return
    cotangents = [torch.randn(w.shape, dtype=w.dtype) for _, w in pairs]
    wanted = torch.autograd.grad([w for _, w in pairs], leaves, cotangents, allow_unused=True)
    total = sum((h * _convert(c)).sum() for (h, _), c in zip(pairs, cotangents, strict=True))
    total.backward()
    for want, leaf in zip(wanted, [t for t in _tensors(arguments, fb.Tensor, []) if t.requires_grad], strict=True):
        have = np.zeros(leaf.array.shape) if leaf.grad is None else leaf.grad.array
        np.testing.assert_allclose(have, 0 if want is None else want.numpy(), rtol=1e-5, atol=1e-6)


def _name(op):
    return op.name + (f".{op.variant_test_name}" if op.variant_test_name else "")


@pytest.mark.parametrize("op", ENTRIES, ids=_name)
def test_operator(op):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(op.sample_inputs("cpu", torch.float64, requires_grad=op.supports_autograd))
        samples = samples[:: -(-len(samples) // SAMPLES)]
        failures = []
        for sample in samples:
            try:
                _compare(op, sample)
            except Exception as error:
                failures.append(error)
    if _name(op) in DIFFERS:
        assert failures, f"{_name(op)} agrees with PyTorch now: take it out of DIFFERS"
        pytest.xfail(DIFFERS[_name(op)])
    if failures:
        raise failures[0]
