"""Interpolation to another spatial size: nearest and (bi-, tri-)linear. Input (N, C, *spatial)."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ._op import op
from .index import index_select
from .shape import expand, reshape, unsqueeze


@functools.lru_cache(maxsize=256)
def _weights(n: int, m: int, align_corners: bool, scale: float | None) -> np.ndarray:
    """(n, m) matrix of linear interpolation from n to m points. `scale` is output / input when given by the user."""
    i = np.arange(m, dtype=np.float64)
    if align_corners:
        x = i * ((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        x = np.maximum((i + 0.5) * (1 / scale if scale else n / m) - 0.5, 0)
    low = np.minimum(np.floor(x).astype(int), n - 1)
    high = np.minimum(low + 1, n - 1)
    f = np.clip(x - low, 0, 1)
    matrix = np.zeros((n, m))
    np.add.at(matrix, (low, np.arange(m)), 1 - f)
    np.add.at(matrix, (high, np.arange(m)), f)
    return matrix


def _apply(xp: Any, x: Any, matrices: list) -> Any:
    """Multiplies each spatial dimension with its matrix, the last dimension first."""
    rank = len(matrices)
    for axis in range(x.ndim - 1, x.ndim - 1 - rank, -1):
        w = matrices[axis - x.ndim + rank]
        if w is None:
            continue
        w = xp.asarray(w.astype(x.dtype))
        if axis == x.ndim - 1:
            x = xp.matmul(x, w)
        else:  # (…, n, rest) -> (…, m, rest): a product from the left, no transposition
            flat = x.reshape((*x.shape[:axis], x.shape[axis], -1))
            x = xp.matmul(w.T, flat).reshape((*x.shape[:axis], w.shape[1], *x.shape[axis + 1 :]))
    return x


def _matrices(shape: tuple, size: tuple, align_corners: bool, scales: tuple) -> list:
    return [
        None if n == m and not s else _weights(n, m, align_corners, s)
        for n, m, s in zip(shape, size, scales, strict=True)
    ]


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
    return _apply(xp, input, _matrices(input.shape[2:], size, align_corners, scales))


@op(
    vjp=dict(
        g=lambda g, g_shape, align_corners, scales: upsample_linear(g, tuple(g_shape[2:]), align_corners, scales)
    ),
    samples=lambda t: [(t(2, 3, 8, 10), (2, 3, 4, 5), False, (None, None))],
    method=False,
)
def upsample_linear_grad(xp, g, input_shape, align_corners, scales):
    """The gradient of `upsample_linear`: the transposed interpolation."""
    matrices = _matrices(tuple(input_shape[2:]), g.shape[2:], align_corners, scales)
    return _apply(xp, g, [None if w is None else w.T for w in matrices])


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

    mode: nearest, nearest-exact, linear (3-d), bilinear (4-d), trilinear (5-d). Errors: ValueError for other modes
    and when not exactly one of size and scale_factor is given.
    """
    rank = input.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ValueError("exactly one of size and scale_factor must be given")
    if antialias:
        raise NotImplementedError("interpolate(antialias=True) is not available yet")
    scales: tuple = (None,) * rank
    if size is None:
        factors = (scale_factor,) * rank if isinstance(scale_factor, int | float) else tuple(scale_factor)
        size = tuple(math.floor(n * f) for n, f in zip(input.shape[2:], factors, strict=True))
        if not recompute_scale_factor:
            # The factor itself decides the positions when it is not exactly the ratio of the sizes.
            scales = tuple(
                None if n * f == m else float(f) for n, f, m in zip(input.shape[2:], factors, size, strict=True)
            )
    else:
        size = (size,) * rank if isinstance(size, int) else tuple(int(n) for n in size)
    if len(size) != rank:
        raise ValueError(f"size {list(size)} does not fit an input with {rank} spatial dimensions")
    if mode in ("nearest", "nearest-exact"):
        return _nearest(input, size, scales, mode == "nearest-exact")
    if mode != {1: "linear", 2: "bilinear", 3: "trilinear"}.get(rank):
        known = "nearest, nearest-exact, linear (3-d input), bilinear (4-d), trilinear (5-d)"
        raise ValueError(f"mode {mode!r} is not available for {input.ndim}-d input; the modes are {known}")
    return upsample_linear(input, size, bool(align_corners), scales)
