"""Separable filters of resizing as one matrix per dimension: bicubic, and filters that widen when shrinking."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .matmul import matmul
from .pool_adaptive import _constant
from .shape import transpose


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel (Keys 1981)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0.0)


def _step(n: int, m: int, align_corners: bool, scale: float | None) -> float:
    """Input points per output point."""
    if align_corners:
        return (n - 1) / (m - 1) if m > 1 else 0.0
    return 1 / scale if scale else n / m


@functools.lru_cache(maxsize=64)
def _cubic_matrix(n: int, m: int, align_corners: bool, scale: float | None) -> np.ndarray:
    """(n, m): four neighbours for each output point; those beyond the border count for the border."""
    step = _step(n, m, align_corners, scale)
    i = np.arange(m)
    x = i * step if align_corners else (i + 0.5) * step - 0.5
    low = np.floor(x).astype(np.int64)
    out = np.zeros((n, m))
    for k in (-1, 0, 1, 2):
        np.add.at(out, (np.clip(low + k, 0, n - 1), i), _keys(x - low - k, -0.75))
    return out


@functools.lru_cache(maxsize=64)
def _antialias_matrix(n: int, m: int, align_corners: bool, scale: float | None, cubic: bool) -> np.ndarray:
    """(n, m): the filter stretched by the step, cut at the border and normalised, as Pillow does it."""
    step = _step(n, m, align_corners, scale)
    reach = (2.0 if cubic else 1.0) * max(step, 1.0)
    out = np.zeros((n, m))
    for i in range(m):
        centre = step * (i + 0.5)
        first = max(int(centre - reach + 0.5), 0)
        stop = min(int(centre + reach + 0.5), n)
        x = (np.arange(first, stop) - centre + 0.5) / max(step, 1.0)
        w = _keys(x, -0.5) if cubic else _triangle(x)
        out[first:stop, i] = w / w.sum()
    return out


def _filtered(input: Any, size: tuple, align_corners: bool, scales: tuple, cubic: bool, antialias: bool) -> Any:
    for axis, (m, s) in enumerate(zip(size, scales, strict=True), start=2):
        n = input.shape[axis]
        if n == m and s is None and not (align_corners and antialias):
            continue
        if antialias:
            matrix = _antialias_matrix(n, m, align_corners, s, cubic)
        else:
            matrix = _cubic_matrix(n, m, align_corners, s)
        input = transpose(matmul(transpose(input, axis, -1), _constant(matrix, input)), axis, -1)
    return input
