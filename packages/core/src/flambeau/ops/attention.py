"""Scaled dot-product attention (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backends
from ..autograd.modes import mode
from ..random import default_generator
from ._counter import keeps
from ._op import composite, op
from .activation import softmax
from .elementwise import where
from .matmul import matmul
from .reduce import sum
from .shape import repeat_interleave, transpose, unsqueeze


def _allowed(xp: Any, mask: Any, is_causal: bool, shape: tuple) -> tuple:
    """(the mask, or the causal one; queries that may look nowhere, None if there are none): raw arrays."""
    if is_causal:
        mask = xp.tril(xp.ones(shape[-2:], bool))
    if mask is None:
        return None, None
    dead = ~mask.any(-1, keepdims=True) if mask.dtype == np.bool_ else (mask == -math.inf).all(-1, keepdims=True)
    return mask, dead if dead.any() else None


def _kept(xp: Any, shape: tuple, p: float, seed: int, like: Any) -> Any:
    """Factors of the weights under dropout: 0 with probability p, else 1 / (1 - p)."""
    rows = math.prod(shape[:-1])
    keep = keeps(xp, seed, rows, shape[-1], p).reshape(shape)
    return keep.astype(like) * np.dtype(like).type(1 / (1 - p))


def _weights(query: Any, key: Any, mask: Any, is_causal: bool, scale: float) -> Any:
    """softmax(query key^T * scale + mask), with ops."""
    scores = matmul(query * scale, transpose(key, -1, -2))
    raw = getattr(scores, "array", scores)
    xp = backends.of(raw).xp
    kind = (lambda a: type(scores)._wrap(a)) if hasattr(scores, "array") else (lambda a: a)
    chosen, dead = _allowed(xp, getattr(mask, "array", mask), is_causal, raw.shape)
    if chosen is None:
        return softmax(scores, -1)
    mask = kind(chosen) if is_causal or not hasattr(mask, "array") else mask
    scores = where(mask, scores, -math.inf) if chosen.dtype == np.bool_ else scores + mask
    if dead is None:
        return softmax(scores, -1)
    # A query that may look nowhere gets zeros, where softmax alone would give NaN.
    return where(kind(dead), 0.0, softmax(where(kind(dead), 0.0, scores), -1))


@op(
    vjp={
        ("query", "key", "value"): lambda g, out0, out1, query, key, value, mask, is_causal, scale, dropout_p, seed,
        need: attention_grad(
            *_cotangents(g, out0), query, key, value, out0, out1, mask, is_causal, scale, dropout_p, seed
        )
    },
    samples=lambda t: [
        (t(2, 3, 4), t(2, 5, 4), t(2, 5, 3), t(3, 5, dtype="bool"), False, 0.5),
        (t(2, 3, 4), t(2, 5, 4), t(2, 5, 3), t(2, 1, 5), False, 0.5),
        (t(1, 2, 4, 3), t(1, 2, 3, 3), t(1, 2, 3, 2), None, True, 0.7, 0.25, 7),
    ],
    promote="same",
    method=False,
)  # fmt: skip
def attention(xp, query, key, value, mask: Array = None, is_causal=False, scale=1.0, dropout_p=0.0, seed=0):  # noqa: F821
    """(softmax(query key^T * scale + mask) value, log of the sums of exp(scores), infinite where none is allowed).

    query (…, L, E), key (…, S, E), value (…, S, Ev). `mask`: bool (True where attention is allowed) or added. Weights
    are dropped with probability `dropout_p`, which ones follows from `seed`.
    """
    scores = xp.matmul(query * query.dtype.type(scale), xp.swapaxes(key, -1, -2))
    mask, dead = _allowed(xp, mask, is_causal, scores.shape)
    if mask is not None:
        scores = xp.where(mask, scores, -math.inf) if mask.dtype == np.bool_ else scores + mask.astype(scores.dtype)
    if dead is not None:
        scores = xp.where(dead, 0, scores)
    top = xp.max(scores, -1, keepdims=True)
    weights = xp.exp(scores - top)
    total = xp.sum(weights, -1, keepdims=True)
    weights /= total
    logs = top + xp.log(total)
    if dead is not None:
        weights, logs = xp.where(dead, 0, weights), xp.where(dead, math.inf, logs)
    if dropout_p:
        weights *= _kept(xp, weights.shape, dropout_p, seed, weights.dtype)
    return xp.matmul(weights, value), logs[..., 0]


def _cached_ref(query, keys, values, length):
    q = query.reshape(query.shape[0], keys.shape[1], keys.shape[3])
    scores = np.einsum("bhe,bhte->bht", q, keys[:, :, : int(length)]) / math.sqrt(q.shape[2])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bht,bhte->bhe", weights, values[:, :, : int(length)]).reshape(query.shape)


@op(
    samples=lambda t: [
        (t(2, 1, 6), t(2, 3, 4, 2), t(2, 3, 4, 2), 3),
        (t(1, 1, 4), t(1, 1, 5, 4), t(1, 1, 5, 4), 5),
    ],
    ref=_cached_ref,
    method=False,
)
def cached_attention(xp, query, keys, values, length):
    """Attention of one new token over the first `length` of those that buffers hold: (batch, 1, heads * width).

    query (batch, 1, heads * width), keys and values (batch, heads, capacity, width); `length` a number or an integer
    array without dimensions. Without gradients: it is for writing text.
    """
    batch, _, width = query.shape
    q, length = query.reshape(batch, keys.shape[1], keys.shape[3], 1), int(length)
    scores = xp.matmul(keys[:, :, :length], q * q.dtype.type(1 / math.sqrt(keys.shape[3])))
    scores -= scores.max(2, keepdims=True)
    scores = xp.exp(scores)
    scores /= scores.sum(2, keepdims=True)
    return xp.matmul(scores.swapaxes(2, 3), values[:, :, :length]).reshape(batch, 1, width)


def _cotangents(g: tuple, out: Any) -> tuple:
    return (out * 0 if g[0] is None else g[0]), g[1]


@composite(
    samples=lambda t: [
        (t(2, 3, 3), None, t(2, 3, 4), t(2, 5, 4), t(2, 5, 3), t(2, 3, 3), t(2, 3), None, True, 0.5),
        (t(2, 3, 3), t(2, 3), t(2, 3, 4), t(2, 5, 4), t(2, 5, 3), t(2, 3, 3), t(2, 3), None, False, 0.5, 0.25, 7),
    ],
    method=False,
)
def attention_grad(
    g, g_logs, query, key, value, out, logs, mask=None, is_causal=False, scale=1.0, dropout_p=0.0, seed=0
):
    """The gradients of `attention` for query, key and value.

    `out` and `logs`, its results, spare the kernel a pass; here they would only be in the way of second derivatives.
    """
    weights = _weights(query, key, mask, is_causal, scale)
    slopes = matmul(g, transpose(value, -1, -2))
    used = weights
    if dropout_p:
        raw = getattr(weights, "array", weights)
        factors = _kept(backends.of(raw).xp, raw.shape, dropout_p, seed, raw.dtype)
        factors = type(weights)._wrap(factors) if hasattr(weights, "array") else factors
        used, slopes = weights * factors, slopes * factors
    slopes = weights * (slopes - sum(slopes * weights, -1, True) + (0.0 if g_logs is None else unsqueeze(g_logs, -1)))
    return (
        matmul(slopes, key) * scale,
        matmul(transpose(slopes, -1, -2), query) * scale,
        matmul(transpose(used, -1, -2), g),
    )


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(query key^T * scale + mask) value.

    query (…, L, E), key (…, S, E), value (…, S, Ev) -> (…, L, Ev). A bool mask is True where attention is allowed;
    a float mask is added. `scale` is 1 / sqrt(E) when not given.
    """
    if enable_gqa:
        if query.shape[-3] % key.shape[-3] or query.shape[-3] % value.shape[-3]:
            raise RuntimeError(
                f"the {query.shape[-3]} heads of the query must be a multiple of those of key and value, "
                f"{key.shape[-3]} and {value.shape[-3]}"
            )
        factor = query.shape[-3] // key.shape[-3]
        key, value = repeat_interleave(key, factor, -3), repeat_interleave(value, factor, -3)
    if is_causal and attn_mask is not None:
        raise RuntimeError("attn_mask must not be given together with is_causal=True")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if _fused(query, key, value, attn_mask, dropout_p):
        seed = int(default_generator().integers(0, 2**63, ())) if dropout_p else 0
        return attention(query, key, value, attn_mask, is_causal, scale, dropout_p, seed)[0]
    weights = _weights(query, key, attn_mask, is_causal, scale)
    if dropout_p:
        from .random import dropout

        weights = dropout(weights, dropout_p, True)
    return matmul(weights, value)


def _fused(query: Any, key: Any, value: Any, mask: Any, dropout_p: float) -> bool:
    """Whether the op `attention` takes the case: no gradient of the mask, no vmap and no autocast (but a tracer)."""
    kind = getattr(query, "array", query).dtype
    plain = kind == np.float32 and query.shape[:-2] == key.shape[:-2] == value.shape[:-2] and query.ndim > 1
    return (
        (mode.intercept is None or getattr(mode.intercept, "takes_formulas", False))
        and plain
        and key.shape[-2] > 0
        and 0 <= dropout_p < 1
        and (mask is None or not getattr(mask, "requires_grad", False))
    )
