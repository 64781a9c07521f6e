"""Metrics of sequences: perplexity of next-token scores, and BLEU."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from flambeau.train import Perplexity

_SIGNS = re.compile(r"""([!-&(-+:-@\[-`{-~/])""")
_STOP_AFTER = re.compile(r"([^0-9])([.,])")
_STOP_BEFORE = re.compile(r"([.,])([^0-9])")
_DASH = re.compile(r"([0-9])(-)")


class TokenPerplexity(Perplexity):
    """Perplexity of scores (N, T, V), the vocabulary last as language models have it, for targets (N, T)."""

    def update(self, logits: Any, target: Any) -> None:
        super().update(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))


def bleu(hypotheses: Iterable[str], references: Iterable[str], order: int = 4) -> float:
    """Corpus BLEU in percent with one reference a line, no smoothing (Papineni et al. 2002).

    Texts are cut into tokens by the rules of mteval-v13a, case kept: comparable with ``sacrebleu``'s default.

    >>> bleu(["the cat sat on the mat."], ["the cat sat on the mat."])
    100.0
    """
    hits, totals, ours, theirs = [0] * order, [0] * order, 0, 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        guess, truth = bleu_tokens(hypothesis), bleu_tokens(reference)
        ours, theirs = ours + len(guess), theirs + len(truth)
        for n in range(1, order + 1):
            found, wanted = _ngrams(guess, n), _ngrams(truth, n)
            hits[n - 1] += sum((found & wanted).values())
            totals[n - 1] += sum(found.values())
    if not all(hits):
        return 0.0
    mean = sum(math.log(hit / total) for hit, total in zip(hits, totals, strict=True)) / order
    return 100.0 * math.exp(mean + min(0.0, 1.0 - theirs / ours))


def bleu_tokens(text: str) -> list[str]:
    """Tokens by mteval-v13a: signs stand alone; full stops and commas do unless within a number."""
    text = _SIGNS.sub(r" \1 ", f" {text} ")
    text = _STOP_AFTER.sub(r"\1 \2 ", text)
    text = _STOP_BEFORE.sub(r" \1 \2", text)
    return _DASH.sub(r"\1 \2 ", text).split()


def _ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))
