"""Keys and values of the tokens that a transformer has seen, kept for the next token."""

from __future__ import annotations

from typing import Any

import flambeau.nn.functional as F
from flambeau import Tensor, backends
from flambeau.ops.attention import cached_attention

NO_GRADIENTS = "a cache holds no gradients: call the model inside flambeau.inference_mode()"


class KVCache:
    """Keys and values of all layers in one buffer, written in place and read as views: nothing is ever joined.

    The buffer (layers, 2, batch, heads, capacity, width) is made for the first keys, for at least ``capacity`` tokens;
    when it is full, a copy of twice the size takes its place. What `append` returned before then still holds the tokens
    of its time.

    >>> import flambeau
    >>> cache = KVCache(layers=1)
    >>> keys, values = cache.append(0, flambeau.ones(1, 2, 3, 4), flambeau.ones(1, 2, 3, 4))
    >>> keys, values = cache.append(0, flambeau.ones(1, 2, 1, 4), flambeau.ones(1, 2, 1, 4))
    >>> tuple(keys.shape), cache.length
    ((1, 2, 4, 4), 4)
    """

    def __init__(self, layers: int, capacity: int = 64) -> None:
        if layers < 1 or capacity < 1:
            raise ValueError(f"layers and capacity must be at least 1, not {layers} and {capacity}")
        self.layers, self.capacity = layers, capacity
        self._buffer: Any = None
        self._lengths = [0] * layers

    @property
    def length(self) -> int:
        """Tokens that all layers have seen."""
        return self._lengths[-1]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer (batch, heads, tokens, width), after these are written behind them.

        Raises:
            ValueError: keys and values do not agree, or do not fit what the cache holds.
            RuntimeError: a gradient would be lost.
        """
        if key.requires_grad or value.requires_grad:
            raise RuntimeError(NO_GRADIENTS)
        keys, values = self._write(layer, key.array, value.array)
        return Tensor._wrap(keys), Tensor._wrap(values)

    def attend(self, layer: int, qkv: Tensor, heads: int) -> Tensor:
        """Causal self-attention of new tokens over themselves and all that the cache holds: (batch, tokens, width).

        Args:
            qkv: queries, keys and values of the new tokens side by side, (batch, tokens, 3 * width).
            heads: they divide the width among them.

        Raises:
            ValueError: the cache holds tokens and there is more than one new one, or the shapes do not fit.
            RuntimeError: a gradient would be lost.
        """
        if qkv.requires_grad:
            raise RuntimeError(NO_GRADIENTS)
        batch, tokens, width = qkv.shape
        if self._lengths[layer] and tokens != 1:
            raise ValueError(f"a cache that holds tokens takes one at a time, not {tokens}")
        q, k, v = qkv.array.reshape(batch, tokens, 3, heads, width // (3 * heads)).transpose(2, 0, 3, 1, 4)
        keys, values = self._write(layer, k, v)
        if tokens == 1 and q.dtype.kind == "f":
            buffers, length = self._buffer[layer], self._lengths[layer]
            query = qkv.array[..., : width // 3]
            return Tensor._wrap(cached_attention(query, buffers[0], buffers[1], length))
        q, k, v = (Tensor._wrap(part) for part in (q, keys, values))
        found = F.scaled_dot_product_attention(q, k, v, is_causal=tokens > 1)
        return found.transpose(1, 2).reshape(batch, tokens, width // 3)

    def _write(self, layer: int, k: Any, v: Any) -> tuple[Any, Any]:
        """All keys and values of a layer, after these are written behind them."""
        start = self._lengths[layer]
        stop = start + k.shape[2]
        buffer = self._buffer
        if buffer is None or buffer.shape[4] < stop or buffer.shape[2:4] != k.shape[:2]:
            buffer = self._make_room(k, stop)
        if k.shape != v.shape or k.dtype != buffer.dtype or k.shape[3] != buffer.shape[5]:
            raise ValueError(
                f"keys {tuple(k.shape)} and values {tuple(v.shape)} of {k.dtype} do not fit a cache of "
                f"{buffer.shape[3]} heads of {buffer.shape[5]} of {buffer.dtype}"
            )
        keys, values = buffer[layer, 0, :, :, :stop], buffer[layer, 1, :, :, :stop]
        keys[:, :, start:] = k
        values[:, :, start:] = v
        self._lengths[layer] = stop
        return keys, values

    def truncate(self, length: int) -> None:
        """Forget all but the first tokens.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"the cache holds {self.length} tokens, it cannot keep {length}")
        self._lengths = [length] * self.layers

    def _make_room(self, key: Any, tokens: int) -> Any:
        batch, heads, _, width = key.shape
        old = self._buffer
        if old is not None and old.shape[2:4] != (batch, heads):
            raise ValueError(f"the cache holds {old.shape[2:4]} sequences and heads, not {(batch, heads)}")
        room = self.capacity if old is None else 2 * old.shape[4]
        while room < tokens:
            room *= 2
        new = backends.of(key).xp.empty((self.layers, 2, batch, heads, room, width), key.dtype)
        if old is not None:
            seen = max(self._lengths)
            new[..., :seen, :] = old[..., :seen, :]
        self._buffer = new
        return new
