"""Geometry: picture, masks, boxes and keypoints move together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, log, radians, sqrt, tan
from typing import Any

import numpy as np

from . import functional as F
from .base import Crop, Flip, Projective, Sample, Scale, Transform, Warp, clamp_boxes, warp

Size = F.Size


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


@dataclass(frozen=True)
class Resize(Transform):
    """Resize to (height, width), or with one number so that the shorter side has it; masks by nearest neighbour.

    ``max_size`` (with one number only) bounds the longer side.

    >>> Resize(10)(np.zeros((20, 40, 3), np.uint8)).shape
    (10, 20, 3)
    """

    size: int | Size
    max_size: int | None = None

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        before = sample["image"].shape[:2]
        size: Size
        if isinstance(self.size, int):
            ratio = self.size / min(before)
            if self.max_size is not None:
                ratio = min(ratio, self.max_size / max(before))
            size = (max(1, int(before[0] * ratio + 1e-6)), max(1, int(before[1] * ratio + 1e-6)))
        else:
            size = _pair(self.size)
        return warp(sample, Scale(before, size))


@dataclass(frozen=True)
class CenterCrop(Transform):
    """Cut (height, width) from the middle."""

    size: int | Size
    fill: int = 0
    ignore_index: int = 255

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        size, image = _pair(self.size), sample["image"]
        top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
        return warp(sample, Crop(top, left, size), fill=self.fill, ignore_index=self.ignore_index)


@dataclass(frozen=True)
class RandomCrop(Transform):
    """Cut (height, width) somewhere, after ``padding`` pixels of ``fill`` on each side."""

    size: int | Size
    padding: int = 0
    fill: int = 0
    ignore_index: int = 255

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        size, shape = _pair(self.size), sample["image"].shape
        spare = (shape[0] + 2 * self.padding - size[0], shape[1] + 2 * self.padding - size[1])
        top, left = (int(rng.integers(min(s, 0), max(s, 0) + 1)) - self.padding for s in spare)
        return warp(sample, Crop(top, left, size), fill=self.fill, ignore_index=self.ignore_index)


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """Cut a part of ``scale`` of the area with a ratio width / height in ``ratio``, resize it (Szegedy et al. 2015)."""

    size: int | Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample["image"].shape[:2]
        top, left, cut = self._window(height, width, rng)
        return warp(warp(sample, Crop(top, left, cut)), Scale(cut, _pair(self.size)))

    def _window(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, Size]:
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = exp(rng.uniform(log(self.ratio[0]), log(self.ratio[1])))
            w, h = round(sqrt(area * aspect)), round(sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), (h, w)
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])  # the largest part of a ratio within range
        h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
        return (height - h) // 2, (width - w) // 2, (h, w)


@dataclass(frozen=True)
class RandomHorizontalFlip(Transform):
    """Mirror left and right with probability ``p``.

    ``pairs`` are the keypoints' partners (left eye, right eye), which change places: ``((1, 2), (3, 4))``.
    """

    p: float = 0.5
    pairs: tuple[tuple[int, int], ...] = ()

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return sample
        out = warp(sample, Flip(sample["image"].shape[:2], horizontal=True))
        if self.pairs and out.get("keypoints") is not None:
            order = np.arange(out["keypoints"].shape[1])
            for left, right in self.pairs:
                order[[left, right]] = order[[right, left]]
            out["keypoints"] = out["keypoints"][:, order]
        return out


@dataclass(frozen=True)
class RandomVerticalFlip(Transform):
    """Mirror top and bottom with probability ``p``."""

    p: float = 0.5

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return sample
        return warp(sample, Flip(sample["image"].shape[:2], horizontal=False))


@dataclass(frozen=True)
class Pad(Transform):
    """Add pixels: one number for all sides, (x, y), or (left, top, right, bottom).

    ``padding_mode`` is ``constant`` (``fill``, ``ignore_index`` in the mask), ``edge``, ``reflect`` or ``symmetric``.
    """

    padding: int | Sequence[int]
    fill: int = 0
    padding_mode: str = "constant"
    ignore_index: int = 255

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sides = [self.padding] * 4 if isinstance(self.padding, int) else list(self.padding)
        left, top, right, bottom = sides * 2 if len(sides) == 2 else sides
        height, width = sample["image"].shape[:2]
        by = _Padding(-top, -left, (height + top + bottom, width + left + right), self.padding_mode)
        return warp(sample, by, fill=self.fill, ignore_index=self.ignore_index)


@dataclass(frozen=True)
class _Padding(Crop):
    mode: str = "constant"

    def array(self, array: np.ndarray, fill: int, nearest: bool) -> np.ndarray:
        if self.mode == "constant":
            return super().array(array, fill, nearest)
        after = (self.size[0] + self.top - array.shape[0], self.size[1] + self.left - array.shape[1])
        widths: Any = [(-self.top, after[0]), (-self.left, after[1])] + [(0, 0)] * (array.ndim - 2)
        kinds: dict[str, Any] = {"edge": "edge", "reflect": "reflect", "symmetric": "symmetric"}
        if self.mode not in kinds:
            raise ValueError(f"padding_mode is constant, edge, reflect or symmetric, not {self.mode!r}")
        return np.pad(array, widths, mode=kinds[self.mode])


def affine_matrix(
    size: Size,
    angle: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """The matrix (3, 3) from result to picture: sheared, scaled and turned clockwise round the middle, then moved.

    Angles in degrees, ``translate`` (x, y) in pixels; the composition and the signs are torchvision's.

    >>> affine_matrix((10, 20), translate=(3, 0))[0].tolist()
    [1.0, 0.0, -3.0]
    """
    cos, sin = np.cos(radians(angle)), np.sin(radians(angle))
    middle = np.array([[1.0, 0, size[1] / 2], [0, 1, size[0] / 2], [0, 0, 1]])
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]]) @ np.diag([scale, scale, 1.0])
    slant_x = np.array([[1.0, -tan(radians(shear[0])), 0], [0, 1, 0], [0, 0, 1]])
    slant_y = np.array([[1.0, 0, 0], [-tan(radians(shear[1])), 1, 0], [0, 0, 1]])
    move = np.array([[1.0, 0, translate[0]], [0, 1, translate[1]], [0, 0, 1]])
    matrix = np.linalg.inv(move @ middle @ turn @ slant_y @ slant_x @ np.linalg.inv(middle))
    matrix[2] = (0.0, 0.0, 1.0)
    return matrix + 0.0


@dataclass(frozen=True)
class RandomAffine(Transform):
    """Turn, move, scale and shear round the middle; the size stays.

    Args:
        degrees: range of the angle; one number d means (-d, d).
        translate: largest move as a part of (width, height).
        scale: range of the factor.
        shear: range of the slant along x in degrees; one number s means (-s, s); four also along y.
    """

    degrees: float | tuple[float, float]
    translate: tuple[float, float] | None = None
    scale: tuple[float, float] | None = None
    shear: float | Sequence[float] | None = None
    fill: int = 0
    ignore_index: int = 255

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = size = sample["image"].shape[:2]
        low, high = _range(self.degrees)[:2]
        angle = rng.uniform(low, high)
        share = self.translate or (0.0, 0.0)
        move = (round(rng.uniform(-1, 1) * share[0] * width), round(rng.uniform(-1, 1) * share[1] * height))
        factor = rng.uniform(*(self.scale or (1.0, 1.0)))
        slant = _range(self.shear or 0.0)
        shear = (rng.uniform(slant[0], slant[1]), rng.uniform(slant[2], slant[3]) if len(slant) == 4 else 0.0)
        matrix = affine_matrix(size, angle, move, factor, shear)
        return warp(sample, Projective(matrix, size), fill=self.fill, ignore_index=self.ignore_index)


def _range(value: float | Sequence[float]) -> Sequence[float]:
    return (-value, value) if isinstance(value, (int, float)) else value


@dataclass(frozen=True)
class RandomPerspective(Transform):
    """With probability ``p``, move the four corners inwards by up to ``distortion_scale`` of half the sides."""

    distortion_scale: float = 0.5
    p: float = 0.5
    fill: int = 0
    ignore_index: int = 255

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = size = sample["image"].shape[:2]
        draws = rng.random(9)
        if draws[8] >= self.p:
            return sample
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
        inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        moved = corners + inwards * draws[:8].reshape(4, 2) * self.distortion_scale * (width / 2, height / 2)
        by = Projective(_homography(moved, corners), size)
        return warp(sample, by, fill=self.fill, ignore_index=self.ignore_index)


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The projective map (3, 3) that takes four points to four others."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(right)), 1.0).reshape(3, 3)


@dataclass(frozen=True)
class ElasticTransform(Transform):
    """Displace pixels by a smooth random field (Simard et al. 2003): ``alpha`` strength, ``sigma`` smoothness."""

    alpha: float = 50.0
    sigma: float = 5.0
    fill: int = 0
    ignore_index: int = 255

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        size = sample["image"].shape[:2]
        taps = 2 * min(int(4 * self.sigma), min(size) - 1) + 1
        noise = rng.uniform(-1, 1, (*size, 2)).astype(np.float32)
        shift = F.gaussian_blur(noise, taps, self.sigma) * np.float32(self.alpha / 2)
        return warp(sample, _Displacement(shift, size), fill=self.fill, ignore_index=self.ignore_index)


@dataclass(frozen=True)
class _Displacement(Warp):
    """Pixel p of the result is the picture's p + shift(p)."""

    shift: np.ndarray = field(compare=False)
    size: Size
    edge_points = 33

    def array(self, array: np.ndarray, fill: int, nearest: bool) -> np.ndarray:
        y, x = np.mgrid[: self.size[0], : self.size[1]] + 0.5
        return F.remap(array, x + self.shift[..., 0], y + self.shift[..., 1], fill=fill, nearest=nearest)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Solve q + shift(q) = p by fixed-point steps: the field is smooth, so they shrink quickly."""
        shift = self.shift.astype(np.float64)
        found = np.array(points, dtype=np.float64)
        for _ in range(30):
            flat = found.reshape(1, -1, 2)
            inside = np.clip(flat, 0, (self.size[1], self.size[0]))
            found = points - F.remap(shift, inside[..., 0], inside[..., 1]).reshape(points.shape)
        return found

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        out = super().boxes(boxes)
        empty = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
        out[empty, 2:] = out[empty, :2]
        return out


@dataclass(frozen=True)
class SanitizeBoundingBoxes(Transform):
    """Drop boxes with a side under ``min_size`` pixels, with their labels, masks, keypoints and other rows.

    Every array or list of the sample that has as many rows as there are boxes loses the same rows, but for ``image``
    and ``mask``. Put it after the crops.
    """

    min_size: float = 1.0

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        boxes = clamp_boxes(np.asarray(sample["boxes"]).reshape(-1, 4), sample["image"].shape[:2])
        keep = ((boxes[:, 2:] - boxes[:, :2]) >= self.min_size).all(axis=1)
        out = {**sample, "boxes": boxes[keep]}
        for key, value in sample.items():
            if key in ("image", "mask", "boxes"):
                continue
            if isinstance(value, np.ndarray) and value.ndim and len(value) == len(boxes):
                out[key] = value[keep]
            elif isinstance(value, list) and len(value) == len(boxes):
                out[key] = [entry for entry, kept in zip(value, keep, strict=True) if kept]
        return out


@dataclass(frozen=True)
class RandomZoomCrop(Transform):
    """Random zoom, aspect, rotation, mirror and window in one sampling.

    The window of the result's size is laid at random over the zoomed picture, so this is scale and crop at once; pixels
    from outside become ``fill`` in the picture and ``ignore_index`` in the mask.

    Args:
        size: height and width of the result.
        scale: range of the zoom, drawn log-uniformly (2 = things appear twice as large).
        aspect: the sides' ratio varies by up to exp(±aspect).
        degrees: rotation is uniform in ±degrees.
        flip: probability of mirroring.
        focus: class indices that are rare; with probability ``focus_p`` the window is drawn round one of their pixels.
    """

    size: Size
    scale: tuple[float, float] = (0.6, 1.8)
    aspect: float = 0.1
    degrees: float = 5.0
    flip: float = 0.5
    fill: int = 105
    ignore_index: int = 255
    focus: tuple[int, ...] = ()
    focus_p: float = 0.0

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image, mask = sample["image"], sample.get("mask")
        # Drawn in one go, whatever follows, so that a sample's stream does not depend on its content.
        zoom_u, aspect_u, angle_u, flip_u, x_u, y_u, focus_u, class_u, pixel_u = rng.random(9)
        low, high = self.scale
        zoom = exp(log(low) + zoom_u * (log(high) - log(low)))
        stretch = exp(self.aspect * (aspect_u - 0.5))
        window = (self.size[0] * stretch / zoom, self.size[1] / stretch / zoom)
        extent = image.shape[:2]
        centre = [half + u * (full - 2 * half) for half, u, full in zip(_half(window), (y_u, x_u), extent, strict=True)]
        if mask is not None and self.focus and focus_u < self.focus_p:
            pixel = self._pixel(mask, class_u, pixel_u)
            if pixel is not None:
                jitter = ((y_u - 0.5) * window[0] / 2, (x_u - 0.5) * window[1] / 2)
                centre = [
                    float(np.clip(p + j, min(half, full - half), max(half, full - half)))
                    for p, j, half, full in zip(pixel, jitter, _half(window), extent, strict=True)
                ]
        matrix = self._matrix(centre, window, radians(self.degrees * (2 * angle_u - 1)), flip_u < self.flip)
        return warp(sample, Projective(matrix, self.size), fill=self.fill, ignore_index=self.ignore_index)

    def _pixel(self, mask: np.ndarray, class_u: float, pixel_u: float) -> tuple[int, int] | None:
        counts = np.bincount(mask.reshape(-1), minlength=max(self.focus) + 1)
        present = [index for index in self.focus if counts[index] >= 12]
        if not present:
            return None
        found = np.flatnonzero(mask == present[int(class_u * len(present))])
        y, x = divmod(int(found[int(pixel_u * len(found))]), mask.shape[1])
        return y, x

    def _matrix(self, centre: Sequence[float], window: Sequence[float], angle: float, flip: bool) -> np.ndarray:
        """Output pixel to input pixel: unit square, mirrored, stretched to the window, turned, moved to the centre."""
        cos, sin = np.cos(angle), np.sin(angle)
        to_unit = np.array([[1 / self.size[1], 0, -0.5], [0, 1 / self.size[0], -0.5], [0, 0, 1]])
        stretch = np.diag([-window[1] if flip else window[1], window[0], 1.0])
        turn = np.array([[cos, -sin, centre[1]], [sin, cos, centre[0]], [0, 0, 1]])
        matrix = turn @ stretch @ to_unit
        matrix[2] = (0.0, 0.0, 1.0)  # exactly affine
        return matrix


def _half(window: Sequence[float]) -> tuple[float, float]:
    return window[0] / 2, window[1] / 2
