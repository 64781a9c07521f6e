"""PyTorch's storages and tensors as a checkpoint describes them, checked and made without a copy.

A tensor is a dtype, sizes, strides and an offset into a storage; several tensors may share one storage, and then they
share memory here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from .. import dtypes
from ..tensor import Size, Tensor
from .errors import CheckpointError, damaged, refused
from .unpickle import Builder, Internal, Reader

__all__ = ["BUILDERS", "STORAGE_NAMES", "Storage", "StorageType", "Storages", "named_type"]

# What PyTorch calls the storage of a dtype; dtypes without one are in untyped storages.
STORAGE_NAMES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}  # fmt: skip
_QUANTISED = ("QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage")
_FOREIGN = {
    "uint16": np.dtype(np.uint16), "uint32": np.dtype(np.uint32), "uint64": np.dtype(np.uint64),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz), "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
}  # fmt: skip
UNSUPPORTED = {
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor on the meta device, which has no values",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_wrapper_subclass": "a tensor subclass",
    "torch.serialization._get_layout": "a sparse tensor",
    **{f"torch.{name}": "a quantised tensor" for name in _QUANTISED},
    **{f"torch.{name}": f"the dtype torch.{name}, which is not there" for name in (
        "complex32", "quint8", "qint8", "qint32", "bits8", "bits16", "float4_e2m1fn_x2")},
}  # fmt: skip
_MAX_DIMS = 64
_MAX_BYTES = 2**62


@dataclass(frozen=True, slots=True)
class StorageType(Internal):
    """A storage class; `dtype` is the NumPy dtype, None for an untyped storage."""

    name: str
    dtype: np.dtype | None

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize if self.dtype is not None else 1


@dataclass(frozen=True, slots=True)
class Storage(Internal):
    """A block of bytes that tensors look at; `raw` is None while the file is only looked over."""

    kind: StorageType
    key: str
    raw: np.ndarray | None


@dataclass(frozen=True, slots=True)
class _ForeignDtype(Internal):
    """A dtype of PyTorch's that Tensors here do not have."""

    name: str


class Storages:
    """The storages of one file: turns persistent ids into `Storage` objects.

    Args:
        name: of the file.
        fetch: gives the bytes (uint8) of a storage by key, for a claimed number of bytes; None: only look.
        swapped: whether the elements are in the other byte order than this machine's.
    """

    def __init__(self, name: str, fetch: Callable[[str, int], np.ndarray] | None, swapped: bool = False) -> None:
        self.name = name
        self.fetch = fetch
        self.swapped = swapped
        self.found: dict[str, tuple[StorageType, int, np.ndarray | None]] = {}
        self.checked: set[str] = set()

    def __call__(self, claim: Any) -> Storage:
        """The storage that a persistent id means."""
        if type(claim) is not tuple or not claim or claim[0] not in ("storage", b"storage"):
            if type(claim) is tuple and claim and claim[0] in ("module", b"module"):
                raise refused(self.name, "it holds a whole model", "save its state_dict() instead")
            raise damaged(self.name, "its pickle has a strange persistent id")
        if len(claim) not in (5, 6) or not isinstance(claim[1], StorageType):
            raise damaged(self.name, "its pickle has a strange storage")
        kind, key, place, count = claim[1:5]
        if type(key) is not str or type(count) is not int or not 0 <= count * kind.itemsize < _MAX_BYTES:
            raise damaged(self.name, f"its pickle claims the storage {str(key)[:40]!r} of {str(count)[:40]} elements")
        if place in ("meta", b"meta"):
            raise refused(self.name, "it holds a tensor on the meta device, which has no values")
        known = self.found.get(key)
        if known is None:
            raw = self.fetch(key, count * kind.itemsize) if self.fetch else None
            if raw is not None and self.swapped:
                raw = self._swapped(raw, kind)
            known = self.found[key] = (kind, count, raw)
        if known[0].itemsize * known[1] != kind.itemsize * count:
            raise damaged(self.name, f"it claims two sizes for storage {key!r}")
        if self.swapped and known[0].itemsize != kind.itemsize:
            raise refused(self.name, f"storage {key!r} has two dtypes in a file of the other byte order")
        raw = known[2]
        if raw is not None and kind.dtype == np.bool_ and key not in self.checked and raw.size and raw.max() > 1:
            raise damaged(self.name, f"boolean storage {key!r} holds other bytes than 0 and 1")
        self.checked.add(key)
        if len(claim) == 6 and claim[5] is not None and raw is not None:
            raw = self._part(raw, kind, claim[5])
        return Storage(kind, key, raw)

    def _part(self, raw: np.ndarray, kind: StorageType, view: Any) -> np.ndarray:
        if type(view) is not tuple or len(view) != 3 or not all(type(n) is int and n >= 0 for n in view[1:]):
            raise damaged(self.name, "its pickle has a strange view of a storage")
        start, stop = view[1] * kind.itemsize, (view[1] + view[2]) * kind.itemsize
        if stop > raw.size:
            raise damaged(self.name, "its pickle has a view that leaves its storage")
        return raw[start:stop]

    def _swapped(self, raw: np.ndarray, kind: StorageType) -> np.ndarray:
        width = kind.itemsize
        if kind.dtype is None:
            raise refused(self.name, "it holds an untyped storage in the other byte order")
        if kind.dtype.kind == "c":
            width //= 2
        return raw if width == 1 else raw.reshape(-1, width)[:, ::-1].reshape(-1)


def named_type(full: str) -> Any:
    """The storage class, dtype or other value with this full name; None when there is none."""
    module, _, name = full.rpartition(".")
    if module == "torch.cuda":
        module = "torch"
    if module == "torch" and name in STORAGE_NAMES:
        return StorageType(name, dtypes.as_dtype(STORAGE_NAMES[name]).numpy)
    if full in ("torch.storage.UntypedStorage", "torch.UntypedStorage", "torch.storage._UntypedStorage"):
        return StorageType(name, None)
    if module == "torch" and name in _FOREIGN:
        return _ForeignDtype(name)
    if module == "torch" and name in dtypes._BY_NAME:
        return dtypes.as_dtype(name)
    if full in ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"):
        return _TensorType(name)
    return None


@dataclass(frozen=True, slots=True)
class _TensorType(Internal):
    """``torch.Tensor`` or ``torch.nn.Parameter`` as a value."""

    name: str


def _numbers(values: Any, what: str) -> tuple[int, ...]:
    if type(values) not in (tuple, list, Size) or len(values) > _MAX_DIMS:
        raise TypeError(f"{what} that are not a list of whole numbers")
    if not all(type(value) is int and 0 <= value < _MAX_BYTES for value in values):
        raise ValueError(f"the {what} {str(tuple(values))[:60]}")
    return tuple(values)


def _view(reader: Reader, storage: Any, dtype: Any, offset: Any, size: Any, stride: Any) -> Any:
    """The checked array of a tensor; a placeholder when the file is only looked over."""
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    size, stride = _numbers(size, "sizes"), _numbers(stride, "strides")
    (offset,) = _numbers((offset,), "offset")
    if len(size) != len(stride):
        raise ValueError(f"{len(size)} sizes and {len(stride)} strides")
    if isinstance(dtype, _ForeignDtype):
        mend = "convert it where PyTorch is installed, e.g. tensor.to(torch.int64) or .to(torch.bfloat16)"
        raise refused(reader.name, f"a tensor has the dtype torch.{dtype.name}, which Tensors do not have", mend)
    kind: np.dtype = dtype.numpy
    count = 1
    for extent in size:
        count *= extent
    if count * kind.itemsize >= _MAX_BYTES:
        raise ValueError(f"the sizes {str(size)[:60]}")
    if storage.raw is None:
        return np.empty(0, kind)
    if count == 0:
        return np.empty(size, kind)
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    if (last + 1) * kind.itemsize > storage.raw.size:
        raise damaged(
            reader.name,
            f"a tensor of {str(size)[:60]} {dtype.name} reaches element {last:,} of storage {storage.key!r}, which has "
            f"{storage.raw.size // kind.itemsize:,}",
        )
    steps = tuple(step * kind.itemsize for step in stride)
    return np.ndarray(size, kind, storage.raw.data, offset * kind.itemsize, steps)


def _tensor(reader: Reader, array: np.ndarray, requires_grad: Any, metadata: Any = None) -> Tensor:
    flags = metadata if isinstance(metadata, dict) else {}
    if flags.get("conj") or flags.get("neg"):  # PyTorch's lazy bits; here the values themselves
        reader.spend(nbytes=array.nbytes)
        array = array.conj() if flags.get("conj") else array
        array = -array if flags.get("neg") else array
    tensor = Tensor._wrap(array)
    if requires_grad is True and (tensor.is_floating_point() or tensor.is_complex()):
        tensor.requires_grad = True
    return tensor


def _typed(storage: Any) -> dtypes.dtype:
    if not isinstance(storage, Storage) or storage.kind.dtype is None:
        raise TypeError("a tensor on an untyped storage without a dtype")
    return dtypes.from_numpy_dtype(storage.kind.dtype)


def _rebuild(reader: Reader, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    return _tensor(reader, _view(reader, storage, _typed(storage), offset, size, stride), False)


def _rebuild_v2(
    reader: Reader, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    return _tensor(reader, _view(reader, storage, _typed(storage), offset, size, stride), grad, metadata)


def _rebuild_v3(
    reader: Reader,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Tensor:
    if not isinstance(dtype, (dtypes.dtype, _ForeignDtype)):
        raise TypeError("not a dtype")
    if dtype is dtypes.bool and _typed(storage) is not dtypes.bool:
        raise TypeError("booleans on a storage of something else")
    return _tensor(reader, _view(reader, storage, dtype, offset, size, stride), grad, metadata)


def _rebuild_parameter(reader: Reader, data: Any, requires_grad: Any, hooks: Any = None, state: Any = None) -> Tensor:
    from ..nn import Parameter

    if not isinstance(data, Tensor):
        raise TypeError("a parameter that is not a tensor")
    able = data.is_floating_point() or data.is_complex()
    return Parameter(data.detach(), requires_grad is True and able)


def _rebuild_from_type(reader: Reader, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes of its own, which are dropped."""
    if not isinstance(kind, _TensorType) or not isinstance(function, Builder) or function not in BUILDERS.values():
        raise TypeError("a tensor of a strange type")
    if function.name == "_rebuild_from_type_v2" or type(arguments) is not tuple:
        raise TypeError("a tensor inside a tensor")
    return function.call(reader, *arguments)


def _rebuild_from_numpy(reader: Reader, data: Any, dtype: Any, device: Any, requires_grad: Any) -> Tensor:
    if isinstance(data, Tensor):
        data = data.array
    if not isinstance(data, np.ndarray) or not isinstance(dtype, dtypes.dtype):
        raise TypeError("not an array and a dtype")
    reader.spend(nbytes=data.size * dtype.itemsize)
    return _tensor(reader, data.astype(dtype.numpy), requires_grad)


def _size(reader: Reader, values: Any = ()) -> Size:
    return Size(_numbers(values, "sizes"))


def _device(reader: Reader, kind: Any, index: Any = None) -> Any:
    from ..device import device

    if type(kind) is not str or not (index is None or type(index) is int) or len(kind) > 40:
        raise TypeError("not the name of a device")
    if kind.partition(":")[0] not in ("cpu", "cuda"):
        raise CheckpointError(f"{reader.name} is refused: it holds the device {kind!r}", "save tensors only")
    return device(kind, index)


_REBUILD: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _rebuild,
    "_rebuild_tensor_v2": _rebuild_v2,
    "_rebuild_tensor_v3": _rebuild_v3,
    "_rebuild_parameter": _rebuild_parameter,
    "_rebuild_parameter_with_state": _rebuild_parameter,
    "_rebuild_device_tensor_from_numpy": _rebuild_from_numpy,
    "_rebuild_device_tensor_from_cpu_tensor": _rebuild_from_numpy,
}
BUILDERS = {f"torch._utils.{name}": Builder(name, call) for name, call in _REBUILD.items()}
BUILDERS["torch._tensor._rebuild_from_type_v2"] = Builder("_rebuild_from_type_v2", _rebuild_from_type)
BUILDERS["torch.Size"] = Builder("torch.Size", _size)
BUILDERS["torch.device"] = Builder("torch.device", _device)
