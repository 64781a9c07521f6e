"""Padding: constant, reflect, replicate, circular."""

from __future__ import annotations

from typing import Any

import numpy as np

from .shape import pad_constant

__all__ = ["constant_pad_nd", "pad"]


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """Padding as PyTorch gives it: (left, right, top, bottom, …) from the last dimension backwards.

    mode: constant, reflect, replicate or circular. Negative widths crop.
    """
    if len(pad) % 2:
        raise RuntimeError(f"pad: the padding length must be divisible by 2, but it is {len(pad)}")
    pairs = [(int(a), int(b)) for a, b in zip(pad[::2], pad[1::2], strict=True)][::-1]
    lead = input.ndim - len(pairs)
    if lead < 0:
        raise RuntimeError(f"padding of {len(pairs)} dimensions for a tensor with {input.ndim}")
    widths = [(0, 0)] * lead + pairs
    for n, (a, b) in zip(input.shape, widths, strict=True):
        if n + a + b < 0 or max(-a, 0) > n or max(-b, 0) > n:
            raise RuntimeError(f"pad: a dimension of size {n} padded by ({a}, {b}) would be negative")
    if mode == "constant":
        input, widths = _cropped(input, widths)
        return pad_constant(input, widths, 0 if value is None else value)
    if value is not None and value != 0:
        raise ValueError(f'padding mode "{mode}" doesn\'t take in value argument')
    if mode == "circular":
        for n, (a, b) in zip(input.shape, widths, strict=True):
            if a > n or b > n:
                raise RuntimeError(f"padding value causes wrapping around more than once: ({a}, {b}) for size {n}")
        input, widths = _cropped(input, widths)
    from .index import index_select

    for d, (a, b) in enumerate(widths):
        if a or b:
            input = index_select(input, d, _border(mode, input.shape[d], a, b))
    return input


def constant_pad_nd(input: Any, pad: Any, value: float = 0) -> Any:
    """`pad` with mode "constant"."""
    return globals()["pad"](input, pad, "constant", value)


def _cropped(input: Any, widths: list) -> tuple:
    """Negative widths carried out; the others are left."""
    if any(a < 0 or b < 0 for a, b in widths):
        crop = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(input.shape, widths, strict=True))
        input = input[crop]
        widths = [(max(a, 0), max(b, 0)) for a, b in widths]
    return input, widths


def _border(mode: str, n: int, a: int, b: int) -> np.ndarray:
    """Source positions of a padded dimension."""
    i = np.arange(-a, n + b)
    if n == 0 and len(i):
        raise RuntimeError(f"{mode} padding of a dimension of size 0 has nothing to repeat")
    if mode == "replicate":
        return np.clip(i, 0, n - 1)
    if mode == "circular":
        return i % n
    if mode == "reflect":
        if max(a, b) >= n:
            raise RuntimeError(f"reflect padding ({a}, {b}) must be smaller than the dimension ({n})")
        i = np.abs(i)
        return np.where(i >= n, 2 * (n - 1) - i, i)
    raise NotImplementedError(f"padding mode {mode!r} is not known; use constant, reflect, replicate or circular")
