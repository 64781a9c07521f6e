"""New tensors: from data, filled, in sequence. `layout` and `pin_memory` are PyTorch's; only strided memory exists."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .. import backends, dtypes
from ..device import CPU
from ..device import device as _device
from ..tensor import Tensor, to_array
from ._op import op

F = TypeVar("F", bound=Callable[..., Any])


# -- from data --------------------------------------------------------------------------------------------------
def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A tensor with a copy of the data (numbers, nested sequences, arrays, tensors).

    >>> tensor([[1, 2], [3, 4]]).shape
    flambeau.Size([2, 2])
    """
    out = Tensor._wrap(to_array(data, dtype, device, copy=True))
    return out.requires_grad_() if requires_grad else out


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor that shares the data's memory when it can; a tensor keeps its history."""
    if isinstance(data, Tensor):
        return data if dtype is None and device is None else data.to(dtype=dtype, device=device)
    return Tensor._wrap(to_array(data, dtype, device, copy=False))


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor over the data: copy None copies when it must, True always, False never (ValueError when it must)."""
    out = as_tensor(obj, dtype, device)
    source = obj.array if isinstance(obj, Tensor) else obj
    shared = hasattr(source, "__array_interface__") and np.may_share_memory(np.asarray(source), out.array)
    shared = shared or out.array is source
    if copy is False and not shared:
        raise ValueError("asarray: the data cannot be shared without a copy; leave copy out")
    if copy and shared:
        out = Tensor._wrap(out.array.copy()) if not out.requires_grad else out.clone()
    if requires_grad and not out.requires_grad:
        out = out.detach().requires_grad_()
    return out.detach() if out.requires_grad and not requires_grad else out


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor over the same memory as the NumPy array. Errors: TypeError for dtypes without a counterpart."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected a NumPy array, not {type(ndarray).__name__}")
    dtypes.from_numpy_dtype(ndarray.dtype)
    return Tensor._wrap(ndarray)


def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:  # fmt: skip
    """A 1-d tensor over the memory of an object with the buffer protocol, from byte `offset` on."""
    size = memoryview(buffer).nbytes
    if not 0 <= offset < size:
        raise ValueError(
            f"frombuffer: offset ({offset} bytes) must be non-negative and below the length ({size} bytes)"
        )
    out = Tensor._wrap(np.frombuffer(buffer, dtypes.as_dtype(dtype).numpy, count, offset))
    return out.requires_grad_() if requires_grad else out


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


# -- filled -----------------------------------------------------------------------------------------------------
def _size(args: tuple) -> tuple:
    if len(args) == 1 and isinstance(args[0], list | tuple):
        args = tuple(args[0])
    return tuple(int(n) for n in args)


def _sized(function: F) -> F:
    """Lets the sizes be given by keyword too: zeros(size=(2, 3))."""

    @functools.wraps(function)
    def call(*args: Any, size: Any = None, **kwargs: Any) -> Any:
        if size is not None and args:
            raise TypeError(f"{function.__name__}() got the size twice")
        return function(*(args if size is None else (size,)), **kwargs)

    return call  # type: ignore[return-value]


def _check_layout(layout: Any) -> None:
    if layout is not None and "strided" not in str(layout):
        raise NotImplementedError(f"only strided tensors exist here, not layout {layout}")


def _made(shape: tuple, value: Any, dtype: Any, device: Any, requires_grad: bool, layout: Any = None) -> Tensor:
    _check_layout(layout)
    kind = (dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)).numpy
    if any(n < 0 for n in shape):
        raise RuntimeError(f"trying to create a tensor with a negative dimension: {list(shape)}")
    array = np.zeros(shape, kind) if value == 0 else np.full(shape, value, kind)
    return _placed(array, device, requires_grad)


def _placed(array: np.ndarray, device: Any, requires_grad: bool) -> Tensor:
    if device is not None and _device(device).type != "cpu":
        array = backends.get(_device(device)).from_host(array, _device(device))
    out = Tensor._wrap(array)
    return out.requires_grad_() if requires_grad else out


@_sized
def zeros(
    *size: Any, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Zeros."""
    return _made(_size(size), 0, dtype, device, requires_grad, layout)


@_sized
def ones(
    *size: Any, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Ones."""
    return _made(_size(size), 1, dtype, device, requires_grad, layout)


@_sized
def empty(
    *size: Any, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Zeros too: memory that is not cleared would make runs differ."""
    return _made(_size(size), 0, dtype, device, requires_grad, layout)


def empty_strided(
    size: Any, stride: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Zeros with the given strides (in elements)."""
    size, stride = tuple(size), tuple(stride)
    if len(size) != len(stride):
        raise RuntimeError(f"empty_strided: {len(size)} sizes but {len(stride)} strides")
    count = 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    out = zeros(count, dtype=dtype, layout=layout, device=device)
    out = out.as_strided(size, stride) if count else out.reshape(size)
    return Tensor._wrap(out.array).requires_grad_(requires_grad)


def empty_permuted(
    size: Any, physical_layout: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Zeros whose dimensions lie in memory in the order `physical_layout`."""
    size, order = tuple(size), tuple(physical_layout)
    if sorted(order) != list(range(len(size))):
        raise RuntimeError(f"empty_permuted: physical_layout {list(order)} is no order of {len(size)} dimensions")
    out = zeros([size[i] for i in order], dtype=dtype, layout=layout, device=device)
    return Tensor._wrap(out.array.transpose(np.argsort(order).tolist())).requires_grad_(requires_grad)


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def full(
    size: Any, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """`fill_value` everywhere; its type decides the dtype when none is given."""
    value = _number(fill_value)
    kind = getattr(fill_value, "dtype", dtypes.as_dtype(type(value))) if dtype is None else dtype
    return _made(_size((size,)), value, kind, device, requires_grad, layout)


def scalar_tensor(
    s: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A 0-d tensor of the default dtype with the number `s`."""
    return _made((), _number(s), dtype, device, requires_grad, layout)


def _like(input: Tensor, value: Any, dtype: Any, device: Any, requires_grad: bool, layout: Any) -> Tensor:
    kind = input.dtype if dtype is None else dtype
    return _made(tuple(input.shape), value, kind, input.device if device is None else device, requires_grad, layout)


def zeros_like(
    input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Zeros with the shape, dtype and device of `input`."""
    return _like(input, 0, dtype, device, requires_grad, layout)


def ones_like(
    input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Ones with the shape, dtype and device of `input`."""
    return _like(input, 1, dtype, device, requires_grad, layout)


def empty_like(
    input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Zeros with the shape, dtype and device of `input`."""
    return _like(input, 0, dtype, device, requires_grad, layout)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """`fill_value` with the shape, dtype and device of `input`."""
    return _like(input, _number(fill_value), dtype, device, requires_grad, layout)


from .create_sequence import *  # noqa: E402, F403 - the part of this family with numbers in sequence
