"""Metrics of segmentations: shares of pixels, and the distance of masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import FlambeauError
from .base import Metric, check_range, check_shape, ratio
from .classification import ConfusionMatrix, _ClassScore

__all__ = ["Dice", "HausdorffDistance", "MeanIoU", "PixelAccuracy"]


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
        return ratio(hits, predicted + actual - hits)

    def compute(self) -> float:
        return float(np.nanmean(self.per_class()))


class Dice(_ClassScore):
    """Dice coefficient of segmentations, 2|A and B| / (|A| + |B|), over all pixels together; averages as for `F1`."""

    def _score(self, hits: Any, predicted: Any, actual: Any, total: Any) -> np.ndarray:
        return ratio(2 * hits, predicted + actual, 0.0)


class PixelAccuracy(ConfusionMatrix):
    """Share of pixels with the right class; targets equal to `ignore_index` do not count.

    >>> accuracy = PixelAccuracy(2, ignore_index=255)
    >>> accuracy.update([[0, 1, 1, 0]], [[0, 1, 0, 255]])
    >>> round(accuracy.compute(), 4)
    0.6667
    """

    def compute(self) -> float:
        return float(self._counts()[0].sum() / self.matrix.sum())


class HausdorffDistance(Metric):
    """Mean over images of the Hausdorff distance of two masks (N, H, W) or (N, D, H, W) of 0 and 1.

    Of each foreground element of one mask the distance to the nearest of the other is taken; their maximum, or the
    `percentile` (95 for HD95), of the two directions the larger. `spacing` is the size of an element along each
    dimension. Two empty masks are at distance 0; one empty mask is an error, since no distance exists.

    >>> distance = HausdorffDistance()
    >>> distance.update([[[1, 0, 0, 0]]], [[[1, 0, 0, 1]]])
    >>> distance.compute()
    3.0
    """

    _fields = ("total", "count")
    higher_is_better = False

    def __init__(self, percentile: float = 100.0, spacing: Sequence[float] | None = None) -> None:
        if not 0 <= percentile <= 100:
            raise ValueError(f"HausdorffDistance: percentile must lie in [0, 100], not {percentile}")
        self.percentile, self.spacing = percentile, None if spacing is None else tuple(spacing)
        self.reset()

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, preds: Any, target: Any) -> None:
        guess, truth = self._array(preds, "predictions"), self._array(target, "targets")
        check_shape(guess, truth, "HausdorffDistance")
        if truth.ndim < 2:
            raise ValueError(f"HausdorffDistance: masks must have shape (N, H, W), not {truth.shape}")
        check_range(guess, 2, "predictions", "HausdorffDistance")
        check_range(truth, 2, "targets", "HausdorffDistance")
        spacing = np.ones(truth.ndim - 1) if self.spacing is None else np.asarray(self.spacing, np.float64)
        if spacing.shape != (truth.ndim - 1,):
            raise ValueError(f"HausdorffDistance: spacing has {spacing.size} numbers for {truth.ndim - 1} dimensions")
        distances = [self._distance(a, b, spacing) for a, b in zip(guess != 0, truth != 0, strict=True)]
        self.total += math.fsum(distances)
        self.count += len(distances)

    def _distance(self, guess: np.ndarray, truth: np.ndarray, spacing: np.ndarray) -> float:
        if guess.any() != truth.any():
            which = "target" if guess.any() else "prediction"
            raise FlambeauError(f"HausdorffDistance: the {which} is empty, the other is not", "leave such images out")
        if not guess.any():
            return 0.0
        ours, theirs = np.argwhere(guess) * spacing, np.argwhere(truth) * spacing
        there, back = _nearest(ours, theirs), _nearest(theirs, ours)
        return float(max(np.percentile(there, self.percentile), np.percentile(back, self.percentile)))

    def compute(self) -> float:
        self._need(self.count)
        return self.total / self.count


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each point to the nearest of the others, some points at a time to bound the memory."""
    step = max(1, 2_000_000 // (len(others) * points.shape[1]))
    found = np.empty(len(points))
    for i in range(0, len(points), step):
        found[i : i + step] = np.sqrt(((points[i : i + step, None] - others) ** 2).sum(-1).min(1))
    return found
