"""An encoder-decoder transformer for translation (Vaswani et al. 2017), its two vocabularies in its config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor, nn
from flambeau.errors import FlambeauError

from ..data import PAD
from ..tokenizer import EOS, Tokenizer, make_tokenizer


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Options of `Seq2Seq`.

    Attributes:
        source_size, target_size: sizes of the vocabularies, the four special ids included.
        width: width of the model.
        heads: attention heads.
        encoder_layers, decoder_layers: layers of each half.
        feedforward: width of the feed-forward networks.
        dropout: everywhere in the transformer and on the embeddings.
        max_tokens: tokens of a sentence in training.
        source, target: the vocabularies (see ``flambeau_nlp.tokenizer``).
        source_language, target_language: endings of the files that it learnt from.
    """

    source_size: int = 8000
    target_size: int = 8000
    width: int = 256
    heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 3
    feedforward: int = 512
    dropout: float = 0.1
    max_tokens: int = 100
    source: dict[str, Any] | None = None
    target: dict[str, Any] | None = None
    source_language: str = ""
    target_language: str = ""

    def __post_init__(self) -> None:
        sizes = (self.source_size, self.target_size, self.encoder_layers, self.decoder_layers, self.feedforward)
        if min(*sizes, self.heads, self.width, self.max_tokens) < 1:
            raise ValueError("sizes, layers, heads, width and max_tokens must be at least 1")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")


class Seq2Seq(nn.Module):
    """Scores (N, T, target_size) of the next target token for source (N, S) and target so far (N, T), padded with 0.

    >>> config = Seq2SeqConfig(source_size=9, target_size=7, width=8, heads=2, feedforward=16)
    >>> model = Seq2Seq(config).eval()
    >>> tuple(model(flambeau.tensor([[4, 5, 3]]), flambeau.tensor([[2, 6]])).shape)
    (1, 2, 7)
    """

    def __init__(self, config: Seq2SeqConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or Seq2SeqConfig()
        self.source_embedding = nn.Embedding(config.source_size, config.width, padding_idx=PAD)
        self.target_embedding = nn.Embedding(config.target_size, config.width, padding_idx=PAD)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = nn.Transformer(
            config.width,
            config.heads,
            config.encoder_layers,
            config.decoder_layers,
            config.feedforward,
            config.dropout,
            batch_first=True,
            norm_first=True,
        )
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=config.width**-0.5)
            with flambeau.no_grad():
                embedding.weight[PAD] = 0.0

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.decode(target, *self.encode(source))

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's output (N, S, width) and where the source is padding (N, S)."""
        padding = source == PAD
        embedded = self._embed(self.source_embedding, source)
        return self.transformer.encoder(embedded, src_key_padding_mask=padding), padding

    def decode(self, target: Tensor, memory: Tensor, padding: Tensor, last: bool = False) -> Tensor:
        """Scores (N, T, target_size) after each target token; with `last`, (N, 1, target_size) after the last one."""
        length = target.shape[1]
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=target.device)
        hidden = self.transformer.decoder(
            self._embed(self.target_embedding, target), memory, causal, memory_key_padding_mask=padding
        )
        # The output layer shares its weights with the target embedding (Press and Wolf 2017).
        return F.linear(hidden[:, length - 1 :] if last else hidden, self.target_embedding.weight)

    def _embed(self, embedding: nn.Embedding, ids: Tensor) -> Tensor:
        positions = flambeau.from_numpy(sinusoids(ids.shape[1], self.config.width)).to(ids.device)
        return self.dropout(embedding(ids) * math.sqrt(self.config.width) + positions)

    @cached_property
    def source_tokenizer(self) -> Tokenizer:
        """Texts to ids.

        Raises:
            FlambeauError: the model was built without a vocabulary.
        """
        return _tokenizer(self.config.source)

    @cached_property
    def target_tokenizer(self) -> Tokenizer:
        """Ids to texts."""
        return _tokenizer(self.config.target)

    def source_ids(self, text: str) -> list[int]:
        """Ids of a source sentence, its end included."""
        return [*self.source_tokenizer.encode(text), EOS]


def _tokenizer(values: dict[str, Any] | None) -> Tokenizer:
    if not values:
        raise FlambeauError("the model has no vocabulary", "use a checkpoint that a trainer wrote")
    return make_tokenizer(values)


def sinusoids(length: int, width: int) -> np.ndarray:
    """Positions (length, width): sines in the even columns, cosines in the odd ones (section 3.5 of the paper)."""
    rates = np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = np.arange(length)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)
