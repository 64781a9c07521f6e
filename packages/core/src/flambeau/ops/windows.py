"""Window functions of signal processing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..tensor import Tensor, to_array
from ._special_bessel import modified_i_unscaled

__all__: list[str] = []  # every function is exported by its family


def _make(length: int, periodic: bool, shape: Callable, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    """A window from `shape(k, n)`: its values at points k = 0 … length - 1 of a period of n steps, in float64."""
    kind = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not kind.is_floating_point:
        raise RuntimeError(f"window functions need a floating-point dtype, not {kind}")
    if length < 0:
        raise RuntimeError(f"the window length must not be negative, got {length}")
    if length < 2:
        values = np.ones(length)
    else:
        values = shape(np.arange(length, dtype=np.float64), length if periodic else length - 1)
    out = Tensor._wrap(to_array(values.astype(kind.numpy), None, device, copy=False))
    return out.requires_grad_() if requires_grad else out


def _cosines(a: Sequence[float]) -> Callable:
    def shape(k: np.ndarray, n: int) -> np.ndarray:
        return np.asarray(sum((-1) ** i * c * np.cos(2 * math.pi * i * k / n) for i, c in enumerate(a)))

    return shape


def _bartlett(k: np.ndarray, n: int) -> np.ndarray:
    return 1 - np.abs(2 * k / n - 1)


def _kaiser(beta: float) -> Callable:
    def shape(k: np.ndarray, n: int) -> np.ndarray:
        inside = beta * np.sqrt(np.maximum(1 - (2 * k / n - 1) ** 2, 0))
        return modified_i_unscaled(np, inside, 0) / modified_i_unscaled(np, np.array([float(beta)]), 0)

    return shape


def hann_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """sin² over a period.

    >>> hann_window(4)
    tensor([0. , 0.5, 1. , 0.5])
    """
    return _make(window_length, periodic, _cosines((0.5, 0.5)), dtype, device, requires_grad)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, dtype: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """alpha - beta cos, over a period."""
    return _make(window_length, periodic, _cosines((alpha, beta)), dtype, device, requires_grad)


def blackman_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """0.42 - 0.5 cos + 0.08 cos 2, over a period."""
    return _make(window_length, periodic, _cosines((0.42, 0.5, 0.08)), dtype, device, requires_grad)


def bartlett_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A triangle with zeros at its ends."""
    return _make(window_length, periodic, _bartlett, dtype, device, requires_grad)


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Kaiser's window: I0(beta sqrt(1 - t²)) / I0(beta), t from -1 to 1."""
    return _make(window_length, periodic, _kaiser(beta), dtype, device, requires_grad)
