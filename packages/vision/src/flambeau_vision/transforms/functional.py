"""Plain functions on one array: pictures are (H, W, 3) or (H, W) uint8, masks (H, W). No randomness here.

Coordinates are continuous: (0, 0) is the corner of the top left pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

Size = tuple[int, int]
#: Pictures or masks: one array when all have one size, else a list.
Arrays = np.ndarray | list[np.ndarray]
#: Luma weights of ITU-R BT.601, as Pillow's own grey conversion.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def resize(image: np.ndarray, size: Size, *, nearest: bool = False) -> np.ndarray:
    """Resize to (height, width): bilinear with antialiasing, or nearest (for masks).

    >>> resize(np.zeros((4, 6, 3), np.uint8), (2, 3)).shape
    (2, 3, 3)
    """
    filter_ = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), filter_))


def vflip(image: np.ndarray) -> np.ndarray:
    """Mirror top and bottom."""
    return image[::-1]


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
    rows = np.vstack([np.asarray(matrix, dtype=np.float64).reshape(2, 3), (0.0, 0.0, 1.0)])
    return _pillow_transform(image, Image.Transform.AFFINE, rows.reshape(9)[:6], size, fill, nearest)


def perspective(
    image: np.ndarray, matrix: np.ndarray, size: Size, *, fill: int = 0, nearest: bool = False
) -> np.ndarray:
    """Sample the picture along a projective map: as :func:`affine`, ``matrix`` is (3, 3)."""
    rows = np.asarray(matrix, dtype=np.float64)
    rows = rows / rows[2, 2]
    return _pillow_transform(image, Image.Transform.PERSPECTIVE, rows.reshape(9)[:8], size, fill, nearest)


def _pillow_transform(
    image: np.ndarray, kind: Image.Transform, data: np.ndarray, size: Size, fill: int, nearest: bool
) -> np.ndarray:
    filter_ = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    colour = fill if image.ndim == 2 else (fill,) * image.shape[2]
    source = Image.fromarray(np.ascontiguousarray(image))
    coefficients = tuple(float(value) for value in data)
    return np.asarray(source.transform((size[1], size[0]), kind, coefficients, resample=filter_, fillcolor=colour))


def remap(image: np.ndarray, x: np.ndarray, y: np.ndarray, *, fill: int = 0, nearest: bool = False) -> np.ndarray:
    """Sample the picture at the points (x, y), each (H, W): bilinear or nearest; ``fill`` outside.

    >>> picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    >>> y, x = np.mgrid[:3, :4] + 0.5
    >>> bool((remap(picture, x, y) == picture).all())
    True
    """
    height, width = image.shape[:2]
    outside = (x < 0) | (y < 0) | (x > width) | (y > height)
    if nearest:
        out = image[np.clip(np.floor(y), 0, height - 1).astype(int), np.clip(np.floor(x), 0, width - 1).astype(int)]
    else:
        px, py = np.clip(x - 0.5, 0, width - 1), np.clip(y - 0.5, 0, height - 1)
        x0, y0 = np.floor(px).astype(int), np.floor(py).astype(int)
        x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
        extra = (...,) + (None,) * (image.ndim - 2)
        fx, fy = (px - x0).astype(np.float32)[extra], (py - y0).astype(np.float32)[extra]
        top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
        bottom = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
        out = like(top * (1 - fy) + bottom * fy, image)
    out = np.array(out)
    out[outside] = fill
    return out


def gaussian_blur(image: np.ndarray, kernel_size: int, sigma: float) -> np.ndarray:
    """Blur with a Gaussian of ``kernel_size`` taps (odd) on each axis; the border is mirrored.

    >>> int(gaussian_blur(np.full((5, 5), 7, np.uint8), 3, 1.0).min())
    7
    """
    half = kernel_size // 2
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    array = image.astype(np.float32)
    for axis in (0, 1):
        widths = [(0, 0)] * image.ndim
        widths[axis] = (half, half)
        padded = np.pad(array, widths, mode="reflect" if image.shape[axis] > 1 else "edge")
        length = image.shape[axis]
        array = sum(tap * padded.take(np.arange(i, i + length), axis=axis) for i, tap in enumerate(taps))
    return like(array, image)


def adjust_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turn the hue by ``shift`` of the colour circle (-0.5..0.5). uint8 RGB only; grey stays grey."""
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(shift * 255)) % 256
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def to_grayscale(image: np.ndarray) -> np.ndarray:
    """The picture's grey, with as many channels as before."""
    if image.ndim == 2:
        return image
    return np.repeat(like(image.astype(np.float32) @ LUMA, image)[..., None], image.shape[2], axis=2)


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply by ``factor``. Takes and returns uint8 or float32 in 0..255."""
    return like(image.astype(np.float32) * np.float32(factor), image)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance from the picture's mean grey."""
    array = image.astype(np.float32)
    mean = np.float32((array @ LUMA if image.ndim == 3 else array).mean())
    return like(mean + (array - mean) * np.float32(factor), image)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance of each pixel from its own grey: 0 gives a grey picture."""
    if image.ndim == 2:
        return image
    array = image.astype(np.float32)
    grey = (array @ LUMA)[..., None]
    return like(grey + (array - grey) * np.float32(factor), image)


def adjust_gains(image: np.ndarray, gains: Sequence[float] | np.ndarray) -> np.ndarray:
    """Multiply each channel by its gain: a change of the light's colour."""
    return like(image.astype(np.float32) * np.asarray(gains, dtype=np.float32), image)


def normalize(image: np.ndarray, mean: float | Sequence[float], std: float | Sequence[float]) -> np.ndarray:
    """uint8 (H, W, 3) to float32 (3, H, W): ``(image / 255 - mean) / std``.

    >>> normalize(np.full((2, 2, 3), 255, np.uint8), 0.5, 0.5).max()
    np.float32(1.0)
    """
    scale, shift = 1 / (255 * np.asarray(std, dtype=np.float64)), np.asarray(mean) / np.asarray(std)
    array = image * np.asarray(scale, dtype=np.float32) - np.asarray(shift, dtype=np.float32)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def like(array: np.ndarray, image: np.ndarray) -> np.ndarray:
    """An array in the picture's dtype, rounded and clipped for uint8."""
    if image.dtype == np.uint8:
        return np.rint(array.clip(0, 255)).astype(np.uint8)
    return array.astype(image.dtype, copy=False)
