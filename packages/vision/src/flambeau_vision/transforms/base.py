"""What a transform is: samples, warps that move pixels and annotations alike, and composition.

A sample is a dict. Known keys, all but the first optional:

- ``image``: uint8 (H, W, 3) or (H, W);
- ``mask``: class indices (H, W);
- ``masks``: one mask for each object (N, H, W), bool or uint8;
- ``boxes``: float32 (N, 4), x1 y1 x2 y2;
- ``keypoints``: float32 (N, K, 2), or (N, K, 3) with a visibility; outside the picture all three become 0;
- ``labels`` and everything else is passed on (see :class:`SanitizeBoundingBoxes` for arrays with a row for each box).

Coordinates are continuous: (0, 0) is the corner of the top left pixel and (W, H) that of the bottom right one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flambeau.data import sample_rng

from . import functional as F

Sample = dict[str, Any]
_ABSENT: Any = object()


class Transform:
    """A transform of samples. Sub-classes write ``apply(sample, rng)``, which may change the dict but not its arrays.

    ``transform(sample)`` gives the new sample, ``transform(image)`` the new picture and ``transform(image, mask, rng)``
    the pair. Without ``rng`` it draws from `flambeau.data.sample_rng`: in a `DataLoader` the seed, the epoch and the
    sample's index alone decide.
    """

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        raise NotImplementedError(f"{type(self).__name__} has no apply()")

    def __call__(self, image: Any, mask: Any = _ABSENT, rng: np.random.Generator | None = None) -> Any:
        rng = sample_rng() if rng is None else rng
        if isinstance(image, Mapping):
            if mask is not _ABSENT:
                raise TypeError("a sample holds its own mask: call transform(sample) or transform(sample, rng=rng)")
            return self.apply(dict(image), rng)
        sample = {"image": image} if mask is _ABSENT or mask is None else {"image": image, "mask": mask}
        out = self.apply(sample, rng)
        return out["image"] if mask is _ABSENT else (out["image"], out.get("mask"))


class Warp:
    """A map of the plane. ``size`` is the result's; ``array`` moves pixels, ``points`` moves (..., 2) coordinates."""

    size: F.Size
    #: Points along each side of a box whose images bound it: 2 (the corners) suffice where lines stay lines.
    edge_points = 2

    def array(self, array: np.ndarray, fill: int, nearest: bool) -> np.ndarray:
        raise NotImplementedError

    def points(self, points: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """The smallest upright boxes round the moved ones, cut at the picture's edge."""
        steps = np.linspace(0, 1, self.edge_points)
        u = np.concatenate([steps, steps, np.zeros_like(steps), np.ones_like(steps)])
        v = np.concatenate([np.zeros_like(steps), np.ones_like(steps), steps, steps])
        x = boxes[:, :1] + (boxes[:, 2:3] - boxes[:, :1]) * u
        y = boxes[:, 1:2] + (boxes[:, 3:4] - boxes[:, 1:2]) * v
        moved = self.points(np.stack([x, y], axis=-1))
        out = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
        return clamp_boxes(out, self.size)


def clamp_boxes(boxes: np.ndarray, size: F.Size) -> np.ndarray:
    """Boxes (N, 4) cut to a picture of (height, width); one that lies outside becomes empty (zero width or height)."""
    return np.clip(boxes, 0, np.array([size[1], size[0]] * 2)).astype(np.float32)


def warp(sample: Sample, by: Warp, *, fill: int = 0, ignore_index: int = 255) -> Sample:
    """Move the picture and all its annotations through one map.

    >>> from flambeau_vision.transforms import Flip
    >>> sample = {"image": np.eye(3, dtype=np.uint8), "boxes": np.array([[0, 0, 1, 1]], np.float32)}
    >>> warp(sample, Flip((3, 3), horizontal=True))["boxes"].tolist()
    [[2.0, 0.0, 3.0, 1.0]]
    """
    out = dict(sample)
    out["image"] = by.array(sample["image"], fill, False)
    if sample.get("mask") is not None:
        out["mask"] = _nearest(by, sample["mask"], ignore_index)
    if sample.get("masks") is not None:
        masks = sample["masks"]
        moved = [_nearest(by, mask, 0) for mask in masks]
        out["masks"] = np.stack(moved) if moved else np.zeros((0, *by.size), masks.dtype)
    if sample.get("boxes") is not None:
        out["boxes"] = by.boxes(np.asarray(sample["boxes"], dtype=np.float64).reshape(-1, 4))
    if sample.get("keypoints") is not None:
        out["keypoints"] = _keypoints(by, sample["keypoints"])
    return out


def _nearest(by: Warp, mask: np.ndarray, fill: int) -> np.ndarray:
    """Pillow knows uint8 and int32: other kinds go through these."""
    plain = mask if mask.dtype == np.uint8 else mask.astype(np.uint8 if mask.dtype == bool else np.int32)
    return by.array(plain, fill, True).astype(mask.dtype, copy=False)


def _keypoints(by: Warp, keypoints: np.ndarray) -> np.ndarray:
    out = np.array(keypoints, dtype=np.float32)
    out[..., :2] = by.points(np.asarray(keypoints[..., :2], dtype=np.float64))
    if out.shape[-1] == 3:
        x, y = out[..., 0], out[..., 1]
        outside = (x < 0) | (y < 0) | (x > by.size[1]) | (y > by.size[0])
        out[outside | (np.asarray(keypoints)[..., 2] == 0)] = 0  # as COCO writes points that are not annotated
    return out


@dataclass(frozen=True)
class Crop(Warp):
    """A window of ``size`` whose top left corner lies at (top, left), which may be outside."""

    top: int
    left: int
    size: F.Size

    def array(self, array: np.ndarray, fill: int, nearest: bool) -> np.ndarray:
        return F.crop(array, self.top, self.left, self.size, fill)

    def points(self, points: np.ndarray) -> np.ndarray:
        return points - (self.left, self.top)


@dataclass(frozen=True)
class Scale(Warp):
    """From a size to another."""

    before: F.Size
    size: F.Size

    def array(self, array: np.ndarray, fill: int, nearest: bool) -> np.ndarray:
        return F.resize(array, self.size, nearest=nearest)

    def points(self, points: np.ndarray) -> np.ndarray:
        return points * (self.size[1] / self.before[1], self.size[0] / self.before[0])


@dataclass(frozen=True)
class Flip(Warp):
    """Mirror."""

    size: F.Size
    horizontal: bool

    def array(self, array: np.ndarray, fill: int, nearest: bool) -> np.ndarray:
        return F.hflip(array) if self.horizontal else F.vflip(array)

    def points(self, points: np.ndarray) -> np.ndarray:
        out = np.array(points)
        axis = 0 if self.horizontal else 1
        out[..., axis] = self.size[1 - axis] - out[..., axis]
        return out


@dataclass(frozen=True)
class Projective(Warp):
    """An affine or projective map; ``matrix`` (3, 3) takes the result's coordinates to the picture's."""

    matrix: np.ndarray = field(compare=False)
    size: F.Size

    def array(self, array: np.ndarray, fill: int, nearest: bool) -> np.ndarray:
        if np.array_equal(self.matrix[2], (0.0, 0.0, 1.0)):
            return F.affine(array, self.matrix[:2], self.size, fill=fill, nearest=nearest)
        return F.perspective(array, self.matrix, self.size, fill=fill, nearest=nearest)

    def points(self, points: np.ndarray) -> np.ndarray:
        inverse = np.linalg.inv(self.matrix)
        moved = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ inverse.T
        return moved[..., :2] / moved[..., 2:]


@dataclass(frozen=True)
class Compose(Transform):
    """Run transforms one after another with the same generator.

    A plain function among them is called as ``function(image, mask, rng)`` and returns the pair.
    """

    transforms: Sequence[Callable[..., Any]]

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        for transform in self.transforms:
            sample = run(transform, sample, rng)
        return sample


@dataclass(frozen=True)
class RandomApply(Transform):
    """Run all of ``transforms`` with probability ``p``, else none."""

    transforms: Sequence[Callable[..., Any]]
    p: float = 0.5

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return sample
        return Compose(self.transforms).apply(sample, rng)


@dataclass(frozen=True)
class RandomChoice(Transform):
    """Run one of ``transforms``, drawn with the weights ``p`` (equal ones without)."""

    transforms: Sequence[Callable[..., Any]]
    p: Sequence[float] | None = None

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        weights = None if self.p is None else np.asarray(self.p, dtype=np.float64) / np.sum(self.p)
        return run(self.transforms[int(rng.choice(len(self.transforms), p=weights))], sample, rng)


def run(transform: Callable[..., Any], sample: Sample, rng: np.random.Generator) -> Sample:
    """One step: a `Transform`, or a plain function of (image, mask, rng)."""
    if isinstance(transform, Transform):
        return transform.apply(dict(sample), rng)
    image, mask = transform(sample["image"], sample.get("mask"), rng)
    return {**sample, "image": image} if mask is None else {**sample, "image": image, "mask": mask}
