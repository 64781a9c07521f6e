"""Loss functions. `reduction` is "mean", "sum" or "none"; `size_average` and `reduce` are its former spelling."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import op
from .activation import logsigmoid
from .elementwise import abs, clamp, exp, log, maximum, where
from .logic import cast
from .loss_class import class_cross_entropy, class_cross_entropy_grad, cross_entropy, nll_loss
from .loss_common import _reduce, _reduction, _refuse_column, _same, _shape_error, _weighted
from .loss_ctc import ctc, ctc_grad, ctc_loss
from .loss_margin import (
    cosine_embedding_loss,
    cosine_similarity,
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    pairwise_distance,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from .reduce import sum
from .shape import unsqueeze

# The parts of this family, gathered here for the namespace.
__all__ = [
    "bce", "binary_cross_entropy", "binary_cross_entropy_with_logits", "class_cross_entropy",
    "class_cross_entropy_grad", "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "ctc", "ctc_grad",
    "ctc_loss", "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "margin_ranking_loss",
    "mse_loss", "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "nll_loss",
    "pairwise_distance", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]  # fmt: skip


def mse_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """Squared error."""
    input, target = _same("mse_loss", input, target)
    d = input - target
    return _weighted(d * d, weight, _reduction(size_average, reduce, reduction))


def l1_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """Absolute error."""
    input, target = _same("l1_loss", input, target)
    return _weighted(abs(input - target), weight, _reduction(size_average, reduce, reduction))


def smooth_l1_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Any:
    """Squared below `beta`, linear above (Girshick 2015)."""
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta, but got {beta}")
    if beta == 0:
        return l1_loss(input, target, size_average, reduce, reduction)
    input, target = _same("smooth_l1_loss", input, target)
    d = abs(input - target)
    loss = where(d < beta, d * d * (0.5 / beta), d - 0.5 * beta)
    return _reduce(loss, _reduction(size_average, reduce, reduction))


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
    """Squared below `delta`, linear above (Huber 1964)."""
    if delta <= 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta, but got {delta}")
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


def binary_cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """Cross-entropy of probabilities; logarithms are limited to -100."""
    if tuple(input.shape) != tuple(target.shape):
        raise _shape_error("binary_cross_entropy", input, target)
    loss = bce(input, target)
    return _reduce(loss if weight is None else loss * weight, _reduction(size_average, reduce, reduction))


def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    """Cross-entropy of sigmoid(input), stable for large inputs."""
    if tuple(input.shape) != tuple(target.shape):
        raise _shape_error("binary_cross_entropy_with_logits", input, target)
    positive = -logsigmoid(input)
    if pos_weight is None:
        loss = (1 - target) * input + positive
    else:
        loss = (1 - target) * input + (1 + (pos_weight - 1) * target) * positive
    return _reduce(loss if weight is None else loss * weight, _reduction(size_average, reduce, reduction))


def kl_div(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    """Kullback-Leibler divergence of log-probabilities `input` from `target`; also reduction "batchmean"."""
    _refuse_column("kl_div", input, target)
    if log_target:
        loss = exp(target) * (target - input)
    else:
        given = target != 0
        loss = target * (where(given, log(where(given, target, 1.0)), 0.0) - input)
    reduction = _reduction(size_average, reduce, reduction)
    if reduction == "batchmean":
        return sum(loss) / input.shape[0] if input.ndim else sum(loss)
    return _reduce(loss, reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """Minus the log-likelihood of a normal distribution with mean `input` and variance `var`.

    var: a number, or a tensor like the input, or with one dimension of size 1, or without the last dimension.
    """
    _refuse_column("gaussian_nll_loss", input, target)
    if isinstance(var, int | float):
        var = cast(input * 0 + var, "like", input)
    fixed = getattr(var, "array", var)
    if (fixed < 0).any():
        raise ValueError("gaussian_nll_loss: var has negative entries; pass variances, not their logarithms")
    if tuple(var.shape) != tuple(input.shape):
        if tuple(var.shape) == tuple(input.shape[:-1]):
            var = unsqueeze(var, -1)
        elif input.ndim != var.ndim or [b for a, b in zip(input.shape, var.shape, strict=True) if a != b] != [1]:
            raise ValueError(f"gaussian_nll_loss: var {list(var.shape)} does not fit the input {list(input.shape)}")
    fixed = var.detach() if hasattr(var, "detach") else var
    bounded = var + maximum(eps - fixed, 0.0)  # the bound does not stop the gradient
    loss = (log(bounded) + (input - target) * (input - target) / bounded) * 0.5
    return _reduce(loss + 0.9189385332046727 if full else loss, reduction)


def poisson_nll_loss(
    input: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """Minus the log-likelihood of a Poisson distribution."""
    _refuse_column("poisson_nll_loss", input, target)
    loss = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        safe = where(target > 1, target, 2.0)
        stirling = safe * log(safe) - safe + log(safe * 6.283185307179586) * 0.5
        loss = loss + where(target > 1, stirling, 0.0)
    return _reduce(loss, _reduction(size_average, reduce, reduction))
