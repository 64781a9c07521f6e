"""The functions of torch.nn.functional beside ours: PyTorch's own samples, and what those leave out."""

import functools
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import flambeau as fb
from flambeau.nn import functional as F

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")
database = pytest.importorskip("torch.testing._internal.common_methods_invocations").op_db
sys.path.insert(0, str(Path(__file__).parent))
from samples import array, leaves, ours, walk

P = torch.nn.functional

# Random ones have tests of their own below; so has what the database calls in a way that only PyTorch's runner can.
RANDOM = (
    "dropout", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "rrelu",
    "fractional_max_pool2d", "fractional_max_pool3d",
    "scaled_dot_product_attention", "multi_head_attention_forward", "triplet_margin_with_distance_loss",
)  # fmt: skip
ABSENT = ("linear_cross_entropy", "scaled_grouped_mm", "scaled_mm", "grouped_mm")
OTHERS = ("softmax", "log_softmax", "grid_sampler_2d", "grid_sampler_3d", "sigmoid")
NUMBER = {torch.float64: 1e-7, torch.complex128: 1e-7, torch.float32: 3e-5}


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)


def plain_name(op):
    return op.name.removeprefix("nn.functional.")


CASES = [
    pytest.param(
        op, dtype, id=f"{plain_name(op)}{op.variant_test_name and '.' + op.variant_test_name}-{str(dtype)[6:]}"
    )
    for op in database
    if (op.name.startswith("nn.functional.") or op.name in OTHERS) and plain_name(op) not in RANDOM + ABSENT
    for dtype in NUMBER
    if op.supports_dtype(dtype, "cpu")
]


def mine_of(value):
    return F.pairwise_distance if value is P.pairwise_distance else ours(value)


def close(got, want, tolerance):
    want = array(want)
    assert tuple(got.shape) == want.shape and got.array.dtype == want.dtype, (got.dtype, got.shape, want.shape)
    if want.dtype.kind in "fc":
        scale = float(np.abs(want[np.isfinite(want)]).max(initial=1))
        np.testing.assert_allclose(got.detach().numpy(), want, rtol=tolerance, atol=tolerance * scale)
    else:
        np.testing.assert_array_equal(got.numpy(), want)


def check(mine, theirs, args, kwargs, tolerance=1e-9):
    """Both functions on the same arguments: values, dtypes, shapes, and gradients for a random cotangent."""
    want = theirs(*args, **kwargs)
    my_args = walk([list(args), kwargs], mine_of)
    got = mine(*my_args[0], **my_args[1])
    wants, gots = leaves(want, torch.Tensor), leaves(got, fb.Tensor)
    assert len(wants) == len(gots)
    for g, w in zip(gots, wants, strict=True):
        close(g, w, tolerance)
    sources = [t for t in leaves([list(args), kwargs], torch.Tensor) if t.requires_grad]
    pairs = [(g, w) for g, w in zip(gots, wants, strict=True) if w.requires_grad]
    if not pairs or not sources:
        return
    cotangents = [torch.randn_like(w) for _, w in pairs]
    slopes = torch.autograd.grad([w for _, w in pairs], sources, cotangents, allow_unused=True)
    my_sources = [t for t in leaves(my_args, fb.Tensor) if t.requires_grad]
    have = fb.autograd.grad([g for g, _ in pairs], my_sources, [ours(c) for c in cotangents], allow_unused=True)
    for g, w in zip(have, slopes, strict=True):
        if w is not None and g is None:
            assert not w.any()
        elif w is not None:
            close(g, w, tolerance * 10)


def subject(op):
    if op.name == "nn.functional.embedding":  # the database has the table first
        return lambda weight, index, **settings: F.embedding(index, weight, **settings)
    if op.name == "nn.functional.embedding_bag":
        return lambda weight, index, **settings: F.embedding_bag(index, weight, **settings)
    found = fb.nn.functional if op.name.startswith("nn.") else fb
    return getattr(found, plain_name(op))


@pytest.mark.parametrize(("op", "dtype"), CASES)
def test_sample(op, dtype):
    if "without_cudnn" in op.variant_test_name:
        pytest.skip("a switch of PyTorch's GPU library")
    differentiable = op.supports_autograd and dtype in op.supported_backward_dtypes("cpu")
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=differentiable))
    samples = [s for s in samples if not s.kwargs.get("sparse")]
    assert samples
    for sample in samples[:: math.ceil(len(samples) / 5)]:
        theirs = functools.partial(op.op) if op.op is not None else op
        check(subject(op), theirs, [sample.input, *sample.args], dict(sample.kwargs), NUMBER[dtype])


def t(*shape, low=-1.0, high=1.0, dtype=torch.float64, grad=True):
    return (torch.rand(*shape, dtype=dtype) * (high - low) + low).requires_grad_(grad)


ATTENTION = [
    dict(),
    dict(is_causal=True),
    dict(attn_mask="bool"),
    dict(attn_mask="float"),
    dict(scale=0.3),
    dict(enable_gqa=True),
]


@pytest.mark.parametrize("settings", ATTENTION, ids=str)
@pytest.mark.parametrize("lead", [(2, 4), (3, 2, 4)], ids=str)
def test_attention(settings, lead):
    settings = dict(settings)
    gqa = settings.get("enable_gqa", False)
    if settings.get("attn_mask") == "bool":
        settings["attn_mask"] = torch.rand(5, 6) < 0.7
        settings["attn_mask"][2] = False  # a row that may look nowhere gives zeros
    elif settings.get("attn_mask") == "float":
        settings["attn_mask"] = t(4, 5, 6)
    inner = (*lead[:-1], 2) if gqa else lead
    check(
        F.scaled_dot_product_attention, P.scaled_dot_product_attention,
        [t(*lead, 5, 3), t(*inner, 6, 3), t(*inner, 6, 4)], settings, 1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    ("zero_infinity", "padded", "blank"), list(itertools.product([True, False], [True, False], [0, 3]))
)
def test_ctc(reduction, zero_infinity, padded, blank):
    log_probs = torch.randn(12, 5, 6, dtype=torch.float64).log_softmax(2).detach().requires_grad_()
    wide, long = torch.tensor([12, 3, 5, 12, 4]), torch.tensor([4, 3, 0, 2, 1])
    labels = torch.tensor([c for c in range(6) if c != blank])
    targets = labels[torch.randint(0, 5, (5, 4))]
    targets[1] = targets[1][0]  # three equal labels do not fit into three steps: an infinite loss
    if not padded:
        targets = torch.cat([row[:n] for row, n in zip(targets, long, strict=True)])
    check(F.ctc_loss, P.ctc_loss, [log_probs, targets, wide, long, blank, reduction, zero_infinity], {})


def test_ctc_of_logits_without_a_batch():
    """Gradients through log_softmax, in float32; lists as lengths; one sequence."""
    logits = t(9, 5, dtype=torch.float32, low=-3, high=3)
    target = torch.tensor([1, 1, 3])

    def loss(module, x):
        return module.ctc_loss(x.log_softmax(1), ours(target) if module is F else target, [9], [3])

    mine, theirs = fb.tensor(array(logits), requires_grad=True), logits
    loss(F, mine).backward()
    loss(P, theirs).backward()
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("indices", [False, True])
def test_fractional_pooling(rank, indices):
    shape, sizes = (2, 3, *(9, 7, 8)[:rank]), (4, 3, 5)[:rank]
    samples = torch.rand(2, 3, rank, dtype=torch.float64)
    names = f"fractional_max_pool{rank}d"
    settings = dict(return_indices=indices, _random_samples=samples)
    check(getattr(F, names), getattr(P, names), [t(*shape), 2], dict(output_size=sizes, **settings))
    check(getattr(F, names), getattr(P, names), [t(*shape), 3], dict(output_ratio=(0.5,) * rank, **settings))


@pytest.mark.parametrize("name", ["rrelu", "rrelu_"])
def test_rrelu_in_evaluation(name):
    x = t(3, 4) * 1.0
    check(lambda x: getattr(F, name)(x * 1.0), lambda x: getattr(P, name)(x * 1.0), [x.detach().requires_grad_()], {})


@pytest.mark.parametrize("swap", [False, True])
def test_triplets_with_a_distance_of_ones_own(swap):
    mine, theirs = (lambda a, b: (a - b).abs().sum(-1)), (lambda a, b: (a - b).abs().sum(-1))
    check(
        functools.partial(F.triplet_margin_with_distance_loss, distance_function=mine, swap=swap, margin=3.0),
        functools.partial(P.triplet_margin_with_distance_loss, distance_function=theirs, swap=swap, margin=3.0),
        [t(4, 5), t(4, 5), t(4, 5)], {},
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (2, 5, 3, 2), (5,)], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy(shape, reduction, smoothing):
    x, weight = t(*shape), t(5, low=0.0, grad=False)
    weight[1] = 0.0  # a class of weight 0 still takes part in smoothing
    classes = torch.randint(0, 5, (shape[0], *shape[2:]) if len(shape) > 1 else ())
    if len(shape) == 1:
        classes[...] = 3  # a single target that counts: the mean of none is 0 / 0
    probabilities = t(*shape, low=0.0)
    for target, w, ignored in ((classes, None, -100), (classes, weight, 2), (probabilities, weight, -100)):
        settings = dict(weight=w, ignore_index=ignored, reduction=reduction, label_smoothing=smoothing)
        check(F.cross_entropy, P.cross_entropy, [x, target], settings)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area", "bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_interpolate(mode, antialias):
    if antialias and mode not in ("bilinear", "bicubic"):
        pytest.skip("PyTorch has antialias for bilinear and bicubic only")
    for corners in (False, True) if mode.startswith("bi") else (None,):
        for size in (
            dict(size=(7, 4)), dict(size=(8, 11)), dict(scale_factor=(0.4, 2.3)),
            dict(scale_factor=1.7, recompute_scale_factor=True),
        ):  # fmt: skip
            settings = dict(mode=mode, antialias=antialias, align_corners=corners, **size)
            check(F.interpolate, P.interpolate, [t(2, 3, 8, 11)], settings, 1e-8)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("corners", [False, True])
def test_affine_grid(shape, corners):
    rank = len(shape) - 2
    check(F.affine_grid, P.affine_grid, [t(2, rank, rank + 1), list(shape)], dict(align_corners=corners))


def test_conv_tbc():
    check(F.conv_tbc, torch.conv_tbc, [t(7, 2, 3), t(3, 3, 4), t(4), 1], {})


@pytest.mark.parametrize("max_norm", [None, 0.7])
@pytest.mark.parametrize("by_frequency", [False, True])
def test_embedding(max_norm, by_frequency):
    index, weight = torch.tensor([[1, 2, 2], [4, 1, 0]]), t(5, 3)
    mine = fb.tensor(array(weight), requires_grad=True)
    settings = dict(padding_idx=-1, max_norm=max_norm, scale_grad_by_freq=by_frequency)
    with torch.no_grad():
        theirs = weight.clone()
    theirs.requires_grad_()
    out, want = F.embedding(ours(index), mine, **settings), P.embedding(index, theirs, **settings)
    close(out, want, 1e-12)
    cotangent = torch.randn_like(want)
    want.backward(cotangent), out.backward(ours(cotangent))
    close(mine.grad, theirs.grad, 1e-12)
    close(mine, theirs, 1e-12)  # max_norm shortens the rows of the table


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_with_padding(mode):
    settings = dict(mode=mode, padding_idx=2)
    index, offsets = torch.tensor([2, 1, 2, 3, 3, 0, 2]), torch.tensor([0, 1, 1, 4, 7])
    check(F.embedding_bag, P.embedding_bag, [index, t(5, 3), offsets], dict(settings, include_last_offset=True))
    check(F.embedding_bag, P.embedding_bag, [index.reshape(1, 7), t(5, 3)], settings)


HEADS = dict(bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("batched", [True, False])
def test_multi_head_attention(need_weights, extra, batched):
    lead = (2,) if batched else ()
    settings = dict(
        embed_dim_to_check=8, num_heads=2, in_proj_weight=t(24, 8), in_proj_bias=t(24), out_proj_weight=t(8, 8),
        out_proj_bias=t(8), need_weights=need_weights, average_attn_weights=extra, **HEADS,
    )  # fmt: skip
    if extra:
        settings |= dict(bias_k=t(1, 1, 8), bias_v=t(1, 1, 8), add_zero_attn=True)
        settings["attn_mask"] = torch.rand(5, 6) < 0.3
        padding = torch.zeros(*lead, 6, dtype=torch.bool)
        padding[..., -1] = True
        settings["key_padding_mask"] = padding
    inputs = [t(5, *lead, 8), t(6, *lead, 8), t(6, *lead, 8)]
    check(F.multi_head_attention_forward, P.multi_head_attention_forward, inputs, settings)


def test_multi_head_attention_with_separate_weights():
    settings = dict(
        embed_dim_to_check=8, num_heads=2, in_proj_weight=None, in_proj_bias=t(24), out_proj_weight=t(8, 8),
        out_proj_bias=t(8), use_separate_proj_weight=True, q_proj_weight=t(8, 8), k_proj_weight=t(8, 3),
        v_proj_weight=t(8, 5), attn_mask=t(4, 5, 6), **HEADS,
    )  # fmt: skip
    check(
        F.multi_head_attention_forward, P.multi_head_attention_forward, [t(5, 2, 8), t(6, 2, 3), t(6, 2, 5)], settings
    )


@pytest.mark.parametrize("name", ["relu_", "leaky_relu_", "elu_", "selu_", "celu_", "hardtanh_"])
def test_in_place(name):
    check(lambda x: getattr(F, name)(x * 1.0), lambda x: getattr(P, name)(x * 1.0), [t(3, 4)], {}, 1e-7)


def test_every_name_is_there():
    """All public functions of torch.nn.functional, but for those that have no meaning here."""
    helpers = {
        "assert_int_or_pair", "boolean_dispatch", "handle_torch_function", "has_torch_function", "Callable",
        "has_torch_function_unary", "has_torch_function_variadic", "linear_cross_entropy", "grouped_mm",
        "scaled_grouped_mm", "scaled_mm", "Tensor", "DType", "ScalingType", "SwizzleType", "Optional",
        "BroadcastingList1", "BroadcastingList2", "BroadcastingList3",
    }  # fmt: skip
    missing = [n for n in dir(P) if n[0] != "_" and callable(getattr(P, n)) and not hasattr(F, n) and n not in helpers]
    assert not missing


def test_signatures():
    """Same argument names, in the same order, with the same defaults, wherever PyTorch declares them in Python."""
    import inspect

    different = []
    for name in F.__all__:
        try:
            wanted = list(inspect.signature(getattr(P, name)).parameters.values())
        except (ValueError, TypeError):
            continue
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in wanted):
            continue
        wanted = [p for p in wanted if p.name != "out"]
        have = list(inspect.signature(getattr(F, name)).parameters.values())
        if [(p.name, p.default) for p in wanted] != [(p.name, p.default) for p in have]:
            different.append(name)
    assert not different


DISTANCE = [
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss", "soft_margin_loss",
    "hinge_embedding_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss",
]  # fmt: skip


@pytest.mark.parametrize("name", DISTANCE)
def test_legacy_reduction(name):
    """PyTorch's former flags, by position where its signature has them."""
    x, y = t(4, 3, low=0.1, high=0.9), t(4, 3, low=0.1, high=0.9, grad=False)
    if name == "huber_loss":
        pytest.skip("has never had them")
    check(getattr(F, name), getattr(P, name), [x, y], dict(size_average=False))
    check(getattr(F, name), getattr(P, name), [x, y], dict(reduce=False), 1e-7)
