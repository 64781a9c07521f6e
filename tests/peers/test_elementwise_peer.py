"""Elementwise functions, special functions, Fourier transforms and windows against PyTorch's own samples."""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import flambeau as fb

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")
database = pytest.importorskip("torch.testing._internal.common_methods_invocations").op_db
sys.path.insert(0, str(Path(__file__).parent))
from samples import array, leaves, ours, walk

NAMES = set(
    [
        "__radd__",
        "__rand__",
        "__rdiv__",
        "__rmod__",
        "__rmul__",
        "__ror__",
        "__rpow__",
        "__rsub__",
        "__rxor__",
        "abs",
        "acos",
        "acosh",
        "add",
        "addcdiv",
        "addcmul",
        "angle",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "bitwise_and",
        "bitwise_left_shift",
        "bitwise_not",
        "bitwise_or",
        "bitwise_right_shift",
        "bitwise_xor",
        "ceil",
        "clamp",
        "clamp_max",
        "clamp_min",
        "complex",
        "conj",
        "conj_physical",
        "copysign",
        "cos",
        "cosh",
        "deg2rad",
        "digamma",
        "div",
        "eq",
        "erf",
        "erfc",
        "erfinv",
        "exp",
        "exp2",
        "expm1",
        "float_power",
        "floor",
        "floor_divide",
        "fmax",
        "fmin",
        "fmod",
        "frac",
        "frexp",
        "gcd",
        "ge",
        "gt",
        "heaviside",
        "hypot",
        "i0",
        "igamma",
        "igammac",
        "imag",
        "isclose",
        "isfinite",
        "isinf",
        "isnan",
        "isneginf",
        "isposinf",
        "isreal",
        "ldexp",
        "le",
        "lerp",
        "lgamma",
        "log",
        "log10",
        "log1p",
        "log2",
        "logaddexp",
        "logaddexp2",
        "logical_and",
        "logical_not",
        "logical_or",
        "logical_xor",
        "lt",
        "maximum",
        "minimum",
        "mul",
        "mvlgamma",
        "nan_to_num",
        "ne",
        "neg",
        "nextafter",
        "polar",
        "polygamma",
        "positive",
        "pow",
        "rad2deg",
        "real",
        "reciprocal",
        "remainder",
        "round",
        "rsqrt",
        "rsub",
        "sgn",
        "sign",
        "signbit",
        "sin",
        "sinc",
        "sinh",
        "sqrt",
        "square",
        "sub",
        "tan",
        "tanh",
        "true_divide",
        "trunc",
        "view_as_complex",
        "view_as_real",
        "where",
        "xlogy",
        "istft",
        "stft",
    ]
)
NUMBER = {torch.complex128: 1e-9, torch.float32: 2e-5, torch.int64: 2e-5, torch.bool: 2e-5}
CASES = [
    pytest.param(op, dtype, id=f"{op.name}{op.variant_test_name and '.' + op.variant_test_name}-{str(dtype)[6:]}")
    for op in database
    if op.name in NAMES or op.name.startswith(("special.", "fft.", "signal."))
    for dtype in NUMBER
    if op.supports_dtype(dtype, "cpu")
]


def subject(name):
    if name == "where":
        return lambda input, condition, other: fb.where(condition, input, other)
    if name.endswith("polygamma"):
        return lambda input, n: fb.polygamma(n, input)
    found = fb
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        found = getattr(fb.Tensor, name)
    return found if callable(found) else lambda t: getattr(t, name)


def compare(got, want, tolerance):
    want = array(want)
    assert got.array.shape == want.shape and got.array.dtype == want.dtype, (got.dtype, got.shape)
    scale = float(np.abs(want[np.isfinite(want)]).max(initial=1)) if want.dtype.kind in "fc" else 1
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=tolerance, atol=tolerance * min(scale, 1e3))


@pytest.mark.parametrize(("op", "dtype"), CASES)
def test_sample(op, dtype):
    differentiable = op.supports_autograd and dtype in (torch.complex128, torch.float32)
    if dtype is torch.complex128 and dtype not in op.supported_backward_dtypes("cpu"):
        differentiable = False
    torch.manual_seed(0)
    count = 48 if differentiable else 12  # making all of them takes longer than running four
    samples = list(itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=differentiable), count))
    assert samples
    for sample in samples[:: math.ceil(len(samples) / 4)]:
        call = [
            sample.input,
            list(sample.args),
            {k: v for k, v in sample.kwargs.items() if k not in ("device", "layout")},
        ]
        want = op(sample.input, *sample.args, **sample.kwargs)
        first, args, kwargs = mine = walk(call, ours)
        got = subject(op.name)(first, *args, **kwargs)
        wants, gots = leaves(want, torch.Tensor), leaves(got, fb.Tensor)
        assert len(wants) == len(gots)
        for g, w in zip(gots, wants, strict=True):
            compare(g, w, NUMBER[dtype])
        sources = [t for t in leaves(call, torch.Tensor) if t.requires_grad]
        pairs = [(g, w) for g, w in zip(gots, wants, strict=True) if w.requires_grad]
        if not pairs or not sources:
            continue
        cotangents = [torch.randn_like(w) for _, w in pairs]
        slopes = torch.autograd.grad([w for _, w in pairs], sources, cotangents, allow_unused=True)
        mine_sources = [t for t in leaves(mine, fb.Tensor) if t.requires_grad]
        have = fb.autograd.grad([g for g, _ in pairs], mine_sources, [ours(c) for c in cotangents], allow_unused=True)
        for g, w in zip(have, slopes, strict=True):
            if w is not None and g is None:
                assert not w.any()
            elif w is not None:
                compare(g, w, NUMBER[dtype] * 5)


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8", "float16", "bfloat16", "float64", "complex64"])
@pytest.mark.parametrize("name", ["sqrt", "exp", "abs", "sign", "sinc", "deg2rad", "lgamma", "add", "pow", "copysign"])
def test_result_dtype(name, dtype):
    """The dtype of results with tensors and Python scalars, where PyTorch takes the input at all."""
    t = torch.ones(3).to(getattr(torch, dtype))
    o = fb.ones(3).to(getattr(fb, dtype))
    for extra in [(2,), (0.5,), (torch.ones(2, 3, dtype=torch.int64),)] if name in ("add", "pow", "copysign") else [()]:
        try:
            want = getattr(torch, name)(t, *extra)
        except RuntimeError:
            continue
        got = getattr(fb, name)(o, *[ours(e) for e in extra])
        assert got.dtype.name == str(want.dtype)[6:]
        np.testing.assert_allclose(got.detach().to(fb.complex64).numpy(), want.to(torch.complex64).numpy(), rtol=1e-2)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("periodic", [True, False])
def test_top_level_windows(length, periodic):
    for name, extra in [("hann", ()), ("hamming", (0.6, 0.4)), ("blackman", ()), ("bartlett", ()), ("kaiser", (5.0,))]:
        want = getattr(torch, name + "_window")(length, periodic, *extra, dtype=torch.float64)
        got = getattr(fb, name + "_window")(length, periodic, *extra, dtype=fb.float64)
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6, atol=1e-7)
