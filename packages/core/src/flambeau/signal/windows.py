"""Window functions, as `torch.signal.windows`: symmetric by default, `sym=False` for a period of M points.

>>> from flambeau.signal import windows
>>> windows.hann(3)
tensor([0., 1., 0.])
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..ops.windows import _bartlett, _cosines, _kaiser, _make
from ..tensor import Tensor

__all__ = [
    "bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine", "general_hamming", "hamming", "hann",
    "kaiser", "nuttall",
]  # fmt: skip


def bartlett(M: int, *, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A triangle with zeros at its ends."""
    return _make(M, not sym, _bartlett, dtype, device, requires_grad)


def general_cosine(
    M: int, *, a: Iterable[float], sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """a0 - a1 cos + a2 cos 2 - … over a period. Errors: ValueError for no coefficients."""
    if not isinstance(a, Iterable):
        raise TypeError("coefficients must be a list or tuple of numbers")
    coefficients = [float(v) for v in a]
    if not coefficients:
        raise ValueError("coefficients cannot be empty")
    return _make(M, not sym, _cosines(coefficients), dtype, device, requires_grad)


def general_hamming(
    M: int, *, alpha: float = 0.54, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """alpha - (1 - alpha) cos over a period."""
    return _make(M, not sym, _cosines((alpha, 1 - alpha)), dtype, device, requires_grad)


def hamming(M: int, *, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """0.54 - 0.46 cos over a period."""
    return general_hamming(M, sym=sym, dtype=dtype, device=device, requires_grad=requires_grad)


def hann(M: int, *, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """sin² over a period."""
    return general_hamming(M, alpha=0.5, sym=sym, dtype=dtype, device=device, requires_grad=requires_grad)


def blackman(M: int, *, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """0.42 - 0.5 cos + 0.08 cos 2 over a period."""
    return _make(M, not sym, _cosines((0.42, 0.5, 0.08)), dtype, device, requires_grad)


def nuttall(M: int, *, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Nuttall's four-term window with minimal side lobes (Nuttall 1981, IEEE Trans. ASSP 29)."""
    a = (0.3635819, 0.4891775, 0.1365995, 0.0106411)
    return _make(M, not sym, _cosines(a), dtype, device, requires_grad)


def cosine(M: int, *, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """One arch of a sine."""
    period = M if sym else M + 1
    return _make(M, not sym, lambda k, n: np.sin(math.pi * (k + 0.5) / period), dtype, device, requires_grad)


def exponential(
    M: int,
    *,
    center: float | None = None,
    tau: float = 1.0,
    sym: bool = True,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """exp(-|k - center| / tau). Errors: ValueError for tau <= 0, or a center with sym."""
    if tau <= 0:
        raise ValueError(f"tau must be positive, got {tau}")
    if sym and center is not None:
        raise ValueError("center must be None for symmetric windows")

    def shape(k: np.ndarray, n: int) -> np.ndarray:
        return np.exp(-np.abs(k - (n / 2 if center is None else center)) / tau)

    return _make(M, not sym, shape, dtype, device, requires_grad)


def gaussian(
    M: int, *, std: float = 1.0, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """exp(-(k - middle)² / (2 std²)). Errors: ValueError for std <= 0."""
    if std <= 0:
        raise ValueError(f"std must be positive, got {std}")
    return _make(M, not sym, lambda k, n: np.exp(-0.5 * ((k - n / 2) / std) ** 2), dtype, device, requires_grad)


def kaiser(
    M: int, *, beta: float = 12.0, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Kaiser's window: I0(beta sqrt(1 - t²)) / I0(beta). Errors: ValueError for beta < 0."""
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got {beta}")
    return _make(M, not sym, _kaiser(beta), dtype, device, requires_grad)
