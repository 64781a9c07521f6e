"""Sliding windows of (N, C, H, W) laid out as columns, and columns summed back into a plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import op
from .shape import squeeze, unsqueeze


def _spots(size: tuple, kernel: tuple, dilation: tuple, padding: tuple, stride: tuple) -> tuple[int, ...]:
    """How many windows fit along each dimension."""
    out = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True)
    )
    if min(out) < 1:
        raise RuntimeError(
            f"windows of {list(kernel)} (dilation {list(dilation)}, padding {list(padding)}) do not fit "
            f"a plane of {list(size)}"
        )
    return out


def _seen(position: tuple, dilation: tuple, stride: tuple, spots: tuple) -> tuple:
    """The slice of the padded plane that one position of the kernel sees."""
    return (slice(None), slice(None)) + tuple(
        slice(i * d, i * d + s * (m - 1) + 1, s) for i, d, s, m in zip(position, dilation, stride, spots, strict=True)
    )


@op(
    vjp=dict(
        input=lambda g, input_shape, kernel_size, dilation, padding, stride: col2im(
            g, tuple(input_shape[2:]), kernel_size, dilation, padding, stride
        )
    ),
    samples=lambda t: [
        (t(2, 3, 5, 4), (2, 3), (1, 1), (1, 0), (2, 1)),
        (t(1, 2, 5, 5), (2, 2), (2, 1), (0, 0), (1, 1)),
    ],
    method=False,
)
def im2col(xp, input, kernel_size, dilation, padding, stride):
    """Windows of (N, C, H, W) as columns (N, C kh kw, L)."""
    spots = _spots(input.shape[2:], kernel_size, dilation, padding, stride)
    n, c, h, w = input.shape
    (ph, pw), (kh, kw) = padding, kernel_size
    x = input
    if ph or pw:
        x = xp.zeros((n, c, h + 2 * ph, w + 2 * pw), input.dtype)
        x[:, :, ph : ph + h, pw : pw + w] = input
    out = xp.empty((n, c, kh, kw, *spots), input.dtype)
    for i, j in np.ndindex(kh, kw):
        out[:, :, i, j] = x[_seen((i, j), dilation, stride, spots)]
    return out.reshape(n, c * kh * kw, spots[0] * spots[1])


@op(
    vjp=dict(input=lambda g, kernel_size, dilation, padding, stride: im2col(g, kernel_size, dilation, padding, stride)),
    samples=lambda t: [(t(2, 12, 6), (3, 2), (2, 2), (1, 1), (1, 1), (2, 1))],
    method=False,
)
def col2im(xp, input, output_size, kernel_size, dilation, padding, stride):
    """Columns (N, C kh kw, L) of windows summed into (N, C, *output_size): the transpose of `im2col`."""
    spots = _spots(output_size, kernel_size, dilation, padding, stride)
    n, rows, blocks = input.shape
    (h, w), (ph, pw), (kh, kw) = output_size, padding, kernel_size
    if blocks != spots[0] * spots[1] or rows % (kh * kw):
        raise RuntimeError(
            f"fold: expected {spots[0] * spots[1]} columns of a multiple of {kh * kw} rows, but got {list(input.shape)}"
        )
    c = rows // (kh * kw)
    columns = input.reshape(n, c, kh, kw, *spots)
    out = xp.zeros((n, c, h + 2 * ph, w + 2 * pw), input.dtype)
    for i, j in np.ndindex(kh, kw):
        out[_seen((i, j), dilation, stride, spots)] += columns[:, :, i, j]
    return xp.ascontiguousarray(out[:, :, ph : ph + h, pw : pw + w])


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def unfold_windows(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Sliding windows of (N, C, H, W) or (C, H, W) as columns (N, C kh kw, L)."""
    if input.ndim not in (3, 4):
        raise RuntimeError(f"unfold expects a 3-d or 4-d input, but got shape {list(input.shape)}")
    settings = tuple(map(_pair, (kernel_size, dilation, padding, stride)))
    return im2col(input, *settings) if input.ndim == 4 else squeeze(im2col(unsqueeze(input, 0), *settings), 0)


def fold(input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Columns (N, C kh kw, L) of sliding windows summed into (N, C, H, W): the transpose of unfolding."""
    if input.ndim not in (2, 3):
        raise RuntimeError(f"fold expects a 2-d or 3-d input, but got shape {list(input.shape)}")
    settings = tuple(map(_pair, (output_size, kernel_size, dilation, padding, stride)))
    return col2im(input, *settings) if input.ndim == 3 else squeeze(col2im(unsqueeze(input, 0), *settings), 0)
