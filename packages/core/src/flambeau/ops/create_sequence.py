"""Numbers in sequence and fixed patterns: arange, linspace, eye, the indices of triangles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import dtypes
from ..tensor import Tensor
from .create import _check_layout, _number, _placed

__all__ = ["arange", "eye", "linspace", "logspace", "tril_indices", "triu_indices"]


def _kind(dtype: Any, *values: Any) -> np.dtype:
    """The given dtype, or complex when a value is, or the default one."""
    if dtype is not None:
        return dtypes.as_dtype(dtype).numpy
    default = dtypes.get_default_dtype().numpy
    if any(isinstance(v, complex) for v in values):
        return np.dtype(np.complex128 if default == np.float64 else np.complex64)
    return default


def arange(
    start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """start, start + step, … below end: int64 when all are integers, else of the default dtype."""
    _check_layout(layout)
    if end is None:
        start, end = 0, start
    start, end, step = _number(start), _number(end), _number(step)
    if not all(math.isfinite(v) for v in (start, end)):
        raise RuntimeError(f"arange: unsupported range: {start} -> {end}")
    if step == 0 or (end - start) * step < 0:
        raise RuntimeError(f"arange({start}, {end}, {step}): the step must be non-zero and lead from start to end")
    floating = any(isinstance(v, float) for v in (start, end, step))
    kind = (dtypes.get_default_dtype() if floating else dtypes.int64).numpy
    kind = kind if dtype is None else dtypes.as_dtype(dtype).numpy
    if not floating:
        return _placed(np.arange(start, end, step).astype(kind), device, requires_grad)
    if kind == np.int64:  # PyTorch cuts to integers first, for this dtype alone
        start, end, step = int(start), int(end), int(step)
    count = math.ceil((end - start) / step)
    if kind.kind in "iu":
        start, step = int(start), int(step)
    return _placed((start + np.arange(count) * step).astype(kind), device, requires_grad)


def _between(start: Any, end: Any, steps: int, kind: np.dtype) -> np.ndarray:
    """Equally spaced numbers, counted from both ends so that they are exact there."""
    if steps < 0:
        raise RuntimeError(f"number of steps must be non-negative, not {steps}")
    if kind.kind in "iu":
        start, end = int(start), int(end)
    step = (end - start) / max(steps - 1, 1)
    i = np.arange(steps)
    return np.where(i < (steps + 1) // 2, start + step * i, end - step * (steps - 1 - i))


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """`steps` equally spaced numbers from start to end, both included."""
    _check_layout(layout)
    start, end = _number(start), _number(end)
    kind = _kind(dtype, start, end)
    return _placed(_between(start, end, int(steps), kind).astype(kind), device, requires_grad)


def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """base ** linspace(start, end, steps)."""
    _check_layout(layout)
    start, end, base = _number(start), _number(end), _number(base)
    kind = _kind(dtype, start, end, base)
    return _placed(np.power(base, _between(start, end, int(steps), kind)).astype(kind), device, requires_grad)


def eye(
    n: int, m: int | None = None, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Ones on the diagonal of an (n, m) matrix of zeros."""
    _check_layout(layout)
    if n < 0 or (m or 0) < 0:
        raise RuntimeError(f"eye: n and m must be non-negative, not {n} and {m}")
    return _placed(np.eye(n, m, dtype=_kind(dtype)), device, requires_grad)


def _triangle(mask: np.ndarray, dtype: Any, device: Any, layout: Any) -> Tensor:
    _check_layout(layout)
    kind = dtypes.as_dtype(dtypes.int64 if dtype is None else dtype).numpy
    return _placed(np.stack(np.nonzero(mask)).astype(kind), device, False)


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Row and column indices (2, n) of the lower triangle of a (row, col) matrix, row by row."""
    return _triangle(np.tri(row, col, offset, dtype=bool), dtype, device, layout)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Row and column indices (2, n) of the upper triangle of a (row, col) matrix, row by row."""
    return _triangle(~np.tri(row, col, offset - 1, dtype=bool), dtype, device, layout)
