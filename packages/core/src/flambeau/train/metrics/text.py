"""Metrics of texts and tokens: perplexity, errors of transcripts, ROUGE of summaries, answers to questions."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import numpy as np

from .base import Metric, check_choice, check_range, class_last, ratio, references, texts

__all__ = ["CER", "ROUGE", "WER", "Perplexity", "SQuAD"]

_SPACES = re.compile(r"\s\s+")
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class Perplexity(Metric):
    """exp of the mean negative log-likelihood: ``update(logits, target)`` with logits (N, C, ...); -100 is ignored."""

    _fields = ("total", "count")
    higher_is_better = False

    def __init__(self, ignore_index: int = -100) -> None:
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        self.total: float = 0.0
        self.count: float = 0

    def update(self, logits: Any, target: Any, weight: Any = None) -> None:
        scores, labels = self._array(logits, "logits"), self._array(target, "targets")
        scores = class_last(scores, labels, "Perplexity").astype(np.float64)
        keep = labels != self.ignore_index
        weights = None if weight is None else self._weight(weight, labels.shape)[keep]
        scores, labels = scores[keep], labels[keep]
        check_range(labels, scores.shape[-1], "targets", "Perplexity")
        if not labels.size:
            return
        own = np.take_along_axis(scores, labels.astype(np.int64)[:, None], -1)[:, 0]
        top = scores.max(-1)
        losses = top + np.log(np.exp(scores - top[:, None]).sum(-1)) - own
        self.total += float(losses.sum() if weights is None else (losses * weights).sum())
        self.count += labels.size if weights is None else float(weights.sum())

    def compute(self) -> float:
        self._need(self.count)
        return math.exp(min(self.total / self.count, 709.0))


class _ErrorRate(Metric):
    """Edits of the closest alignment: hits, substitutions, deletions and insertions over all texts."""

    _fields = ("hits", "substitutions", "deletions", "insertions", "count")
    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.hits = self.substitutions = self.deletions = self.insertions = self.count = 0

    def _units(self, text: str) -> list[str]:
        raise NotImplementedError

    def update(self, preds: Any, target: Any) -> None:
        name = type(self).__name__
        ours, theirs = texts(preds, target, name)
        texts(theirs, ours, name)  # targets are single texts too
        for guess, truth in zip(ours, theirs, strict=True):
            hits, substitutions, deletions, insertions = align(self._units(truth), self._units(guess))
            self.hits, self.substitutions = self.hits + hits, self.substitutions + substitutions
            self.deletions, self.insertions = self.deletions + deletions, self.insertions + insertions
            self.count += 1

    def compute(self) -> float:
        """(S + D + I) / (H + S + D). Where all targets are empty, the number of insertions."""
        self._need(self.count)
        errors = self.substitutions + self.deletions + self.insertions
        return errors / ((self.hits + self.substitutions + self.deletions) or 1)


class WER(_ErrorRate):
    """Word error rate of transcripts; the counts are ``hits``, ``substitutions``, ``deletions``, ``insertions``.

    Words are what spaces part; nothing else is changed in the texts. The memory for one pair of texts grows with the
    product of their lengths.

    >>> wer = WER()
    >>> wer.update(["the cat sit"], ["the cat sat down"])
    >>> wer.compute(), wer.substitutions, wer.deletions, wer.insertions
    (0.5, 1, 1, 0)
    """

    def _units(self, text: str) -> list[str]:
        return [word for word in _SPACES.sub(" ", text).strip().split(" ") if word]


class CER(_ErrorRate):
    """Character error rate of transcripts, spaces counted but those at the ends; else as `WER`."""

    def _units(self, text: str) -> list[str]:
        return list(text.strip())


class ROUGE(Metric):
    """ROUGE of summaries (Lin, 2004): means over texts of precision, recall and F-measure, in [0, 1].

    Words are lower-case letters a-z and digits; "rougeLsum" takes lines as sentences. Of several references the one
    with the highest F-measure counts. ``compute()`` has keys such as "rouge1_fmeasure".

    Args:
        kinds: of "rouge1" … "rouge9", "rougeL" and "rougeLsum".
        stemmer: changes words of more than three letters, for instance ``nltk``'s ``PorterStemmer().stem``.

    >>> rouge = ROUGE(["rouge1", "rougeL"])
    >>> rouge.update(["the cat sat"], ["the cat was there"])
    >>> {name: round(value, 3) for name, value in rouge.compute().items() if "fmeasure" in name}
    {'rouge1_fmeasure': 0.571, 'rougeL_fmeasure': 0.571}
    """

    _fields = ("total", "count")

    def __init__(
        self,
        kinds: Sequence[str] = ("rouge1", "rouge2", "rougeL", "rougeLsum"),
        stemmer: Callable[[str], str] | None = None,
    ) -> None:
        for kind in kinds:
            if not re.fullmatch(r"rouge([1-9]|L|Lsum)", kind):
                raise ValueError(f"ROUGE: kinds are rouge1 to rouge9, rougeL and rougeLsum, not {kind!r}")
        self.kinds, self.stemmer = tuple(kinds), stemmer
        self.reset()

    def reset(self) -> None:
        self.total, self.count = np.zeros((len(self.kinds), 3)), 0

    def update(self, preds: Any, target: Any) -> None:
        ours, theirs = texts(preds, target, "ROUGE")
        for text, several in zip(ours, references(theirs, "ROUGE"), strict=True):
            scores = [[self._score(kind, text, reference) for kind in self.kinds] for reference in several]
            best = [max((row[k] for row in scores), key=lambda score: score[2]) for k in range(len(self.kinds))]
            self.total = self.total + np.array(best).reshape(-1, 3)
            self.count += 1

    def compute(self) -> dict[str, float]:
        self._need(self.count)
        parts = ("precision", "recall", "fmeasure")
        means = self.total / self.count
        return {f"{k}_{part}": float(means[i, j]) for i, k in enumerate(self.kinds) for j, part in enumerate(parts)}

    def _words(self, text: str) -> list[str]:
        words = _NOT_A_WORD.sub(" ", text.lower()).split()
        if self.stemmer is None:
            return words
        return [self.stemmer(word) if len(word) > 3 else word for word in words]

    def _score(self, kind: str, text: str, reference: str) -> tuple[float, float, float]:
        if kind == "rougeLsum":
            ours, theirs = ([self._words(line) for line in t.split("\n") if line] for t in (text, reference))
            return _rates(_union_hits(theirs, ours), sum(map(len, ours)), sum(map(len, theirs)))
        guess, truth = self._words(text), self._words(reference)
        if kind == "rougeL":
            return _rates(int(_lcs(truth, guess)[-1, -1]), len(guess), len(truth))
        n = int(kind[5:])
        found, wanted = (Counter(tuple(x[i : i + n]) for i in range(len(x) - n + 1)) for x in (guess, truth))
        return _rates((found & wanted).total(), found.total(), wanted.total())


class SQuAD(Metric):
    """Exact match and token F1 of answers in percent: {"exact_match": …, "f1": …} (Rajpurkar et al., 2016, 2018).

    Both compare without case, ASCII punctuation, articles and extra spaces; of several answers the best counts. In
    version 2 a question may have no answer (an empty list): then only an empty prediction is right.

    >>> squad = SQuAD()
    >>> squad.update(["the Eiffel Tower"], [["Eiffel Tower.", "tower"]])
    >>> squad.compute()
    {'exact_match': 100.0, 'f1': 100.0}
    """

    _fields = ("exact", "overlap", "count")

    def __init__(self, version: Literal[1, 2] = 1) -> None:
        check_choice(version, (1, 2), "version", "SQuAD")
        self.version = version
        self.reset()

    def reset(self) -> None:
        self.exact, self.overlap, self.count = 0, 0.0, 0

    def update(self, preds: Any, target: Any) -> None:
        ours, theirs = texts(preds, target, "SQuAD")
        for text, answers in zip(ours, references(theirs, "SQuAD", empty=self.version == 2), strict=True):
            guess, truths = _normalize(text), [_normalize(answer) for answer in answers]
            if self.version == 2:
                truths = [truth for truth in truths if truth] or [""]
            self.exact += max(int(guess == truth) for truth in truths)
            self.overlap += max(self._f1(guess.split(), truth.split()) for truth in truths)
            self.count += 1

    def _f1(self, guess: list[str], truth: list[str]) -> float:
        if self.version == 2 and not (guess and truth):
            return float(guess == truth)
        return _rates((Counter(guess) & Counter(truth)).total(), len(guess), len(truth))[2]

    def compute(self) -> dict[str, float]:
        self._need(self.count)
        return {"exact_match": 100.0 * self.exact / self.count, "f1": 100.0 * self.overlap / self.count}


def align(truth: Sequence[Hashable], guess: Sequence[Hashable]) -> tuple[int, int, int, int]:
    """Hits, substitutions, deletions and insertions that make `truth` into `guess` with the fewest edits.

    Alignments of equally many edits can differ in their counts: equal ends are taken off first; then, from the end, a
    deletion goes before a substitution, and that before an insertion.
    """
    start, rest = 0, min(len(truth), len(guess))
    while start < rest and truth[start] == guess[start]:
        start += 1
    end = 0
    while end < rest - start and truth[-1 - end] == guess[-1 - end]:
        end += 1
    truth, guess = truth[start : len(truth) - end], guess[start : len(guess) - end]
    numbers: dict[Hashable, int] = {}
    source = np.array([numbers.setdefault(x, len(numbers)) for x in truth], np.int64)
    steps = np.arange(len(truth) + 1)
    # table[j, i]: edits from the first i of truth to the first j of guess. Within a row a deletion adds one a step, so
    # the row is a running minimum.
    table = np.empty((len(guess) + 1, len(truth) + 1), np.int32)
    table[0] = steps
    for j, item in enumerate(guess, 1):
        row = np.concatenate([[j], np.minimum(table[j - 1, 1:] + 1, table[j - 1, :-1] + (source != numbers.get(item)))])
        table[j] = np.minimum.accumulate(row - steps) + steps
    i, j = len(truth), len(guess)
    hits, counts = start + end, [0, 0, 0]
    while i and j:
        if table[j, i] == table[j, i - 1] + 1:
            i, counts[1] = i - 1, counts[1] + 1
        elif table[j - 1, i] == table[j - 1, i - 1] - 1:
            j, counts[2] = j - 1, counts[2] + 1
        else:
            i, j = i - 1, j - 1
            same = truth[i] == guess[j]
            hits, counts[0] = hits + same, counts[0] + (not same)
    return hits, counts[0], counts[1] + i, counts[2] + j


def _lcs(truth: list[str], guess: list[str]) -> np.ndarray:
    """Table (truth + 1, guess + 1) of lengths of the longest common subsequence of the beginnings."""
    table = np.zeros((len(truth) + 1, len(guess) + 1), np.int32)
    words = np.array(guess, object)
    for i, word in enumerate(truth, 1):
        row = np.maximum(table[i - 1, 1:], table[i - 1, :-1] + (words == word))
        table[i, 1:] = np.maximum.accumulate(row)
    return table


def _union_hits(truths: list[list[str]], guesses: list[list[str]]) -> int:
    """Words of reference sentences in the union of common subsequences with all sentences, none counted twice."""
    ours, theirs = (Counter(word for sentence in x for word in sentence) for x in (guesses, truths))
    hits = 0
    for truth in truths:
        places: set[int] = set()
        for guess in guesses:
            table = _lcs(truth, guess)
            i, j = len(truth), len(guess)
            while i and j:
                if truth[i - 1] == guess[j - 1]:
                    i, j = i - 1, j - 1
                    places.add(i)
                elif table[i, j - 1] > table[i - 1, j]:
                    j -= 1
                else:
                    i -= 1
        for place in sorted(places):
            word = truth[place]
            if ours[word] > 0 and theirs[word] > 0:
                hits, ours[word], theirs[word] = hits + 1, ours[word] - 1, theirs[word] - 1
    return hits


def _rates(hits: int, found: int, wanted: int) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    precision, recall = hits / max(found, 1), hits / max(wanted, 1)
    return precision, recall, float(ratio(2 * precision * recall, precision + recall, 0.0))


def _normalize(text: str) -> str:
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", kept).split())
