"""Metrics of regression. All but `SpearmanCorrelation` keep sums, which are merged batch by batch (Chan et al., 1979):
that stays accurate for values far from zero."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ...errors import FlambeauError
from .base import Metric, undefined

__all__ = ["MAE", "MAPE", "MSE", "R2", "RMSE", "ExplainedVariance", "PearsonCorrelation", "SpearmanCorrelation"]


class _Errors(Metric):
    """Running mean of an error of regression over all elements."""

    _fields = ("total", "count")
    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total: float = 0.0
        self.count: float = 0

    def update(self, preds: Any, target: Any, weight: Any = None) -> None:
        guess, truth = _pair(self, preds, target)
        errors = self._error(guess - truth, truth)
        if weight is None:
            self.total += float(errors.sum())
            self.count += errors.size
        else:
            weights = self._weight(weight, truth.shape)
            self.total += float((errors * weights).sum())
            self.count += float(weights.sum())

    def _error(self, difference: np.ndarray, truth: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def compute(self) -> float:
        self._need(self.count)
        return self.total / self.count


class MAE(_Errors):
    """Mean absolute error over all elements."""

    def _error(self, difference: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return np.abs(difference)


class MAPE(_Errors):
    """Mean absolute error relative to the target, over all elements; a fraction, not a percentage.

    Targets closer to zero than the rounding of float64 count as that rounding, so the value is then very large.
    """

    def _error(self, difference: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return np.abs(difference) / np.maximum(np.abs(truth), np.finfo(np.float64).eps)


class MSE(_Errors):
    """Mean squared error over all elements."""

    def _error(self, difference: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return difference * difference


class RMSE(_Errors):
    """Root of the mean squared error over all elements.

    >>> rmse = RMSE()
    >>> rmse.update([1.0, 2.0], [4.0, 6.0])
    >>> round(rmse.compute(), 4)
    3.5355
    """

    def _error(self, difference: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return difference * difference

    def compute(self) -> float:
        return math.sqrt(super().compute())


class _Moments(Metric):
    """Sums of prediction, target and their difference (k = 3): ``mean`` (k, D), ``moment`` (k, k, D).

    ``low`` and ``high`` (k, D) tell what is constant, which rounding hides from the moments.
    """

    _fields = ("count", "samples", "mean", "moment", "low", "high")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.count, self.samples = 0.0, 0
        self.mean = self.low = self.high = np.zeros((0, 0))
        self.moment = np.zeros((0, 0, 0))

    def update(self, preds: Any, target: Any, weight: Any = None) -> None:
        guess, truth = _pair(self, preds, target)
        if not truth.size:
            return
        guess, truth = (x.reshape(len(x), -1) if x.ndim else x.reshape(1, 1) for x in (guess, truth))
        weights = np.ones(len(truth)) if weight is None else self._weight(weight, truth.shape[:1])
        count = float(weights.sum())
        if not count:
            return
        counted = weights > 0
        guess, truth, weights = guess[counted], truth[counted], weights[counted]
        both = np.stack([guess, truth, guess - truth])
        mean = np.einsum("n,knd->kd", weights, both) / count
        away = both - mean[:, None]
        moment = np.einsum("n,jnd,knd->jkd", weights, away, away)
        self._add(count, len(weights), mean, moment, both.min(1), both.max(1))

    def _add(
        self, count: float, samples: int, mean: np.ndarray, moment: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> None:
        if not count:
            return
        if not self.count:
            self.count, self.samples, self.mean, self.moment, self.low, self.high = (
                count, samples, mean, moment, low, high,
            )  # fmt: skip
            return
        if mean.shape != self.mean.shape:
            outputs = f"{mean.shape[1]} outputs a sample after {self.mean.shape[1]}"
            raise ValueError(f"{type(self).__name__}: {outputs}; all batches must have the same number")
        total, shift = self.count + count, mean - self.mean
        self.moment = self.moment + moment + shift[:, None] * shift[None] * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.count, self.samples = total, self.samples + samples

    def merge(self, other: Self) -> None:
        """Takes the samples of another metric of the same kind in."""
        self._check_alike(other)
        self._add(other.count, other.samples, other.mean, other.moment, other.low, other.high)

    def _spreads(self) -> np.ndarray:
        """Sums of squares about the mean, (k, D): exactly 0 for what is constant."""
        _need_two(self, self.samples)
        return np.where(self.low == self.high, 0.0, np.einsum("kkd->kd", self.moment))


class R2(_Moments):
    """Coefficient of determination, 1 - SSE / SST; of several outputs (N, D) the mean over outputs.

    A constant target gives 1 when met exactly, else 0. Fewer than two samples are an error.
    """

    def compute(self) -> float:
        _, spread, errors = self._spreads()
        return _explained(spread, errors + self.count * self.mean[2] ** 2)


class ExplainedVariance(_Moments):
    """Like `R2`, but a constant offset of the predictions does not count: 1 - Var(error) / Var(target)."""

    def compute(self) -> float:
        _, spread, errors = self._spreads()
        return _explained(spread, errors)


class PearsonCorrelation(_Moments):
    """Pearson's correlation; of several outputs (N, D) the mean over outputs. NaN with a warning for constant values.

    >>> pearson = PearsonCorrelation()
    >>> pearson.update([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    >>> round(pearson.compute(), 4)
    1.0
    """

    def compute(self) -> float:
        guess, truth, _ = self._spreads()
        return _correlation(self, self.moment[0, 1], guess, truth)


class SpearmanCorrelation(Metric):
    """Spearman's rank correlation; equal values share their mean rank. Of several outputs the mean over outputs.

    It keeps all predictions and targets: ranks are known only at the end. NaN with a warning for constant values.
    """

    _fields = ("guesses", "truths")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.guesses: list[np.ndarray] = []
        self.truths: list[np.ndarray] = []

    def update(self, preds: Any, target: Any) -> None:
        guess, truth = _pair(self, preds, target)
        if truth.size:
            self.guesses.append(guess.reshape(len(guess), -1).copy() if guess.ndim else guess.reshape(1, 1).copy())
            self.truths.append(truth.reshape(self.guesses[-1].shape).copy())

    def compute(self) -> float:
        _need_two(self, sum(map(len, self.truths)))
        guess, truth = (np.apply_along_axis(_ranks, 0, np.concatenate(x)) for x in (self.guesses, self.truths))
        guess, truth = guess - guess.mean(0), truth - truth.mean(0)
        return _correlation(self, (guess * truth).sum(0), (guess**2).sum(0), (truth**2).sum(0))


def _pair(metric: Metric, preds: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    guess, truth = metric._array(preds, "predictions"), metric._array(target, "targets").astype(np.float64)
    if guess.shape != truth.shape:
        cause = f"{type(metric).__name__}: predictions have shape {guess.shape}, targets {truth.shape}"
        raise ValueError(f"{cause}; make them equal, e.g. preds.squeeze(-1)")
    return guess.astype(np.float64), truth


def _need_two(metric: Metric, count: int) -> None:
    if count < 2:
        raise FlambeauError(f"{type(metric).__name__}: it needs at least two samples", "is the dataset empty?")


def _explained(spread: np.ndarray, squares: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(spread > 0, 1 - squares / spread, (squares == 0).astype(np.float64))
    return float(scores.mean())


def _correlation(metric: Metric, both: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    if not (left > 0).all() or not (right > 0).all():
        undefined(type(metric).__name__, "predictions or targets are constant")
        return float("nan")
    return float(np.clip(both / (np.sqrt(left) * np.sqrt(right)), -1, 1).mean())


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values get the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[inverse]
