"""New tensors: from data, filled, in sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, dtypes
from ..device import CPU
from ..device import device as _device
from ..tensor import Tensor, to_array
from ._op import op


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of the data (numbers, nested sequences, arrays, tensors).

    >>> tensor([[1, 2], [3, 4]]).shape
    flambeau.Size([2, 2])
    """
    out = Tensor._wrap(to_array(data, dtype, device, copy=True))
    return out.requires_grad_() if requires_grad else out


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor that shares the data's memory when it can."""
    if isinstance(data, Tensor) and dtype is None and device is None:
        return data
    return Tensor._wrap(to_array(data, dtype, device, copy=False))


asarray = as_tensor


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor over the same memory as the NumPy array. Errors: TypeError for dtypes without a counterpart."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected a NumPy array, not {type(ndarray).__name__}")
    dtypes.from_numpy_dtype(ndarray.dtype)
    return Tensor._wrap(ndarray)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor over the memory of any object that speaks DLPack."""
    kind = ext_tensor.__dlpack_device__()[0]
    xp = backends.get(_device("cuda" if kind == 2 else "cpu")).xp
    return Tensor._wrap(xp.from_dlpack(ext_tensor))


@op(
    vjp=dict(input=lambda g, target, source: to_device(g, source, target)),
    samples=lambda t: [(t(3, 4), CPU, CPU)],
    ref=lambda x, target, source: x + 0,
    method=False,
)
def to_device(xp, input, target, source):
    """A copy on device `target` of an array on device `source`; gradients are copied back."""
    return backends.get(target).from_host(backends.of(input).to_host(input), target)


def _size(args: tuple) -> tuple:
    if len(args) == 1 and isinstance(args[0], list | tuple):
        args = tuple(args[0])
    return tuple(int(n) for n in args)


def _made(shape: tuple, value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    kind = (dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)).numpy
    if any(n < 0 for n in shape):
        raise RuntimeError(f"trying to create a tensor with a negative dimension: {list(shape)}")
    place = _device(device) if device is not None else _device("cpu")
    if place.type == "cpu":
        array = np.zeros(shape, kind) if value == 0 else np.full(shape, value, kind)
    else:
        array = backends.get(place).from_host(np.full(shape, value, kind), place)
    out = Tensor._wrap(array)
    return out.requires_grad_() if requires_grad else out


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros."""
    return _made(_size(size), 0, dtype, device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones."""
    return _made(_size(size), 1, dtype, device, requires_grad)


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros too: memory that is not cleared would make runs differ."""
    return _made(_size(size), 0, dtype, device, requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`fill_value` everywhere; its type decides the dtype when none is given."""
    value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    return _made(_size((size,)), value, dtypes.as_dtype(type(value)) if dtype is None else dtype, device, requires_grad)


def _like(input: Tensor, value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    kind = input.dtype if dtype is None else dtype
    return _made(tuple(input.shape), value, kind, input.device if device is None else device, requires_grad)


def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros with the shape, dtype and device of `input`."""
    return _like(input, 0, dtype, device, requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones with the shape, dtype and device of `input`."""
    return _like(input, 1, dtype, device, requires_grad)


def empty_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros with the shape, dtype and device of `input`."""
    return _like(input, 0, dtype, device, requires_grad)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`fill_value` with the shape, dtype and device of `input`."""
    return _like(input, fill_value, dtype, device, requires_grad)


def _placed(array: np.ndarray, device: Any, requires_grad: bool) -> Tensor:
    if device is not None and _device(device).type != "cpu":
        array = backends.get(_device(device)).from_host(array, _device(device))
    out = Tensor._wrap(array)
    return out.requires_grad_() if requires_grad else out


def arange(
    start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """start, start + step, … below end."""
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if isinstance(v, Tensor) else v for v in (start, end, step))
    if step == 0 or (end - start) * step < 0:
        raise RuntimeError(f"arange({start}, {end}, {step}): the step must be non-zero and lead from start to end")
    floating = any(isinstance(v, float) for v in (start, end, step))
    kind = dtypes.get_default_dtype() if floating else dtypes.int64
    kind = kind if dtype is None else dtypes.as_dtype(dtype)
    return _placed(np.arange(start, end, step).astype(kind.numpy), device, requires_grad)


def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` equally spaced numbers from start to end, both included."""
    kind = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return _placed(np.linspace(start, end, steps).astype(kind.numpy), device, requires_grad)


def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """base ** linspace(start, end, steps)."""
    kind = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return _placed(np.logspace(start, end, steps, base=base).astype(kind.numpy), device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix of zeros."""
    kind = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return _placed(np.eye(n, m, dtype=kind.numpy), device, requires_grad)
