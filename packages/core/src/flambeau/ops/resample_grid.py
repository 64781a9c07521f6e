"""Sampling at given positions: spatial transformers (Jaderberg et al. 2015). Input (N, C, *spatial)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backends
from ..tensor import raw_of
from ._op import op
from .matmul import matmul
from .shape import reshape, transpose

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


@op(
    vjp=dict(input=lambda g, input_shape, index: place_points(g, index, input_shape[2])),
    samples=lambda t: [(t(2, 3, 6), t(2, 4, low=0, high=6, dtype="int64"))],
    ref=lambda x, index: np.stack([a[:, i] for a, i in zip(x, index, strict=True)]),
    method=False,
)
def pick_points(xp, input, index):
    """Points of each plane: input (N, C, S) at index (N, P) gives (N, C, P)."""
    out = xp.empty((*input.shape[:2], index.shape[1]), input.dtype)
    for n in range(len(input)):
        out[n] = xp.take(input[n], index[n], 1)
    return out


@op(
    vjp=dict(g=lambda g, index: pick_points(g, index)),
    samples=lambda t: [(t(2, 3, 4), t(2, 4, low=0, high=6, dtype="int64"), 6)],
    method=False,
)
def place_points(xp, g, index, size):
    """`g` (N, C, P) added at index (N, P) into zeros (N, C, size): the gradient of `pick_points`."""
    n, c, _ = g.shape
    out = xp.zeros(n * c * size, g.dtype)
    planes = xp.arange(n * c).reshape(n, c, 1) * size
    xp.add.at(out, (planes + index[:, None, :]).ravel(), g.reshape(-1))
    return out.reshape(n, c, size)


def _at_border(xp: Any, x: Any, n: int, padding: str, align_corners: bool) -> tuple[Any, Any]:
    """Positions brought inside by the padding mode, and the slope of that map (0, 1 or -1)."""
    x = xp.where(xp.isfinite(x), x, -100.0)
    slope = xp.ones_like(x)
    if padding == "zeros":
        return x, slope
    if padding == "reflection":
        low, span = (0.0, n - 1) if align_corners else (-0.5, n)
        if not span:
            return xp.zeros_like(x), xp.zeros_like(x)
        slope = xp.where(x < low, -1.0, 1.0).astype(x.dtype)
        distance = xp.abs(x - low)
        flips = xp.floor(distance / span)
        rest = distance - flips * span
        odd = flips % 2 == 1
        x = xp.where(odd, span - rest + low, rest + low)
        slope = xp.where(odd, -slope, slope)
    outside = (x <= 0) | (x >= n - 1)
    return xp.clip(x, 0, n - 1), xp.where(outside, 0.0, slope).astype(x.dtype)


def _through(position: Any, value: Any, slope: Any) -> Any:
    """The Tensor whose values are `value` and whose derivative by `position` is `slope`."""
    if raw_of(position) is position or not position.requires_grad:
        return value
    return (position - position.detach()) * slope + value


def _cubic(t: Any) -> list:
    """Weights of the four neighbours at -1, 0, 1, 2 for a point at t in [0, 1] (Keys 1981, a = -0.75)."""
    a = -0.75

    def near(x: Any) -> Any:
        return ((x * (a + 2)) - (a + 3)) * x * x + 1

    def far(x: Any) -> Any:
        return ((x * a - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _taps(xp: Any, position: Any, n: int, mode: str, padding: str, align_corners: bool) -> list[tuple[Any, Any, Any]]:
    """For one dimension: (index, weight or None for 1, whether inside or None for always) of each neighbour used."""
    raw = raw_of(position)
    if mode == "bicubic":
        low = xp.floor(xp.where(xp.isfinite(raw), raw, -100.0))
        taps = []
        for k, weight in enumerate(_cubic(position - low)):
            x = _at_border(xp, low + (k - 1), n, padding, align_corners)[0]
            taps.append((xp.rint(x).astype(np.int64), weight))
    else:
        value, slope = _at_border(xp, raw, n, padding, align_corners)
        if mode == "nearest":
            taps = [(xp.rint(value).astype(np.int64), None)]
        else:
            low = xp.floor(value)
            t = _through(position, value, slope) - low
            first = low.astype(np.int64)
            taps = [(first, 1 - t), (first + 1, t)]
    found = []
    for index, weight in taps:
        inside = (index >= 0) & (index < n)
        found.append((xp.clip(index, 0, n - 1), weight, None if bool(inside.all()) else inside))
    return found


def _sample(input: Any, grid: Any, mode: str, padding: str, align_corners: bool) -> Any:
    rank = input.ndim - 2
    if grid.ndim != input.ndim or grid.shape[-1] != rank or grid.shape[0] != input.shape[0]:
        raise RuntimeError(
            f"grid_sample expects a grid ({input.shape[0]}, …, {rank}) with {input.ndim} dimensions for the input "
            f"{list(input.shape)}, but got {list(grid.shape)}"
        )
    if raw_of(grid).dtype != raw_of(input).dtype:
        kinds = f"input is {raw_of(input).dtype} but grid is {raw_of(grid).dtype}"
        raise RuntimeError(f"grid_sample: {kinds}; make them equal")
    if math.prod(input.shape[2:]) == 0:
        raise RuntimeError(f"grid_sample: input has no points to sample: {list(input.shape)}")
    if mode == "bicubic" and rank != 2:
        raise NotImplementedError("grid_sample: bicubic interpolation is for 4-d input only")
    xp = backends.of(raw_of(input)).xp
    n, c, *space = input.shape
    points = math.prod(grid.shape[1:-1])
    flat = reshape(input, (n, c, math.prod(space)))
    lines = reshape(grid, (n, points, rank))
    # All neighbours of a point: the product of its neighbours along each dimension.
    corners: list[tuple[Any, Any, Any]] = [(0, None, None)]
    for d, size in enumerate(space):
        g = lines[:, :, rank - 1 - d]  # grids hold x, y, z: the last dimension first
        position = (g + 1) * ((size - 1) / 2) if align_corners else ((g + 1) * size - 1) * 0.5
        taps = _taps(xp, position, size, mode, padding, align_corners)
        corners = [
            (
                index * size + i,
                w if weight is None else weight if w is None else weight * w,
                good if inside is None else inside if good is None else inside & good,
            )
            for index, weight, inside in corners
            for i, w, good in taps
        ]
    total = None
    for index, weight, inside in corners:
        term = pick_points(flat, index)
        if inside is not None:
            mask = inside.astype(raw_of(input).dtype)
            weight = mask if weight is None else weight * mask
        if weight is not None:
            term = term * reshape(weight, (n, 1, points))
        total = term if total is None else total + term
    return reshape(total, (n, c, *grid.shape[1:-1]))


def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Any:
    """Values of the input at the positions of a grid.

    input (N, C, H, W) with grid (N, h, w, 2) gives (N, C, h, w); input (N, C, D, H, W) with grid (N, d, h, w, 3) gives
    (N, C, d, h, w). The grid holds (x, y) or (x, y, z); -1 and 1 are the borders of the input, or with `align_corners`
    the centres of its outermost points. mode: bilinear, nearest or (2-d) bicubic; padding_mode, for positions outside:
    zeros, border or reflection.
    """
    if mode not in _MODES:
        raise ValueError(f"grid_sample: mode must be one of {', '.join(_MODES)}, not {mode!r}")
    if padding_mode not in _PADDINGS:
        raise ValueError(f"grid_sample: padding_mode must be one of {', '.join(_PADDINGS)}, not {padding_mode!r}")
    if input.ndim not in (4, 5):
        raise RuntimeError(f"grid_sample expects a 4-d or 5-d input, but got shape {list(input.shape)}")
    return _sample(input, grid, mode, padding_mode, bool(align_corners))


def grid_sampler(input: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Any:
    """`grid_sample` with numbered modes: 0 bilinear, 1 nearest, 2 bicubic; 0 zeros, 1 border, 2 reflection."""
    return grid_sample(input, grid, _MODES[interpolation_mode], _PADDINGS[padding_mode], align_corners)


def grid_sampler_2d(input: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Any:
    """`grid_sampler` for 4-d input."""
    if input.ndim != 4:
        raise RuntimeError(f"grid_sampler_2d expects a 4-d input, but got shape {list(input.shape)}")
    return grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)


def grid_sampler_3d(input: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Any:
    """`grid_sampler` for 5-d input."""
    if input.ndim != 5:
        raise RuntimeError(f"grid_sampler_3d expects a 5-d input, but got shape {list(input.shape)}")
    return grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)


def affine_grid(theta: Any, size: Any, align_corners: bool | None = None) -> Any:
    """The grid, for `grid_sample`, of an affine map.

    theta (N, 2, 3) with size (N, C, H, W) gives (N, H, W, 2); theta (N, 3, 4) with size (N, C, D, H, W) gives
    (N, D, H, W, 3).
    """
    size = tuple(int(n) for n in size)
    rank = len(size) - 2
    if rank not in (2, 3) or tuple(theta.shape) != (size[0], rank, rank + 1):
        raise ValueError(
            f"affine_grid: theta must be (N, 2, 3) for a size of 4 or (N, 3, 4) for a size of 5 entries, "
            f"but it is {list(theta.shape)} for size {list(size)}"
        )
    if min(size) < 1:
        raise ValueError(f"affine_grid: expected a non-zero, positive size, but got {list(size)}")
    raw = raw_of(theta)
    if raw.dtype.kind != "f":
        raise ValueError(f"affine_grid: theta must be floating point, not {raw.dtype}")
    xp = backends.of(raw).xp
    axes = []
    for n in size[2:]:
        line = xp.linspace(-1, 1, n) if n > 1 else xp.zeros(1)
        axes.append(line if align_corners else line * ((n - 1) / n))
    mesh = xp.meshgrid(*axes, indexing="ij")
    base = xp.stack([*(m.ravel() for m in reversed(mesh)), xp.ones(math.prod(size[2:]))], 1).astype(raw.dtype)
    base = type(theta)._wrap(base) if raw is not theta else base
    return reshape(matmul(base, transpose(theta, 1, 2)), (size[0], *size[2:], rank))


def affine_grid_generator(theta: Any, size: Any, align_corners: bool) -> Any:
    """`affine_grid`, under its other name."""
    return affine_grid(theta, size, align_corners)
