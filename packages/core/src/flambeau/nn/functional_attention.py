"""Multi-head attention as a function of its weights (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

from .. import dtypes, ops
from ..ops.attention import scaled_dot_product_attention
from ..ops.matmul import linear
from ..ops.shape import pad
from ..tensor import Tensor
from .functional_dropout import dropout


def _additive(mask: Tensor | None, name: str, dtype: Any, shapes: tuple[tuple[int, ...], ...]) -> Tensor | None:
    """A mask to add to the scores; a bool mask is True where attention is not allowed."""
    if mask is None:
        return None
    if tuple(mask.shape) not in shapes:
        wanted = " or ".join(str(list(s)) for s in shapes)
        raise RuntimeError(f"{name} has shape {list(mask.shape)}, but it should be {wanted}")
    if mask.dtype is dtypes.bool:
        return ops.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)
    return mask


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Query (L, N, E), key and value (S, N, *), or all without N: the output (L, N, E) and the weights (N, L, S).

    Masks as in :class:`~flambeau.nn.MultiheadAttention`. ``static_k`` and ``static_v`` (N * heads, S, E / heads)
    replace the projected key and value. Without ``need_weights`` the second result is None; with
    ``average_attn_weights=False`` it is (N, heads, L, S).
    """
    batched = query.ndim == 3
    if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
        raise RuntimeError(
            f"query {list(query.shape)}, key {list(key.shape)} and value {list(value.shape)} must all be 3-d, or all "
            "2-d without a batch"
        )
    if not batched:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, batch, width = query.shape
    source = key.shape[0]
    if width != embed_dim_to_check or width % num_heads:
        raise RuntimeError(f"the query has {width} features: expected {embed_dim_to_check}, divisible by {num_heads}")
    if is_causal and attn_mask is None:
        raise RuntimeError("need attn_mask if specifying the is_causal hint")
    head = width // num_heads
    grids = ((length, source), (batch * num_heads, length, source))
    mask = _additive(attn_mask, "attn_mask", query.dtype, grids)
    padding = _additive(key_padding_mask, "key_padding_mask", query.dtype, ((batch, source),))
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        if any(w is None for w in weights):
            raise ValueError("use_separate_proj_weight needs q_proj_weight, k_proj_weight and v_proj_weight")
    elif in_proj_weight is None:
        raise ValueError("use_separate_proj_weight is False, but in_proj_weight is None")
    else:
        weights = in_proj_weight.chunk(3)
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    extra = 0
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise ValueError("bias_k and bias_v cannot be added to a static key or value")
        k = ops.cat([k, bias_k.expand(1, batch, width)])
        v = ops.cat([v, bias_v.expand(1, batch, width)])
        extra += 1
    q = q.reshape(length, batch, num_heads, head).permute(1, 2, 0, 3)
    k = _heads(k, static_k, "static_k", batch, num_heads, head)
    v = _heads(v, static_v, "static_v", batch, num_heads, head)
    if add_zero_attn:
        zeros = ops.zeros(batch, num_heads, 1, head, dtype=k.dtype, device=k.device)
        k, v = ops.cat([k, zeros], 2), ops.cat([v, zeros], 2)
        extra += 1
    total = None
    if mask is not None:
        mask = pad(mask, (0, extra)) if extra else mask
        total = mask if mask.ndim == 2 else mask.reshape(batch, num_heads, length, -1)
    if padding is not None:
        padding = (pad(padding, (0, extra)) if extra else padding).reshape(batch, 1, 1, -1)
        total = padding if total is None else total + padding
    rate = dropout_p if training else 0.0
    shares = None
    if need_weights:
        scores = (q * (1.0 / math.sqrt(head))) @ k.transpose(-2, -1)
        shares = ops.softmax(scores if total is None else scores + total, -1)
        shares = dropout(shares, rate) if rate else shares
        out = shares @ v
        shares = shares.mean(1) if average_attn_weights else shares
    else:
        out = scaled_dot_product_attention(q, k, v, total, rate)
    out = linear(out.permute(2, 0, 1, 3).reshape(length, batch, width), out_proj_weight, out_proj_bias)
    if not batched:
        return out.squeeze(1), None if shares is None else shares.squeeze(0)
    return out, shares


def _heads(x: Tensor, static: Tensor | None, name: str, batch: int, heads: int, head: int) -> Tensor:
    """(S, N, E), or a given (N * heads, S, E / heads), as (N, heads, S, E / heads)."""
    if static is None:
        return x.reshape(x.shape[0], batch, heads, head).permute(1, 2, 0, 3)
    if static.shape[0] != batch * heads or static.shape[2] != head:
        raise RuntimeError(f"{name} must be ({batch * heads}, S, {head}), but it is {list(static.shape)}")
    return static.reshape(batch, heads, static.shape[1], head)
