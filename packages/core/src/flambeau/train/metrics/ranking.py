"""Metrics of scores by their order: areas under the ROC and the precision-recall curve, exact also with equal scores.

Both keep all scores and targets: the order is known only at the end. Scores need not be probabilities.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from .base import Metric, check_choice, check_range, check_shape, ratio, undefined

__all__ = ["AUROC", "AveragePrecision"]

RankAverage = Literal["macro", "weighted", "micro", "none"]


class _Curve(Metric):
    """Scores, targets and weights of one of three kinds, which the first batch decides."""

    _fields = ("kinds", "scores", "targets", "weights")

    def __init__(self, average: RankAverage = "macro") -> None:
        check_choice(average, get_args(RankAverage), "average", type(self).__name__)
        self.average = average
        self.reset()

    def reset(self) -> None:
        self.kinds: list[str] = []
        self.scores: list[np.ndarray] = []
        self.targets: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []

    def update(self, preds: Any, target: Any, weight: Any = None) -> None:
        name = type(self).__name__
        scores, labels = self._array(preds, "predictions"), self._array(target, "targets")
        if labels.ndim == 1 and scores.ndim == 2 and len(scores) == len(labels):
            kind, classes = f"{scores.shape[1]} classes", scores.shape[1]
        else:
            check_shape(scores, labels, name)
            if labels.ndim not in (1, 2):
                raise ValueError(f"{name}: scores must have shape (N,), (N, C) or (N, L), not {scores.shape}")
            kind, classes = ("two classes", 2) if labels.ndim == 1 else (f"{labels.shape[1]} labels", 2)
        check_range(labels, classes, "targets", name)
        if self.kinds and kind != self.kinds[0]:
            raise ValueError(f"{name}: a batch of {kind} after batches of {self.kinds[0]}")
        if kind.endswith("classes") and scores.ndim == 2 and self.average == "micro":
            raise ValueError(f"{name}: average='micro' is for labels (N, L); of classes it is macro, weighted or none")
        weights = np.ones(len(labels)) if weight is None else self._weight(weight, labels.shape[:1])
        if len(labels):
            self.kinds = [kind]
            # float16 and float32 keep their order in float64, and sums are then exact enough.
            self.scores.append(scores.astype(np.float64))
            self.targets.append(labels.astype(np.int64))
            self.weights.append(weights.copy())

    def merge(self, other: Any) -> None:
        """Takes the samples of another metric of the same kind and options in."""
        if self.kinds and other.kinds and self.kinds != other.kinds:
            raise ValueError(f"{type(self).__name__}: cannot merge {other.kinds[0]} with {self.kinds[0]}")
        super().merge(other)
        self.kinds = self.kinds[:1]

    def _one(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        raise NotImplementedError

    def compute(self) -> Any:
        """A number; with ``average="none"`` an array of the value of every class or label."""
        self._need(self.scores)
        scores, labels = np.concatenate(self.scores), np.concatenate(self.targets)
        weights = np.concatenate(self.weights)
        self._need(weights.sum())
        if scores.ndim == 1:
            return self._one(scores, labels == 1, weights)
        positive = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(scores.shape[1])
        if self.average == "micro":
            return self._one(scores.ravel(), positive.ravel(), np.repeat(weights, scores.shape[1]))
        values = np.array([self._one(s, p, weights) for s, p in zip(scores.T, positive.T, strict=True)])
        if self.average == "none":
            return values
        share = weights @ positive if self.average == "weighted" else np.ones(len(values))
        # A class that does not occur has no share, whatever its value.
        return float((values[share > 0] * share[share > 0]).sum() / share.sum()) if share.sum() else 0.0


class AUROC(_Curve):
    """Area under the ROC curve: the chance that a positive sample scores above a negative one, equals counting half.

    Scores (N,) for targets 0 or 1; scores (N, C) for classes (N,), each class against the rest; scores (N, L) for
    labels (N, L). `average` is "macro", "weighted" (by frequency), "micro" (labels only) or "none". A class without
    positives or without negatives has the value NaN, with a warning.

    >>> auroc = AUROC()
    >>> auroc.update([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    >>> auroc.compute()
    0.75
    """

    def _one(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        hits, misses = _by_score(scores, positive, weights)
        area, whole = float((hits * (np.cumsum(misses[::-1])[::-1] - misses / 2)).sum()), hits.sum() * misses.sum()
        if not whole:
            undefined("AUROC", "the targets of a class are all positive or all negative")
            return float("nan")
        return area / float(whole)


class AveragePrecision(_Curve):
    """Area under the precision-recall curve as the sum of steps, sum (R_n - R_(n-1)) P_n, over distinct scores.

    Shapes and averages are those of `AUROC`. A class without positives has the value 0, with a warning.

    >>> precision = AveragePrecision()
    >>> precision.update([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    >>> round(precision.compute(), 4)
    0.8333
    """

    def _one(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        hits, misses = _by_score(scores, positive, weights)
        if not hits.sum():
            undefined("AveragePrecision", "the targets of a class have no positive", "0")
            return 0.0
        found = np.cumsum(hits)
        precision = ratio(found, found + np.cumsum(misses), 0.0)
        return float((hits * precision).sum() / hits.sum())


def _by_score(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of positives and of negatives at each distinct score, highest first."""
    distinct, place = np.unique(scores, return_inverse=True)
    hits = np.bincount(place, weights * positive, len(distinct))
    misses = np.bincount(place, weights * ~positive, len(distinct))
    return hits[::-1], misses[::-1]
