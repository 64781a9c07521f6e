"""Losses on margins, distances and angles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import backends
from ..tensor import raw_of
from .activation import logsigmoid, relu
from .elementwise import clamp, maximum, minimum, sqrt, where
from .index import gather, index_select
from .logic import cast
from .loss_common import _reduce, _reduction, _refuse_column
from .reduce import mean, norm, sum
from .shape import broadcast_tensors, reshape, unsqueeze


def hinge_embedding_loss(
    input: Any,
    target: Any,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """input where target is 1, max(0, margin - input) where it is -1."""
    _refuse_column("hinge_embedding_loss", input, target)
    loss = where(target != 1, clamp(margin - input, 0.0), 0.0) + where(target != -1, input, 0.0)
    return _reduce(loss, _reduction(size_average, reduce, reduction))


def margin_ranking_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """max(0, -target * (input1 - input2) + margin)."""
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            f"margin_ranking_loss: input1 {list(input1.shape)}, input2 {list(input2.shape)} and target "
            f"{list(target.shape)} must have the same number of dimensions"
        )
    loss = clamp(-target * (input1 - input2) + margin, 0.0)
    return _reduce(loss, _reduction(size_average, reduce, reduction))


def soft_margin_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """log(1 + exp(-target * input))."""
    _refuse_column("soft_margin_loss", input, target)
    return _reduce(-logsigmoid(target * input), _reduction(size_average, reduce, reduction))


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """The cosine of the angle between x1 and x2 along `dim`."""
    x1, x2 = broadcast_tensors(x1, x2)
    n1 = maximum(norm(x1, 2, dim, True), eps)
    n2 = maximum(norm(x2, 2, dim, True), eps)
    return sum((x1 / n1) * (x2 / n2), dim)


def cosine_embedding_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """1 - cos where target is 1, max(0, cos - margin) where it is -1; inputs (N, D) or (D,), target (N,) or ()."""
    if input1.ndim != input2.ndim or target.ndim != input1.ndim - 1:
        raise RuntimeError(
            f"cosine_embedding_loss: inputs {list(input1.shape)} and {list(input2.shape)} must be (N, D) or (D,), and "
            f"target {list(target.shape)} (N,) or ()"
        )
    tiny = 9.999999960041972e-13  # 1e-12 in float32, as in PyTorch
    squares = (sum(input1 * input1, -1) + tiny) * (sum(input2 * input2, -1) + tiny)
    cos = sum(input1 * input2, -1) / sqrt(squares)
    loss = where(target == 1, 1 - cos, where(target == -1, clamp(cos - margin, 0.0), 0.0))
    return _reduce(loss, _reduction(size_average, reduce, reduction))


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """The p-norm of x1 - x2 + eps over the last dimension."""
    return norm(x1 - x2 + eps, p, -1, keepdim)


def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) (Balntas et al. 2016)."""
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            f"triplet_margin_loss: anchor {list(anchor.shape)}, positive {list(positive.shape)} and negative "
            f"{list(negative.shape)} must have the same number of dimensions"
        )
    if margin <= 0:
        raise ValueError(f"triplet_margin_loss: margin must be greater than 0, but got {margin}")
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    loss = clamp(pairwise_distance(anchor, positive, p, eps) - far + margin, 0.0)
    return _reduce(loss, _reduction(size_average, reduce, reduction))


def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Callable[[Any, Any], Any] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """`triplet_margin_loss` with any distance; `swap` uses the nearer of d(a, n) and d(p, n)."""
    if margin <= 0:
        raise ValueError(f"triplet_margin_with_distance_loss: margin must be greater than 0, but got {margin}")
    distance = distance_function or pairwise_distance
    far = distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return _reduce(clamp(distance(anchor, positive) - far + margin, 0.0), reduction)


def multilabel_soft_margin_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """`binary_cross_entropy_with_logits` averaged over the classes (the last dimension)."""
    _refuse_column("multilabel_soft_margin_loss", input, target)
    loss = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    return _reduce(mean(loss if weight is None else loss * weight, -1), _reduction(size_average, reduce, reduction))


def _rows(name: str, input: Any, target: Any, target_ndim: int) -> tuple[Any, Any]:
    """The input as (N, C); the target as indices (N,) or (N, C), whose own form may lack the batch dimension."""
    if raw_of(target).dtype.kind not in "iu":
        raise RuntimeError(f"{name}: target must hold integers, not {raw_of(target).dtype}; use .long()")
    rows = reshape(input, (1, -1)) if input.ndim < 2 else input
    target = reshape(target, (1, -1)[2 - target_ndim :]) if input.ndim < 2 else target
    wanted = tuple(rows.shape[:target_ndim])
    if rows.ndim != 2 or tuple(target.shape) != wanted:
        raise RuntimeError(
            f"{name}: target must be {list(wanted)} for an input {list(input.shape)}, but it is {list(target.shape)}"
        )
    return rows, target


def multi_margin_loss(
    input: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """sum over j != target of max(0, margin - input[target] + input[j])^p / C, times weight[target].

    input (N, C) or (C,), target (N,) or ().
    """
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: only p == 1 and p == 2 are supported, but got {p}")
    rows, index = _rows("multi_margin_loss", input, target, 1)
    classes = rows.shape[1]
    raw = raw_of(index)
    if raw.size and (int(raw.min()) < 0 or int(raw.max()) >= classes):
        raise IndexError(f"multi_margin_loss: targets must be classes from 0 to {classes - 1}")
    violation = relu(margin - gather(rows, 1, unsqueeze(index, 1)) + rows)
    if p == 2:
        violation = violation * violation
    if weight is not None:
        violation = violation * unsqueeze(index_select(weight, 0, index), 1)
    others = backends.of(raw).xp.arange(classes) != raw[:, None]
    loss = mean(where(others, violation, 0.0), 1)
    loss = reshape(loss, ()) if target.ndim == 0 else loss
    return _reduce(loss, _reduction(size_average, reduce, reduction))


def multilabel_margin_loss(
    input: Any,
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """sum over target classes t and other classes j of max(0, 1 - input[t] + input[j]) / C.

    input (N, C) or (C,); target like input: the classes of each row, ended by the first -1.
    """
    rows, table = _rows("multilabel_margin_loss", input, target, 2)
    raw = raw_of(table)
    xp = backends.of(raw).xp
    classes = rows.shape[1]
    if raw.size and (int(raw.min()) < -1 or int(raw.max()) >= classes):
        raise RuntimeError(f"multilabel_margin_loss: targets must be classes from 0 to {classes - 1}, or -1")
    listed = xp.cumsum(raw < 0, 1) == 0
    index = xp.where(listed, raw, 0)
    others = ~(listed[:, :, None] & (index[:, :, None] == xp.arange(classes))).any(1)
    chosen = gather(rows, 1, type(table)._wrap(index) if raw is not table else index)
    violation = relu(1 - unsqueeze(chosen, 2) + unsqueeze(rows, 1))
    pairs = where(listed[:, :, None] & others[:, None, :], violation, 0.0)
    loss = sum(pairs, (1, 2)) / max(classes, 1)
    loss = reshape(loss, ()) if input.ndim < 2 else loss
    return _reduce(cast(loss, "like", input), _reduction(size_average, reduce, reduction))
