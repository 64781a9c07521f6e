"""PyTorch's zip format, written so that ``torch.load(weights_only=True)`` reads it bit for bit.

Tensors that share memory here share a storage in the file, as ``torch.save`` has it: a small view of a big tensor
brings the whole of its memory along. Equal objects give equal bytes.
"""

from __future__ import annotations

import struct
import zipfile
from collections import Counter, OrderedDict
from typing import IO, Any

import numpy as np

from .. import dtypes
from ..errors import FlambeauError
from ..tensor import Size, Tensor
from .torchtypes import STORAGE_NAMES

__all__ = ["write_zip"]

_STORAGE_OF = {dtype: name for name, dtype in STORAGE_NAMES.items()}
_MAX_DEPTH = 200
_ALIGN = 64
_MEND = "save its state_dict() or plain data (dict, list, tuple, set, text, numbers, Tensors)"
_LOCAL_HEADER, _WIDE_EXTRA, _PAD_HEADER, _PAD_ID = 30, 20, 4, 0x4246


class _Block:
    """One storage of the file: the memory that tensors share."""

    def __init__(self, key: str, root: np.ndarray, address: int) -> None:
        self.key = key
        self.root = root  # kept, so that no other array takes its address meanwhile
        self.address = address

    def content(self) -> memoryview:
        raw = self.root.ravel(order="K").view(np.uint8)
        return raw.data


class _Pickler:
    """Writes plain data and tensors as protocol 2, remembering what it has written."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")
        self.blocks: dict[tuple[int, int, np.dtype], _Block] = {}
        self.memo: dict[Any, int] = {}
        self.kept: list[Any] = []

    def write(self, obj: Any, path: str = "", depth: int = 0) -> None:
        kind = type(obj)
        if obj is None or kind is bool:
            self.out += {None: b"N", True: b"\x88", False: b"\x89"}[obj]
        elif kind is int:
            self._int(obj)
        elif kind is float:
            self.out += b"G" + struct.pack(">d", obj)
        elif kind is str:
            self._text(obj)
        elif kind is dtypes.dtype:
            self._global("torch", obj.name)
        elif self._recall(id(obj)):
            return
        elif depth > _MAX_DEPTH:
            cause = f"cannot save {path[:80] or 'the object'}: it contains itself or is nested too deeply"
            raise FlambeauError(cause, "save plain data")
        else:
            self.kept.append(obj)
            self._object(obj, path, depth)

    def _object(self, obj: Any, path: str, depth: int) -> None:
        kind = type(obj)
        if isinstance(obj, Tensor):
            self._tensor(obj, path)
        elif kind in (dict, OrderedDict, Counter):
            self._dict(obj, path, depth)
        elif kind is list:
            self.out += b"]"
            self._remember(id(obj))
            self._many(obj, b"e", path, depth)
        elif kind is Size:
            self._call("torch", "Size", (tuple(obj),), path, depth)
            self._remember(id(obj))
        elif kind is tuple:
            self.out += b"("
            for index, item in enumerate(obj):
                self.write(item, _join(path, index), depth + 1)
            self.out += b"t"
            self._remember(id(obj))
        elif kind is set:
            self._call("builtins", "set", (list(obj),), path, depth)
            self._remember(id(obj))
        elif kind is complex:
            self._call("builtins", "complex", (obj.real, obj.imag), path, depth)
        elif kind is bytes:
            self._call("_codecs", "encode", (obj.decode("latin-1"), "latin1"), path, depth)
            self._remember(id(obj))
        elif kind.__name__ == "device" and hasattr(obj, "index"):
            self._call("torch", "device", (obj.type,) if obj.index is None else (obj.type, obj.index), path, depth)
        else:
            where = f" at {path[:80]!r}" if path else ""
            mend = "turn it into a Tensor: flambeau.from_numpy(array)" if isinstance(obj, np.ndarray) else _MEND
            if isinstance(obj, np.generic):
                mend = "turn it into a number: value.item()"
            raise FlambeauError(f"cannot save a {kind.__module__}.{kind.__qualname__}{where} in PyTorch's format", mend)

    def _dict(self, obj: Any, path: str, depth: int) -> None:
        if type(obj) is dict:
            self.out += b"}"
        else:
            self._global("collections", type(obj).__name__)
            self.out += b")R"
        self._remember(id(obj))
        self.out += b"("
        for key, value in obj.items():
            if not isinstance(key, (str, int, float, bool, bytes, tuple, type(None))):
                raise FlambeauError(f"cannot save key {key!r} at {path[:80]!r}", "use texts or numbers as keys")
            self.write(key, _join(path, key), depth + 1)
            self.write(value, _join(path, key), depth + 1)
        self.out += b"u"
        if type(obj) is OrderedDict and isinstance(getattr(obj, "_metadata", None), dict):
            self.write({"_metadata": obj._metadata}, path, depth + 1)  # type: ignore[attr-defined]
            self.out += b"b"

    def _many(self, items: list[Any], end: bytes, path: str, depth: int) -> None:
        self.out += b"("
        for index, item in enumerate(items):
            self.write(item, _join(path, index), depth + 1)
        self.out += end

    def _tensor(self, tensor: Tensor, path: str) -> None:
        from ..nn import Parameter

        array = tensor.array
        if not isinstance(array, np.ndarray):
            array = array.get()  # CuPy
            self.kept.append(array)
        root, array = _memory(array)
        key = (root.ctypes.data, root.nbytes, array.dtype)
        block = self.blocks.get(key)
        if block is None:
            block = self.blocks[key] = _Block(str(len(self.blocks)), root, root.ctypes.data)
        width = array.dtype.itemsize
        offset = (array.ctypes.data - block.address) // width if array.size else 0
        stride = tuple(step // width for step in array.strides)
        parameter = isinstance(tensor, Parameter)
        if parameter:
            self._global("torch._utils", "_rebuild_parameter")
            self.out += b"("
        name = tensor.dtype.name
        old = name in _STORAGE_OF
        self._global("torch._utils", "_rebuild_tensor_v2" if old else "_rebuild_tensor_v3")
        self.out += b"("
        self._storage(block, _STORAGE_OF.get(name), root.nbytes // width if old else root.nbytes)
        for value in (offset, tuple(array.shape), stride, bool(tensor.requires_grad) and not parameter):
            self.write(value)
            self.kept.append(value)
        self._empty_hooks()
        if not old:
            self._global("torch", name)
        self.out += b"tR"
        if parameter:
            self.write(bool(tensor.requires_grad))
            self._empty_hooks()
            self.out += b"tR"
        self._remember(id(tensor))

    def _storage(self, block: _Block, name: str | None, count: int) -> None:
        if self._recall(block):
            return
        self.out += b"("
        self._text("storage")
        self._global(*(("torch", name) if name else ("torch.storage", "UntypedStorage")))
        self._text(block.key)
        self._text("cpu")
        self._int(count)
        self.out += b"tQ"
        self._remember(block)

    def _empty_hooks(self) -> None:
        self._global("collections", "OrderedDict")
        self.out += b")R"

    def _call(self, module: str, name: str, arguments: tuple[Any, ...], path: str, depth: int) -> None:
        self._global(module, name)
        self.kept.append(arguments)
        self.write(arguments, path, depth + 1)
        self.out += b"R"

    def _global(self, module: str, name: str) -> None:
        if not self._recall(("global", module, name)):
            self.out += b"c" + f"{module}\n{name}\n".encode()
            self._remember(("global", module, name))

    def _int(self, value: int) -> None:
        if 0 <= value < 256:
            self.out += b"K" + struct.pack("<B", value)
        elif -(2**31) <= value < 2**31:
            self.out += b"J" + struct.pack("<i", value)
        else:
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            if len(raw) > 255:
                raise FlambeauError(f"cannot save a whole number of {len(raw)} bytes", "save it as a text")
            self.out += b"\x8a" + struct.pack("<B", len(raw)) + raw

    def _text(self, value: str) -> None:
        if not self._recall(("text", value)):
            raw = value.encode("utf-8", "surrogatepass")
            self.out += b"X" + struct.pack("<I", len(raw)) + raw
            self._remember(("text", value))

    def _remember(self, key: Any) -> None:
        index = self.memo[key] = len(self.memo)
        self.out += b"q" + struct.pack("<B", index) if index < 256 else b"r" + struct.pack("<I", index)

    def _recall(self, key: Any) -> bool:
        index = self.memo.get(key)
        if index is None:
            return False
        self.out += b"h" + struct.pack("<B", index) if index < 256 else b"j" + struct.pack("<I", index)
        return True


def _memory(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The memory that an array is a view of, and the array in a form that sizes and strides in it can describe."""
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    width = array.dtype.itemsize
    whole = root.flags.c_contiguous or root.flags.f_contiguous
    inside = ((array.ctypes.data - root.ctypes.data) % width == 0 and root.nbytes % width == 0) or not array.size
    regular = all(step >= 0 and step % width == 0 for step in array.strides)
    little = array.dtype.byteorder != ">" and root.dtype.byteorder != ">"
    if whole and inside and regular and little:
        return root, array
    copy = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).reshape(array.shape)
    return copy, copy


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def write_zip(obj: Any, file: IO[bytes], root: str = "archive") -> None:
    """Writes `obj` to an open binary file.

    Args:
        obj: plain data and Tensors.
        file: where to; it need not be seekable.
        root: name of the folder in the archive.

    Raises:
        FlambeauError: an object that is neither plain data nor a Tensor, with the place where it is.
    """
    pickler = _Pickler()
    pickler.write(obj)
    pickler.out += b"."
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _entry(archive, f"{root}/data.pkl", memoryview(pickler.out))
        _entry(archive, f"{root}/byteorder", memoryview(b"little"))
        for block in pickler.blocks.values():
            _entry(archive, f"{root}/data/{block.key}", block.content())
        _entry(archive, f"{root}/version", memoryview(b"3\n"))


def _entry(archive: zipfile.ZipFile, path: str, content: memoryview) -> None:
    info = zipfile.ZipInfo(path)  # dated 1980: equal objects give equal files
    info.file_size = content.nbytes
    wide = content.nbytes >= 2**31
    # The padding makes the entry's bytes begin at a multiple of 64.
    begin = archive.start_dir + _LOCAL_HEADER + len(path.encode()) + (_WIDE_EXTRA if wide else 0) + _PAD_HEADER
    padding = -begin % _ALIGN
    info.extra = struct.pack("<HH", _PAD_ID, padding) + b"Z" * padding
    with archive.open(info, "w", force_zip64=wide) as out:
        out.write(content)
