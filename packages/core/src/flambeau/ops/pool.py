"""Pooling of any rank: max, average, p-norm. Input (N, C, *spatial)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import op
from .activation import relu
from .conv import _tuple
from .elementwise import abs, sign
from .pool_adaptive import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    fractional_max_pool,
    fractional_max_pool2d,
    fractional_max_pool3d,
)
from .pool_unpool import _pooled, max_pool_grad, max_unpool, max_unpool1d, max_unpool2d, max_unpool3d

# The parts of this family, gathered here for the namespace.
__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "avg_pool_grad", "fractional_max_pool", "fractional_max_pool2d", "fractional_max_pool3d", "lp_pool1d", "lp_pool2d",
    "lp_pool3d", "max_pool", "max_pool1d", "max_pool2d", "max_pool3d", "max_pool_grad", "max_unpool", "max_unpool1d",
    "max_unpool2d", "max_unpool3d",
]  # fmt: skip


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
    vjp=dict(input=lambda g, out1, input_shape: max_pool_grad(g[0], out1, input_shape)),
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
def _stride(stride: Any, kernel: tuple) -> tuple:
    """The stride, which is the kernel's size unless given."""
    return kernel if stride is None or stride == () or stride == [] else _tuple(stride, len(kernel), "stride")


def _max(rank, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    kernel = _tuple(kernel_size, rank, "kernel_size")
    args = (kernel, _stride(stride, kernel), _tuple(padding, rank, "padding"),
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
    args = (kernel, _stride(stride, kernel), _tuple(padding, rank, "padding"),
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


def _lp(rank: int, input: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Any:
    kernel = _tuple(kernel_size, rank, "kernel_size")
    average = _avg(rank, input**norm_type, kernel, stride, 0, ceil_mode, True, None)
    return (sign(average) * relu(abs(average)) * math.prod(kernel)) ** (1.0 / norm_type)


def lp_pool1d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
    """(sum of input ** norm_type over each window of (N, C, L)) ** (1 / norm_type)."""
    return _lp(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
    """(sum of input ** norm_type over each window of (N, C, H, W)) ** (1 / norm_type)."""
    return _lp(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
    """(sum of input ** norm_type over each window of (N, C, D, H, W)) ** (1 / norm_type)."""
    return _lp(3, input, norm_type, kernel_size, stride, ceil_mode)
