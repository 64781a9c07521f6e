"""Counting: bincount and histograms."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from .. import backends
from ._op import method, op

__all__ = ["bincount", "histc", "histogram", "histogram_counts", "histogramdd"]

_Histogram = namedtuple("_Histogram", ["hist", "bin_edges"])


@op(
    samples=lambda t: [(t(9, low=0, high=4, dtype="int64"),), (t(4, low=0, high=4, dtype="int64"), t(4), 6)],
    ref=lambda x, w=None, n=0: np.bincount(x, w, n),
)
def bincount(xp, input, weights: Array = None, minlength=0):  # noqa: F821
    """How often each non-negative integer occurs, or the sums of its weights."""
    if input.ndim != 1 or input.dtype.kind not in "iu" or (input.size and int(input.min()) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs")
    if minlength < 0:
        raise RuntimeError(f"bincount: minlength should be >= 0, not {minlength}")
    if weights is not None and weights.shape != input.shape:
        raise RuntimeError("bincount: weights should be 1-d and have the same length as input")
    out = xp.bincount(input.astype(np.int64, copy=False), weights, minlength)
    return out.astype(np.float32) if weights is not None and weights.dtype == np.float32 else out


def _data_range(values: Any, empty: tuple) -> tuple:
    return (values.min().item(), values.max().item()) if values.size else empty


def _widened(low: Any, high: Any, margin: float) -> tuple:
    """The range of a histogram, never empty."""
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"histogram: the range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError(f"histogram: max ({high}) must be larger than min ({low})")
    return (low - margin, high + margin) if low == high else (low, high)


@op(samples=lambda t: [(t(20),), (t(20), 5, -0.5, 0.5)])
def histc(xp, input, bins=100, min=0, max=0):
    """How many elements fall into each of `bins` equal intervals of [min, max] (the data's range when both are 0)."""
    if bins <= 0:
        raise RuntimeError(f"histc: bins must be > 0, but it is {bins}")
    values = input.reshape(-1)
    low, high = _widened(*(_data_range(values, (min, max)) if min == max else (min, max)), 1)
    values = values[(values >= low) & (values <= high)]
    place = ((values - low) * (bins / (high - low))).astype(np.int64)
    return xp.bincount(xp.minimum(place, bins - 1), minlength=bins).astype(input.dtype)


@op(samples=lambda t: [(t(20), np.linspace(-1, 1, 5)), (t(20), np.linspace(-1, 1, 5), t(20), True)], method=False)
def histogram_counts(xp, input, edges, weight: Array = None, density=False):  # noqa: F821
    """The number (or weight) of elements in each interval between edges; the last one is closed."""
    values = input.reshape(-1)
    place = xp.searchsorted(edges, values, "right") - 1
    place = xp.where(values == edges[-1], edges.size - 2, place)
    inside = (place >= 0) & (place < edges.size - 1)
    weights = None if weight is None else weight.reshape(-1)[inside]
    out = xp.bincount(place[inside], weights, minlength=edges.size - 1).astype(input.dtype)
    return (out / out.sum() / xp.diff(edges)).astype(input.dtype) if density else out


@method()
def histogram(input: Any, bins: Any, *, range: Any = None, weight: Any = None, density: bool = False) -> Any:
    """Counts (weights; as a density) in `bins` equal intervals of `range`, or between the edges that `bins` lists."""
    from .create import linspace

    if not hasattr(bins, "dtype"):
        raw = getattr(input, "array", input)
        given = range or _data_range(raw, (0, 1))
        low, high = _widened(given[0], given[1], 0.5)
        bins = linspace(low, high, int(bins) + 1, dtype=input.dtype, device=input.device)
    if weight is not None and tuple(weight.shape) != tuple(input.shape):
        raise RuntimeError("histogram: weight must have the shape of the input")
    return _Histogram(histogram_counts(input, bins, weight, density), bins)


def histogramdd(input: Any, bins: Any, *, range: Any = None, weight: Any = None, density: bool = False) -> Any:
    """The histogram of points (…, d) in d dimensions: counts (bins[0], …) and the edges along each."""
    from .create import as_tensor

    host = lambda t: backends.of(t.array).to_host(t.array)  # NumPy alone has this histogram
    points = host(input).reshape(-1, input.shape[-1])
    d = points.shape[1]
    if isinstance(bins, int):
        bins = [bins] * d
    edges = []
    for i, b in enumerate(bins):
        if hasattr(b, "dtype"):
            edges.append(host(b))
        else:
            given = range[2 * i : 2 * i + 2] if range else _data_range(points[:, i], (0, 1))
            low, high = _widened(given[0], given[1], 0.5)
            edges.append(np.linspace(low, high, int(b) + 1).astype(points.dtype))
    weights = None if weight is None else host(weight).reshape(-1)
    counts, _ = np.histogramdd(points, edges, weights=weights, density=density)
    back = lambda a: as_tensor(a, device=input.device)
    return _Histogram(back(counts.astype(points.dtype)), tuple(back(e) for e in edges))
