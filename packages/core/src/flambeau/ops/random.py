"""Random tensors and dropout. Every function takes a `generator`; the default one is seeded by `manual_seed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from .. import backends, dtypes
from ..autograd.modes import mode
from ..random import Generator, default_generator
from ..tensor import Tensor
from ._counter import ROW, keeps
from ._op import method, op
from .create import _check_layout, _placed, _size, _sized


def _kind(dtype: Any) -> np.dtype:
    return (dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)).numpy


def _host(t: Tensor) -> np.ndarray:
    return backends.of(t.array).to_host(t.array)


def _float_kind(dtype: Any, name: str) -> np.dtype:
    kind = _kind(dtype)
    if kind.kind in "biu":
        raise NotImplementedError(f"{name} is not defined for {dtypes.as_dtype(dtype)}; use a floating-point dtype")
    return kind


def _uniform(g: Generator, shape: tuple, kind: np.dtype) -> np.ndarray:
    if kind.kind != "c":
        return g.uniform(0, 1, shape, kind)
    return (g.uniform(0, 1, shape, np.float64) + 1j * g.uniform(0, 1, shape, np.float64)).astype(kind)


def _normal(g: Generator, shape: tuple, kind: np.dtype) -> np.ndarray:
    if kind.kind != "c":
        return g.normal(0, 1, shape, kind)
    half = 0.5**0.5  # a complex normal number of variance 1 has parts of variance 1/2
    return (g.normal(0, half, shape, np.float64) + 1j * g.normal(0, half, shape, np.float64)).astype(kind)


# -- uniform, normal, integers ----------------------------------------------------------------------------------
@_sized
def rand(
    *size: Any, generator: Generator | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Uniform numbers in [0, 1)."""
    _check_layout(layout)
    values = _uniform(generator or default_generator(), _size(size), _float_kind(dtype, "rand"))
    return _placed(values, device, requires_grad)


@_sized
def randn(
    *size: Any, generator: Generator | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Standard normal numbers."""
    _check_layout(layout)
    values = _normal(generator or default_generator(), _size(size), _float_kind(dtype, "randn"))
    return _placed(values, device, requires_grad)


def randint(
    low: Any, high: Any = None, size: Any = None, *, generator: Generator | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Integers in [low, high); `randint(high, size)` starts at 0."""
    _check_layout(layout)
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if low >= high:
        raise RuntimeError(f"randint expects low < high, but low is {low} and high {high}")
    kind = dtypes.int64.numpy if dtype is None else dtypes.as_dtype(dtype).numpy
    values = (generator or default_generator()).integers(int(low), int(high), _size((size,)))
    return _placed(values.astype(kind, copy=False), device, requires_grad)


def randperm(
    n: int, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """0 … n - 1 in random order."""
    _check_layout(layout)
    if n < 0:
        raise RuntimeError(f"randperm: n must be non-negative, not {n}")
    kind = dtypes.int64.numpy if dtype is None else dtypes.as_dtype(dtype).numpy
    return _placed((generator or default_generator()).permutation(n).astype(kind), device, requires_grad)


def rand_like(
    input: Tensor, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Uniform numbers in [0, 1) with the shape, dtype and device of `input`."""
    kind, place = input.dtype if dtype is None else dtype, input.device if device is None else device
    return rand(*input.shape, generator=generator, dtype=kind, layout=layout, device=place, requires_grad=requires_grad)


def randn_like(
    input: Tensor, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Standard normal numbers with the shape, dtype and device of `input`."""
    kind, place = input.dtype if dtype is None else dtype, input.device if device is None else device
    return randn(
        *input.shape, generator=generator, dtype=kind, layout=layout, device=place, requires_grad=requires_grad
    )


def randint_like(
    input: Tensor, low: Any, high: Any = None, *, generator: Generator | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Integers in [low, high) with the shape, dtype and device of `input`; `randint_like(x, high)` starts at 0."""
    if high is None:
        low, high = 0, low
    kind, place = input.dtype if dtype is None else dtype, input.device if device is None else device
    return randint(
        low, high, tuple(input.shape), generator=generator, dtype=kind, layout=layout, device=place,
        requires_grad=requires_grad,
    )  # fmt: skip


# -- by parameters ----------------------------------------------------------------------------------------------
def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Normal numbers with the given mean and standard deviation (numbers with `size`, or tensors)."""
    given = [v for v in (mean, std) if isinstance(v, Tensor)]
    if bool((_host(std) if isinstance(std, Tensor) else np.asarray(std)).min(initial=0) < 0):
        raise RuntimeError("normal expects std >= 0.0")
    if size is None:
        if not given:
            raise TypeError("normal() needs a size when mean and std are numbers")
        size = np.broadcast_shapes(*[tuple(v.shape) for v in given])
        dtype = given[0].dtype if dtype is None else dtype
        device = given[0].device if device is None else device
    parts = [v.detach() if isinstance(v, Tensor) else v for v in (mean, std)]
    out = randn(_size((size,)), generator=generator, dtype=dtype, layout=layout, device=device) * parts[1] + parts[0]
    return out.requires_grad_() if requires_grad else out


@method()
def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that `input` gives (or `p`, for all), else 0."""
    chance = _host(input) if p is None else np.float64(p)
    if bool(np.any((chance < 0) | (chance > 1))):
        raise RuntimeError("bernoulli expects all probabilities to be in [0, 1]")
    draw = (generator or default_generator()).uniform(0, 1, tuple(input.shape), np.float64)
    return _placed((draw < chance).astype(input.array.dtype), input.device, False)


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson-distributed counts with the rates that `input` gives."""
    rate = _host(input)
    if bool((rate < 0).any()):
        raise RuntimeError("poisson expects all rates to be non-negative")
    values = (generator or default_generator()).numpy.poisson(rate.astype(np.float64))
    return _placed(np.asarray(values).astype(input.array.dtype), input.device, False)


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """The number of successes in `count` trials of probability `prob` each."""
    values = (generator or default_generator()).numpy.binomial(_host(count).astype(np.int64), _host(prob))
    return _placed(np.asarray(values).astype(count.array.dtype), count.device, False)


@method()
def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with chances proportional to the rows of `input`: (n,) -> (num_samples,), (m, n) -> (m, …)."""
    if input.ndim not in (1, 2):
        raise RuntimeError(f"multinomial: the weights must have 1 or 2 dimensions, not {input.ndim}")
    if num_samples <= 0:
        raise RuntimeError(f"multinomial: cannot sample num_samples <= 0 samples ({num_samples})")
    weights = _host(input).astype(np.float64)
    rows = weights.reshape(-1, weights.shape[-1])
    if (rows < 0).any() or not np.isfinite(rows).all() or (rows.sum(1) <= 0).any():
        raise RuntimeError("multinomial: weights must be finite, non-negative and not all zero")
    if not replacement and ((rows > 0).sum(1) < num_samples).any():
        raise RuntimeError(f"multinomial: fewer than {num_samples} categories have a weight above 0")
    g = generator or default_generator()
    if replacement:
        cumulative = np.cumsum(rows, 1)
        u = g.uniform(0, 1, (len(rows), num_samples), np.float64) * cumulative[:, -1:]
        found = [np.searchsorted(c, x, side="right") for c, x in zip(cumulative, u, strict=True)]
        picks = np.stack(found) if found else np.zeros((0, num_samples), np.int64)
    else:
        # Exponential races: the k smallest of E / w are a draw without replacement (Efraimidis and Spirakis 2006).
        race = -np.log1p(-g.uniform(0, 1, rows.shape, np.float64))
        race = np.where(rows > 0, race / np.where(rows > 0, rows, 1), np.inf)
        picks = np.argsort(race, 1, kind="stable")[:, :num_samples]
    shape = (num_samples,) if weights.ndim == 1 else (len(rows), num_samples)
    return _placed(np.minimum(picks, rows.shape[1] - 1).reshape(shape).astype(np.int64), input.device, False)


# -- dropout ----------------------------------------------------------------------------------------------------
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
    if not training or not p:
        return input
    source = generator or default_generator()
    if mode.intercept is None and input.numel() >= ROW and 0 < p < 1 and input.is_floating_point():
        return _dropout(input, float(p), int(source.integers(0, 2**63, ())))
    return input * _mask(input, p, tuple(input.shape), generator)


@op(
    vjp=dict(input=lambda g, p, seed: _dropout(g, p, seed)),
    samples=lambda t: [(t(3, 4), 0.3, 5)],
    method=False,
)
def _dropout(xp, input, p, seed):
    """Dropout of the elements that `seed` chooses. The gradient chooses them again: nothing is kept for it."""
    rows = -(-input.size // ROW)
    keep = keeps(xp, seed, rows, ROW if rows > 1 else input.size, p).reshape(-1)[: input.size]
    return input * (keep.reshape(input.shape) * np.float32(1 / (1 - p))).astype(input.dtype)


def feature_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """Whole channels set to 0 with probability p: input (N, C, …)."""
    shape = tuple(input.shape[:2]) + (1,) * (input.ndim - 2)
    return input * _mask(input, p, shape, generator) if training and p else input


# -- what fills a tensor in place -------------------------------------------------------------------------------
def _normal_in(g: Generator, t: Tensor, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    """Normal numbers."""
    return g.normal(mean, std, tuple(t.shape), t.array.dtype)


def _uniform_in(g: Generator, t: Tensor, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Uniform numbers in [low, high)."""
    return g.uniform(low, high, tuple(t.shape), t.array.dtype)


def _bernoulli_in(g: Generator, t: Tensor, p: Any = 0.5) -> np.ndarray:
    """1 with probability p (a number, or a tensor of one for each element), 0 otherwise."""
    return (g.uniform(0, 1, tuple(t.shape), np.float64) < getattr(p, "array", p)).astype(t.array.dtype)


def _exponential(g: Generator, t: Tensor, lambd: float = 1.0) -> np.ndarray:
    """Numbers with the density lambd exp(-lambd x)."""
    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    return (g.numpy.standard_exponential(tuple(t.shape)) / lambd).astype(t.array.dtype)


def _geometric(g: Generator, t: Tensor, p: float) -> np.ndarray:
    """The number of trials (from 1) up to the first success of probability p."""
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    return np.asarray(g.numpy.geometric(p, tuple(t.shape))).astype(t.array.dtype)


def _cauchy(g: Generator, t: Tensor, median: float = 0.0, sigma: float = 1.0) -> np.ndarray:
    """Numbers of the Cauchy distribution."""
    if sigma <= 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    return np.asarray(median + sigma * g.numpy.standard_cauchy(tuple(t.shape))).astype(t.array.dtype)


def _log_normal(g: Generator, t: Tensor, mean: float = 1.0, std: float = 2.0) -> np.ndarray:
    """Numbers whose logarithm is normal with the given mean and standard deviation."""
    if std <= 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    return np.exp(g.normal(mean, std, tuple(t.shape), np.float64)).astype(t.array.dtype)


def _largest_exact(kind: np.dtype) -> int:
    """One more than the largest n such that 0 … n are all exact in the dtype (2**63 - 1 at most)."""
    if kind.kind == "b":
        return 2
    bits = np.iinfo(kind).bits - (kind.kind == "i") if kind.kind in "iu" else ml_dtypes.finfo(kind).nmant + 1
    return min(2**bits, 2**63 - 1)


def _integers(g: Generator, t: Tensor, low: int | None = None, high: int | None = None) -> np.ndarray:
    """Integers in [low, high); without limits, all that the dtype holds exactly, from 0 on."""
    kind = t.array.dtype
    if high is None:
        low, high = 0, low
    low, high = low or 0, _largest_exact(kind) if high is None else high
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    return g.integers(low, high, tuple(t.shape)).astype(kind)


# The in-place methods: name -> draw(generator, tensor, *parameters), which gives the values.
FILLERS: dict[str, Callable] = {
    "normal_": _normal_in, "uniform_": _uniform_in, "bernoulli_": _bernoulli_in, "exponential_": _exponential,
    "geometric_": _geometric, "cauchy_": _cauchy, "log_normal_": _log_normal, "random_": _integers,
}  # fmt: skip
