"""Loss functions. `reduction` is "mean", "sum" or "none" everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import op
from .activation import log_softmax, logsigmoid
from .elementwise import abs, clamp, exp, log, maximum, sqrt, where
from .index import gather, index_select
from .logic import cast
from .reduce import mean, sum
from .shape import broadcast_tensors, reshape, squeeze, unsqueeze


def _reduce(loss: Any, reduction: str) -> Any:
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(f"{reduction!r} is not a reduction; use 'mean', 'sum' or 'none'")


def _same(name: str, input: Any, target: Any) -> tuple:
    """Broadcast only where nobody can be surprised: (n, 1) against (n,) would silently give (n, n)."""
    if tuple(input.shape) != tuple(target.shape):
        if input.ndim != target.ndim and input.ndim and target.ndim:
            raise ValueError(
                f"{name}: input has shape {list(input.shape)} but target {list(target.shape)}; "
                "make them equal, for example with .squeeze(-1) or .unsqueeze(-1)"
            )
        pair = broadcast_tensors(input, target)
        if input.ndim and tuple(pair[0].shape) != tuple(input.shape):
            raise ValueError(f"{name}: target of shape {list(target.shape)} does not fit input {list(input.shape)}")
        return pair
    return input, target


def _weighted(loss: Any, weight: Any, reduction: str) -> Any:
    """With a weight for each element the mean is the weighted one."""
    if weight is None:
        return _reduce(loss, reduction)
    return sum(loss * weight) / sum(weight) if reduction == "mean" else _reduce(loss * weight, reduction)


def mse_loss(input: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Any:
    """Squared error."""
    input, target = _same("mse_loss", input, target)
    d = input - target
    return _weighted(d * d, weight, reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Any:
    """Absolute error."""
    input, target = _same("l1_loss", input, target)
    return _weighted(abs(input - target), weight, reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Squared below `beta`, linear above (Girshick 2015)."""
    if beta == 0:
        return l1_loss(input, target, reduction)
    input, target = _same("smooth_l1_loss", input, target)
    d = abs(input - target)
    return _reduce(where(d < beta, d * d * (0.5 / beta), d - 0.5 * beta), reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
    """Squared below `delta`, linear above (Huber 1964)."""
    input, target = _same("huber_loss", input, target)
    d = abs(input - target)
    loss = where(d <= delta, d * d * 0.5, (d - 0.5 * delta) * delta)
    return _reduce(loss if weight is None else loss * weight, reduction)


@op(
    vjp=dict(
        input=lambda g, input, target: g * (input - target) / clamp(input * (1 - input), 1e-12),
        target=lambda g, input: g * (log(1 - input) - log(input)),
    ),
    samples=lambda t: [(t(3, 4, low=0.1, high=0.9), t(3, 4, low=0, high=1))],
    ref=lambda p, y: -(y * np.log(p) + (1 - y) * np.log(1 - p)), promote="arith", method=False,
)  # fmt: skip
def bce(xp, input, target):
    """-(target log(input) + (1 - target) log(1 - input)), logarithms of at least -100; finite gradients at 0 and 1."""
    with np.errstate(divide="ignore"):
        yes, no = xp.log(input), xp.log1p(-input)
    return (target - 1) * xp.maximum(no, -100) - target * xp.maximum(yes, -100)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Any:
    """Cross-entropy of probabilities; logarithms are limited to -100."""
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(
            f"binary_cross_entropy: input has shape {list(input.shape)} but target {list(target.shape)}; "
            "make them equal"
        )
    loss = bce(input, target)
    return _reduce(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """Cross-entropy of sigmoid(input), stable for large inputs."""
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(
            f"binary_cross_entropy_with_logits: input has shape {list(input.shape)} but target "
            f"{list(target.shape)}; make them equal"
        )
    positive = -logsigmoid(input)
    if pos_weight is None:
        loss = (1 - target) * input + positive
    else:
        loss = (1 - target) * input + (1 + (pos_weight - 1) * target) * positive
    return _reduce(loss if weight is None else loss * weight, reduction)


def nll_loss(input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """Minus the log-probability of the target class: input (N, C, …) or (C,), target (N, …) or () of class indices.

    With reduction "mean" the sum is divided by the summed class weights of the targets that count.
    """
    losses, weights = _nll(input, target, weight, ignore_index)
    if reduction == "none":
        return losses
    total = sum(losses)
    return total if reduction == "sum" else total / sum(weights) if reduction == "mean" else _reduce(losses, reduction)


def _nll(input: Any, target: Any, weight: Any, ignore_index: int) -> tuple:
    dim = 1 if input.ndim > 1 else 0
    if target.ndim != max(input.ndim - 1, 0) or (dim and tuple(target.shape) != (input.shape[0], *input.shape[2:])):
        raise ValueError(
            f"expected class indices of shape {[*input.shape[:dim], *input.shape[dim + 1 :]]} for an input of shape "
            f"{list(input.shape)}, but got {list(target.shape)}"
        )
    classes = input.shape[dim]
    raw = getattr(target, "array", target)
    if raw.dtype.kind not in "iu":
        raise TypeError(f"class indices must be integers, not {raw.dtype}; use .long()")
    keep = raw != ignore_index
    if raw.size and (((raw < 0) | (raw >= classes)) & keep).any():
        raise IndexError(f"a target is out of bounds: classes go from 0 to {classes - 1} (ignore_index {ignore_index})")
    keep = type(target)._wrap(keep) if hasattr(target, "array") else keep
    safe = target * keep
    picked = squeeze(gather(input, dim, unsqueeze(safe, dim)), dim)
    weights = cast(keep, "like", input)
    if weight is not None:
        weights = weights * reshape(index_select(weight, 0, reshape(safe, (-1,))), tuple(target.shape))
    return -where(weights != 0, picked, 0.0) * weights, weights


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Cross-entropy of softmax(input), (N, C, …) or (C,); target: class indices (N, …) or probabilities like input."""
    dim = 1 if input.ndim > 1 else 0
    logp = log_softmax(input, dim)
    classes = input.shape[dim]
    if tuple(target.shape) == tuple(input.shape) and getattr(target, "array", target).dtype.kind in "fV":
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / classes
        weighted = logp if weight is None else logp * reshape(weight, (-1,) + (1,) * (input.ndim - 1 - dim))
        losses = -sum(weighted * target, dim)
        if reduction == "mean":
            return sum(losses) / (losses.numel() if hasattr(losses, "numel") else losses.size)
        return _reduce(losses, reduction)
    losses, weights = _nll(logp, target, weight, ignore_index)
    if label_smoothing:
        weighted = logp if weight is None else logp * reshape(weight, (-1,) + (1,) * (input.ndim - 1 - dim))
        smooth = -sum(weighted, dim) * cast(weights != 0, "like", input)
        losses = losses * (1 - label_smoothing) + smooth * (label_smoothing / classes)
    if reduction == "none":
        return losses
    total = sum(losses)
    return total if reduction == "sum" else total / sum(weights) if reduction == "mean" else _reduce(losses, reduction)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """Kullback–Leibler divergence of log-probabilities `input` from `target`; also reduction "batchmean"."""
    if log_target:
        loss = exp(target) * (target - input)
    else:
        positive = target > 0
        loss = target * (where(positive, log(where(positive, target, 1.0)), 0.0) - input)
    return sum(loss) / input.shape[0] if reduction == "batchmean" else _reduce(loss, reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """Minus the log-likelihood of a normal distribution with mean `input` and variance `var`."""
    fixed = var.detach() if hasattr(var, "detach") else var
    bounded = var + maximum(eps - fixed, 0.0)  # the bound does not stop the gradient
    loss = (log(bounded) + (input - target) * (input - target) / bounded) * 0.5
    return _reduce(loss + 0.9189385332046727 if full else loss, reduction)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> Any:
    """Minus the log-likelihood of a Poisson distribution."""
    loss = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        safe = where(target > 1, target, 2.0)
        stirling = safe * log(safe) - safe + log(safe * 6.283185307179586) * 0.5
        loss = loss + where(target > 1, stirling, 0.0)
    return _reduce(loss, reduction)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    """input where target is 1, max(0, margin - input) where it is -1."""
    return _reduce(where(target != 1, clamp(margin - input, 0.0), 0.0) + where(target != -1, input, 0.0), reduction)


def margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Any:
    """max(0, -target * (input1 - input2) + margin)."""
    return _reduce(clamp(-target * (input1 - input2) + margin, 0.0), reduction)


def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """log(1 + exp(-target * input))."""
    return _reduce(-logsigmoid(target * input), reduction)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """The cosine of the angle between x1 and x2 along `dim`."""
    from .reduce import norm

    x1, x2 = broadcast_tensors(x1, x2)
    n1 = maximum(norm(x1, 2, dim, True), eps)
    n2 = maximum(norm(x2, 2, dim, True), eps)
    return sum((x1 / n1) * (x2 / n2), dim)


def cosine_embedding_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Any:
    """1 - cos where target is 1, max(0, cos - margin) where it is -1."""
    tiny = 9.999999960041972e-13  # 1e-12 in float32, as in PyTorch
    squares = (sum(input1 * input1, -1) + tiny) * (sum(input2 * input2, -1) + tiny)
    cos = sum(input1 * input2, -1) / sqrt(squares)
    return _reduce(where(target == 1, 1 - cos, clamp(cos - margin, 0.0)), reduction)


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """The p-norm of x1 - x2 + eps over the last dimension."""
    from .reduce import norm

    return norm(x1 - x2 + eps, p, -1, keepdim)


def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin)."""
    from .elementwise import minimum

    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduce(clamp(pairwise_distance(anchor, positive, p, eps) - far + margin, 0.0), reduction)
