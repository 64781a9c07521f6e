"""Softmax, its logarithm and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._half import widened
from ._op import composite, normalize_dim, op
from .elementwise import exp
from .reduce import sum


def _shifted(xp: Any, input: Any, dim: int) -> Any:
    axis = normalize_dim(dim, input.ndim)
    if not input.ndim or not input.size:
        return input * 0, axis if input.ndim else None
    return input - input.max(axis, keepdims=True), axis


@op(
    vjp=dict(input=lambda g, out, dim: softmax_grad(g, out, dim)),
    samples=lambda t: [(t(3, 4), 1), (t(2, 3, 2), 0), (t(2, 3), -1)],
    ref=lambda x, dim: np.exp(x) / np.exp(x).sum(dim, keepdims=True),
    promote="float",
)
def softmax(xp, input, dim=None, dtype=None):
    """exp(input) / sum(exp(input)) along `dim`."""
    if dtype is not None:
        input = input.astype(getattr(dtype, "numpy", dtype))
    if dim is None:
        raise TypeError("softmax needs the dimension `dim` to work along")
    out, axis = _shifted(xp, widened(input), dim)
    out = xp.exp(out)
    out /= out.sum(axis, keepdims=True)
    return out.astype(input.dtype, copy=False)


@op(
    vjp=dict(input=lambda g, out, dim: log_softmax_grad(g, out, dim)),
    samples=lambda t: [(t(3, 4), 1), (t(2, 3, 2), 0), (t(2, 3), -1)],
    ref=lambda x, dim: x - np.log(np.exp(x).sum(dim, keepdims=True)),
    promote="float",
)
def log_softmax(xp, input, dim=None, dtype=None):
    """log(softmax(input)) along `dim` without overflow."""
    if dtype is not None:
        input = input.astype(getattr(dtype, "numpy", dtype))
    if dim is None:
        raise TypeError("log_softmax needs the dimension `dim` to work along")
    out, axis = _shifted(xp, widened(input), dim)
    out -= xp.log(xp.exp(out).sum(axis, keepdims=True))
    return out.astype(input.dtype, copy=False)


def softmin(input: Any, dim: int) -> Any:
    """softmax(-input)."""
    return softmax(-input, dim)


@composite(samples=lambda t: [(t(3, 4), t(3, 4), 1), (t(2, 3), t(2, 3), 0)], method=False,
           ref=lambda g, y, dim: y * (g - (g * y).sum(dim, keepdims=True)))  # fmt: skip
def softmax_grad(g: Any, result: Any, dim: int) -> Any:
    """The gradient of softmax for the cotangent `g` of its `result`."""
    return result * (g - sum(g * result, dim, True))


@composite(samples=lambda t: [(t(3, 4), t(3, 4), 1), (t(2, 3), t(2, 3), 0)], method=False,
           ref=lambda g, y, dim: g - np.exp(y) * g.sum(dim, keepdims=True))  # fmt: skip
def log_softmax_grad(g: Any, result: Any, dim: int) -> Any:
    """The gradient of log_softmax for the cotangent `g` of its `result`."""
    return g - exp(result) * sum(g, dim, True)
