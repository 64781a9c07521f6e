"""Functions of neural networks under PyTorch's names.

Most are ops, re-exported; the others are composed of ops here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import backends, ops, random
from ..autograd.modes import is_grad_enabled
from ..ops.activation import glu, hardshrink, logsigmoid, prelu, sigmoid, softplus, softshrink, softsign, tanhshrink
from ..ops.attention import scaled_dot_product_attention
from ..ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from ..ops.elementwise import tanh
from ..ops.index import one_hot
from ..ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    cosine_similarity,
    cross_entropy,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    nll_loss,
    pairwise_distance,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from ..ops.matmul import linear
from ..ops.norm import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from ..ops.pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from ..ops.reduce import normalize
from ..ops.resample import interpolate
from ..ops.shape import pad
from ..tensor import Tensor
from .functional_vision import (
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    channel_shuffle,
    fold,
    lp_pool1d,
    lp_pool2d,
    pixel_shuffle,
    pixel_unshuffle,
    unfold,
)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "feature_alpha_dropout",
    "fold",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "group_norm",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "lp_pool1d",
    "lp_pool2d",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rrelu",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "unfold",
]

# -- activations ---------------------------------------------------------------------------------------------------


def _assign(input: Tensor, output: Tensor, inplace: bool) -> Tensor:
    """``output``, or with ``inplace`` the tensor ``input`` itself with its values.

    Within a graph ``input`` takes over the memory of ``output``, so that values saved for the gradient stay whole.
    """
    if not inplace:
        return output
    if input.is_leaf and input.requires_grad and is_grad_enabled():
        raise RuntimeError("a leaf Tensor that requires grad can not be used in an in-place operation")
    if output.requires_grad:
        input.array, input._edge, input.requires_grad = output.array, output._edge, True
    else:
        input.array[...] = output.array
        input._bump_version()
    return input


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, input)"""
    return _assign(input, ops.relu(input), inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(0, input), 6)"""
    return _assign(input, ops.relu6(input), inplace)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input * sigmoid(input)"""
    return _assign(input, ops.silu(input), inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * tanh(softplus(input))"""
    return _assign(input, ops.mish(input), inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Scaled ELU (Klambauer et al. 2017)"""
    return _assign(input, ops.selu(input), inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where positive, alpha (exp(input) - 1) elsewhere"""
    return _assign(input, ops.elu(input, alpha), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(0, input) + min(0, alpha (exp(input / alpha) - 1))"""
    return _assign(input, ops.celu(input, alpha), inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """input where positive, negative_slope * input elsewhere"""
    return _assign(input, ops.leaky_relu(input, negative_slope), inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """input clamped to [min_val, max_val]"""
    return _assign(input, ops.hardtanh(input, min_val, max_val), inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(input + 3) / 6"""
    return _assign(input, ops.hardsigmoid(input), inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * relu6(input + 3) / 6 (Howard et al. 2019)"""
    return _assign(input, ops.hardswish(input), inplace)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """input where it is above ``threshold``, ``value`` elsewhere"""
    return _assign(input, ops.threshold(input, threshold, value), inplace)


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """Leaky ReLU with a slope drawn from [lower, upper] in training, their mean otherwise (Xu et al. 2015)"""
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    slopes = _like(input, random.default_generator().uniform(lower, upper, tuple(input.shape)))
    return _assign(input, ops.where(input > 0, input, input * slopes), inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input times the normal distribution function of it (Hendrycks & Gimpel 2016); "tanh" approximates it"""
    return ops.gelu(input, approximate)


def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """exp(input) / sum(exp(input)) along ``dim``"""
    return ops.softmax(input, _softmax_dim(input, dim), dtype)


def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """log(softmax(input)) along ``dim``"""
    return ops.log_softmax(input, _softmax_dim(input, dim), dtype)


def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """softmax(-input) along ``dim``"""
    return ops.softmax(-input, _softmax_dim(input, dim), dtype)


def _softmax_dim(input: Tensor, dim: int | None) -> int:
    """PyTorch's (deprecated) choice when no dim is given."""
    return (0 if input.ndim in (0, 1, 3) else 1) if dim is None else dim


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, dim: int = -1) -> Tensor:
    """A differentiable sample of a categorical distribution (Jang et al. 2017); ``hard`` gives one-hot values with the
    gradient of the soft ones"""
    draws = random.default_generator().uniform(0.0, 1.0, tuple(logits.shape))
    noise = -(_like(logits, draws).clamp(min=1e-20, max=1 - 1e-7).log().neg().log())
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    index = soft.detach().argmax(dim, keepdim=True)
    one = ops.zeros_like(soft.detach()).scatter(dim, index, ops.ones_like(index, dtype=soft.dtype))
    return one - soft.detach() + soft


# -- linear, embedding, normalisation ------------------------------------------------------------------------------


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """sum over i, j of input1[i] weight[k, i, j] input2[j] + bias[k] along the last dimensions"""
    outputs, width1, width2 = weight.shape
    pairs = (input1.unsqueeze(-1) * input2.unsqueeze(-2)).flatten(-2)
    return linear(pairs, weight.reshape(outputs, width1 * width2), bias)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of ``weight`` at the indices ``input``; the row ``padding_idx`` gets no gradient"""
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise NotImplementedError("embedding: max_norm, scale_grad_by_freq and sparse are not supported")
    return ops.embedding(input, weight, padding_idx)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """input / (k + alpha * mean of input^2 over ``size`` neighbouring channels) ** beta (Krizhevsky et al. 2012)"""
    squares = input * input
    flat = squares.reshape(input.shape[0], 1, input.shape[1], -1)
    padded = pad(flat, (0, 0, size // 2, (size - 1) // 2))
    mean = avg_pool2d(padded, (size, 1), 1).reshape(input.shape)
    return input / (mean * alpha + k) ** beta


# -- dropout -------------------------------------------------------------------------------------------------------


def _like(input: Tensor, values: Any) -> Tensor:
    """Host values as a tensor of the input's dtype on its device."""
    array = backends.of(input.array).from_host(values.astype(input.array.dtype, copy=False), input.device)
    return Tensor._wrap(array)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element zero with probability ``p``, the others times 1 / (1 - p)"""
    return _assign(input, ops.dropout(input, p, training), inplace) if training and p else input


def _channel_dropout(name: str, ndims: tuple[int, int]) -> Callable[..., Tensor]:
    def function(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if input.ndim not in ndims:
            raise RuntimeError(f"{name}: expected {ndims[0]}D or {ndims[1]}D input, but received a {input.ndim}D input")
        if not training or not p:
            return input
        batched = input.ndim == ndims[1]
        output = ops.feature_dropout(input if batched else input.unsqueeze(0), p)
        return _assign(input, output if batched else output.squeeze(0), inplace)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Whole channels of {ndims[1]}D (or without batch {ndims[0]}D) input zero with probability p."
    return function


dropout1d = _channel_dropout("dropout1d", (2, 3))
dropout2d = _channel_dropout("dropout2d", (3, 4))
dropout3d = _channel_dropout("dropout3d", (4, 5))


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout to SELU's negative saturation value, rescaled to keep mean and variance (Klambauer et al. 2017)"""
    return _alpha_dropout(input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """:func:`alpha_dropout` on whole channels"""
    return _alpha_dropout(input, p, training, inplace, tuple(input.shape[:2]) + (1,) * (input.ndim - 2))


def _alpha_dropout(input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or not p:
        return input
    if p == 1:
        return _assign(input, input * 0.0, inplace)
    saturation = -1.7580993408473766  # -scale * alpha of SELU
    keep = _like(input, random.default_generator().uniform(0.0, 1.0, shape) >= p)
    a = ((1 - p) * (1 + p * saturation**2)) ** -0.5
    shift = (1 - keep) * (a * saturation) - a * p * saturation
    return _assign(input, input * (keep * a) + shift, inplace)


# -- losses that are not ops ---------------------------------------------------------------------------------------


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction!r} is not a valid value for reduction: use 'none', 'mean' or 'sum'")
    return loss if reduction == "none" else getattr(loss, reduction)()


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """:func:`triplet_margin_loss` with any distance; ``swap`` uses the nearer of d(a, n) and d(p, n)"""
    distance = distance_function or pairwise_distance
    far = distance(anchor, negative)
    if swap:
        far = ops.minimum(far, distance(positive, negative))
    return _reduce((distance(anchor, positive) - far + margin).relu(), reduction)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """:func:`binary_cross_entropy_with_logits` averaged over the classes (the last dimension)"""
    loss = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    return _reduce((loss if weight is None else loss * weight).mean(-1), reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
) -> Tensor:
    """sum over j != target of max(0, margin - input[target] + input[j])^p / classes, times weight[target]"""
    violation = (margin - ops.gather(input, -1, target.unsqueeze(-1)) + input).relu()
    if p == 2:
        violation = violation * violation
    if weight is not None:
        violation = violation * weight[target].unsqueeze(-1)
    others = (1 - one_hot(target, input.shape[-1])).to(input.dtype)
    return _reduce((violation * others).mean(-1), reduction)
