"""Joint transforms of a picture and its mask, all drawn from one NumPy generator.

Functions work on arrays: a picture is (H, W, 3) uint8, a mask (H, W) of class indices or None. The dataclasses hold the
ranges; each is called as ``transform(image, mask, rng)`` and returns the pair, so that geometry hits both alike::

    train = Compose([RandomAffine((128, 160), ignore_index=11), ColorJitter(), Normalize(0.41, 0.30)])
    image, mask = train(image, mask, np.random.default_rng([seed, epoch, index]))

The same generator state gives the same pair, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log, radians

import numpy as np
from PIL import Image

Size = tuple[int, int]
#: Pictures or masks: one array when all have one size, else a list.
Arrays = np.ndarray | list[np.ndarray]
Pair = tuple[np.ndarray, np.ndarray | None]
Transform = Callable[[np.ndarray, np.ndarray | None, np.random.Generator], Pair]
#: Luma weights of ITU-R BT.601, as Pillow's own grey conversion.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


# ---------------------------------------------------------------------------------------------------- geometry


def resize(image: np.ndarray, size: Size, *, nearest: bool = False) -> np.ndarray:
    """Resize to (height, width): bilinear with antialiasing, or nearest (for masks).

    >>> resize(np.zeros((4, 6, 3), np.uint8), (2, 3)).shape
    (2, 3, 3)
    """
    filter_ = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), filter_))


def as_rgb(image: np.ndarray) -> np.ndarray:
    """A grey picture (H, W) with its grey in three channels; others as they are."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def hflip(image: np.ndarray) -> np.ndarray:
    """Mirror left and right."""
    return image[:, ::-1]


def crop(image: np.ndarray, top: int, left: int, size: Size, fill: int = 0) -> np.ndarray:
    """Cut a window of size (height, width); what lies outside the picture becomes ``fill``."""
    height, width = size
    if top >= 0 and left >= 0 and top + height <= image.shape[0] and left + width <= image.shape[1]:
        return image[top : top + height, left : left + width]
    out = np.full((height, width, *image.shape[2:]), fill, dtype=image.dtype)
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, image.shape[0]), min(left + width, image.shape[1])
    if y1 > y0 and x1 > x0:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return out


def affine(image: np.ndarray, matrix: np.ndarray, size: Size, *, fill: int = 0, nearest: bool = False) -> np.ndarray:
    """Sample the picture along an affine map.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        matrix: (2, 3), maps output (x, y, 1) to input (x, y), both in pixels measured from the top left corner.
        size: height and width of the result.
        fill: value of what lies outside.
        nearest: nearest neighbour (masks) in place of bilinear.

    >>> identity = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    >>> bool((affine(picture, identity, (3, 4), nearest=True) == picture).all())
    True
    """
    filter_ = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    colour = fill if image.ndim == 2 else (fill,) * image.shape[2]
    source = Image.fromarray(np.ascontiguousarray(image))
    data = tuple(float(value) for value in np.asarray(matrix).reshape(6))
    out = source.transform((size[1], size[0]), Image.Transform.AFFINE, data, resample=filter_, fillcolor=colour)
    return np.asarray(out)


# ------------------------------------------------------------------------------------------------------ colour


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply by ``factor``. Takes and returns uint8 or float32 in 0..255."""
    return _like(image.astype(np.float32) * np.float32(factor), image)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance from the picture's mean grey."""
    array = image.astype(np.float32)
    mean = np.float32((array @ LUMA).mean())
    return _like(mean + (array - mean) * np.float32(factor), image)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance of each pixel from its own grey: 0 gives a grey picture."""
    array = image.astype(np.float32)
    grey = (array @ LUMA)[..., None]
    return _like(grey + (array - grey) * np.float32(factor), image)


def adjust_gains(image: np.ndarray, gains: Sequence[float] | np.ndarray) -> np.ndarray:
    """Multiply each channel by its gain: a change of the light's colour."""
    return _like(image.astype(np.float32) * np.asarray(gains, dtype=np.float32), image)


def normalize(image: np.ndarray, mean: float | Sequence[float], std: float | Sequence[float]) -> np.ndarray:
    """uint8 (H, W, 3) to float32 (3, H, W): ``(image / 255 - mean) / std``.

    >>> normalize(np.full((2, 2, 3), 255, np.uint8), 0.5, 0.5).max()
    np.float32(1.0)
    """
    scale, shift = 1 / (255 * np.asarray(std, dtype=np.float64)), np.asarray(mean) / np.asarray(std)
    array = image * np.asarray(scale, dtype=np.float32) - np.asarray(shift, dtype=np.float32)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def _like(array: np.ndarray, image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return np.rint(array.clip(0, 255)).astype(np.uint8)
    return array.astype(image.dtype, copy=False)


# ------------------------------------------------------------------------------------------------- composition


@dataclass(frozen=True)
class Compose:
    """Run transforms one after another with the same generator."""

    transforms: Sequence[Transform]

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
        for transform in self.transforms:
            image, mask = transform(image, mask, rng)
        return image, mask


@dataclass(frozen=True)
class AsRGB:
    """Give grey pictures three channels."""

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
        return as_rgb(image), mask


@dataclass(frozen=True)
class Resize:
    """Resize to (height, width); the mask by nearest neighbour."""

    size: Size

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
        return resize(image, self.size), None if mask is None else resize(mask, self.size, nearest=True)


@dataclass(frozen=True)
class CenterCrop:
    """Cut (height, width) from the middle."""

    size: Size
    fill: int = 0
    ignore_index: int = 255

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
        top, left = (image.shape[0] - self.size[0]) // 2, (image.shape[1] - self.size[1]) // 2
        cut = None if mask is None else crop(mask, top, left, self.size, self.ignore_index)
        return crop(image, top, left, self.size, self.fill), cut


@dataclass(frozen=True)
class RandomCrop:
    """Cut (height, width) somewhere, after ``padding`` pixels of ``fill`` on each side."""

    size: Size
    padding: int = 0
    fill: int = 0
    ignore_index: int = 255

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
        spare = (image.shape[0] + 2 * self.padding - self.size[0], image.shape[1] + 2 * self.padding - self.size[1])
        top, left = (int(rng.integers(min(s, 0), max(s, 0) + 1)) - self.padding for s in spare)
        cut = None if mask is None else crop(mask, top, left, self.size, self.ignore_index)
        return crop(image, top, left, self.size, self.fill), cut


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror with probability ``p``."""

    p: float = 0.5

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
        if rng.random() < self.p:
            return hflip(image), None if mask is None else hflip(mask)
        return image, mask


@dataclass(frozen=True)
class RandomAffine:
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

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
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
        warped = affine(image, matrix, self.size, fill=self.fill)
        if mask is None:
            return warped, None
        return warped, affine(mask, matrix, self.size, fill=self.ignore_index, nearest=True)

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
        return (turn @ stretch @ to_unit)[:2]


def _half(window: Sequence[float]) -> tuple[float, float]:
    return window[0] / 2, window[1] / 2


@dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast, saturation and colour of the light.

    Brightness, contrast and gains are factors exp(u) with u uniform in ±value; saturation is uniform in 1 ± value.
    """

    brightness: float = 0.4
    contrast: float = 0.3
    saturation: float = 0.5
    gains: float = 0.1

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
        draws = rng.uniform(-1, 1, 6)
        array = image.astype(np.float32)
        array = adjust_brightness(array, exp(self.brightness * draws[0]))
        array = adjust_contrast(array, exp(self.contrast * draws[1]))
        array = adjust_saturation(array, 1 + self.saturation * draws[2])
        array = adjust_gains(array, np.exp(self.gains * draws[3:]))
        return _like(array, image), mask


@dataclass(frozen=True)
class Cutout:
    """With probability ``p``, replace a square of side ``size`` by ``fill`` (DeVries & Taylor 2017).

    The mask keeps its labels: the network has to guess what is hidden from what surrounds it.
    """

    size: int
    p: float = 0.5
    fill: int = 105

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
        chance, y, x = rng.random(3)
        if chance >= self.p:
            return image, mask
        top, left = (int(u * full) - self.size // 2 for u, full in zip((y, x), image.shape[:2], strict=True))
        image = image.copy()
        image[max(top, 0) : max(top + self.size, 0), max(left, 0) : max(left + self.size, 0)] = self.fill
        return image, mask


@dataclass(frozen=True)
class Normalize:
    """uint8 (H, W, 3) to float32 (3, H, W), the mask to int64: the last step before a network."""

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> Pair:
        return normalize(image, self.mean, self.std), None if mask is None else mask.astype(np.int64)
