"""A convolutional text classifier: the CNN-rand of Kim (2014), its vocabulary in its config."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

import flambeau
from flambeau import Tensor, nn

from ..data import PAD, UNK, pad_batch

_WORDS = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


@dataclass(frozen=True)
class TextCNNConfig:
    """Options of `TextCNN`.

    Attributes:
        num_classes: number of classes.
        vocab_size: number of words, padding (0) and the unknown word (1) included.
        embedding: width of a word's vector.
        filters: filters of each width.
        widths: how many words a filter spans.
        dropout: on the features before the last layer.
        max_words: words of a text that are looked at.
        classes: names of the classes.
        vocabulary: the known words in the order of their ids (from 2).
    """

    num_classes: int = 2
    vocab_size: int = 10_000
    embedding: int = 128
    filters: int = 100
    widths: tuple[int, ...] = (3, 4, 5)
    dropout: float = 0.5
    max_words: int = 256
    classes: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = (self.num_classes, self.embedding, self.filters, self.max_words, *self.widths)
        if min(sizes) < 1 or not self.widths:
            raise ValueError("num_classes, embedding, filters, max_words and widths must be at least 1")
        if self.classes and len(self.classes) != self.num_classes:
            raise ValueError(f"num_classes {self.num_classes} must be the number of the {len(self.classes)} classes")
        if self.vocabulary and len(self.vocabulary) + 2 != self.vocab_size:
            raise ValueError(f"vocab_size {self.vocab_size} must be 2 + the {len(self.vocabulary)} words")


def words_of(text: str) -> list[str]:
    """Lower-case words and signs.

    >>> words_of("It's GREAT!")
    ["it's", 'great', '!']
    """
    return _WORDS.findall(text.lower())


class TextCNN(nn.Module):
    """Class scores (N, num_classes) of word ids (N, T). The padding (0) behind a text changes nothing.

    >>> model = TextCNN(TextCNNConfig(num_classes=3, vocab_size=20, embedding=8, filters=4)).eval()
    >>> tuple(model(flambeau.tensor([[2, 5, 7, 0], [3, 0, 0, 0]])).shape)
    (2, 3)
    """

    def __init__(self, config: TextCNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TextCNNConfig()
        self.embedding = nn.Embedding(config.vocab_size, config.embedding, padding_idx=PAD)
        self.convolutions = nn.ModuleList([nn.Conv1d(config.embedding, config.filters, w) for w in config.widths])
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(config.filters * len(config.widths), config.num_classes)
        # Small vectors (the paper's range): with the layer's unit variance a few epochs hardly move them.
        nn.init.uniform_(self.embedding.weight, -0.25, 0.25)
        with flambeau.no_grad():
            self.embedding.weight[PAD] = 0.0
        self._ids = {word: number for number, word in enumerate(config.vocabulary, 2)}

    def forward(self, ids: Tensor) -> Tensor:
        # A filter may reach beyond the end of a text, but it must begin within it: so batches do not matter.
        present = (ids != PAD).to(self.embedding.weight.dtype).unsqueeze(1)
        x = nn.functional.pad(self.embedding(ids).transpose(1, 2), (0, max(self.config.widths) - 1))
        length, features = ids.shape[1], []
        for convolution in self.convolutions:
            scores = flambeau.relu(convolution(x)[:, :, :length]) * present
            features.append(flambeau.amax(scores, 2))
        return self.fc(self.dropout(flambeau.cat(features, 1)))

    def encode(self, text: str) -> list[int]:
        """Ids of the words of a text."""
        return [self._ids.get(word, UNK) for word in words_of(text)[: self.config.max_words]]

    def probabilities(self, texts: Iterable[str]) -> np.ndarray:
        """Class probabilities (N, num_classes) of texts, without dropout if the model is in eval mode."""
        batch = pad_batch([self.encode(text) for text in texts])
        with flambeau.inference_mode():
            scores = self(batch.to(self.fc.weight.device))
            probabilities: np.ndarray = flambeau.softmax(scores, 1).to("cpu").numpy()
        return probabilities
