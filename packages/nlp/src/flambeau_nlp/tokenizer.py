"""Texts as numbers: characters, words, or byte-pair pieces. A tokenizer is plain data that lives in a model's config.

    tokenizer = train_tokenizer("word", lines, size=8000)
    tokenizer.decode(tokenizer.encode("Two men, one boat.")) == "Two men, one boat."
    make_tokenizer(tokenizer.to_dict())  # the same again

The ids 0 to 3 are padding, unknown, begin and end of a sequence in every one of them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from flambeau.errors import FlambeauError, MissingExtraError, UsageError

from .data import UNK

BOS, EOS = 2, 3

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
SPACE = "\u2581"  # marks a piece that a space comes before, as in SentencePiece (Kudo and Richardson 2018)
KINDS = ("char", "word", "bpe")

_WORDS = re.compile(rf"{SPACE}?\w+|{SPACE}?[^\w\s{SPACE}]|{SPACE}")


class Tokenizer(Protocol):
    """What all tokenizers do."""

    size: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without begin and end."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; padding, begin and end are left out."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What `make_tokenizer` builds it from: plain JSON data."""
        ...


def normalize(text: str) -> str:
    """Composed characters (NFC) and single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class PieceTokenizer:
    """A list of pieces: single characters, or words and signs with a mark for the space before them.

    >>> tokenizer = PieceTokenizer("char", ["a", "b"])
    >>> tokenizer.encode("abz"), tokenizer.decode([2, 4, 5, 3])
    ([4, 5, 1], 'ab')
    """

    def __init__(self, kind: str, pieces: Sequence[str]) -> None:
        self.kind, self.pieces = kind, list(pieces)
        self.size = len(SPECIAL) + len(self.pieces)
        self._ids = {piece: number for number, piece in enumerate(self.pieces, len(SPECIAL))}
        if len(self._ids) != len(self.pieces):
            raise ValueError("a tokenizer's pieces must all differ")

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(piece, UNK) for piece in split_pieces(self.kind, text)]

    def decode(self, ids: Iterable[int]) -> str:
        pieces = []
        for number in ids:
            if number == UNK:
                pieces.append("\ufffd" if self.kind == "char" else f"{SPACE}\ufffd")
            elif number >= len(SPECIAL):
                pieces.append(self.pieces[number - len(SPECIAL)])
        return "".join(pieces).replace(SPACE, " ").strip()

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "pieces": self.pieces}


class BPETokenizer:
    """Byte-pair pieces (Sennrich et al. 2016) by the ``tokenizers`` library, whose JSON is kept as it is.

    Raises:
        MissingExtraError: the library is not installed.
    """

    def __init__(self, text: str) -> None:
        library = _tokenizers()
        try:
            self._inner = library.Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise FlambeauError(f"the byte-pair vocabulary is damaged: {error}", "use another copy") from error
        self.size = self._inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return list(self._inner.encode(normalize(text), add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._inner.decode([int(number) for number in ids], skip_special_tokens=True)).strip()

    def to_dict(self) -> dict[str, Any]:
        # Compact: the library's own spelling is indented, and this ends up in the header of a weights file.
        return {"kind": "bpe", "json": json.dumps(json.loads(self._inner.to_str()), ensure_ascii=False)}


def split_pieces(kind: str, text: str) -> list[str]:
    """A text cut into characters or into words and signs; joined, with marks as spaces, they are the text again."""
    text = normalize(text)
    if kind == "char":
        return list(text)
    return _WORDS.findall(SPACE + text.replace(" ", SPACE)) if text else []


def make_tokenizer(values: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described.

    Raises:
        FlambeauError: the description is damaged.
        MissingExtraError: it needs the ``tokenizers`` library.
    """
    kind = values.get("kind")
    if kind == "bpe" and isinstance(values.get("json"), str):
        return BPETokenizer(values["json"])
    pieces = values.get("pieces")
    if kind in KINDS and isinstance(pieces, list | tuple) and all(isinstance(piece, str) for piece in pieces):
        return PieceTokenizer(kind, pieces)
    raise FlambeauError("the model's vocabulary is damaged", "use another copy of the checkpoint")


def train_tokenizer(kind: str, lines: Iterable[str], size: int = 8000, min_count: int = 1) -> Tokenizer:
    """A tokenizer for texts: at most `size` pieces, each seen at least `min_count` times; the same lines, the same ids.

    Args:
        kind: ``"char"``, ``"word"`` or ``"bpe"`` (needs the extra ``flambeau-nlp[tokenizers]``).
    """
    if kind not in KINDS:
        raise UsageError(f"there is no tokenizer {kind!r}", f"choose one of {', '.join(KINDS)}")
    if size <= len(SPECIAL):
        raise UsageError(f"a vocabulary of {size} has no room for pieces", "make it larger, such as 8000")
    if kind == "bpe":
        return _train_bpe(lines, size, min_count)
    counts = Counter(piece for line in lines for piece in split_pieces(kind, line))
    ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
    kept = [piece for piece in ranked if counts[piece] >= min_count]
    return PieceTokenizer(kind, kept[: size - len(SPECIAL)])


def _train_bpe(lines: Iterable[str], size: int, min_count: int) -> BPETokenizer:
    library = _tokenizers()
    inner = library.Tokenizer(library.models.BPE(unk_token=SPECIAL[UNK]))
    inner.pre_tokenizer = library.pre_tokenizers.Metaspace(replacement=SPACE)
    inner.decoder = library.decoders.Metaspace(replacement=SPACE)
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, min_frequency=max(min_count, 2), special_tokens=list(SPECIAL), show_progress=False
    )
    inner.train_from_iterator((normalize(line) for line in lines), trainer)
    return BPETokenizer(inner.to_str())


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError(
            "byte-pair vocabularies need the tokenizers library", "pip install 'flambeau-nlp[tokenizers]'"
        ) from error
    return tokenizers
