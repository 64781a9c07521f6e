"""Multi-head attention."""

from __future__ import annotations

import math
from typing import Any

from .. import dtypes, ops
from ..tensor import Tensor
from . import functional as F
from . import init
from .linear import Linear
from .module import Module
from .parameter import new_parameter


class MultiheadAttention(Module):
    """Attention with several heads and learnt projections (Vaswani et al. 2017).

    Boolean masks are True where attention is *not* allowed; float masks are added to the scores.

    >>> import flambeau
    >>> x = flambeau.randn(2, 5, 8)
    >>> output, weights = MultiheadAttention(8, num_heads=2, batch_first=True)(x, x, x)
    >>> output.shape, weights.shape
    (flambeau.Size([2, 5, 8]), flambeau.Size([2, 5, 5]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(f"embed_dim ({embed_dim}) must be a positive multiple of num_heads ({num_heads})")
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn
        packed = self.kdim == embed_dim and self.vdim == embed_dim
        shapes: dict[str, tuple[int, ...] | None] = {
            "q_proj_weight": None if packed else (embed_dim, embed_dim),
            "k_proj_weight": None if packed else (embed_dim, self.kdim),
            "v_proj_weight": None if packed else (embed_dim, self.vdim),
            "in_proj_weight": (3 * embed_dim, embed_dim) if packed else None,
            "in_proj_bias": (3 * embed_dim,) if bias else None,
            "bias_k": (1, 1, embed_dim) if add_bias_kv else None,
            "bias_v": (1, 1, embed_dim) if add_bias_kv else None,
        }
        for name, shape in shapes.items():
            self.register_parameter(name, new_parameter(*shape, device=device, dtype=dtype) if shape else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(self, name) is not None:
                init.xavier_uniform_(getattr(self, name))
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for name in ("bias_k", "bias_v"):
            if getattr(self, name) is not None:
                init.xavier_normal_(getattr(self, name))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Query (L, N, E), key and value (S, N, *), or batch first, or without N.

        ``key_padding_mask`` is (N, S), ``attn_mask`` (L, S) or (N * heads, L, S). ``is_causal`` is a hint that
        ``attn_mask`` is the causal mask. Returns the output, shaped like the query, and with ``need_weights`` the
        weights (N, L, S), or (N, heads, L, S) with ``average_attn_weights=False``.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("need attn_mask if specifying the is_causal hint")
        batched = query.ndim == 3
        if not batched:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = _shared_transpose(query, key, value)
        batch, length, _ = query.shape
        self._check(query, key, value, key_padding_mask, attn_mask)
        q, k, v = self._project(query, key, value)
        if self.bias_k is not None:
            k = ops.cat([k, self.bias_k.expand(batch, 1, self.embed_dim)], 1)
            v = ops.cat([v, self.bias_v.expand(batch, 1, self.embed_dim)], 1)
        if self.add_zero_attn:
            zeros = ops.zeros(batch, 1, self.embed_dim, dtype=k.dtype, device=k.device)
            k, v = ops.cat([k, zeros], 1), ops.cat([v, zeros], 1)
        q, k, v = (self._split_heads(t) for t in (q, k, v))
        mask = self._mask(attn_mask, key_padding_mask, q, k.shape[2])
        rate = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q * (1.0 / math.sqrt(self.head_dim)) @ k.transpose(-2, -1)
            weights = F.softmax(scores if mask is None else scores + mask, -1)
            if rate:
                weights = F.dropout(weights, rate)
            output = weights @ v
            if average_attn_weights:
                weights = weights.mean(1)
        else:
            output = F.scaled_dot_product_attention(q, k, v, mask, rate)
        output = self.out_proj(output.transpose(1, 2).reshape(batch, length, self.embed_dim))
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _check(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, attn_mask: Tensor | None
    ) -> None:
        """Shapes, batch first: broadcasting would make sense of many wrong ones."""
        batch, length, _ = query.shape
        source = key.shape[1]
        expected: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
            "query": (query, [(batch, length, self.embed_dim)]),
            "key": (key, [(batch, source, self.kdim)]),
            "value": (value, [(batch, source, self.vdim)]),
            "key_padding_mask": (padding, [(batch, source)]),
            "attn_mask": (attn_mask, [(length, source), (batch * self.num_heads, length, source)]),
        }
        for name, (tensor, shapes) in expected.items():
            if tensor is not None and tuple(tensor.shape) not in shapes:
                raise RuntimeError(
                    f"MultiheadAttention: the shape of {name} is {tuple(tensor.shape)}, but should be "
                    + " or ".join(map(str, shapes))
                    + (" (batch first)" if tensor.ndim == 3 and "mask" not in name else "")
                )

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> Any:
        """Query, key and value in the model's width; with fewer products where they are the same tensor."""
        size, weight, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias
        if weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        elif query is key and key is value:
            return F.linear(query, weight, bias).chunk(3, -1)
        elif key is value:
            q = F.linear(query, weight[:size], None if bias is None else bias[:size])
            return (q, *F.linear(key, weight[size:], None if bias is None else bias[size:]).chunk(2, -1))
        else:
            weights = weight.chunk(3)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return [F.linear(t, w, b) for t, w, b in zip((query, key, value), weights, biases, strict=True)]

    def _split_heads(self, t: Tensor) -> Tensor:
        return t.reshape(t.shape[0], t.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor, source: int) -> Tensor | None:
        """Both masks as one to add to the (N, heads, L, S) scores."""
        total = None
        batch = q.shape[0]
        for mask, shape in ((attn_mask, (batch, self.num_heads, -1)), (padding, (batch, 1, 1))):
            if mask is None:
                continue
            missing = source - mask.shape[-1]  # key positions added by add_bias_kv and add_zero_attn
            if missing:
                mask = F.pad(mask, (0, missing), value=False if mask.dtype is dtypes.bool else 0.0)
            if mask.dtype is dtypes.bool:
                mask = ops.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -math.inf)
            if mask is not attn_mask and mask.ndim == 3 and mask.shape[0] == 1:
                mask = mask.squeeze(0)
            if mask.ndim == 3 or shape[1] == 1:
                mask = mask.reshape(*shape, source)
            total = mask if total is None else total + mask
        return total


def _shared_transpose(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Time first to batch first; tensors that are the same stay the same."""
    q = query.transpose(0, 1)
    k = q if key is query else key.transpose(0, 1)
    v = q if value is query else k if value is key else value.transpose(0, 1)
    return q, k, v
