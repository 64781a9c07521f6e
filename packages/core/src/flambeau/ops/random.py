"""Random tensors and dropout. Every function takes a `generator`; the default one is seeded by `manual_seed`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, dtypes
from ..random import Generator, default_generator
from ..tensor import Tensor
from .create import _placed, _size


def _kind(dtype: Any) -> np.dtype:
    return (dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)).numpy


def rand(
    *size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    values = (generator or default_generator()).uniform(0, 1, _size(size), _kind(dtype))
    return _placed(values, device, requires_grad)


def randn(
    *size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Standard normal numbers."""
    values = (generator or default_generator()).normal(0, 1, _size(size), _kind(dtype))
    return _placed(values, device, requires_grad)


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Integers in [low, high); `randint(high, size)` starts at 0."""
    if size is None:
        low, high, size = 0, low, high
    kind = dtypes.int64.numpy if dtype is None else dtypes.as_dtype(dtype).numpy
    values = (generator or default_generator()).integers(low, high, _size((size,)))
    return _placed(values.astype(kind, copy=False), device, False)


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """0 … n - 1 in random order."""
    kind = dtypes.int64.numpy if dtype is None else dtypes.as_dtype(dtype).numpy
    return _placed((generator or default_generator()).permutation(n).astype(kind), device, False)


def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None) -> Tensor:
    """Uniform numbers in [0, 1) with the shape, dtype and device of `input`."""
    kind = input.dtype if dtype is None else dtype
    return rand(tuple(input.shape), generator=generator, dtype=kind, device=input.device)


def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None) -> Tensor:
    """Standard normal numbers with the shape, dtype and device of `input`."""
    kind = input.dtype if dtype is None else dtype
    return randn(tuple(input.shape), generator=generator, dtype=kind, device=input.device)


def normal(mean: Any, std: Any, size: Any = None, *, generator: Generator | None = None) -> Tensor:
    """Normal numbers with the given mean and standard deviation (numbers with `size`, or tensors)."""
    if size is None:
        shape = np.broadcast_shapes(getattr(mean, "shape", ()), getattr(std, "shape", ()))
        return randn(tuple(shape), generator=generator) * std + mean
    return randn(_size((size,)), generator=generator) * std + mean


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that `input` gives, else 0."""
    draw = (generator or default_generator()).uniform(0, 1, tuple(input.shape), np.float64)
    host = backends.of(input.array).to_host(input.array)
    return _placed((draw < host).astype(input.array.dtype), input.device, False)


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with chances proportional to the rows of `input`: (n,) -> (num_samples,), (m, n) -> (m, …)."""
    weights = backends.of(input.array).to_host(input.array).astype(np.float64)
    rows = weights.reshape(-1, weights.shape[-1])
    if (rows < 0).any() or not np.isfinite(rows).all() or (rows.sum(1) <= 0).any():
        raise RuntimeError("multinomial: weights must be finite, non-negative and not all zero")
    if not replacement and ((rows > 0).sum(1) < num_samples).any():
        raise RuntimeError(f"multinomial: fewer than {num_samples} categories have a weight above 0")
    g = generator or default_generator()
    if replacement:
        cumulative = np.cumsum(rows, 1)
        u = g.uniform(0, 1, (len(rows), num_samples), np.float64) * cumulative[:, -1:]
        picks = np.stack([np.searchsorted(c, x, side="right") for c, x in zip(cumulative, u, strict=True)])
    else:
        # Exponential races: the k smallest of E / w are a draw without replacement (Efraimidis and Spirakis 2006).
        race = -np.log1p(-g.uniform(0, 1, rows.shape, np.float64))
        race = np.where(rows > 0, race / np.where(rows > 0, rows, 1), np.inf)
        picks = np.argsort(race, 1, kind="stable")[:, :num_samples]
    shape = (num_samples,) if weights.ndim == 1 else (len(rows), num_samples)
    return _placed(np.minimum(picks, rows.shape[1] - 1).reshape(shape).astype(np.int64), input.device, False)


def _mask(input: Tensor, p: float, shape: tuple, generator: Generator | None) -> Tensor:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    keep = (generator or default_generator()).uniform(0, 1, shape, np.float32) >= p
    scale = 0.0 if p == 1 else 1 / (1 - p)
    return _placed((keep * np.float32(scale)).astype(input.array.dtype), input.device, False)


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Elements set to 0 with probability p, the others scaled by 1 / (1 - p) (Srivastava et al. 2014)."""
    return input * _mask(input, p, tuple(input.shape), generator) if training and p else input


def feature_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """Whole channels set to 0 with probability p: input (N, C, …)."""
    shape = tuple(input.shape[:2]) + (1,) * (input.ndim - 2)
    return input * _mask(input, p, shape, generator) if training and p else input
