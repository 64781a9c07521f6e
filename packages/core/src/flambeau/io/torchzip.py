"""PyTorch's zip format: a strict reader that hands out views of the mapped file.

Only what PyTorch writes is accepted: entries that are stored (not compressed), each in its own bytes of the file, under
one top folder. ``data.pkl`` describes the object, ``data/<key>`` are the storages' bytes, 64-byte aligned.
Format of zip files: PKWARE's APPNOTE 6.3.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import torchscript
from .allowed import finder, set_state
from .errors import CheckpointError, damaged, refused
from .torchtypes import Storages
from .unpickle import Reader

__all__ = ["Archive", "load_zip"]

_END, _END64, _LOCATOR64, _CENTRAL, _LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_MANY = 0xFFFFFFFF
_MAX_COMMENT = 65535
_MAX_PICKLE = 2**31
_ALIGN = 16  # of the widest dtype; PyTorch aligns to 64


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file of the archive: where its local header is, and how big it is."""

    header: int
    size: int
    stored: bool


class Archive:
    """The checked table of a zip file's entries.

    Args:
        data: the file's bytes (an mmap or a bytearray, which the arrays share).
        name: of the file, for errors.

    Raises:
        CheckpointError: the file is cut, is no zip file, or its table lies.
    """

    def __init__(self, data: Any, name: str) -> None:
        self.data = data
        self.name = name
        self.entries, self._limit = self._read_table()
        self._starts = self._check_places()

    def content(self, path: str) -> memoryview:
        """The bytes of an entry, not copied.

        Raises:
            CheckpointError: there is none, or it is compressed.
        """
        entry = self.entries.get(path)
        if entry is None:
            raise damaged(self.name, f"it has no entry {path[:80]!r}")
        if not entry.stored:
            raise CheckpointError(
                f"{self.name} is refused: its entry {path[:80]!r} is compressed or encrypted, which PyTorch never does",
                "unpack it and save it again with torch.save",
            )
        start = self._starts[path]
        return memoryview(self.data)[start : start + entry.size]

    def _read_table(self) -> tuple[dict[str, _Entry], int]:
        data, size = self.data, len(self.data)
        tail = bytes(data[max(0, size - _MAX_COMMENT - 22) :])
        place = tail.rfind(_END)
        while place >= 0 and (len(tail) - place < 22 or place + 22 + self._number(tail, place + 20, 2) != len(tail)):
            place = tail.rfind(_END, 0, place)
        if place < 0:
            raise damaged(self.name, "it is cut off, or no zip file: its table of contents is not there")
        end = size - len(tail) + place
        disks, here, count, length, start = struct.unpack("<IHHII", tail[place + 4 : place + 20])
        if (
            disks
            or here != count
            or count == 0xFFFF
            or length == _MANY
            or start == _MANY
            or data[end - 20 : end - 16] == _LOCATOR64
        ):
            end, count, length, start = self._read_end64(end)
        if start + length != end:
            raise damaged(self.name, "the place of its table of contents is wrong")
        return self._read_entries(bytes(data[start:end]), count), start

    def _read_end64(self, end: int) -> tuple[int, int, int, int]:
        data = self.data
        if end < 20 or data[end - 20 : end - 16] != _LOCATOR64:
            raise damaged(self.name, "it is in several parts, or its 64-bit table of contents is not there")
        place = self._number(data, end - 12, 8)
        if place + 56 > end - 20 or data[place : place + 4] != _END64:
            raise damaged(self.name, "its 64-bit table of contents is not where it says")
        count, length, start = struct.unpack("<QQQ", data[place + 32 : place + 56])
        return place, count, length, start

    def _read_entries(self, table: bytes, count: int) -> dict[str, _Entry]:
        entries: dict[str, _Entry] = {}
        place = 0
        while place < len(table):
            if table[place : place + 4] != _CENTRAL or place + 46 > len(table):
                raise damaged(self.name, "its table of contents is not in order")
            flags, method = struct.unpack("<HH", table[place + 8 : place + 12])
            packed, size = struct.unpack("<II", table[place + 20 : place + 28])
            name_size, extra_size, comment_size = struct.unpack("<HHH", table[place + 28 : place + 34])
            header = self._number(table, place + 42, 4)
            names_end = place + 46 + name_size
            raw_name, extra = table[place + 46 : names_end], table[names_end : names_end + extra_size]
            place = names_end + extra_size + comment_size
            size, packed, header = self._wide(extra, size, packed, header)
            stored = method == 0 and not flags & 1
            if stored and size != packed:
                raise damaged(self.name, "an entry has two sizes")
            path = self._path(raw_name)
            if path in entries:
                raise damaged(self.name, f"it has the entry {path[:80]!r} twice")
            entries[path] = _Entry(header, packed, stored)
        if place != len(table) or len(entries) != count:
            raise damaged(self.name, f"its table of contents has {len(entries):,} entries and claims {count:,}")
        return entries

    def _wide(self, extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
        """The sizes and place of an entry, from its 64-bit extra field where the 32-bit fields are full."""
        if _MANY not in (size, packed, header):
            return size, packed, header
        place = 0
        while place + 4 <= len(extra):
            kind, length = struct.unpack("<HH", extra[place : place + 4])
            if kind == 1:
                field = extra[place + 4 : place + 4 + length]
                values = list(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
                wide = [values.pop(0) if value == _MANY and values else value for value in (size, packed, header)]
                return wide[0], wide[1], wide[2]
            place += 4 + length
        return size, packed, header

    def _path(self, raw: bytes) -> str:
        try:
            path = raw.decode("utf-8")
        except UnicodeDecodeError:
            path = ""
        parts = path.split("/")
        if not path or path[0] == "/" or ".." in parts or "\\" in path or "\0" in path or ":" in parts[0][1:2]:
            raise CheckpointError(
                f"{self.name} is refused: it has an entry with the path {str(raw[:80])[1:]}", "do not trust this file"
            )
        return path

    def _check_places(self) -> dict[str, int]:
        """Where the bytes of each entry begin; no two entries may share bytes."""
        starts, last = {}, 0
        for path, entry in sorted(self.entries.items(), key=lambda item: item[1].header):
            header = bytes(self.data[entry.header : entry.header + 30])
            if entry.header < last:
                raise damaged(self.name, f"its entry {path[:80]!r} overlaps another one")
            if entry.header + 30 > self._limit or header[:4] != _LOCAL:
                raise damaged(self.name, f"its entry {path[:80]!r} is not where it should be")
            name_size, extra_size = struct.unpack("<HH", header[26:30])
            start = entry.header + 30 + name_size + extra_size
            raw_name = bytes(self.data[entry.header + 30 : entry.header + 30 + name_size])
            if raw_name != path.encode("utf-8"):
                raise damaged(self.name, f"its entry {path[:80]!r} has two names")
            last = start + entry.size
            if last > self._limit:
                raise damaged(self.name, f"its entry {path[:80]!r} claims {entry.size:,} bytes, which are not there")
            starts[path] = start
        return starts

    @staticmethod
    def _number(data: Any, place: int, size: int) -> int:
        return int.from_bytes(data[place : place + size], "little")


def load_zip(data: Any, name: str) -> Any:
    """The object in a file that ``torch.save`` or ``torch.jit.save`` wrote.

    Args:
        data: the file's bytes, writable: tensors share them.
        name: of the file, for errors.

    Raises:
        CheckpointError: the file is damaged, hostile, or holds what is not supported.
    """
    archive = Archive(data, name)
    roots = [path.removesuffix("data.pkl") for path in archive.entries if _is_pickle(path)]
    if len(roots) != 1:
        what = "a zip file, but not one of PyTorch's: it has no data.pkl" if not roots else "two archives in one"
        raise CheckpointError(f"{name} is {what}", "check what the file is")
    (root,) = roots
    order = bytes(archive.content(f"{root}byteorder")[:16]) if f"{root}byteorder" in archive.entries else b"little"
    if order not in (b"little", b"big"):
        raise damaged(name, f"its byte order is {str(order)[1:]}")
    swapped = order.decode() != sys.byteorder
    storages = Storages(name, lambda key, size: _record(archive, f"{root}data/{key}", size), swapped)
    script = f"{root}constants.pkl" in archive.entries
    pickle = archive.content(f"{root}data.pkl")
    if len(pickle) > _MAX_PICKLE:
        raise refused(name, f"its description alone takes {len(pickle):,} bytes", "save tensors, not Python objects")
    find = finder(name, torchscript.find if script else None)
    state = torchscript.set_state if script else set_state
    reader = Reader(bytes(pickle), name, find, storages, state, file_size=len(data))
    result = reader.load()
    if reader.position != len(pickle):
        raise damaged(name, "its pickle has bytes after its end")
    return torchscript.state_dict(result, name) if script else result


def _is_pickle(path: str) -> bool:
    return path == "data.pkl" or (path.endswith("/data.pkl") and path.count("/") == 1)


def _record(archive: Archive, path: str, claimed: int) -> np.ndarray:
    raw = np.frombuffer(archive.content(path), np.uint8)
    # A storage that is not a whole number of elements has a few bytes more than its elements take.
    if not claimed <= raw.size < claimed + _ALIGN:
        raise damaged(archive.name, f"entry {path[:80]!r} has {raw.size:,} bytes and should have {claimed:,}")
    return raw if raw.ctypes.data % _ALIGN == 0 else raw.copy()
