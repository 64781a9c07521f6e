"""Pooling of any rank: max, average, adaptive. Input (N, C, *spatial)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import op
from .conv import _tuple
from .index import gather
from .matmul import matmul
from .reduce import amax
from .shape import reshape, stack, transpose, unsqueeze


def _sizes(shape: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple, ceil_mode: bool) -> tuple:
    """Output sizes; with ceil_mode the last window may start inside the input or left padding only."""
    out = []
    for n, k, s, p, d in zip(shape, kernel, stride, padding, dilation, strict=True):
        span = n + 2 * p - d * (k - 1) - 1
        m = (-(-span // s) if ceil_mode else span // s) + 1
        if ceil_mode and (m - 1) * s >= n + p:
            m -= 1
        out.append(m)
    if min(out) < 1:
        raise RuntimeError(f"pooling window {list(kernel)} is larger than the padded input {list(shape)}")
    return tuple(out)


def _windows(kernel: tuple, stride: tuple, dilation: tuple, out: tuple) -> Any:
    """For each kernel position: the strided slice of the padded input that it sees."""
    for position in np.ndindex(*kernel):
        yield (
            position,
            (slice(None), slice(None))
            + tuple(
                slice(i * d, i * d + s * (m - 1) + 1, s)
                for i, d, s, m in zip(position, dilation, stride, out, strict=True)
            ),
        )


def _fill(xp: Any, x: Any, padding: tuple, right: tuple, value: Any) -> Any:
    shape = x.shape[:2] + tuple(n + p + r for n, p, r in zip(x.shape[2:], padding, right, strict=True))
    full = xp.full(shape, value, x.dtype)
    full[(slice(None), slice(None), *[slice(p, p + n) for n, p in zip(x.shape[2:], padding, strict=True)])] = x
    return full


def _right(shape: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple, out: tuple) -> tuple:
    """Padding on the right that the last windows reach into."""
    return tuple(
        max((m - 1) * s + d * (k - 1) + 1 - p - n, 0)
        for n, k, s, p, d, m in zip(shape, kernel, stride, padding, dilation, out, strict=True)
    )


@op(
    vjp=dict(input=lambda g, out, input_shape: max_pool_grad(g[0], out[1], input_shape)),
    samples=lambda t: [
        (t(2, 3, 6, 5), (2, 2), (2, 2), (0, 0), (1, 1)), (t(1, 2, 7, 6), (3, 3), (2, 2), (1, 1), (1, 1), True),
        (t(2, 2, 9), (3,), (1,), (1,), (2,)),
    ],
    method=False,
)  # fmt: skip
def max_pool(xp, input, kernel_size, stride, padding, dilation, ceil_mode=False):
    """(largest element of each window, its flat position within the plane as int64)."""
    shape = input.shape[2:]
    if any(2 * p > k for p, k in zip(padding, kernel_size, strict=True)):
        raise RuntimeError(f"padding {list(padding)} must be at most half of the kernel size {list(kernel_size)}")
    out_shape = _sizes(shape, kernel_size, stride, padding, dilation, ceil_mode)
    right = _right(shape, kernel_size, stride, padding, dilation, out_shape)
    low = -np.inf if input.dtype.kind in "fV" else np.iinfo(input.dtype).min
    x = _fill(xp, input, padding, right, low) if any(padding) or any(right) else input
    best = where = None
    for position, window in _windows(kernel_size, stride, dilation, out_shape):
        flat = 0
        for axis, (i, d, s, p, m, n) in enumerate(
            zip(position, dilation, stride, padding, out_shape, shape, strict=True)
        ):
            line = (xp.arange(m) * s + i * d - p).reshape((-1,) + (1,) * (len(shape) - axis - 1))
            flat = flat * n + line
        value = x[window]
        if best is None:
            best, where = value.copy(), xp.broadcast_to(flat, value.shape).astype(np.int64)
        else:
            better = (value > best) | (value != value)
            xp.copyto(best, value, where=better)
            xp.copyto(where, xp.broadcast_to(flat, value.shape), where=better)
    return best, where


@op(
    vjp=dict(g=lambda g, indices: _at(g, indices)),
    samples=lambda t: [(t(2, 3, 2, 2), t(2, 3, 2, 2, low=0, high=16, dtype="int64"), (2, 3, 4, 4))],
    method=False,
)
def max_pool_grad(xp, g, indices, input_shape):
    """`g` added at the flat plane positions `indices` into zeros of `input_shape`."""
    planes = math.prod(input_shape[:2])
    size = math.prod(input_shape[2:])
    base = (xp.arange(planes) * size)[:, None]
    out = xp.zeros(planes * size, g.dtype)
    xp.add.at(out, (indices.reshape(planes, -1) + base).ravel(), g.reshape(-1))
    return out.reshape(input_shape)


def _at(g: Any, indices: Any) -> Any:
    flat = reshape(g, (*g.shape[:2], -1))
    return reshape(gather(flat, 2, reshape(indices, (*indices.shape[:2], -1))), tuple(indices.shape))


@op(
    vjp=dict(
        input=lambda g, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor: avg_pool_grad(
            g, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor
        )
    ),
    samples=lambda t: [
        (t(2, 3, 6, 5), (2, 2), (2, 2), (0, 0)), (t(1, 2, 7, 6), (3, 3), (2, 2), (1, 1), True, False),
        (t(2, 2, 9), (3,), (1,), (1,)),
    ],
    method=False,
)  # fmt: skip
def avg_pool(xp, input, kernel_size, stride, padding, ceil_mode=False, count_include_pad=True, divisor=None):
    """The mean of each window; padding counts in it or not."""
    shape = input.shape[2:]
    ones = (1,) * len(shape)
    out_shape = _sizes(shape, kernel_size, stride, padding, ones, ceil_mode)
    right = _right(shape, kernel_size, stride, padding, ones, out_shape)
    x = _fill(xp, input, padding, right, 0) if any(padding) or any(right) else input
    total = None
    for _, window in _windows(kernel_size, stride, ones, out_shape):
        total = x[window].copy() if total is None else xp.add(total, x[window], out=total)
    total /= _divisors(xp, shape, kernel_size, stride, padding, out_shape, count_include_pad, divisor, input.dtype)
    return total


def _divisors(xp, shape, kernel, stride, padding, out, include, divisor, dtype):
    """What each window's sum is divided by: a number, or an array where windows at the border differ."""
    if divisor is not None:
        return dtype.type(divisor)
    per_dim = []
    for n, k, s, p, m in zip(shape, kernel, stride, padding, out, strict=True):
        start = np.arange(m) * s - p
        stop = np.minimum(start + k, n + p)
        per_dim.append(stop - start if include else np.minimum(stop, n) - np.maximum(start, 0))
    count = per_dim[0]
    for c in per_dim[1:]:
        count = count[..., None] * c
    return dtype.type(count.flat[0]) if (count == count.flat[0]).all() else xp.asarray(count.astype(dtype))


@op(
    vjp=dict(
        g=lambda g, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor: avg_pool(
            g, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor
        )
    ),
    samples=lambda t: [(t(2, 3, 3, 2), (2, 3, 6, 5), (2, 2), (2, 2), (0, 0), False, True, None)],
    method=False,
)
def avg_pool_grad(xp, g, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor):
    """Each window's share of `g` spread over the window: the gradient of `avg_pool`."""
    shape, out_shape = tuple(input_shape[2:]), g.shape[2:]
    ones = (1,) * len(shape)
    g = g / _divisors(xp, shape, kernel_size, stride, padding, out_shape, count_include_pad, divisor, g.dtype)
    right = _right(shape, kernel_size, stride, padding, ones, out_shape)
    full = xp.zeros(
        tuple(input_shape[:2]) + tuple(n + p + r for n, p, r in zip(shape, padding, right, strict=True)), g.dtype
    )
    for _, window in _windows(kernel_size, stride, ones, out_shape):
        full[window] += g
    crop = tuple(slice(p, p + n) for n, p in zip(shape, padding, strict=True))
    return xp.ascontiguousarray(full[(slice(None), slice(None), *crop)])


# -- PyTorch's functions ----------------------------------------------------------------------------------------
def _pooled(rank: int, input: Any, function: Any) -> Any:
    """Runs `function` on a batched input, adding and removing the batch dimension where there is none."""
    if input.ndim == rank + 2:
        return function(input)
    if input.ndim != rank + 1:
        raise RuntimeError(f"expected {rank + 1} or {rank + 2} dimensions, but got shape {list(input.shape)}")
    out = function(unsqueeze(input, 0))
    return tuple(o[0] for o in out) if isinstance(out, tuple) else out[0]


def _max(rank, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    kernel = _tuple(kernel_size, rank, "kernel_size")
    args = (kernel, _tuple(stride or kernel, rank, "stride"), _tuple(padding, rank, "padding"),
            _tuple(dilation, rank, "dilation"), ceil_mode)  # fmt: skip
    out = _pooled(rank, input, lambda x: max_pool(x, *args))
    return out if return_indices else out[0]


def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window of (N, C, L); with indices when asked for."""
    return _max(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window of (N, C, H, W); with indices when asked for."""
    return _max(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window of (N, C, D, H, W); with indices when asked for."""
    return _max(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _avg(rank, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    kernel = _tuple(kernel_size, rank, "kernel_size")
    args = (kernel, _tuple(stride or kernel, rank, "stride"), _tuple(padding, rank, "padding"),
            ceil_mode, count_include_pad, divisor_override)  # fmt: skip
    return _pooled(rank, input, lambda x: avg_pool(x, *args))


def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """Mean of each window of (N, C, L)."""
    return _avg(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    """Mean of each window of (N, C, H, W)."""
    return _avg(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    """Mean of each window of (N, C, D, H, W)."""
    return _avg(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _cells(n: int, m: int) -> list[tuple[int, int]]:
    """PyTorch's adaptive windows: cell i covers floor(i n / m) … ceil((i + 1) n / m)."""
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def _output_sizes(output_size: Any, rank: int, shape: Any) -> tuple:
    sizes = (output_size,) * rank if isinstance(output_size, int) or output_size is None else tuple(output_size)
    return tuple(n if m is None else m for n, m in zip(shape, sizes, strict=True))


def _adaptive_avg(rank: int, input: Any, output_size: Any) -> Any:
    """Averages as a matrix product per dimension: windows of different sizes cost no loop."""
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


def _adaptive_max(rank: int, input: Any, output_size: Any) -> Any:
    sizes = _output_sizes(output_size, rank, input.shape[-rank:])
    for axis, m in enumerate(sizes, start=input.ndim - rank):
        lead = (slice(None),) * axis
        parts = [amax(input[(*lead, slice(a, b))], axis) for a, b in _cells(input.shape[axis], m)]
        input = stack(parts, axis)
    return input


def adaptive_max_pool1d(input: Any, output_size: Any) -> Any:
    """Maxima of (N, C, L) at a given length."""
    return _adaptive_max(1, input, output_size)


def adaptive_max_pool2d(input: Any, output_size: Any) -> Any:
    """Maxima of (N, C, H, W) at a given height and width."""
    return _adaptive_max(2, input, output_size)


def adaptive_max_pool3d(input: Any, output_size: Any) -> Any:
    """Maxima of (N, C, D, H, W) at a given size."""
    return _adaptive_max(3, input, output_size)
