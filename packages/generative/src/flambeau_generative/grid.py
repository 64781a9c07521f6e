"""Grids of pictures as PNG files."""

from __future__ import annotations

import io
import math
import os

import numpy as np
from PIL import Image

from flambeau.io import atomic_write

_GAP = 64


def make_grid(images: np.ndarray, columns: int | None = None, padding: int = 2, scale: int = 1) -> np.ndarray:
    """Pictures side by side, row after row, with grey lines between them.

    Args:
        images: (N, C, H, W) with 1 or 3 channels, values in 0..1 (others are clipped).
        columns: pictures in a row; None makes the grid nearly square.
        padding: width of the lines in pixels.
        scale: each pixel becomes a square of this side.

    Returns:
        uint8 (height, width) for one channel, (height, width, 3) for three.

    >>> make_grid(np.zeros((5, 1, 4, 4)), columns=3, padding=1).shape
    (11, 16)
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"make_grid needs pictures (N, 1 or 3, H, W), not shape {images.shape}")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    pixels = np.round(np.clip(images, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    _, height, width, channels = pixels.shape
    shape = (rows * (height + padding) + padding, columns * (width + padding) + padding, channels)
    grid = np.full(shape, _GAP, np.uint8)
    for index, picture in enumerate(pixels):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        grid[top : top + height, left : left + width] = picture
    return grid[..., 0] if channels == 1 else grid


def save_grid(path: str | os.PathLike[str], images: np.ndarray, columns: int | None = None, scale: int = 1) -> None:
    """Write `make_grid` of pictures as a PNG, whole or not at all; equal pictures give equal bytes.

    Raises:
        FlambeauError: the file cannot be written.
    """
    stream = io.BytesIO()
    Image.fromarray(make_grid(images, columns, scale=scale)).save(stream, "PNG")
    with atomic_write(path) as file:
        file.write(stream.getbuffer())
