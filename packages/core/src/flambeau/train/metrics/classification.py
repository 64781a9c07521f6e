"""Metrics of class predictions: all keep counts by class, so their memory does not grow with the samples.

Predictions are scores (N, C) or (N, C, ...), whose highest counts, or class numbers in the targets' shape. Sources: the
definitions are scikit-learn's with ``zero_division=0``; a class that occurs neither in targets nor in predictions has
no value and is left out of macro averages.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from .base import (
    Metric,
    as_labels,
    check_choice,
    check_probabilities,
    check_range,
    check_shape,
    check_sums,
    class_last,
    ratio,
    undefined,
)  # fmt: skip

__all__ = [
    "F1", "Accuracy", "BalancedAccuracy", "BrierScore", "CohenKappa", "ConfusionMatrix", "FBeta", "LogLoss",
    "MatthewsCorrelation", "MultilabelAccuracy", "Precision", "Recall", "Specificity",
]  # fmt: skip

Average = Literal["macro", "micro", "weighted", "binary", "none"]


class Accuracy(Metric):
    """Share of samples whose target is among the `top_k` highest scores; predictions may also be class numbers.

    Equal scores rank by class number, as ``argmax`` does. Targets equal to `ignore_index` do not count.

    >>> accuracy = Accuracy()
    >>> accuracy.update([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    >>> accuracy.compute()
    0.5
    """

    _fields = ("hits", "count")

    def __init__(self, top_k: int = 1, ignore_index: int | None = None) -> None:
        if top_k < 1:
            raise ValueError(f"Accuracy: top_k must be at least 1, not {top_k}")
        self.top_k, self.ignore_index = top_k, ignore_index
        self.reset()

    def reset(self) -> None:
        self.hits: float = 0
        self.count: float = 0

    def update(self, preds: Any, target: Any, weight: Any = None) -> None:
        scores, labels = self._array(preds, "predictions"), self._array(target, "targets")
        keep = np.ones(labels.shape, bool) if self.ignore_index is None else labels != self.ignore_index
        if scores.ndim == labels.ndim:
            if self.top_k > 1:
                raise ValueError("Accuracy: top_k > 1 needs class scores, not class numbers")
            right = as_labels(scores, labels, "Accuracy") == labels
        else:
            scores = class_last(scores, labels, "Accuracy")
            check_range(labels[keep], scores.shape[-1], "targets", "Accuracy")
            if self.top_k > scores.shape[-1]:
                raise ValueError(f"Accuracy: top_k={self.top_k} of {scores.shape[-1]} classes")
            index = np.where(keep, labels, 0).astype(np.int64)[..., None]
            own = np.take_along_axis(scores, index, -1)
            ahead = (scores > own) | ((scores == own) & (np.arange(scores.shape[-1]) < index))
            right = ahead.sum(-1) < self.top_k
        if weight is None:
            self.hits += int((right & keep).sum())
            self.count += int(keep.sum())
        else:
            weights = self._weight(weight, labels.shape) * keep
            self.hits += float((weights * right).sum())
            self.count += float(weights.sum())

    def compute(self) -> float:
        self._need(self.count)
        return self.hits / self.count


class MultilabelAccuracy(Metric):
    """Share of samples with all labels right (`exact`), or share of right labels. Shapes (N, L); targets are 0 or 1.

    Scores count as a label from `threshold` on: 0.5 for probabilities, 0 for logits.

    >>> accuracy = MultilabelAccuracy(exact=False)
    >>> accuracy.update([[0.9, 0.2], [0.6, 0.4]], [[1, 0], [1, 1]])
    >>> accuracy.compute()
    0.75
    """

    _fields = ("hits", "count")

    def __init__(self, threshold: float = 0.5, exact: bool = True) -> None:
        self.threshold, self.exact = threshold, exact
        self.reset()

    def reset(self) -> None:
        self.hits, self.count = 0.0, 0.0

    def update(self, preds: Any, target: Any, weight: Any = None) -> None:
        guess, truth = multilabel(self, preds, target, self.threshold)
        right = (guess == truth).all(1) if self.exact else (guess == truth).mean(1)
        weights = np.ones(len(right)) if weight is None else self._weight(weight, right.shape)
        self.hits += float((weights * right).sum())
        self.count += float(weights.sum())

    def compute(self) -> float:
        self._need(self.count)
        return self.hits / self.count


class ConfusionMatrix(Metric):
    """Counts of (target, prediction) pairs: ``compute()[t, p]``, an array of (num_classes, num_classes).

    Its type is int64, or float64 where samples have weights.
    """

    _fields = ("matrix",)

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.reset()

    def reset(self) -> None:
        self.matrix = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, preds: Any, target: Any, weight: Any = None) -> None:
        n = self.num_classes
        guess, labels, weights = class_numbers(self, preds, target, weight, n, self.ignore_index)
        pairs = np.bincount(labels * n + guess, weights, minlength=n * n).reshape(n, n)
        self.matrix = self.matrix + pairs

    def compute(self) -> Any:
        self._need(self.matrix.sum())
        return self.matrix.copy()

    def _counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True positives, predicted, actual, by class."""
        self._need(self.matrix.sum())
        return np.diag(self.matrix).astype(np.float64), self.matrix.sum(0), self.matrix.sum(1)


class BalancedAccuracy(ConfusionMatrix):
    """Mean recall of the classes that occur in the targets; `adjusted` scales it so that chance is 0.

    >>> accuracy = BalancedAccuracy(2)
    >>> accuracy.update([0, 0, 0, 1], [0, 0, 0, 0])
    >>> accuracy.compute()
    0.75
    """

    def __init__(self, num_classes: int, adjusted: bool = False, ignore_index: int | None = None) -> None:
        self.adjusted = adjusted
        super().__init__(num_classes, ignore_index)

    def compute(self) -> float:
        hits, _, actual = self._counts()
        recalls = hits[actual > 0] / actual[actual > 0]
        score = float(recalls.mean())
        if not self.adjusted:
            return score
        if len(recalls) == 1:
            undefined("BalancedAccuracy", "the targets have one class, so chance is never wrong")
            return float("nan")
        chance = 1 / len(recalls)
        return (score - chance) / (1 - chance)


class MatthewsCorrelation(ConfusionMatrix):
    """Matthews correlation coefficient of any number of classes (Gorodkin, 2004); 0 where it is undefined.

    >>> matthews = MatthewsCorrelation(2)
    >>> matthews.update([0, 1, 1, 1], [0, 1, 0, 1])
    >>> round(matthews.compute(), 4)
    0.5774
    """

    def compute(self) -> float:
        hits, predicted, actual = self._counts()
        total = float(self.matrix.sum())
        predicted, actual = predicted.astype(np.float64), actual.astype(np.float64)
        spread = _pairs(predicted) * _pairs(actual)
        return float((hits.sum() * total - predicted @ actual) / np.sqrt(spread)) if spread > 0 else 0.0


class CohenKappa(ConfusionMatrix):
    """Cohen's kappa: agreement beyond chance (Cohen, 1960); `weights` "linear" or "quadratic" for ordered classes.

    NaN with a warning where targets and predictions are one and the same class.

    >>> kappa = CohenKappa(2)
    >>> kappa.update([0, 1, 1, 1], [0, 1, 0, 1])
    >>> kappa.compute()
    0.5
    """

    def __init__(
        self,
        num_classes: int,
        weights: Literal["linear", "quadratic"] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        check_choice(weights, (None, "linear", "quadratic"), "weights", "CohenKappa")
        self.weights = weights
        super().__init__(num_classes, ignore_index)

    def compute(self) -> float:
        _, predicted, actual = self._counts()
        steps = np.abs(np.subtract.outer(np.arange(self.num_classes), np.arange(self.num_classes)))
        cost = {None: steps > 0, "linear": steps, "quadratic": steps**2}[self.weights].astype(np.float64)
        expected = float((cost * np.outer(actual, predicted)).sum() / self.matrix.sum())
        if not expected:
            undefined("CohenKappa", "targets and predictions are one class, so there is no chance to be wrong")
            return float("nan")
        return 1 - float((cost * self.matrix).sum()) / expected


class _ClassScore(Metric):
    """Counts by class: true positives, predicted, actual, and of all samples (or labels)."""

    _fields = ("hits", "predicted", "actual", "total")

    def __init__(
        self,
        num_classes: int,
        average: Average = "macro",
        ignore_index: int | None = None,
        multilabel: bool = False,
        threshold: float = 0.5,
    ) -> None:
        check_choice(average, get_args(Average), "average", type(self).__name__)
        if average == "binary" and num_classes != 2:
            raise ValueError(f"{type(self).__name__}: average='binary' needs num_classes=2, not {num_classes}")
        if multilabel and ignore_index is not None:
            raise ValueError(f"{type(self).__name__}: ignore_index is for classes, not with multilabel=True")
        self.num_classes, self.average, self.ignore_index = num_classes, average, ignore_index
        self.multilabel, self.threshold = multilabel, threshold
        self.reset()

    def reset(self) -> None:
        self.hits = self.predicted = self.actual = np.zeros(self.num_classes)
        self.total = 0.0

    def update(self, preds: Any, target: Any, weight: Any = None) -> None:
        n = self.num_classes
        if self.multilabel:
            guess, truth = multilabel(self, preds, target, self.threshold)
            if truth.shape[1] != n:
                raise ValueError(f"{type(self).__name__}: {truth.shape[1]} labels do not fit num_classes={n}")
            weights = np.ones(len(truth)) if weight is None else self._weight(weight, truth.shape[:1])
            hits, predicted, actual = weights @ (guess & truth), weights @ guess, weights @ truth
            total = float(weights.sum())
        else:
            guess, labels, given = class_numbers(self, preds, target, weight, n, self.ignore_index)
            hits = np.bincount(labels[guess == labels], None if given is None else given[guess == labels], n)
            predicted, actual = np.bincount(guess, given, n), np.bincount(labels, given, n)
            total = float(actual.sum())
        self.hits, self.predicted, self.actual = self.hits + hits, self.predicted + predicted, self.actual + actual
        self.total += total

    def _score(self, hits: Any, predicted: Any, actual: Any, total: Any) -> np.ndarray:
        raise NotImplementedError

    def per_class(self) -> np.ndarray:
        """The score of every class; NaN for a class that occurs neither in targets nor in predictions."""
        self._need(self.total)
        scores = self._score(self.hits, self.predicted, self.actual, self.total)
        return np.where(self.predicted + self.actual > 0, scores, np.nan)

    def compute(self) -> Any:
        scores = self.per_class()
        if self.average == "none":
            return scores
        if self.average == "micro":
            total = self.total * self.num_classes
            return float(self._score(self.hits.sum(), self.predicted.sum(), self.actual.sum(), total))
        if self.average == "binary":
            return float(np.nan_to_num(scores[1]))
        if self.average == "weighted":
            return float(ratio((np.nan_to_num(scores) * self.actual).sum(), self.actual.sum(), 0.0))
        return float(np.nanmean(scores)) if not np.isnan(scores).all() else 0.0


class Precision(_ClassScore):
    """Share of predictions of a class that are right; averages as for `F1`.

    >>> precision = Precision(2, average="binary")
    >>> precision.update([1, 1, 0, 1], [1, 0, 0, 1])
    >>> round(precision.compute(), 4)
    0.6667
    """

    def _score(self, hits: Any, predicted: Any, actual: Any, total: Any) -> np.ndarray:
        return ratio(hits, predicted, 0.0)


class Recall(_ClassScore):
    """Share of samples of a class that are found (sensitivity); averages as for `F1`."""

    def _score(self, hits: Any, predicted: Any, actual: Any, total: Any) -> np.ndarray:
        return ratio(hits, actual, 0.0)


class Specificity(_ClassScore):
    """Share of samples of other classes that are not taken for a class (true negative rate); averages as for `F1`."""

    def _score(self, hits: Any, predicted: Any, actual: Any, total: Any) -> np.ndarray:
        return ratio(total - predicted - actual + hits, total - actual, 0.0)


class FBeta(_ClassScore):
    """F-beta score: recall counts `beta` times as much as precision; averages as for `F1`."""

    def __init__(
        self,
        num_classes: int,
        beta: float = 1.0,
        average: Average = "macro",
        ignore_index: int | None = None,
        multilabel: bool = False,
        threshold: float = 0.5,
    ) -> None:
        if not beta > 0:
            raise ValueError(f"FBeta: beta must be positive, not {beta}")
        self.beta = beta
        super().__init__(num_classes, average, ignore_index, multilabel, threshold)

    def _score(self, hits: Any, predicted: Any, actual: Any, total: Any) -> np.ndarray:
        square = self.beta**2
        return ratio((1 + square) * hits, predicted + square * actual, 0.0)


class F1(_ClassScore):
    """F1 score: ``average`` "macro" (over the classes that occur), "micro", "weighted", "binary" (class 1) or "none".

    With `multilabel` the predictions are scores (N, L), which count as a label from `threshold` on, for targets (N, L)
    of 0 and 1.

    >>> f1 = F1(2)
    >>> f1.update([0, 1, 1, 1], [0, 1, 0, 1])
    >>> round(f1.compute(), 4)
    0.7333
    """

    def _score(self, hits: Any, predicted: Any, actual: Any, total: Any) -> np.ndarray:
        return ratio(2 * hits, predicted + actual, 0.0)


class _ProbabilityScore(Metric):
    """Means over samples of a loss of probabilities: (N, C) or (N, C, ...), or of class 1 in the targets' shape."""

    _fields = ("total", "count")
    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total, self.count = 0.0, 0.0

    def update(self, preds: Any, target: Any, weight: Any = None) -> None:
        name = type(self).__name__
        values, labels = self._array(preds, "predictions"), self._array(target, "targets")
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        binary = values.ndim == labels.ndim
        if binary:
            check_shape(values, labels, name)
            check_probabilities(values, name)
            values = np.stack([1 - values, values], -1)
        else:
            values = class_last(values, labels, name)
            check_probabilities(values, name)
            check_sums(values, name)
        check_range(labels, values.shape[-1], "targets", name)
        losses = self._losses(values, labels.astype(np.int64), binary)
        weights = np.ones(labels.shape) if weight is None else self._weight(weight, labels.shape)
        self.total += float((losses * weights).sum())
        self.count += float(weights.sum())

    def _losses(self, values: np.ndarray, labels: np.ndarray, binary: bool) -> np.ndarray:
        raise NotImplementedError

    def compute(self) -> float:
        self._need(self.count)
        return self.total / self.count


class LogLoss(_ProbabilityScore):
    """Mean negative log-likelihood of probabilities, which are kept from 0 and 1 by the rounding of their type.

    >>> loss = LogLoss()
    >>> loss.update([0.5, 0.5], [0, 1])
    >>> round(loss.compute(), 4)
    0.6931
    """

    def _losses(self, values: np.ndarray, labels: np.ndarray, binary: bool) -> np.ndarray:
        own = np.take_along_axis(values, labels[..., None], -1)[..., 0]
        edge = np.finfo(values.dtype).eps
        return -np.log(np.clip(own, edge, 1 - edge).astype(np.float64))


class BrierScore(_ProbabilityScore):
    """Mean squared distance of probabilities from the outcome (Brier, 1950): over classes summed, of 1-D ones halved.

    >>> brier = BrierScore()
    >>> brier.update([0.5, 1.0], [0, 1])
    >>> brier.compute()
    0.125
    """

    def _losses(self, values: np.ndarray, labels: np.ndarray, binary: bool) -> np.ndarray:
        away = values.astype(np.float64) - (np.arange(values.shape[-1]) == labels[..., None])
        return (away**2).sum(-1) / (2 if binary else 1)


def _pairs(counts: np.ndarray) -> float:
    """Weight of pairs of samples of different classes: exactly 0 where there is one class only."""
    products = np.outer(counts, counts)
    np.fill_diagonal(products, 0)
    return float(products.sum())


def class_numbers(
    metric: Metric, preds: Any, target: Any, weight: Any, classes: int, ignore_index: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Flat class numbers of predictions and targets, and their weights, without the ignored ones."""
    name = type(metric).__name__
    scores, labels = metric._array(preds, "predictions"), metric._array(target, "targets")
    if scores.ndim == labels.ndim:
        guess = as_labels(scores, labels, name)
    else:
        guess = class_last(scores, labels, name).argmax(-1)
    weights = None if weight is None else metric._weight(weight, labels.shape)
    if ignore_index is not None:
        keep = labels != ignore_index
        guess, labels = guess[keep], labels[keep]
        weights = None if weights is None else weights[keep]
    check_range(labels, classes, "targets", name)
    check_range(guess, classes, "predictions", name)
    flat = None if weights is None else weights.ravel()
    return guess.astype(np.int64).ravel(), labels.astype(np.int64).ravel(), flat


def multilabel(metric: Metric, preds: Any, target: Any, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N, L) of predictions and targets, as booleans."""
    name = type(metric).__name__
    scores, truth = metric._array(preds, "predictions"), metric._array(target, "targets")
    check_shape(scores, truth, name)
    if truth.ndim != 2:
        raise ValueError(f"{name}: labels must have shape (N, L), not {truth.shape}")
    check_range(truth, 2, "targets", name)
    return scores >= threshold, truth.astype(bool)
