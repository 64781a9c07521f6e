"""Pooling to a given output size: adaptive (even cells) and fractional (random cells). Input (N, C, *spatial)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import op
from .conv import _tuple
from .matmul import matmul
from .pool_unpool import _pooled, max_pool_grad
from .shape import transpose


def _cells(n: int, m: int) -> list[tuple[int, int]]:
    """PyTorch's adaptive windows: cell i covers floor(i n / m) … ceil((i + 1) n / m)."""
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def _output_sizes(output_size: Any, rank: int, shape: Any) -> tuple:
    sizes = (output_size,) * rank if isinstance(output_size, int) or output_size is None else tuple(output_size)
    if len(sizes) == 1:
        sizes *= rank
    if len(sizes) != rank:
        raise RuntimeError(f"output_size must be an int or {rank} ints, not {output_size}")
    return tuple(n if m is None else int(m) for n, m in zip(shape, sizes, strict=True))


def _check_rank(rank: int, input: Any) -> None:
    if input.ndim not in (rank + 1, rank + 2):
        raise RuntimeError(f"expected {rank + 1} or {rank + 2} dimensions, but got shape {list(input.shape)}")


def _adaptive_avg(rank: int, input: Any, output_size: Any) -> Any:
    """Averages as a matrix product per dimension: windows of different sizes cost no loop."""
    _check_rank(rank, input)
    sizes = _output_sizes(output_size, rank, input.shape[-rank:])
    for axis, m in enumerate(sizes, start=input.ndim - rank):
        n = input.shape[axis]
        if n == m:
            continue
        weights = np.zeros((n, m))
        for j, (a, b) in enumerate(_cells(n, m)):
            weights[a:b, j] = 1 / (b - a)
        input = transpose(matmul(transpose(input, axis, -1), _constant(weights, input)), axis, -1)
    return input


def _constant(values: np.ndarray, like: Any) -> Any:
    """An array of constants in the dtype, on the device and of the kind (Tensor or raw) of `like`."""
    from .. import backends
    from ..tensor import Tensor

    array = getattr(like, "array", like)
    fresh = backends.of(array).xp.asarray(values.astype(array.dtype))
    return Tensor._wrap(fresh) if isinstance(like, Tensor) else fresh


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Any:
    """Averages of (N, C, L) to a given length."""
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """Averages of (N, C, H, W) to a given height and width."""
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Any:
    """Averages of (N, C, D, H, W) to a given size."""
    return _adaptive_avg(3, input, output_size)


@op(
    vjp=dict(input=lambda g, out1, input_shape: max_pool_grad(g[0], out1, input_shape)),
    samples=lambda t: [(t(2, 2, 5, 4), (3, 2)), (t(1, 2, 7), (2,))],
    method=False,
)
def adaptive_max_pool(xp, input, output_size):
    """(largest element of each cell, its flat position within the plane as int64)."""
    best, where = input, None
    # From the last dimension to the first: each pass keeps the first maximum, so ties resolve in row-major order.
    for axis in range(input.ndim - 1, 1, -1):
        lead = (slice(None),) * axis
        values, places = [], []
        for a, b in _cells(best.shape[axis], output_size[axis - 2]):
            part = best[(*lead, slice(a, b))]
            at = xp.argmax(part, axis, keepdims=True)
            values.append(xp.take_along_axis(part, at, axis))
            place = (at + a) * math.prod(input.shape[axis + 1 :])
            if where is not None:
                place = place + xp.take_along_axis(where[(*lead, slice(a, b))], at, axis)
            places.append(place)
        if not values:
            shape = (*input.shape[:2], *output_size)
            return xp.zeros(shape, input.dtype), xp.zeros(shape, np.int64)
        best, where = xp.concatenate(values, axis), xp.concatenate(places, axis)
    return best, where.astype(np.int64)


def _adaptive_max(rank: int, input: Any, output_size: Any, return_indices: bool) -> Any:
    sizes = _output_sizes(output_size, rank, input.shape[-rank:])
    out = _pooled(rank, input, lambda x: adaptive_max_pool(x, sizes))
    return out if return_indices else out[0]


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of (N, C, L) at a given length; with indices when asked for."""
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of (N, C, H, W) at a given height and width; with indices when asked for."""
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of (N, C, D, H, W) at a given size; with indices when asked for."""
    return _adaptive_max(3, input, output_size, return_indices)


@op(
    vjp=dict(input=lambda g, out1, input_shape: max_pool_grad(g[0], out1, input_shape)),
    samples=lambda t: [(t(2, 2, 5, 6), (2, 2), (3, 2), t(2, 2, 2, low=0.1, high=0.9))],
    method=False,
)
def fractional_max_pool(xp, input, kernel_size, output_size, random_samples):
    """(largest element of each window, its flat position within the plane) for windows at random steps."""
    rank = len(kernel_size)
    n, c = input.shape[:2]
    space = input.shape[2:]
    # PyTorch takes the samples of 2-d pooling as (width, height), of 3-d pooling as (depth, height, width).
    order = (1, 0) if rank == 2 else (0, 1, 2)
    starts = []
    for d in range(rank):
        length, m, k = space[d], output_size[d], kernel_size[d]
        if m + k - 1 > length:
            raise RuntimeError(f"output size {m} with kernel {k} does not fit the input size {length}")
        sample = random_samples[: input.shape[0], :, order[d], None]
        alpha = (length - k) / (m - 1) if m > 1 else 0.0
        line = ((xp.arange(m) + sample) * alpha).astype(np.int64) - (sample * alpha).astype(np.int64)
        line[..., -1] = length - k
        starts.append(line.reshape(n, c, *[m if e == d else 1 for e in range(rank)]))
    flat = input.reshape(n, c, math.prod(space))
    best = where = None
    for position in np.ndindex(*kernel_size):
        index = 0
        for start, i, length in zip(starts, position, space, strict=True):
            index = index * length + (start + i)
        value = xp.take_along_axis(flat, index.reshape(n, c, math.prod(output_size)), 2)
        value = value.reshape(n, c, *output_size)
        if best is None:
            best, where = value, index
        else:
            better = (value > best) | (value != value)
            best, where = xp.where(better, value, best), xp.where(better, index, where)
    return best, where


def _fractional(rank, input, kernel_size, output_size, output_ratio, return_indices, random_samples):
    from ..random import default_generator

    if (output_size is None) == (output_ratio is None):
        raise ValueError(f"fractional_max_pool{rank}d needs either output_size or output_ratio")
    kernel = _tuple(kernel_size, rank, "kernel_size")
    if output_size is None:
        ratio = (output_ratio,) * rank if isinstance(output_ratio, int | float) else tuple(output_ratio)
        sizes = tuple(int(n * r) for n, r in zip(input.shape[-rank:], ratio, strict=True))
    else:
        sizes = _tuple(output_size, rank, "output_size")
    if random_samples is None:
        lead = tuple(input.shape[:2]) if input.ndim == rank + 2 else (1, input.shape[0])
        random_samples = _constant(default_generator().uniform(0.0, 1.0, (*lead, rank)), input)
    out = _pooled(rank, input, lambda x: fractional_max_pool(x, kernel, sizes, random_samples))
    return out if return_indices else out[0]


def fractional_max_pool2d(
    input: Any,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:
    """Maxima over randomly placed windows of (N, C, H, W) (Graham 2014).

    The output has `output_size`, or `output_ratio` (between 0 and 1) times the input's size. `_random_samples`
    (N, C, 2) in [0, 1) fixes the places.
    """
    return _fractional(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Any,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:
    """Maxima over randomly placed windows of (N, C, D, H, W) (Graham 2014); see `fractional_max_pool2d`."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)
