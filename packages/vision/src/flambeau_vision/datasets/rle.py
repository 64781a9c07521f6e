"""Instance masks from COCO's forms: polygons, and run lengths plain or packed into text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def decode_rle(counts: Sequence[int] | str | bytes, size: tuple[int, ...]) -> np.ndarray:
    """Run lengths down the columns, off first, as a bool mask of ``size`` (height, width).

    Text holds each number in base 32, five bits a character from the lowest, and from the third number on the
    difference to the one two before.

    Raises:
        ValueError: the runs do not fill the picture.

    >>> decode_rle([1, 2, 1], (2, 2)).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    height, width = (int(value) for value in size)
    runs = _unpack(counts) if isinstance(counts, (str, bytes)) else [int(value) for value in counts]
    if sum(runs) != height * width or any(run < 0 for run in runs):
        raise ValueError(f"run lengths do not fill {width}x{height} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def encode_rle(mask: np.ndarray) -> list[int]:
    """A mask's run lengths down the columns, off first.

    >>> encode_rle(np.array([[0, 1], [1, 0]]))
    [1, 2, 1]
    """
    flat = np.asarray(mask, dtype=bool).T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def _unpack(text: str | bytes) -> list[int]:
    data = text.encode("ascii") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for byte in data:
        digit = byte - 48
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError("broken run-length text")
        value |= (digit & 0x1F) << shift
        shift += 5
        if not digit & 0x20:
            if digit & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("cut run-length text")
    return runs


def fill_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies in one of the polygons (x1 y1 x2 y2 …), as a bool mask (height, width).

    Raises:
        ValueError: a polygon with fewer than three points.

    >>> int(fill_polygons([[0, 0, 2, 0, 2, 2, 0, 2]], (4, 4)).sum())
    4
    """
    height, width = size
    out = np.zeros(size, dtype=bool)
    centres = np.arange(height) + 0.5
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        if len(points) < 3:
            raise ValueError(f"a polygon of {len(points)} points")
        # Along a row, each edge that crosses it flips inside and outside from its crossing on.
        flips = np.zeros((height, width + 1), dtype=np.int64)
        for (xa, ya), (xb, yb) in zip(points, np.roll(points, -1, axis=0), strict=True):
            rows = np.flatnonzero((centres >= min(ya, yb)) & (centres < max(ya, yb)))
            crossing = xa + (centres[rows] - ya) * (xb - xa) / (yb - ya) if len(rows) else np.zeros(0)
            np.add.at(flips, (rows, np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)), 1)
        out |= np.cumsum(flips, axis=1)[:, :width] % 2 == 1
    return out
