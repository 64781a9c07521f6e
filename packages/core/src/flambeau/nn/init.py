"""Initialisers: they fill a tensor in place, outside autograd, and return it. Draws come from ``flambeau.random``."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import backends, random
from ..tensor import Tensor


class _Skip(threading.local):
    on = False


_skip = _Skip()


@contextmanager
def skipped() -> Iterator[None]:
    """Inside, the initialisers of this module leave their tensors as they are (:func:`flambeau.nn.utils.skip_init`)."""
    before, _skip.on = _skip.on, True
    try:
        yield
    finally:
        _skip.on = before


def _initialiser(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def call(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor if _skip.on else function(tensor, *args, **kwargs)

    return call


def _write(tensor: Tensor, values: Any) -> Tensor:
    """Copy host values into ``tensor``, on whichever device it lives."""
    tensor.array[...] = backends.of(tensor.array).from_host(np.asarray(values), tensor.device)
    tensor._bump_version()
    return tensor


def _draw_dtype(tensor: Tensor) -> Any:
    """float64 stays; anything narrower is drawn in float32 and rounded."""
    return np.float64 if tensor.array.dtype == np.float64 else np.float32


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The recommended gain for a nonlinearity.

    >>> calculate_gain("relu")
    1.4142135623730951
    """
    if nonlinearity in ("linear", "sigmoid", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))):
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        if isinstance(param, bool) or not isinstance(param, int | float | None):
            raise ValueError(f"negative_slope {param!r} is not a valid number")
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 0.75
    raise ValueError(f"unsupported nonlinearity {nonlinearity!r}")


@_initialiser
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Draws from U(a, b)."""
    generator = generator or random.default_generator()
    return _write(tensor, generator.uniform(a, b, tuple(tensor.shape), _draw_dtype(tensor)))


@_initialiser
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Draws from N(mean, std^2)."""
    generator = generator or random.default_generator()
    return _write(tensor, generator.normal(mean, std, tuple(tensor.shape), _draw_dtype(tensor)))


@_initialiser
def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Tensor:
    """Draws from N(mean, std^2) cut to [a, b] (``a`` and ``b`` are values, not multiples of ``std``)."""
    generator = generator or random.default_generator()
    low, high = (a - mean) / std, (b - mean) / std
    if low >= high:
        raise ValueError(f"trunc_normal_ needs a < b, got a={a}, b={b}")
    size = math.prod(tensor.shape)
    kept = np.empty(0)
    # Rejection: proposals are normal where the interval holds a good share of the mass, uniform elsewhere.
    mass = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    peak = 0.0 if low < 0 < high else min(abs(low), abs(high))
    while len(kept) < size:
        if mass > 0.1:
            draws = generator.normal(0.0, 1.0, (size + 16,), np.float64)
            kept = np.concatenate([kept, draws[(draws >= low) & (draws <= high)]])
        else:
            draws = generator.uniform(low, high, (size + 16,), np.float64)
            chance = generator.uniform(0.0, 1.0, (size + 16,), np.float64)
            kept = np.concatenate([kept, draws[chance < np.exp(0.5 * (peak**2 - draws**2))]])
    return _write(tensor, (mean + std * kept[:size]).reshape(tensor.shape))


@_initialiser
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fills with ``val``."""
    tensor.array[...] = val
    tensor._bump_version()
    return tensor


@_initialiser
def ones_(tensor: Tensor) -> Tensor:
    """Fills with 1."""
    return constant_(tensor, 1)


@_initialiser
def zeros_(tensor: Tensor) -> Tensor:
    """Fills with 0."""
    return constant_(tensor, 0)


@_initialiser
def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix, for 2-D tensors."""
    if tensor.ndim != 2:
        raise ValueError("eye_: only tensors with 2 dimensions are supported")
    return _write(tensor, np.eye(*tensor.shape))


@_initialiser
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Convolution weights that keep as many input channels as possible, for 3-D to 5-D tensors."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("dirac_: only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups:
        raise ValueError("dirac_: dim 0 must be divisible by groups")
    values = np.zeros(tensor.shape)
    per_group = tensor.shape[0] // groups
    centre = tuple(size // 2 for size in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            values[(group * per_group + channel, channel, *centre)] = 1
    return _write(tensor, values)


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ValueError("fan in and fan out need a tensor with at least 2 dimensions")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


@_initialiser
def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """U(-a, a) with a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


@_initialiser
def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """N(0, std^2) with std = gain * sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


@_initialiser
def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """U(-b, b) with b = gain * sqrt(3 / fan) (He et al. 2015); ``a`` is the slope of the leaky ReLU."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


@_initialiser
def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """N(0, std^2) with std = gain / sqrt(fan) (He et al. 2015)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


@_initialiser
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """A (semi-)orthogonal matrix (Saxe et al. 2013); dimensions after the first are joined."""
    if tensor.ndim < 2:
        raise ValueError("orthogonal_: only tensors with 2 or more dimensions are supported")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    generator = generator or random.default_generator()
    draws = generator.normal(0.0, 1.0, (max(rows, columns), min(rows, columns)), np.float64)
    q, r = np.linalg.qr(draws)
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)  # uniform over orthogonal matrices
    return _write(tensor, gain * (q.T if rows < columns else q).reshape(tensor.shape))


@_initialiser
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """N(0, std^2) with a share ``sparsity`` of each column set to zero (Martens 2010), for 2-D tensors."""
    if tensor.ndim != 2:
        raise ValueError("sparse_: only tensors with 2 dimensions are supported")
    generator = generator or random.default_generator()
    rows, columns = tensor.shape
    values = generator.normal(0.0, std, (rows, columns), np.float64)
    for column in range(columns):
        values[generator.permutation(rows)[: math.ceil(sparsity * rows)], column] = 0
    return _write(tensor, values)


def reset_uniform(weight: Tensor, bias: Tensor | None) -> None:
    """The default of linear and convolution layers: weight and bias from U(-b, b) with b = 1 / sqrt(fan_in)."""
    kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in, _ = _calculate_fan_in_and_fan_out(weight)
        bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
        uniform_(bias, -bound, bound)
