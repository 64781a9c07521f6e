"""Moving channels into space and back, and among each other: (*, C, H, W)."""

from __future__ import annotations

import math
from typing import Any

from .shape import permute, reshape, transpose


def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """(*, C r², H, W) to (*, C, H r, W r) (Shi et al. 2016)."""
    if input.ndim < 3:
        raise RuntimeError(f"pixel_shuffle expects at least 3 dimensions, but got shape {list(input.shape)}")
    *lead, channels, height, width = input.shape
    r = upscale_factor
    if r <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    if channels % (r * r):
        raise RuntimeError(f"pixel_shuffle: {channels} channels are not divisible by the square of {r}")
    blocks = reshape(input, (math.prod(lead), channels // (r * r), r, r, height, width))
    return reshape(permute(blocks, (0, 1, 4, 2, 5, 3)), (*lead, channels // (r * r), height * r, width * r))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """(*, C, H r, W r) to (*, C r², H, W): the inverse of `pixel_shuffle`."""
    if input.ndim < 3:
        raise RuntimeError(f"pixel_unshuffle expects at least 3 dimensions, but got shape {list(input.shape)}")
    *lead, channels, height, width = input.shape
    r = downscale_factor
    if r <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    if height % r or width % r:
        raise RuntimeError(f"pixel_unshuffle: {height} x {width} is not divisible by {r}")
    blocks = reshape(input, (math.prod(lead), channels, height // r, r, width // r, r))
    return reshape(permute(blocks, (0, 1, 3, 5, 2, 4)), (*lead, channels * r * r, height // r, width // r))


def channel_shuffle(input: Any, groups: int) -> Any:
    """Channels of (N, C, …) in the order 0, C / groups, 2 C / groups, …, 1, … (Zhang et al. 2018)."""
    if input.ndim < 3:
        raise RuntimeError(f"channel_shuffle expects at least 3 dimensions, but got shape {list(input.shape)}")
    batch, channels, *space = input.shape
    if groups <= 0 or channels % groups:
        raise RuntimeError(f"channel_shuffle: {channels} channels are not divisible by {groups} groups")
    blocks = reshape(input, (batch, groups, channels // groups, *space))
    return reshape(transpose(blocks, 1, 2), tuple(input.shape))


def native_channel_shuffle(input: Any, groups: int) -> Any:
    """`channel_shuffle`, under its other name."""
    return channel_shuffle(input, groups)
