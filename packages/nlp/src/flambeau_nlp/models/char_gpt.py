"""A small GPT-style decoder over characters.

The pre-norm transformer decoder of GPT-2 (Radford et al. 2019): learnt positions, GELU, and an output that shares its
weights with the input embedding (Press and Wolf 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor, nn
from flambeau.quantize import unembed

from ..cache import KVCache

#: Stands for every character that the model does not know; id 0.
UNKNOWN = "\ufffd"


@dataclass(frozen=True)
class CharGPTConfig:
    """Options of `CharGPT`.

    Attributes:
        vocab_size: number of characters, the unknown one included.
        context: how many characters it sees.
        width: width of the residual stream.
        layers, heads: transformer blocks and attention heads.
        dropout: on embeddings and on what each block adds.
        characters: the known characters in the order of their ids (from 1), as one string.
    """

    vocab_size: int = 128
    context: int = 128
    width: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    characters: str = ""

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.context, self.width, self.layers, self.heads) < 1:
            raise ValueError("vocab_size, context, width, layers and heads must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if self.characters and len(self.characters) + 1 != self.vocab_size:
            raise ValueError(f"vocab_size {self.vocab_size} must be 1 + the {len(self.characters)} characters")


class Block(nn.Module):
    """Causal self-attention and a feed-forward network, each after a norm and added to the residual stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        qkv = self.qkv(self.norm1(x))
        attended = self._attend(qkv) if cache is None else cache.attend(layer, qkv, self.heads)
        x = x + self.dropout(self.proj(attended))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))

    def _attend(self, qkv: Tensor) -> Tensor:
        batch, length, width = qkv.shape
        parts = qkv.reshape(batch, length, 3, self.heads, width // (3 * self.heads)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return attended.transpose(1, 2).reshape(batch, length, width // 3)


class CharGPT(nn.Module):
    """Scores (N, T, vocab_size) of the next character for characters (N, T), T at most ``config.context``.

    >>> model = CharGPT(CharGPTConfig(vocab_size=10, width=16, layers=1)).eval()
    >>> tuple(model(flambeau.zeros(2, 5, dtype=flambeau.int64)).shape)
    (2, 5, 10)
    """

    def __init__(self, config: CharGPTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CharGPTConfig()
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config.width, config.heads, config.dropout) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.blocks:  # the residual stream keeps its variance whatever the depth
            for layer in (block.proj, block.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * len(self.blocks)))

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Scores of the next characters; with a `cache`, of what follows the characters that it has seen and these.

        After the first call with a cache, a call takes one character.
        """
        start = 0 if cache is None else cache.length
        length = start + ids.shape[1]
        if start and ids.shape[1] != 1:
            raise ValueError(f"CharGPT: a cache that has seen characters takes one at a time, not {ids.shape[1]}")
        if length > self.config.context:
            raise ValueError(f"CharGPT: {length} characters are more than the context of {self.config.context}")
        arange = (
            flambeau.arange(length, device=ids.device) if cache is None else cache.positions(length - start, ids.device)
        )
        x = self.embedding(ids) + self.position(arange)
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        return unembed(self.norm(x), self.embedding)
