"""Scaled dot-product attention (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .activation import softmax
from .elementwise import where
from .matmul import matmul
from .shape import repeat_interleave, transpose


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
    scores = matmul(query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale), transpose(key, -1, -2))
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError("attn_mask must not be given together with is_causal=True")
        from .. import backends

        raw = getattr(scores, "array", scores)
        attn_mask = backends.of(raw).xp.tril(backends.of(raw).xp.ones(raw.shape[-2:], bool))
        attn_mask = type(scores)._wrap(attn_mask) if hasattr(scores, "array") else attn_mask
    dead = None
    if attn_mask is not None:
        raw = getattr(attn_mask, "array", attn_mask)
        boolean = raw.dtype == np.bool_
        # A query that may look nowhere gets zeros, where softmax alone would give NaN.
        dead = ~raw.any(-1, keepdims=True) if boolean else (raw == -math.inf).all(-1, keepdims=True)
        scores = where(attn_mask, scores, -math.inf) if boolean else scores + attn_mask
        scores = where(dead, 0.0, scores) if dead.any() else scores
    weights = softmax(scores, -1)
    if dead is not None and dead.any():
        weights = where(dead, 0.0, weights)
    if dropout_p:
        from .random import dropout

        weights = dropout(weights, dropout_p, True)
    return matmul(weights, value)
