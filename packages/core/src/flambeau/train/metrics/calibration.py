"""How far confidence is from being right."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from .base import Metric, check_choice, check_probabilities, check_range, check_shape, class_last

__all__ = ["CalibrationError"]


class CalibrationError(Metric):
    """Expected calibration error (Naeini et al., 2015): mean distance of confidence and accuracy over bins.

    Probabilities (N, C) or (N, C, ...) of classes: the highest is the confidence, right or wrong. Probabilities of
    class 1 in the targets' shape: they are compared with how often class 1 is the target. Bins are ``(low, high]`` of
    equal width, the first also holding 0. With `adaptive` they hold equally many samples (edges at the quantiles; Nixon
    et al., 2019), for which all confidences are kept; else only sums by bin are. `norm` "max" gives the largest
    distance of a bin instead.

    >>> ece = CalibrationError(bins=2)
    >>> ece.update([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    >>> round(ece.compute(), 4)
    0.35
    """

    higher_is_better = False

    def __init__(self, bins: int = 15, adaptive: bool = False, norm: Literal["l1", "max"] = "l1") -> None:
        check_choice(norm, ("l1", "max"), "norm", "CalibrationError")
        if bins < 1:
            raise ValueError(f"CalibrationError: bins must be at least 1, not {bins}")
        self.bins, self.adaptive, self.norm = bins, adaptive, norm
        self.reset()

    @property
    def _fields(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("samples",) if self.adaptive else ("sums",)

    def reset(self) -> None:
        if self.adaptive:
            self.samples: list[np.ndarray] = []
        else:
            self.sums = np.zeros((3, self.bins))

    def update(self, preds: Any, target: Any, weight: Any = None) -> None:
        name = "CalibrationError"
        values, labels = self._array(preds, "predictions"), self._array(target, "targets")
        if values.ndim == labels.ndim:
            check_shape(values, labels, name)
            check_range(labels, 2, "targets", name)
            confidence, right = values, labels == 1
        else:
            values = class_last(values, labels, name)
            check_range(labels, values.shape[-1], "targets", name)
            confidence, right = values.max(-1), values.argmax(-1) == labels
        check_probabilities(values, name)
        weights = np.ones(labels.shape) if weight is None else self._weight(weight, labels.shape)
        rows = np.stack([x.astype(np.float64).ravel() for x in (weights, confidence, right)])
        if self.adaptive:
            self.samples.append(rows)
        else:
            self.sums = self.sums + _sums(rows, np.linspace(0, 1, self.bins + 1))

    def compute(self) -> float:
        if self.adaptive:
            self._need(sum(rows.shape[1] for rows in self.samples))
            rows = np.concatenate(self.samples, 1)
            sums = _sums(rows, np.quantile(rows[1], np.linspace(0, 1, self.bins + 1)))
        else:
            sums = self.sums
        count, confidence, right = sums
        self._need(count.sum())
        gaps = np.abs(confidence - right) / np.where(count > 0, count, 1)
        return float(gaps.max() if self.norm == "max" else (gaps * count).sum() / count.sum())


def _sums(rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Weight, confidence and right answers by bin."""
    weights, confidence, right = rows
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    return np.stack([np.bincount(place, weights * x, len(edges) - 1) for x in (1.0, confidence, right)])
