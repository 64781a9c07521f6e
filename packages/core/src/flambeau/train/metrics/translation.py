"""Metrics of translations, comparable with sacrebleu's (Post, 2018): BLEU and chrF. They keep counts of n-grams only.

Texts come as they are read, not cut into tokens. A target is one reference or a list of them.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from .base import Metric, check_choice, references, texts

__all__ = ["BLEU", "CHRF"]

_SIGNS = re.compile(r"([!-&(-+:-@\[-`{-~/])")
_STOP_AFTER = re.compile(r"([^0-9])([.,])")
_STOP_BEFORE = re.compile(r"([.,])([^0-9])")
_DASH = re.compile(r"([0-9])(-)")
_ENTITIES = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_SMOOTHING = {"none": None, "exp": None, "floor": 0.1, "add-k": 1.0}
_PUNCTUATION = frozenset(string.punctuation)


def tokens_13a(text: str) -> list[str]:
    """Tokens by mteval-v13a: signs stand alone; full stops and commas do unless within a number."""
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = _SIGNS.sub(r" \1 ", f" {text} ")
    text = _STOP_AFTER.sub(r"\1 \2 ", text)
    text = _STOP_BEFORE.sub(r" \1 \2", text)
    return _DASH.sub(r"\1 \2 ", text).split()


def tokens_intl(text: str) -> list[str]:
    """Tokens by mteval-v14: symbols stand alone; punctuation of any script does unless between digits."""
    text = _cut(text, lambda a, b: a[0] != "N" and b[0] == "P", "{0} {1} ")
    text = _cut(text, lambda a, b: a[0] == "P" and b[0] != "N", " {0} {1}")
    return "".join(f" {c} " if unicodedata.category(c)[0] == "S" else c for c in text).split()


def _cut(text: str, meets: Callable[[str, str], bool], form: str) -> str:
    """Rewrites pairs of characters whose categories meet a condition: from the left, without overlap."""
    kinds, out, i = [unicodedata.category(c) for c in text], [], 0
    while i < len(text):
        if i + 1 < len(text) and meets(kinds[i], kinds[i + 1]):
            out.append(form.format(text[i], text[i + 1]))
            i += 2
        else:
            out.append(text[i])
            i += 1
    return "".join(out)


_TOKENS: dict[str, Callable[[str], list[str]]] = {
    "13a": tokens_13a,
    "intl": tokens_intl,
    "char": lambda text: list("".join(text.split())),
    "none": str.split,
}


class _Corpus(Metric):
    """Counts over all texts of a corpus, and how many references a text has (0 before any, -1 where it varies)."""

    _fields = ("stats", "nrefs", "count")
    stats: np.ndarray
    nrefs: int
    count: int

    def update(self, preds: Any, target: Any) -> None:
        name = type(self).__name__
        ours, theirs = texts(preds, target, name)
        for text, several in zip(ours, references(theirs, name), strict=True):
            self.stats = self.stats + self._text(text, several)
            self._refs(len(several))
            self.count += 1

    def _text(self, text: str, several: list[str]) -> np.ndarray:
        raise NotImplementedError

    def _refs(self, count: int) -> None:
        if count:
            self.nrefs = count if self.nrefs in (0, count) else -1

    def merge(self, other: Any) -> None:
        """Takes the texts of another metric of the same kind and options in."""
        self._check_alike(other)
        self.stats, self.count = self.stats + other.stats, self.count + other.count
        self._refs(other.nrefs)


class BLEU(_Corpus):
    """Corpus BLEU in percent (Papineni et al., 2002), options and values as sacrebleu's.

    Args:
        tokenize: "13a", "intl", "char" or "none" (split at white space).
        smooth_method: what an order without hits counts: "exp", "floor", "add-k" or "none" (then BLEU is 0).
        smooth_value: of "floor" (0.1 unless given) and "add-k" (1).
        effective_order: leave out orders longer than any text, for single sentences.

    >>> bleu = BLEU()
    >>> bleu.update(["the cat sat on the mat."], [["the cat sat on a mat.", "the cat is on the mat."]])
    >>> round(bleu.compute(), 2), bleu.signature()
    (79.53, 'nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp')
    """

    def __init__(
        self,
        lowercase: bool = False,
        tokenize: Literal["13a", "intl", "char", "none"] = "13a",
        smooth_method: Literal["exp", "floor", "add-k", "none"] = "exp",
        smooth_value: float | None = None,
        max_ngram_order: int = 4,
        effective_order: bool = False,
    ) -> None:
        check_choice(tokenize, tuple(_TOKENS), "tokenize", "BLEU")
        check_choice(smooth_method, tuple(_SMOOTHING), "smooth_method", "BLEU")
        self.lowercase, self.tokenize, self.effective_order = lowercase, tokenize, effective_order
        self.smooth_method, self.max_ngram_order = smooth_method, max_ngram_order
        self.smooth_value = _SMOOTHING[smooth_method] if smooth_value is None else smooth_value
        self.reset()

    def reset(self) -> None:
        # Lengths of texts and references, then hits and n-grams by order.
        self.stats = np.zeros(2 + 2 * self.max_ngram_order, np.int64)
        self.nrefs, self.count = 0, 0

    def _text(self, text: str, several: list[str]) -> np.ndarray:
        guess, *truths = [_TOKENS[self.tokenize](self._case(t).rstrip()) for t in (text, *several)]
        length = min((abs(len(guess) - len(truth)), len(truth)) for truth in truths)[1]  # the shorter of equally close
        hits, totals = [], []
        for n in range(1, self.max_ngram_order + 1):
            found, wanted = _ngrams(guess, n), Counter[tuple[str, ...]]()
            for truth in truths:
                wanted |= _ngrams(truth, n)
            hits.append((found & wanted).total())
            totals.append(found.total())
        return np.array([len(guess), length, *hits, *totals])

    def _case(self, text: str) -> str:
        return text.lower() if self.lowercase else text

    def compute(self) -> float:
        self._need(self.count)
        ours, theirs = int(self.stats[0]), int(self.stats[1])
        hits, totals = self.stats[2:].reshape(2, -1).astype(np.float64)
        if not hits.any():
            return 0.0
        logs: list[float] = []
        halvings = 0
        for order, (hit, total) in enumerate(zip(hits.tolist(), totals.tolist(), strict=True)):
            if self.smooth_method == "add-k" and order:
                hit, total = hit + self.smooth_value, total + self.smooth_value
            if not total:
                break
            if not hit and self.smooth_method == "exp":
                halvings += 1
                hit = 0.5**halvings
            elif not hit and self.smooth_method == "floor":
                hit = self.smooth_value
            if not hit:
                return 0.0
            logs.append(math.log(hit / total))
        if len(logs) < self.max_ngram_order and not self.effective_order:
            return 0.0
        return 100.0 * math.exp(sum(logs) / len(logs) + min(0.0, 1.0 - theirs / ours))

    def signature(self) -> str:
        """The options as sacrebleu writes them, without its version."""
        smooth = self.smooth_method + ("" if self.smooth_value is None else f"[{self.smooth_value:.2f}]")
        case, effective = "lc" if self.lowercase else "mixed", "yes" if self.effective_order else "no"
        refs = "var" if self.nrefs == -1 else self.nrefs
        return f"nrefs:{refs}|case:{case}|eff:{effective}|tok:{self.tokenize}|smooth:{smooth}"


class CHRF(_Corpus):
    """chrF in percent (Popović, 2015): F-beta score of character n-grams; ``word_order=2`` makes it chrF++.

    Options and values are sacrebleu's. Of several references each text takes the one it fits best.

    >>> chrf = CHRF(word_order=2)
    >>> chrf.update(["the cat sat"], ["the cat sat"])
    >>> chrf.compute(), chrf.signature()
    (100.0, 'nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no')
    """

    def __init__(
        self,
        char_order: int = 6,
        word_order: int = 0,
        beta: int = 2,
        lowercase: bool = False,
        whitespace: bool = False,
        eps_smoothing: bool = False,
    ) -> None:
        self.char_order, self.word_order, self.beta = char_order, word_order, beta
        self.lowercase, self.whitespace, self.eps_smoothing = lowercase, whitespace, eps_smoothing
        self.reset()

    def reset(self) -> None:
        # By order: n-grams of the text, of the reference, and hits.
        self.stats = np.zeros((self.char_order + self.word_order, 3), np.int64)
        self.nrefs, self.count = 0, 0

    def _text(self, text: str, several: list[str]) -> np.ndarray:
        guess = self._counters(text)
        best, top = None, -1.0
        for reference in several:
            rows = []
            for found, wanted in zip(guess, self._counters(reference), strict=True):
                rows.append([found.total() if wanted else 0, wanted.total(), (found & wanted).total()])
            stats = np.array(rows, np.int64)
            if best is None or self._score(stats) > top:
                best, top = stats, self._score(stats)
        assert best is not None
        return best

    def _counters(self, text: str) -> list[Counter[Any]]:
        text = text.lower() if self.lowercase else text
        chars = text if self.whitespace else "".join(text.split())
        found: list[Counter[Any]] = [
            Counter(chars[i : i + n] for i in range(len(chars) - n + 1)) for n in range(1, self.char_order + 1)
        ]
        words = [part for word in text.split() for part in _parts(word)] if self.word_order else []
        return found + [_ngrams(words, n) for n in range(1, self.word_order + 1)]

    def _score(self, stats: np.ndarray) -> float:
        ours, theirs, hits = stats.T.astype(np.float64)
        factor, tiny = self.beta**2, 1e-16
        precision = np.where(ours > 0, hits / np.where(ours > 0, ours, 1), tiny)
        recall = np.where(theirs > 0, hits / np.where(theirs > 0, theirs, 1), tiny)
        if not self.eps_smoothing:
            there = (ours > 0) & (theirs > 0)
            if not there.any():
                return 0.0
            precision, recall = precision[there].mean(), recall[there].mean()
        under = factor * precision + recall
        scores = np.where(under > 0, (1 + factor) * precision * recall / np.where(under > 0, under, 1), tiny)
        return 100.0 * float(scores.mean()) if self.eps_smoothing or under > 0 else 0.0

    def compute(self) -> float:
        self._need(self.count)
        return self._score(self.stats)

    def signature(self) -> str:
        """The options as sacrebleu writes them, without its version."""
        case, effective = "lc" if self.lowercase else "mixed", "no" if self.eps_smoothing else "yes"
        refs, space = "var" if self.nrefs == -1 else self.nrefs, "yes" if self.whitespace else "no"
        return f"nrefs:{refs}|case:{case}|eff:{effective}|nc:{self.char_order}|nw:{self.word_order}|space:{space}"


def _parts(word: str) -> list[str]:
    """chrF++ parts one sign from a word: the last, else the first."""
    if len(word) > 1 and word[-1] in _PUNCTUATION:
        return [word[:-1], word[-1]]
    if len(word) > 1 and word[0] in _PUNCTUATION:
        return [word[0], word[1:]]
    return [word]


def _ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))
