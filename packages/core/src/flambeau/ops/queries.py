"""What a tensor is: layout, device, dtype, equality; questions that PyTorch answers by a method or function."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, dtypes
from ..autograd.engine import same_memory
from ..tensor import Tensor
from ._op import method

strided = "strided"  # the only layout; memory formats are accepted and do not change the strides
contiguous_format, preserve_format = "contiguous_format", "preserve_format"
channels_last, channels_last_3d = "channels_last", "channels_last_3d"


@method()
def is_signed(input: Tensor) -> bool:
    """Whether the dtype can hold negative numbers."""
    return input.dtype.is_signed


@method()
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether both have one shape."""
    return input.array.shape == other.array.shape


@method()
def get_device(input: Tensor) -> int:
    """The index of the GPU, -1 on the CPU."""
    where = input.device
    return -1 if where.type == "cpu" else where.index or 0


@method()
def is_inference(input: Tensor) -> bool:
    """Always False: tensors made in inference mode are ordinary ones here."""
    return False


@method()
def is_pinned(input: Tensor) -> bool:
    """Always False: copies to a GPU are made from ordinary memory."""
    return False


@method()
def pin_memory(input: Tensor) -> Tensor:
    """The tensor itself."""
    return input


@method()
def share_memory_(input: Tensor) -> Tensor:
    """The tensor itself; the data loader shares memory with its workers on its own."""
    return input


@method()
def is_set_to(input: Tensor, tensor: Tensor) -> bool:
    """Whether both are the same view of the same memory."""
    a, b = input.array, tensor.array
    same = a.shape == b.shape and a.strides == b.strides and input.data_ptr() == tensor.data_ptr()
    return bool(same and same_memory(a, b))


@method()
def storage_offset(input: Tensor) -> int:
    """Elements between the start of the memory block and the first element."""
    owner = input.array
    while isinstance(owner.base, type(owner)):
        owner = owner.base
    return (input.data_ptr() - Tensor._wrap(owner).data_ptr()) // input.array.itemsize


@method()
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Elementwise: |input - other| <= atol + rtol * |other|."""
    xp = backends.namespace((input.array, other.array))
    return Tensor._wrap(xp.asarray(xp.isclose(input.array, other.array, rtol, atol, equal_nan)))


@method()
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close."""
    return bool(isclose(input, other, rtol, atol, equal_nan).array.all())


@method()
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shape and all elements are the same."""
    return input.array.shape == other.array.shape and bool((input.array == other.array).all())


def result_type(tensor1: Any, tensor2: Any) -> dtypes.dtype:
    """The dtype of arithmetic between two tensors or numbers."""
    return dtypes.from_numpy_dtype(dtypes.result_numpy([getattr(t, "array", t) for t in (tensor1, tensor2)]))


def can_cast(from_: dtypes.dtype, to: dtypes.dtype) -> bool:
    """Whether PyTorch's rules allow the conversion in an in-place operation: no category may be lost."""
    return bool(from_._category <= to._category or from_._category == to._category == dtypes.INT) and not (
        from_._category == dtypes.INT and to._category == dtypes.BOOL
    )


@method()
def apply_(input: Tensor, function: Any) -> Tensor:
    """Replaces every element by `function(element)`, in Python: slow, for small tensors on the CPU."""
    if input.requires_grad:
        raise TypeError("apply_ does not record gradients; use operations, or detach() first")
    flat = [function(v) for v in input.array.reshape(-1).tolist()]
    input.array[...] = np.asarray(flat, input.array.dtype).reshape(input.array.shape)
    input._bump_version()
    return input


@method()
def map_(input: Tensor, tensor: Tensor, function: Any) -> Tensor:
    """Replaces every element by `function(element, other element)`, in Python."""
    other = np.broadcast_to(tensor.numpy(force=True), input.array.shape).reshape(-1).tolist()
    pairs = iter(other)
    return apply_(input, lambda value: function(value, next(pairs)))


def _attach() -> None:
    """Hangs the properties on Tensor."""
    Tensor.layout = property(lambda self: strided, doc="Always the dense layout.")  # type: ignore[attr-defined]
    Tensor.name = property(lambda self: None, doc="None, as in PyTorch.")  # type: ignore[attr-defined]
    Tensor.is_cpu = property(lambda self: self.device.type == "cpu", doc="Whether it is in host memory.")  # type: ignore[attr-defined]
    Tensor.retains_grad = property(  # type: ignore[attr-defined]
        lambda self: bool(self.__dict__.get("_retains")), doc="Whether `retain_grad()` was called on this non-leaf."
    )
    Tensor.ndimension = Tensor.dim  # type: ignore[attr-defined]
    for kind in ("sparse", "quantized", "meta", "nested", "mkldnn", "mps", "xpu", "sparse_csr"):
        setattr(Tensor, f"is_{kind}", property(lambda self: False, doc="Always False: there are no such tensors."))
