"""Functions of ``flambeau.nn.functional`` on windows, pixels and channels of images, composed of ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backends, ops
from ..ops.pool import avg_pool1d, avg_pool2d
from ..ops.shape import pad
from ..tensor import Tensor


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over as many windows of (N, C, L) as ``output_size`` says"""
    _no_indices(return_indices)
    return ops.adaptive_max_pool1d(input, output_size)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over as many windows of (N, C, H, W) as ``output_size`` says"""
    _no_indices(return_indices)
    return ops.adaptive_max_pool2d(input, output_size)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over as many windows of (N, C, D, H, W) as ``output_size`` says"""
    _no_indices(return_indices)
    return ops.adaptive_max_pool3d(input, output_size)


def _no_indices(return_indices: bool) -> None:
    if return_indices:
        raise NotImplementedError("adaptive max pooling with return_indices=True is not supported")


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(sum of input ** norm_type over each window) ** (1 / norm_type)"""
    return _lp_root(avg_pool1d(input**norm_type, kernel_size, stride, 0, ceil_mode), norm_type, kernel_size, 1)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(sum of input ** norm_type over each window) ** (1 / norm_type)"""
    return _lp_root(avg_pool2d(input**norm_type, kernel_size, stride, 0, ceil_mode), norm_type, kernel_size, 2)


def _lp_root(mean: Tensor, norm_type: float, kernel_size: Any, rank: int) -> Tensor:
    count = kernel_size**rank if isinstance(kernel_size, int) else math.prod(kernel_size)
    return (ops.sign(mean) * mean.abs().relu() * count) ** (1.0 / norm_type)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(*, C r^2, H, W) to (*, C, H r, W r)"""
    *lead, channels, height, width = input.shape
    r = upscale_factor
    if channels % (r * r):
        raise RuntimeError(f"pixel_shuffle: {channels} channels are not divisible by the square of {r}")
    blocks = input.reshape(-1, channels // (r * r), r, r, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(*lead, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(*, C, H r, W r) to (*, C r^2, H, W)"""
    *lead, channels, height, width = input.shape
    r = downscale_factor
    if height % r or width % r:
        raise RuntimeError(f"pixel_unshuffle: {height} x {width} is not divisible by {r}")
    blocks = input.reshape(-1, channels, height // r, r, width // r, r).permute(0, 1, 3, 5, 2, 4)
    return blocks.reshape(*lead, channels * r * r, height // r, width // r)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels of (N, C, *) in the order 0, C / groups, 2 C / groups, ..., 1, ..."""
    batch, channels, *space = input.shape
    if channels % groups:
        raise RuntimeError(f"channel_shuffle: {channels} channels are not divisible by {groups} groups")
    return input.reshape(batch, groups, channels // groups, *space).transpose(1, 2).reshape(input.shape)


def _window_index(size: tuple[int, ...], kernel: Any, dilation: Any, stride: Any) -> tuple[Any, int]:
    """Flat positions (kh * kw, L) that the windows of an (H, W) plane see, and L."""
    (kh, kw), (dh, dw), (sh, sw) = (_pair(value) for value in (kernel, dilation, stride))
    rows = np.arange(0, size[0] - dh * (kh - 1), sh)
    columns = np.arange(0, size[1] - dw * (kw - 1), sw)
    if not len(rows) or not len(columns):
        raise RuntimeError(f"window of {(kh, kw)} is larger than the padded plane {size}")
    row = (np.arange(kh) * dh)[:, None, None, None] + rows[:, None]
    column = (np.arange(kw) * dw)[:, None, None] + columns
    return (row * size[1] + column).reshape(kh * kw, -1), len(rows) * len(columns)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Sliding blocks of (N, C, H, W) as columns (N, C kh kw, L)"""
    if input.ndim == 3:
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    ph, pw = _pair(padding)
    padded = pad(input, (pw, pw, ph, ph)) if ph or pw else input
    batch, channels, *size = padded.shape
    index, count = _window_index(tuple(size), kernel_size, dilation, stride)
    columns = ops.index_select(padded.flatten(2), 2, _index(input, index.reshape(-1)))
    return columns.reshape(batch, channels * len(index), count)


def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Columns (N, C kh kw, L) of sliding blocks summed into (N, C, H, W): the transpose of :func:`unfold`"""
    if input.ndim == 2:
        return fold(input.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    (height, width), (ph, pw) = _pair(output_size), _pair(padding)
    size = (height + 2 * ph, width + 2 * pw)
    index, count = _window_index(size, kernel_size, dilation, stride)
    batch, rows, blocks = input.shape
    if blocks != count or rows % len(index):
        raise RuntimeError(
            f"fold: {count} columns of a multiple of {len(index)} rows expected, got {tuple(input.shape)}"
        )
    channels = rows // len(index)
    plane = ops.zeros(batch, channels, size[0] * size[1], dtype=input.dtype, device=input.device)
    plane = ops.index_add(plane, 2, _index(input, index.reshape(-1)), input.reshape(batch, channels, -1))
    return plane.reshape(batch, channels, *size)[:, :, ph : ph + height, pw : pw + width]


def _index(input: Tensor, values: Any) -> Tensor:
    return Tensor._wrap(backends.of(input.array).from_host(values, input.device))
