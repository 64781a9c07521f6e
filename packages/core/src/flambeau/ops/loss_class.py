"""Losses of class indices: negative log-likelihood and cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import composite, op
from .activation import log_softmax
from .elementwise import exp, where
from .index import gather, index_select, scatter_add_zeros
from .logic import cast
from .loss_common import _reduce, _reduction
from .reduce import sum
from .shape import reshape, squeeze, unsqueeze


def _class_dim(input: Any) -> int:
    """Classes are dimension 1 of a batch (N, C, …) and dimension 0 of a single vector (C,)."""
    return 1 if input.ndim > 1 else 0


def _known(target: Any, classes: int, ignore_index: int) -> Any:
    """Where an array of class indices does not say `ignore_index`; IndexError for indices of no class."""
    keep = target != ignore_index
    if not target.size or (target.min() >= 0 and target.max() < classes):
        return keep
    if (((target < 0) | (target >= classes)) & keep).any():
        raise IndexError(f"a target is out of bounds: classes go from 0 to {classes - 1} (ignore_index {ignore_index})")
    return keep


def _check_target(input: Any, target: Any) -> None:
    dim = _class_dim(input)
    if target.ndim != max(input.ndim - 1, 0) or (dim and tuple(target.shape) != (input.shape[0], *input.shape[2:])):
        raise ValueError(
            f"expected class indices of shape {[*input.shape[:dim], *input.shape[dim + 1 :]]} for an input of shape "
            f"{list(input.shape)}, but got {list(target.shape)}"
        )
    dtype = getattr(target, "array", target).dtype
    if dtype.kind not in "iu":
        raise TypeError(f"class indices must be integers, not {dtype}; use .long()")


def _reference(x, target, ignore_index=-100, smoothing=0.0):
    dim = _class_dim(x)
    logp = np.moveaxis(x - np.log(np.exp(x).sum(dim, keepdims=True)), dim, -1)
    keep = target != ignore_index
    classes = np.arange(logp.shape[-1])
    wanted = (classes == target[..., None]) * (1 - smoothing) + smoothing / classes.size
    return -(wanted * logp).sum(-1) * keep, keep


@op(
    vjp=dict(
        input=lambda g, input, target, out2, out3, ignore_index, smoothing: _class_cross_entropy_vjp(
            g, input, target, out2, out3, ignore_index, smoothing
        )
    ),
    samples=lambda t: [
        (t(4, 3), t(4, low=0, high=3, dtype="int64"), 1), (t(3,), t(low=0, high=3, dtype="int64"), -100, 0.2),
        (t(2, 3, 4), t(2, 4, low=0, high=3, dtype="int64"), 2, 0.1),
    ],
    ref=lambda *args: _reference(*args)[0],
    method=False,
)  # fmt: skip
def class_cross_entropy(xp, input, target, ignore_index=-100, smoothing=0.0):
    """Cross-entropy of softmax(input) for class indices, without the softmax as a whole.

    Returns (loss of each target, whether it counts, that is, does not say `ignore_index`, the largest input over the
    classes, the logarithm of the sum of exp(input - largest)); the last two keep a class dimension of size 1.
    """
    dim = _class_dim(input)
    keep = _known(target, input.shape[dim], ignore_index)
    top = input.max(dim, keepdims=True)
    shifted = input - top
    log = xp.log(xp.exp(shifted).sum(dim, keepdims=True))
    known = xp.where(keep, target, 0)
    if input.ndim == 2:  # the usual case, where take_along_axis costs more than all the rest
        picked = shifted[xp.arange(len(input)), known][:, None]
    else:
        picked = xp.take_along_axis(shifted, xp.expand_dims(known, dim), dim)
    losses = log - picked
    if smoothing:
        losses = losses * (1 - smoothing) + (log - xp.mean(shifted, dim, keepdims=True)) * smoothing
    losses = xp.where(keep, losses.reshape(target.shape), 0).astype(input.dtype, copy=False)
    return losses, keep, top, log


def _class_cross_entropy_vjp(g, input, target, top, log, ignore_index, smoothing):
    """The logarithm has a cotangent in second order; that of `top`, a mere shift, is the same and counts once."""
    dx = None
    if g[0] is not None:
        dx = class_cross_entropy_grad(g[0], input, target, top, log, ignore_index, smoothing)
    if g[3] is not None:
        more = exp((input - top) - log) * g[3]
        dx = more if dx is None else dx + more
    return dx


@composite(
    samples=lambda t: [
        (t(4), t(4, 3), t(4, low=0, high=3, dtype="int64"), t(4, 1), t(4, 1), 1),
        (t(2, 4), t(2, 3, 4), t(2, 4, low=0, high=3, dtype="int64"), t(2, 1, 4), t(2, 1, 4), 2, 0.1),
    ],
    method=False,
)  # fmt: skip
def class_cross_entropy_grad(
    g: Any, input: Any, target: Any, top: Any, log: Any, ignore_index: int = -100, smoothing: float = 0.0
) -> Any:
    """The gradient of class_cross_entropy for the cotangent `g` of the losses."""
    dim = _class_dim(input)
    keep = target != ignore_index
    if isinstance(input, np.ndarray) and input.ndim == 2:  # in `backward()`: a small batch should not cost 15 op calls
        slopes = np.exp((input - top) - log)
        slopes -= smoothing / input.shape[1]
        slopes[np.arange(len(input)), np.where(keep, target, 0)] -= 1 - smoothing
        slopes *= np.where(keep, g, 0).astype(input.dtype, copy=False)[:, None]
        return np.where(keep[:, None], slopes, 0).astype(input.dtype, copy=False) if not keep.all() else slopes
    g = unsqueeze(where(keep, g, 0.0), dim)
    index = unsqueeze(where(keep, target, 0), dim)
    dx = g * (exp((input - top) - log) - smoothing / input.shape[dim])
    return dx - scatter_add_zeros(g * (1 - smoothing), tuple(input.shape), dim, index)


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """Minus the log-probability of the target class: input (N, C, …) or (C,), target (N, …) or () of class indices.

    With reduction "mean" the sum is divided by the summed class weights of the targets that count.
    """
    losses, weights, _ = _nll(input, target, weight, ignore_index)
    return _class_mean(losses, weights, _reduction(size_average, reduce, reduction))


def _class_mean(losses: Any, weights: Any, reduction: str) -> Any:
    if reduction != "mean":
        return _reduce(losses, reduction)
    array = getattr(weights, "array", None)
    if type(array) is np.ndarray and array.dtype == np.bool_:  # not while a function is traced: counts may then change
        count = int(np.count_nonzero(array))
        if count:
            return sum(losses) / count
    return sum(losses) / sum(weights)


def _nll(input: Any, target: Any, weight: Any, ignore_index: int) -> tuple:
    """(losses, weight of each target, whether each target counts)."""
    _check_target(input, target)
    dim = _class_dim(input)
    raw = getattr(target, "array", target)
    keep = _known(raw, input.shape[dim], ignore_index)
    keep = type(target)._wrap(keep) if hasattr(target, "array") else keep
    safe = target * keep
    picked = squeeze(gather(input, dim, unsqueeze(safe, dim)), dim)
    counts = weights = cast(keep, "like", input)
    if weight is not None:
        weights = weights * _weight_of(weight, safe, input.shape[dim])
    return -where(weights != 0, picked, 0.0) * weights, weights, counts


def _weight_of(weight: Any, target: Any, classes: int) -> Any:
    """The weight of each target's class."""
    if tuple(weight.shape) != (classes,):
        raise RuntimeError(
            f"weight must have one entry for each of the {classes} classes, but its shape is {list(weight.shape)}"
        )
    return reshape(index_select(weight, 0, reshape(target, (-1,))), tuple(target.shape))


def _fused(input: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float) -> tuple | None:
    """(losses, weight of each target, or whether it counts) in one op; None where it does not apply."""
    dtype = getattr(input, "array", input).dtype
    if dtype.kind != "f" or dtype.itemsize < 4 or not input.shape[_class_dim(input)]:
        return None  # 16-bit log-probabilities are rounded before they are picked, as in PyTorch
    if weight is not None and label_smoothing:
        return None
    _check_target(input, target)
    losses, counts, _, _ = class_cross_entropy(input, target, ignore_index, label_smoothing)
    if weight is None:
        return losses, counts
    safe = where(counts, target, 0)
    weights = cast(counts, "like", input) * _weight_of(weight, safe, input.shape[_class_dim(input)])
    return where(weights != 0, losses, 0.0) * weights, weights


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Cross-entropy of softmax(input), (N, C, …) or (C,); target: class indices (N, …) or probabilities like input."""
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0, but got {label_smoothing}")
    reduction = _reduction(size_average, reduce, reduction)
    indices = tuple(target.shape) != tuple(input.shape)
    fused = _fused(input, target, weight, ignore_index, label_smoothing) if indices and input.ndim else None
    if fused is not None:
        return _class_mean(*fused, reduction)
    dim = _class_dim(input)
    logp = log_softmax(input, dim)
    classes = input.shape[dim]

    def weighted() -> Any:
        return logp if weight is None else logp * reshape(weight, (-1,) + (1,) * (input.ndim - 1 - dim))

    if not indices:
        kind = getattr(target, "array", target).dtype
        if kind.kind not in "fV":
            raise RuntimeError(f"class probabilities must be floats, not {kind}; indices have one dimension less")
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / classes
        losses = -sum(weighted() * target, dim)
        if reduction == "mean":
            return sum(losses) / (losses.numel() if hasattr(losses, "numel") else losses.size)
        return _reduce(losses, reduction)
    losses, weights, counts = _nll(logp, target, weight, ignore_index)
    if label_smoothing:
        smooth = -sum(weighted(), dim) * counts
        losses = losses * (1 - label_smoothing) + smooth * (label_smoothing / classes)
    return _class_mean(losses, weights, reduction)
