"""Ops against PyTorch: its own operator sample inputs, forward and vector-Jacobian product in float64."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # PyTorch's sample inputs need it
from torch.testing._internal.common_methods_invocations import op_db

import flambeau as fb
import flambeau.nn.functional

sys.path.insert(0, str(Path(__file__).parent))
from samples import array, leaves, ours, walk

SAMPLES = 5
# What differs from PyTorch, with the reason. An entry that agrees again must be taken out: the test fails on it.
DIFFERS = {
    "special.bessel_j0": "PyTorch is off by 4e-7; SciPy and ours agree to 1e-14",
    "special.bessel_y1": "PyTorch is off by 9e-7; SciPy and ours agree to 1e-14",
}
# Entries that are left out, by how their name begins. docs/compatibility.md says the same to users.
PRIVATE, PROTOTYPE, RANDOM = "PyTorch's private operators", "a prototype in PyTorch", "another random generator"
PHASE = "vectors up to a phase, which LAPACK libraries choose differently; see test_linalg_peer"
LEFT_OUT = {
    "jiterator": "CUDA source compiled by PyTorch",
    **dict.fromkeys(("sparse", "to_sparse"), "sparse layouts"),
    **dict.fromkeys(("torch.", "_", "native_", "unsafe_", "max_pool2d_with_indices_backward"), PRIVATE),
    **dict.fromkeys(("masked.", "hash_tensor", "segment_reduce", "nn.functional.linear_cross_entropy"), PROTOTYPE),
    **dict.fromkeys(("nn.functional.grouped_mm", "nn.functional.scaled_"), PROTOTYPE),
    "chalf": "complex32",
    "nonzero_static": "for tracing compilers",
    "as_strided_scatter": "storage tricks",
    **dict.fromkeys(("linalg.ldl", "geqrf", "ormqr"), "rarely used decompositions"),
    **dict.fromkeys(("pca_lowrank", "svd_lowrank"), "random by design"),
    **dict.fromkeys(("empty", "new_empty"), "values are not defined"),
    **dict.fromkeys(
        (
            "rand", "normal", "bernoulli", "multinomial", "uniform", "exponential", "cauchy", "geometric", "log_normal",
            "nn.functional.dropout", "nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout",
            "nn.functional.rrelu", "nn.functional.fractional_max_pool", "nn.functional.scaled_dot_product_attention",
            "nn.functional.multi_head_attention_forward",
        ),
        RANDOM,  # the last four are held against PyTorch in test_nn_ops_peer and test_attention_peer, without draws
    ),
    **dict.fromkeys(("linalg.eig", "linalg.svd", "svd"), PHASE),
    "slice": "a slice object in Python, no function",
}  # fmt: skip
LEFT_OUT_VARIANTS = {
    "nn.functional.batch_norm.without_cudnn": "a switch for cuDNN",
    "as_strided.partial_views": "samples reach beyond the tensor into its storage",
}
COPY = "_copy"  # PyTorch's private forms of views that copy


def _ours(op):
    """Our function or method for an entry of the database, called as the entry calls PyTorch's."""
    for known in (_name(op), op.name):
        if known in CALLS:
            return CALLS[known]
    name, found = op.name, fb
    for part in name.split("."):
        found = getattr(found, part, None)
    if callable(found) and not isinstance(found, fb.dtype):
        return found
    found = getattr(fb.Tensor, name.rsplit(".", 1)[-1])
    return found if callable(found) else found.__get__


def _name(op):
    return op.name + (f".{op.variant_test_name}" if op.variant_test_name else "")


def _in_place(name):
    return lambda t, *args, **kwargs: getattr(t.clone(), name)(*args, **kwargs)


def _distance_of(function):
    """The samples pass PyTorch's functions: ours of the same name."""
    if isinstance(function, torch.nn.PairwiseDistance):
        return fb.nn.PairwiseDistance(function.norm, function.eps, function.keepdim)
    name = getattr(function, "__name__", "")
    return getattr(fb.nn.functional, name, function)


# Entries whose samples have their arguments in another order than the public function, or call a method.
CALLS = {
    "where": lambda input, condition, other: fb.where(condition, input, other),
    "einsum": lambda operands, equation: fb.einsum(equation, *operands),
    "nn.functional.embedding": lambda weight, indices, **kw: fb.nn.functional.embedding(indices, weight, **kw),
    "nn.functional.embedding_bag": lambda weight, indices, *rest, **kw: (
        fb.nn.functional.embedding_bag(indices, weight, *rest, **kw)
    ),
    "nn.functional.triplet_margin_with_distance_loss": lambda a, p, n, distance_function=None, **kw: (
        fb.nn.functional.triplet_margin_with_distance_loss(
            a, p, n, distance_function=_distance_of(distance_function), **kw
        )
    ),
    "linalg.pinv.singular": lambda a, b: fb.linalg.pinv(a @ b.mT),
    "linalg.lstsq.grad_oriented": lambda a, b, driver: fb.linalg.lstsq(a, b, driver=driver)[:2],
    "polygamma": lambda x, n: fb.polygamma(n, x),
    "special.polygamma": lambda x, n: fb.special.polygamma(n, x),
    "zero_": _in_place("zero_"), "resize_": lambda t, *a: t.detach().clone().resize_(*a),
    "__getitem__": lambda t, item: t[item],
}  # fmt: skip
# Methods that share their name with a dtype or a property.
CASTS = ["bfloat16", "bool", "byte", "cdouble", "cfloat", "char", "double", "float", "half", "int", "long", "short"]
CALLS |= {n: getattr(fb.Tensor, n) for n in (*CASTS, "to")}
CALLS |= {n: (lambda t, n=n: getattr(t, n)) for n in ("H", "T", "mH", "mT")}


def _entries():
    for op in op_db:
        out = op.name.endswith(COPY) or _name(op) in LEFT_OUT_VARIANTS
        if not out and not any(op.name.startswith(prefix) for prefix in LEFT_OUT):
            yield op


ENTRIES = list(_entries())


def _dtype_of(op):
    """float64, or what the entry takes: complex for view_as_real, integers for gcd."""
    wanted = (torch.float64, torch.complex128, torch.int64, torch.bool, torch.float32)
    return next(d for d in wanted if d in op.dtypes)


def _compare(op, sample):
    reference = leaves(op(sample.input, *sample.args, **sample.kwargs), torch.Tensor)
    arguments = walk([sample.input, list(sample.args), dict(sample.kwargs)], ours)
    first, rest, named = arguments
    named = {k: v for k, v in named.items() if k not in ("device", "layout", "pin_memory", "memory_format")}
    got = leaves(_ours(op)(first, *rest, **named), fb.Tensor)
    assert len(got) == len(reference)
    for have, want in zip(got, reference, strict=True):
        expected = array(want)
        have = have.float() if have.dtype is fb.bfloat16 else have
        assert have.array.shape == expected.shape and have.array.dtype == expected.dtype
        np.testing.assert_allclose(have.array, expected, rtol=1e-6, atol=1e-7)
    pairs = [(h, w) for h, w in zip(got, reference, strict=True) if w.requires_grad and not w.is_complex()]
    sources = [t for t in leaves([sample.input, sample.args, sample.kwargs], torch.Tensor) if t.requires_grad]
    if not pairs or not sources or not op.supports_autograd:
        return
    cotangents = [torch.randn(w.shape, dtype=w.dtype) for _, w in pairs]
    wanted = torch.autograd.grad([w for _, w in pairs], sources, cotangents, allow_unused=True)
    total = sum((h * ours(c)).sum() for (h, _), c in zip(pairs, cotangents, strict=True))
    total.backward()
    for want, leaf in zip(wanted, [t for t in leaves(arguments, fb.Tensor) if t.requires_grad], strict=True):
        have = np.zeros(leaf.array.shape) if leaf.grad is None else leaf.grad.array
        np.testing.assert_allclose(
            have, 0 if want is None else want.resolve_conj().numpy(force=True), rtol=1e-5, atol=1e-6
        )


GRADIENTS = (torch.float64, torch.complex128)


def test_count():
    assert len(ENTRIES) > 500


@pytest.mark.parametrize("op", ENTRIES, ids=_name)
def test_operator(op):
    torch.manual_seed(0)
    dtype = _dtype_of(op)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(op.sample_inputs("cpu", dtype, requires_grad=dtype in GRADIENTS and op.supports_autograd))
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
