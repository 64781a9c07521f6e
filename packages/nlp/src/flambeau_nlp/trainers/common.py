"""What the trainers of language models share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.train import supervised

PLUGIN = "flambeau-nlp"


def token_loss(ignore_index: int = -100, label_smoothing: float = 0.0) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Cross-entropy of scores (N, T, V) and tokens (N, T) as a loss of the loop -> (sum, tokens that count)."""
    loss = supervised.cross_entropy(ignore_index=ignore_index, label_smoothing=label_smoothing)

    def flat(output: Any, target: Any) -> tuple[Any, Any]:
        return loss(output.reshape(-1, output.shape[-1]), target.reshape(-1))

    return flat
