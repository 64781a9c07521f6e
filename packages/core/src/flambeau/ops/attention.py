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
    if attn_mask is not None:
        boolean = getattr(attn_mask, "array", attn_mask).dtype == np.bool_
        scores = where(attn_mask, scores, -math.inf) if boolean else scores + attn_mask
    weights = softmax(scores, -1)
    if dropout_p:
        from .random import dropout

        weights = dropout(weights, dropout_p, True)
    return matmul(weights, value)
