"""Metrics of sequences as the tasks use them: perplexity of next-token scores, and BLEU of translations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flambeau.train import BLEU, Perplexity


class TokenPerplexity(Perplexity):
    """Perplexity of scores (N, T, V), the vocabulary last as language models have it, for targets (N, T)."""

    def update(self, logits: Any, target: Any, weight: Any = None) -> None:
        flat = None if weight is None else weight.reshape(-1)
        super().update(logits.reshape(-1, logits.shape[-1]), target.reshape(-1), flat)


def bleu(hypotheses: Iterable[str], references: Iterable[str]) -> float:
    """Corpus BLEU in percent with one reference a line, no smoothing (Papineni et al. 2002).

    Texts are cut into tokens by the rules of mteval-v13a, case kept; `flambeau.train.BLEU` has other choices.

    >>> bleu(["the cat sat on the mat."], ["the cat sat on the mat."])
    100.0
    """
    metric = BLEU(smooth_method="none")
    metric.update(hypotheses, references)
    return metric.compute()
