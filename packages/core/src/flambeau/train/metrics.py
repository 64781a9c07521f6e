"""Streaming metrics: they keep counts, never predictions, so they use the same memory for any number of samples.

Every metric has ``update(...)``, ``compute()``, ``reset()``, and ``state_dict()``/``load_state_dict()``. They take
Tensors or arrays. Class scores have their classes in dimension 1: (N, C) or (N, C, H, W), with targets (N) or
(N, H, W). NaN is refused where it arrives, since it would otherwise hide in an average. ``compute()`` before any sample
is an error.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from ..errors import FlambeauError

__all__ = [
    "F1", "MAE", "R2", "RMSE", "Accuracy", "ConfusionMatrix", "Dice", "Mean", "MeanIoU", "Metric", "Perplexity",
]  # fmt: skip

Average = Literal["macro", "micro", "weighted", "none"]


class Metric:
    """Base class; a metric's whole state is the attributes that ``reset`` sets, listed in ``_fields``."""

    _fields: tuple[str, ...] = ()
    higher_is_better = True

    def reset(self) -> None:
        """Forgets all samples."""
        raise NotImplementedError

    def update(self, *args: Any) -> None:
        """Takes a batch."""
        raise NotImplementedError

    def compute(self) -> Any:
        """The value over all samples since the last reset."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The counts, as plain data and arrays."""
        return {
            name: np.copy(value) if isinstance(value := getattr(self, name), np.ndarray) else value
            for name in self._fields
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes saved counts over."""
        for name in self._fields:
            value = state[name]
            setattr(self, name, np.copy(value) if isinstance(value, np.ndarray) else value)

    def merge(self, state: dict[str, Any]) -> None:
        """Takes the samples of another metric (its `state_dict`) in: the counts add up."""
        for name in self._fields:
            setattr(self, name, getattr(self, name) + state[name])

    def _array(self, value: Any, what: str) -> np.ndarray:
        array = value.detach().cpu().array if hasattr(value, "detach") else np.asarray(value)
        if array.dtype.kind not in "biuf":
            array = array.astype(np.float32)  # bfloat16 and other types that NumPy does not know
        if array.dtype.kind == "f" and np.isnan(array).any():
            name = type(self).__name__
            raise FlambeauError(
                f"{name}: the {what} contain NaN", "look for what makes it: flambeau.autograd.detect_anomaly()"
            )
        return array

    def _need(self, count: Any) -> None:
        if not count:
            raise FlambeauError(
                f"{type(self).__name__}: there are no samples to compute it from", "is the dataset empty?"
            )


class Mean(Metric):
    """Weighted mean of numbers, such as a loss: ``update(value, weight)``.

    >>> mean = Mean()
    >>> mean.update(1.0, 3)
    >>> mean.update(5.0)
    >>> mean.compute()
    2.0
    """

    _fields = ("total", "weight")
    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total, self.weight = 0.0, 0.0

    def update(self, value: Any, weight: Any = 1.0) -> None:
        values = self._array(value, "values").astype(np.float64)
        weights = np.broadcast_to(self._array(weight, "weights").astype(np.float64), values.shape)
        self.total += float((values * weights).sum())
        self.weight += float(weights.sum())

    def compute(self) -> float:
        self._need(self.weight)
        return self.total / self.weight


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
        self.hits, self.count = 0, 0

    def update(self, preds: Any, target: Any) -> None:
        scores, labels = self._array(preds, "predictions"), self._array(target, "targets")
        keep = np.ones(labels.shape, bool) if self.ignore_index is None else labels != self.ignore_index
        if scores.ndim == labels.ndim:
            if self.top_k > 1:
                raise ValueError("Accuracy: top_k > 1 needs class scores, not class numbers")
            right = _as_labels(scores, labels, "Accuracy") == labels
        else:
            scores = _class_last(scores, labels, "Accuracy")
            _check_range(labels[keep], scores.shape[-1], "targets", "Accuracy")
            if self.top_k > scores.shape[-1]:
                raise ValueError(f"Accuracy: top_k={self.top_k} of {scores.shape[-1]} classes")
            index = np.where(keep, labels, 0).astype(np.int64)[..., None]
            own = np.take_along_axis(scores, index, -1)
            ahead = (scores > own) | ((scores == own) & (np.arange(scores.shape[-1]) < index))
            right = ahead.sum(-1) < self.top_k
        self.hits += int((right & keep).sum())
        self.count += int(keep.sum())

    def compute(self) -> float:
        self._need(self.count)
        return self.hits / self.count


class ConfusionMatrix(Metric):
    """Counts of (target, prediction) pairs: ``compute()[t, p]``, an int64 array of (num_classes, num_classes)."""

    _fields = ("matrix",)

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.reset()

    def reset(self) -> None:
        self.matrix = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, preds: Any, target: Any) -> None:
        name, n = type(self).__name__, self.num_classes
        scores, labels = self._array(preds, "predictions"), self._array(target, "targets")
        if scores.ndim == labels.ndim:
            guess = _as_labels(scores, labels, name)
        else:
            guess = _class_last(scores, labels, name).argmax(-1)
        if self.ignore_index is not None:
            keep = labels != self.ignore_index
            guess, labels = guess[keep], labels[keep]
        _check_range(labels, n, "targets", name)
        _check_range(guess, n, "predictions", name)
        pairs = labels.astype(np.int64).ravel() * n + guess.astype(np.int64).ravel()
        self.matrix += np.bincount(pairs, minlength=n * n).reshape(n, n)

    def compute(self) -> Any:
        self._need(self.matrix.sum())
        return self.matrix.copy()

    def _counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True positives, predicted, actual, by class."""
        self._need(self.matrix.sum())
        return np.diag(self.matrix).astype(np.float64), self.matrix.sum(0), self.matrix.sum(1)


class MeanIoU(ConfusionMatrix):
    """Mean over classes of intersection over union (Jaccard index), over all pixels of all images together.

    A class that occurs neither in targets nor in predictions has no value and is left out of the mean.

    >>> iou = MeanIoU(3, ignore_index=255)
    >>> iou.update([[0, 1, 1, 0]], [[0, 1, 0, 255]])
    >>> iou.compute()
    0.5
    """

    def per_class(self) -> np.ndarray:
        """IoU of every class; NaN for a class that does not occur."""
        hits, predicted, actual = self._counts()
        return _ratio(hits, predicted + actual - hits)

    def compute(self) -> float:
        return float(np.nanmean(self.per_class()))


class F1(ConfusionMatrix):
    """F1 score of class predictions: ``average`` "macro" (over the classes that occur), "micro", "weighted" or "none".

    >>> f1 = F1(2)
    >>> f1.update([0, 1, 1, 1], [0, 1, 0, 1])
    >>> round(f1.compute(), 4)
    0.7333
    """

    def __init__(self, num_classes: int, average: Average = "macro", ignore_index: int | None = None) -> None:
        if average not in ("macro", "micro", "weighted", "none"):
            raise ValueError(f"{type(self).__name__}: average must be macro, micro, weighted or none, not {average!r}")
        self.average = average
        super().__init__(num_classes, ignore_index)

    def per_class(self) -> np.ndarray:
        """F1 of every class; NaN for a class that does not occur."""
        hits, predicted, actual = self._counts()
        return _ratio(2 * hits, predicted + actual)

    def compute(self) -> Any:
        hits, predicted, actual = self._counts()
        scores = self.per_class()
        if self.average == "none":
            return scores
        if self.average == "micro":
            return float(2 * hits.sum() / (predicted.sum() + actual.sum()))
        if self.average == "weighted":
            return float((np.nan_to_num(scores) * actual).sum() / actual.sum())
        return float(np.nanmean(scores))


class Dice(F1):
    """Dice coefficient of segmentations, 2|A and B| / (|A| + |B|), over all pixels together; averages as for `F1`."""


class _Errors(Metric):
    """Running sums of an error of regression."""

    _fields: tuple[str, ...] = ("total", "count")
    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, preds: Any, target: Any) -> None:
        difference = self._difference(preds, target)[0]
        self.total += float(self._error(difference).sum())
        self.count += difference.size

    def _error(self, difference: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _difference(self, preds: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
        guess, truth = self._array(preds, "predictions"), self._array(target, "targets").astype(np.float64)
        if guess.shape != truth.shape:
            cause = f"{type(self).__name__}: predictions have shape {guess.shape}, targets {truth.shape}"
            raise ValueError(f"{cause}; make them equal, e.g. preds.squeeze(-1)")
        return guess.astype(np.float64) - truth, truth


class MAE(_Errors):
    """Mean absolute error over all elements."""

    def _error(self, difference: np.ndarray) -> np.ndarray:
        return np.abs(difference)

    def compute(self) -> float:
        self._need(self.count)
        return self.total / self.count


class RMSE(_Errors):
    """Root of the mean squared error over all elements."""

    def _error(self, difference: np.ndarray) -> np.ndarray:
        return difference * difference

    def compute(self) -> float:
        self._need(self.count)
        return math.sqrt(self.total / self.count)


class R2(_Errors):
    """Coefficient of determination, 1 - SSE / SST; of several outputs (N, D) the mean over outputs.

    A constant target gives 1 when met exactly, else 0. The sums are merged batch by batch (Chan et al., 1979), which
    stays accurate for targets far from zero.
    """

    _fields = ("count", "mean", "spread", "squares")
    higher_is_better = True

    def reset(self) -> None:
        self.count = 0
        self.mean = self.spread = self.squares = np.zeros(0)

    def update(self, preds: Any, target: Any) -> None:
        difference, truth = self._difference(preds, target)
        if not truth.size:
            return
        difference, truth = difference.reshape(len(difference), -1), truth.reshape(len(truth), -1)
        mean = truth.mean(0)
        squares = (difference**2).sum(0)
        self.merge({"count": len(truth), "mean": mean, "spread": ((truth - mean) ** 2).sum(0), "squares": squares})

    def merge(self, state: dict[str, Any]) -> None:
        n = state["count"]
        if not n:
            return
        if not self.count:
            self.mean = self.spread = self.squares = np.zeros(len(state["mean"]))
        total = self.count + n
        shift = state["mean"] - self.mean
        self.spread = self.spread + state["spread"] + shift**2 * (self.count * n / total)
        self.mean = self.mean + shift * (n / total)
        self.squares = self.squares + state["squares"]
        self.count = total

    def compute(self) -> float:
        if self.count < 2:
            raise FlambeauError("R2: it needs at least two samples", "is the dataset empty?")
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.where(self.spread > 0, 1 - self.squares / self.spread, (self.squares == 0).astype(np.float64))
        return float(scores.mean())


class Perplexity(Metric):
    """exp of the mean negative log-likelihood: ``update(logits, target)`` with logits (N, C, ...); -100 is ignored."""

    _fields = ("total", "count")
    higher_is_better = False

    def __init__(self, ignore_index: int = -100) -> None:
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, logits: Any, target: Any) -> None:
        scores, labels = self._array(logits, "logits"), self._array(target, "targets")
        scores = _class_last(scores, labels, "Perplexity").astype(np.float64)
        keep = labels != self.ignore_index
        scores, labels = scores[keep], labels[keep].astype(np.int64)
        _check_range(labels, scores.shape[-1], "targets", "Perplexity")
        if not labels.size:
            return
        top = scores.max(-1)
        normaliser = top + np.log(np.exp(scores - top[:, None]).sum(-1))
        self.total += float((normaliser - np.take_along_axis(scores, labels[:, None], -1)[:, 0]).sum())
        self.count += labels.size

    def compute(self) -> float:
        self._need(self.count)
        return math.exp(min(self.total / self.count, 709.0))


def _class_last(scores: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    if scores.ndim != labels.ndim + 1 or scores.shape[:1] + scores.shape[2:] != labels.shape:
        raise ValueError(f"{name}: scores of shape {scores.shape} do not fit targets of shape {labels.shape}")
    return np.moveaxis(scores, 1, -1)


def _as_labels(guess: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    if guess.shape != labels.shape:
        raise ValueError(f"{name}: predictions of shape {guess.shape} do not fit targets of shape {labels.shape}")
    if guess.dtype.kind == "f":
        raise ValueError(
            f"{name}: predictions of shape {guess.shape} must be class numbers; scores have one dimension more"
        )
    return guess


def _check_range(labels: np.ndarray, classes: int, what: str, name: str) -> None:
    if labels.dtype.kind == "f":
        raise ValueError(f"{name}: the {what} must be class numbers, not {labels.dtype}")
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        wrong = int(labels.min() if labels.min() < 0 else labels.max())
        raise ValueError(
            f"{name}: the {what} contain class {wrong}, but there are {classes} classes; set ignore_index?"
        )


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under > 0, over / under, np.nan)
