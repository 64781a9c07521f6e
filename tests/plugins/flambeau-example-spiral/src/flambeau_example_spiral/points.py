"""Spirals, and points in CSV files."""

import numpy as np

from flambeau.errors import FlambeauError


class Spirals:
    """Points on three noisy arms: (point, arm)."""

    def __init__(self, root: str = "", split: str = "train", count: int = 300):
        draw = np.random.default_rng({"train": 1, "test": 2}[split])
        self.labels = draw.integers(0, 3, count)
        radius = draw.uniform(0.1, 1, count)
        angle = 4 * radius + self.labels * (2 * np.pi / 3) + draw.normal(0, 0.1, count)
        self.points = (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.float32)

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return self.points[index], int(self.labels[index])


def read_points(source):
    """(n, 2) float32 from a CSV file."""
    try:
        points = np.loadtxt(source, delimiter=",", ndmin=2, dtype=np.float32)
    except OSError:
        raise FlambeauError(f"there is no file {source!r}", "check the name") from None
    except ValueError as error:
        raise FlambeauError(f"{source!r} is not a CSV file: {error}", "write one x,y a line") from None
    if points.shape[1:] != (2,):
        raise FlambeauError(f"{source!r} does not hold points", "write one x,y a line")
    return points
