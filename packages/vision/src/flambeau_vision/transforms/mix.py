"""Mixing several samples: MixUp and CutMix on batches, Mosaic on four samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from flambeau.data import sample_rng

from . import functional as F
from .base import Crop, Sample, Scale, warp

Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Mix:
    num_classes: int
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"alpha must be positive, not {self.alpha}")

    def __call__(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        rng = sample_rng() if rng is None else rng
        images, labels = np.asarray(images), np.asarray(labels)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images, {len(labels)} labels")
        if labels.ndim == 1:
            labels = np.eye(self.num_classes, dtype=np.float32)[labels]
        mixed, kept = self._images(images, np.roll(images, 1, axis=0), float(rng.beta(self.alpha, self.alpha)), rng)
        share = np.float32(kept)
        return mixed, labels * share + np.roll(labels, 1, axis=0) * (1 - share)

    def _images(
        self, images: np.ndarray, others: np.ndarray, kept: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        raise NotImplementedError


class MixUp(_Mix):
    """Blend each picture of a batch, and its label, with its neighbour (Zhang et al. 2017).

    Call it in ``collate_fn`` with float pictures (N, C, H, W) and labels (N,) or (N, K); the labels come back (N, K).

    >>> images, labels = np.ones((2, 3, 4, 4), np.float32), np.array([0, 1])
    >>> MixUp(num_classes=2)(images, labels, np.random.default_rng(0))[1].sum(axis=1).tolist()
    [1.0, 1.0]
    """

    def _images(
        self, images: np.ndarray, others: np.ndarray, kept: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        share = np.float32(kept)
        return images * share + others * (1 - share), kept


class CutMix(_Mix):
    """Paste a rectangle of the neighbour into each picture of a batch (Yun et al. 2019); called as :class:`MixUp`."""

    def _images(
        self, images: np.ndarray, others: np.ndarray, kept: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        height, width = images.shape[-2:]
        y, x = int(rng.integers(height)), int(rng.integers(width))
        half_y, half_x = int(0.5 * sqrt(1 - kept) * height), int(0.5 * sqrt(1 - kept) * width)
        y0, y1, x0, x1 = max(y - half_y, 0), min(y + half_y, height), max(x - half_x, 0), min(x + half_x, width)
        out = images.copy()
        out[..., y0:y1, x0:x1] = others[..., y0:y1, x0:x1]
        return out, 1 - (y1 - y0) * (x1 - x0) / (height * width)


@dataclass(frozen=True)
class Mosaic:
    """Four samples in the quarters of one picture (Bochkovskiy et al. 2020), with a random meeting point.

    Each sample is scaled to touch the meeting point and cover its quarter as far as it can; boxes, labels, masks and
    keypoints are joined, what falls outside is cut. Follow with `SanitizeBoundingBoxes`.

    Args:
        size: height and width of the result.
        centre: range of the meeting point as a part of the sides.
    """

    size: F.Size
    centre: tuple[float, float] = (0.3, 0.7)
    fill: int = 114
    ignore_index: int = 255

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator | None = None) -> Sample:
        if len(samples) != 4:
            raise ValueError(f"a mosaic takes four samples, not {len(samples)}")
        rng = sample_rng() if rng is None else rng
        height, width = self.size
        cy, cx = (round(full * rng.uniform(*self.centre)) for full in self.size)
        corners = ((0, 0, cy, cx), (0, cx, cy, width), (cy, 0, height, cx), (cy, cx, height, width))
        parts = []
        for sample, (top, left, bottom, right) in zip(samples, corners, strict=True):
            sample = {**sample, "image": F.as_rgb(sample["image"])}
            before, quarter = sample["image"].shape[:2], (bottom - top, right - left)
            ratio = max(quarter[0] / before[0], quarter[1] / before[1])
            scaled = (max(quarter[0], round(before[0] * ratio)), max(quarter[1], round(before[1] * ratio)))
            inner = Crop(scaled[0] - quarter[0] if top == 0 else 0, scaled[1] - quarter[1] if left == 0 else 0, quarter)
            part = warp(warp(sample, Scale(before, scaled)), inner)
            parts.append(warp(part, Crop(-top, -left, self.size), fill=self.fill, ignore_index=self.ignore_index))
        out = dict(parts[0])
        for part, (top, left, bottom, right) in zip(parts, corners, strict=True):
            for key in ("image", "mask"):
                if key in out and key in part:
                    if part is parts[0]:
                        out[key] = np.array(out[key])
                    out[key][top:bottom, left:right] = part[key][top:bottom, left:right]
        for key in ("boxes", "labels", "masks", "keypoints", "iscrowd", "area"):
            if all(key in part for part in parts):
                out[key] = np.concatenate([part[key] for part in parts])
            else:
                out.pop(key, None)
        return out
