"""Keys and values of the tokens that a transformer has seen, kept for the next token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor, backends
from flambeau.autograd.modes import mode
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

    def positions(self, count: int, device: Any = None) -> Tensor:
        """The positions of the next tokens, int64 (count,)."""
        return flambeau.arange(self.length, self.length + count, device=device)

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

    def _room_for_one(self, ids: Tensor) -> Tensor | None:
        """The buffer, with room for one token more; None where a graph of one token does not fit."""
        buffer = self._buffer
        if buffer is None or not self.length or ids.shape != (buffer.shape[2], 1) or mode.grad:
            return None
        if not isinstance(buffer, np.ndarray) or buffer.dtype.kind != "f" or buffer.dtype.itemsize < 4:
            return None
        if buffer.shape[4] == self.length:
            buffer = self._make_room(buffer[0, 0, :, :, :1], self.length + 1)
        return Tensor._wrap(buffer)

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


class _Slot:
    """The place of one token in a cache, where buffer and position are tensors: what a graph of the step is given."""

    length = 0  # unknown to the graph, which serves for every position

    def __init__(self, buffer: Tensor, position: Tensor) -> None:
        self._buffer, self._position = buffer, position

    def positions(self, count: int, device: Any = None) -> Tensor:
        return self._position.reshape(count)

    def attend(self, layer: int, qkv: Tensor, heads: int) -> Tensor:
        batch, _, width = qkv.shape
        width //= 3
        new = qkv.reshape(batch, 3, heads, width // heads)[:, 1:].transpose(0, 1)
        buffer = self._buffer[layer]
        buffer.array[:, :, :, self._position.array] = new.array
        return cached_attention(qkv[..., :width], buffer[0], buffer[1], self._position + 1)


def compiled_writer(model: Callable[..., Tensor], **options: Any) -> Callable[[Tensor, KVCache], Tensor]:
    """`write(ids, cache)`: what ``model(ids, cache=cache, **options)`` gives, a single token by replay of one graph.

    The graph takes position and buffer as arguments, so it serves for all tokens until the buffer grows: give the cache
    a sufficient `capacity`. A prompt, and what is not in single or double precision on the CPU, goes through the model
    itself, which takes positions from ``cache.positions(count)`` and attends by ``cache.attend(layer, qkv, heads)``.

    >>> from flambeau_nlp.models.char_gpt import CharGPT, CharGPTConfig
    >>> model = CharGPT(CharGPTConfig(vocab_size=10, width=16, layers=2)).eval()
    >>> write, cache = compiled_writer(model), KVCache(layers=2)
    >>> with flambeau.inference_mode():
    ...     scores = write(flambeau.tensor([[1, 2, 3]]), cache)
    ...     scores = write(scores[:, -1:].argmax(-1), cache)
    >>> tuple(scores.shape), cache.length
    ((1, 1, 10), 4)
    """

    def step(ids: Tensor, position: Tensor, buffer: Tensor) -> Tensor:
        return model(ids, cache=_Slot(buffer, position), **options)

    replay = flambeau.compile(step)

    def write(ids: Tensor, cache: KVCache) -> Tensor:
        buffer = cache._room_for_one(ids)
        if buffer is None:
            return model(ids, cache=cache, **options)
        scores: Tensor = replay(ids, flambeau.tensor(cache.length), buffer)
        cache._lengths = [cache.length + 1] * cache.layers
        return scores

    return write
