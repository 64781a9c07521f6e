"""The safetensors format: a checked reader (memory-mapped, no copy) and an atomic writer.

Format: https://huggingface.co/docs/safetensors - eight bytes of header length, a JSON header, then the raw arrays. The
header of a file from elsewhere is not to be trusted, so everything it claims is checked before an array is made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import ml_dtypes
import numpy as np

from ..errors import FlambeauError
from .atomic import atomic_write
from .errors import CheckpointError, UnsupportedFormatError
from .files import open_buffer

__all__ = ["SafetensorsFile", "load_file", "parse", "safe_open", "save_file", "serialize"]

MAX_HEADER = 100_000_000  # the reference implementation's limit
_DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_), "U8": np.dtype("u1"), "I8": np.dtype("i1"), "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"), "I32": np.dtype("<i4"), "U32": np.dtype("<u4"), "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"), "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn), "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}  # fmt: skip
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_DOWNLOAD = "download or copy the file again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One array of a file: its dtype, shape and byte range in the data part."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """A checked safetensors file; arrays are made on request and share the file's memory where alignment allows.

    The memory is private (copy on write): changing an array never changes the file.

    Attributes:
        metadata: the text pairs under ``__metadata__``.
        entries: name -> `Entry`, in the order of the header.
    """

    def __init__(self, buffer: Any, header: dict[str, Entry], metadata: dict[str, str], offset: int, name: str) -> None:
        self._buffer = buffer
        self._offset = offset
        self._name = name
        self.entries = header
        self.metadata = metadata

    def keys(self) -> list[str]:
        """The names of the tensors."""
        return list(self.entries)

    def array(self, key: str) -> np.ndarray:
        """One tensor as a NumPy array.

        Raises:
            FlambeauError: there is no such tensor.
        """
        if key not in self.entries:
            raise CheckpointError(f"{self._name} has no tensor {key!r}", f"it has {_some(self.entries)}")
        entry = self.entries[key]
        raw = np.frombuffer(self._buffer, np.uint8, entry.stop - entry.start, self._offset + entry.start)
        if entry.dtype == np.bool_ and raw.size and raw.max() > 1:
            raise CheckpointError(
                f"{self._name} is damaged: boolean tensor {key!r} holds other bytes than 0, 1", _DOWNLOAD
            )
        if raw.ctypes.data % entry.dtype.alignment:
            raw = raw.copy()
        return raw.view(entry.dtype).reshape(entry.shape)

    def arrays(self) -> dict[str, np.ndarray]:
        """All tensors as NumPy arrays."""
        return {key: self.array(key) for key in self.entries}

    def get_tensor(self, key: str) -> Any:
        """One tensor as a Tensor on the CPU."""
        return to_tensor(self.array(key), key, self._name)

    def data(self) -> memoryview:
        """The data part, all bytes after the header."""
        return memoryview(self._buffer)[self._offset :]


def safe_open(path: str | os.PathLike[str], *, mapped: bool = True) -> SafetensorsFile:
    """Opens and checks a safetensors file.

    Args:
        path: the file.
        mapped: map it into memory (arrays are read when used) instead of reading it whole.

    Raises:
        FlambeauError: the file is missing, unreadable, cut, corrupt, or claims what cannot be.

    >>> import tempfile, os, numpy as np
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.safetensors")
    >>> save_file({"w": np.arange(3.0)}, path, {"made by": "me"})
    >>> file = safe_open(path)
    >>> file.keys(), file.metadata, file.array("w").tolist()
    (['w'], {'made by': 'me'}, [0.0, 1.0, 2.0])
    """
    return parse(open_buffer(path, mapped), os.fspath(path))


def parse(buffer: Any, name: str = "the data") -> SafetensorsFile:
    """Checks a safetensors file held in memory (bytes, bytearray, mmap). Raises FlambeauError as `safe_open` does."""
    size = len(buffer)
    if size < 8:
        raise CheckpointError(
            f"{name} is {'empty' if not size else 'cut off'}: a safetensors file has 8 bytes of header length",
            _DOWNLOAD,
        )
    length = int.from_bytes(buffer[:8], "little")
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{name} is not a safetensors file: it claims a header of {length:,} bytes", "check the file's format"
        )
    if 8 + length > size:
        raise CheckpointError(
            f"{name} is cut off: its header needs {8 + length:,} bytes, the file has {size:,}", _DOWNLOAD
        )
    entries, metadata = _parse_header(bytes(buffer[8 : 8 + length]), size - 8 - length, name)
    return SafetensorsFile(buffer, entries, metadata, 8 + length, name)


def _parse_header(text: bytes, available: int, name: str) -> tuple[dict[str, Entry], dict[str, str]]:
    def bad(why: str, mend: str = _DOWNLOAD) -> FlambeauError:
        return CheckpointError(f"{name} is damaged: {why}", mend)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise bad(f"its header has the name {twice!r} twice")
        return found

    def constant(value: str) -> None:
        raise bad(f"its header holds {value}, which is not JSON")

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise bad("its header is not JSON", "check the file's format") from error
    if not isinstance(header, dict):
        raise bad("its header is not a JSON object", "check the file's format")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise bad("its metadata are not pairs of texts")
    entries = {key: _parse_entry(key, value, bad) for key, value in header.items()}
    position = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            kind = "overlaps another one" if entry.start < position else "leaves a gap before it"
            raise bad(f"tensor {key!r} (bytes {entry.start}-{entry.stop}) {kind}")
        position = entry.stop
    if position != available:
        kind = "is cut off" if position > available else "has bytes that belong to no tensor"
        raise CheckpointError(f"{name} {kind}: its tensors need {position:,} bytes, it has {available:,}", _DOWNLOAD)
    return entries, metadata


def _parse_entry(key: str, value: Any, bad: Any) -> Entry:
    def whole(items: Any) -> bool:
        return isinstance(items, list) and all(type(item) is int and item >= 0 for item in items)

    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise bad(f"the entry of tensor {key!r} is not dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise CheckpointError(
            f"tensor {key!r} has the dtype {str(code)[:40]!r}, which is not supported", f"supported: {known}"
        )
    if not whole(shape) or len(shape) > 64:
        raise bad(f"tensor {key!r} has the shape {str(shape)[:80]}")
    if not whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise bad(f"tensor {key!r} has the data_offsets {str(offsets)[:80]}")
    elements = 1
    for extent in shape:
        elements *= extent
    if elements * _DTYPES[code].itemsize != offsets[1] - offsets[0] or max(shape, default=0) > 2**62:
        need = f"{elements} x {code} in {offsets[1] - offsets[0]} bytes"
        raise bad(f"the size of tensor {key!r} does not agree with its shape: {need[:120]}")
    return Entry(_DTYPES[code], tuple(shape), offsets[0], offsets[1])


def to_array(value: Any, key: str = "") -> np.ndarray:
    """The value of a Tensor or array as a C-contiguous little-endian NumPy array that the format can hold."""
    array = getattr(value, "array", value)
    if not isinstance(array, np.ndarray) and hasattr(array, "get"):  # CuPy
        array = array.get()
    array = np.asarray(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype not in _CODES:
        raise FlambeauError(f"cannot save {key!r}: safetensors has no dtype for {array.dtype}", "convert it first")
    return np.ascontiguousarray(array).reshape(array.shape)


def to_tensor(array: np.ndarray, key: str, name: str) -> Any:
    """A Tensor on the memory of `array`."""
    from ..ops import from_numpy

    try:
        return from_numpy(array)
    except TypeError as error:
        mend = "read it as an array: flambeau.io.safe_open(path).array(name)"
        raise UnsupportedFormatError(
            f"{name}: tensor {key!r} is {array.dtype}, which Tensors do not have", mend
        ) from error


def layout(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> tuple[bytes, list[str]]:
    """The header (with its length) and the order of the arrays: widest dtype first, so that all stay aligned."""
    order = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(metadata)
    position = 0
    for key in order:
        array = arrays[key]
        stop = position + array.nbytes
        header[key] = {"dtype": _CODES[array.dtype], "shape": list(array.shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise FlambeauError(
            f"the names and metadata take {len(text):,} bytes, more than a safetensors header may", "save less metadata"
        )
    return len(text).to_bytes(8, "little") + text, order


def _checked(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None) -> dict[str, np.ndarray]:
    for key in tensors:
        if not isinstance(key, str) or key == "__metadata__":
            raise FlambeauError(f"{key!r} cannot be the name of a tensor in a safetensors file", "use another name")
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise FlambeauError(
                f"safetensors metadata {key!r} is not a pair of texts", "convert it, e.g. with json.dumps"
            )
    return {key: to_array(value, key) for key, value in tensors.items()}


def write(file: IO[bytes], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes checked arrays (see `to_array`) to an open file."""
    header, order = layout(arrays, metadata)
    file.write(header)
    for key in order:
        file.write(arrays[key].reshape(-1).view(np.uint8).data)


def save_file(
    tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named tensors to a safetensors file, atomically.

    Args:
        tensors: name -> Tensor or array.
        path: the file.
        metadata: text pairs kept in the header.

    Raises:
        FlambeauError: a dtype or name that the format cannot hold, or the file cannot be written.
    """
    arrays = _checked(tensors, metadata)
    with atomic_write(path) as file:
        write(file, arrays, metadata)


def serialize(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes that `save_file` would write."""
    arrays = _checked(tensors, metadata)
    header, order = layout(arrays, metadata)
    return header + b"".join(arrays[key].tobytes() for key in order)


def load_file(path: str | os.PathLike[str], device: Any = "cpu") -> dict[str, Any]:
    """All tensors of a safetensors file, as ``safetensors.torch.load_file``; no copy on the CPU.

    Raises:
        FlambeauError: see `safe_open`.
    """
    file = safe_open(path)
    tensors = {key: file.get_tensor(key) for key in file.entries}
    return tensors if str(device) == "cpu" else {key: tensor.to(device) for key, tensor in tensors.items()}


def _some(names: Iterable[str], limit: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(map(repr, listed[:limit])) + more if listed else "none at all"
