"""Interpolation to another spatial size. Input (N, C, *spatial)."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ._op import op
from .index import index_select
from .pool_adaptive import _adaptive_avg
from .resample_filter import _filtered
from .resample_grid import (
    affine_grid,
    affine_grid_generator,
    grid_sample,
    grid_sampler,
    grid_sampler_2d,
    grid_sampler_3d,
    pick_points,
    place_points,
)
from .resample_pixels import channel_shuffle, native_channel_shuffle, pixel_shuffle, pixel_unshuffle
from .shape import expand, reshape, unsqueeze

# The parts of this family, gathered here for the namespace.
__all__ = [
    "affine_grid", "affine_grid_generator", "channel_shuffle", "grid_sample", "grid_sampler", "grid_sampler_2d",
    "grid_sampler_3d", "interpolate", "native_channel_shuffle", "pick_points", "pixel_shuffle", "pixel_unshuffle",
    "place_points", "upsample_linear", "upsample_linear_grad",
]  # fmt: skip


@functools.lru_cache(maxsize=256)
def _points(n: int, m: int, align_corners: bool, scale: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of m output points: the input points on both sides of it and its distance from the first, in [0, 1].

    `scale` is output / input when the user gave it; otherwise the sizes decide.
    """
    i = np.arange(m, dtype=np.float64)
    if align_corners:
        x = i * ((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        x = np.maximum((i + 0.5) * (1 / scale if scale else n / m) - 0.5, 0)
    low = np.minimum(np.floor(x).astype(np.int64), n - 1)
    return low, np.minimum(low + 1, n - 1), np.clip(x - low, 0, 1)


def _dims(shape: tuple, size: tuple, align_corners: bool, scales: tuple) -> Any:
    """(axis, points) for each spatial dimension that changes."""
    for k, (n, m, s) in enumerate(zip(shape, size, scales, strict=True)):
        if n != m or s:
            yield k + 2, _points(n, m, align_corners, s)


def _column(xp: Any, values: np.ndarray, x: Any, axis: int) -> Any:
    return xp.asarray(values.astype(x.dtype)).reshape((-1,) + (1,) * (x.ndim - 1 - axis))


@op(
    vjp=dict(
        input=lambda g, input_shape, align_corners, scales: upsample_linear_grad(g, input_shape, align_corners, scales)
    ),
    samples=lambda t: [
        (t(2, 3, 4, 5), (8, 10), False, (None, None)), (t(1, 2, 4, 5), (3, 7), True, (None, None)),
        (t(2, 2, 5), (9,), False, (1.8,)),
    ],
    method=False,
)  # fmt: skip
def upsample_linear(xp, input, size, align_corners, scales):
    """Linear interpolation of every spatial dimension to `size`."""
    x = input
    for axis, (low, high, f) in _dims(input.shape[2:], size, align_corners, scales):
        left = xp.take(x, low, axis)
        x = left + (xp.take(x, high, axis) - left) * _column(xp, f, x, axis)
    return x if x is not input else input.copy()


@op(
    vjp=dict(g=lambda g, g_shape, align_corners, scales: upsample_linear(g, tuple(g_shape[2:]), align_corners, scales)),
    samples=lambda t: [(t(2, 3, 8, 10), (2, 3, 4, 5), False, (None, None))],
    method=False,
)
def upsample_linear_grad(xp, g, input_shape, align_corners, scales):
    """The gradient of `upsample_linear`: the transposed interpolation."""
    x = g
    for axis, (low, high, f) in _dims(tuple(input_shape[2:]), g.shape[2:], align_corners, scales):
        total = xp.zeros((*x.shape[:axis], input_shape[axis], *x.shape[axis + 1 :]), x.dtype)
        n, m = total.shape[axis], x.shape[axis]
        lead = (slice(None),) * axis
        if m % n == 0 and not align_corners and scales[axis - 2] is None:
            _add_phases(x, total, m // n, lead)
        else:
            f = _column(xp, f, x, axis)
            for part, target in ((x * (1 - f), low), (x * f, high)):
                # Targets ascend, so equal ones are neighbours: sums of runs.
                rows, starts = np.unique(target, return_index=True)
                total[(*lead, rows)] += xp.add.reduceat(part, starts, axis)
        x = total
    return x if x is not g else g.copy()


def _add_phases(g: Any, total: Any, factor: int, lead: tuple) -> None:
    """The transposed interpolation by a whole factor: outputs factor * i + r weigh inputs alike for every inner i."""
    n = total.shape[len(lead)]
    for r in range(factor):
        part = g[(*lead, slice(r, None, factor))]
        shift = (r + 0.5) / factor - 0.5  # from input i to output factor * i + r
        if shift == 0:
            total += part
            continue
        weight = g.dtype.type(abs(shift))
        near = part * (1 - weight)
        total += near
        far = part - near
        if shift < 0:  # the other neighbour is i - 1; at the border it is i itself
            total[(*lead, slice(0, n - 1))] += far[(*lead, slice(1, None))]
            total[(*lead, slice(0, 1))] += far[(*lead, slice(0, 1))]
        else:
            total[(*lead, slice(1, None))] += far[(*lead, slice(0, n - 1))]
            total[(*lead, slice(n - 1, None))] += far[(*lead, slice(n - 1, None))]


def _nearest(input: Any, size: tuple, scales: tuple, exact: bool) -> Any:
    for axis, (m, s) in enumerate(zip(size, scales, strict=True), start=2):
        n = input.shape[axis]
        if n == m:
            continue
        if m % n == 0 and not s:
            shape = tuple(input.shape)
            wide = expand(unsqueeze(input, axis + 1), (*shape[: axis + 1], m // n, *shape[axis + 1 :]))
            input = reshape(wide, (*shape[:axis], m, *shape[axis + 1 :]))
            continue
        step = 1 / s if s else n / m
        position = np.floor((np.arange(m) + (0.5 if exact else 0.0)) * step).astype(np.int64)
        input = index_select(input, axis, np.minimum(position, n - 1))
    return input


_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Resizes (N, C, *spatial) to `size` or by `scale_factor`.

    mode: nearest, nearest-exact, area, linear (3-d), bilinear and bicubic (4-d), trilinear (5-d). `antialias` widens
    the filter when shrinking (bilinear and bicubic only). Errors: ValueError for other modes, for a combination that
    has no meaning, and when not exactly one of size and scale_factor is given.
    """
    rank = input.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ValueError("exactly one of size and scale_factor must be given")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError("align_corners can only be given with the modes linear, bilinear, bicubic and trilinear")
    if antialias and (mode not in ("bilinear", "bicubic") or rank != 2):
        raise ValueError("antialias=True is for the modes bilinear and bicubic with 4-d input only")
    scales: tuple = (None,) * rank
    if size is None:
        factors = (scale_factor,) * rank if isinstance(scale_factor, int | float) else tuple(scale_factor)
        if len(factors) != rank:
            raise ValueError(f"scale_factor {list(factors)} does not fit an input with {rank} spatial dimensions")
        size = tuple(math.floor(n * f) for n, f in zip(input.shape[2:], factors, strict=True))
        if not recompute_scale_factor:
            # The factor itself decides the positions when it is not exactly the ratio of the sizes.
            scales = tuple(
                None if n * f == m else float(f) for n, f, m in zip(input.shape[2:], factors, size, strict=True)
            )
    else:
        if recompute_scale_factor:
            raise ValueError("recompute_scale_factor has no meaning with an explicit size")
        size = (size,) * rank if isinstance(size, int) else tuple(int(n) for n in size)
    if len(size) != rank:
        raise ValueError(f"size {list(size)} does not fit an input with {rank} spatial dimensions")
    if min((*size, *input.shape[1:])) < 1:
        raise RuntimeError(f"interpolate: sizes must be greater than zero, but got {list(input.shape)} to {list(size)}")
    if mode in ("nearest", "nearest-exact"):
        return _nearest(input, size, scales, mode == "nearest-exact")
    if mode == "area":
        return _adaptive_avg(rank, input, size)
    if (mode == "bicubic" and rank == 2) or antialias:
        return _filtered(input, size, bool(align_corners), scales, mode == "bicubic", antialias)
    if mode != _LINEAR.get(rank):
        known = "nearest, nearest-exact, area, linear (3-d input), bilinear and bicubic (4-d), trilinear (5-d)"
        raise ValueError(f"mode {mode!r} is not available for {input.ndim}-d input; the modes are {known}")
    return upsample_linear(input, size, bool(align_corners), scales)
