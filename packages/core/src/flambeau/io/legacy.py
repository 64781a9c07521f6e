"""PyTorch's format before 1.6: five pickles one after the other, then the bytes of the storages.

The pickles are a magic number, a protocol number, facts on the machine, the object, and the keys of its storages in the
order in which they follow, each as a 64-bit count of elements and the elements, little-endian. The object comes before
its data, so it is read twice: first only for the storages that it names.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .allowed import finder, set_state
from .errors import CheckpointError, damaged, refused
from .torchtypes import Storages
from .unpickle import Reader

__all__ = ["is_legacy", "is_tar", "load_legacy"]

_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_BYTES = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little")
_PROTOCOL = 1001
_ALIGN = 16


def is_legacy(start: bytes) -> bool:
    """Whether a file that begins like this is a pickle, as the legacy format is."""
    return start[:1] == b"\x80" and start[1:2] <= b"\x05"


def is_tar(start: bytes) -> bool:
    """Whether a file that begins like this is a tar archive, the format of PyTorch 0.1."""
    return start[257:262] == b"ustar"


def load_legacy(data: Any, name: str) -> Any:
    """The object in a file that PyTorch before 1.6 wrote (or ``_use_new_zipfile_serialization=False``).

    Raises:
        CheckpointError: the file is damaged, hostile, or holds what is not supported.
    """
    if _MAGIC_BYTES not in bytes(data[:32]):
        raise CheckpointError(
            f"{name} is refused: it is a pickle, but not one that torch.save wrote",
            "load it with the program that wrote it and save the tensors with flambeau.save or torch.save",
        )
    find = finder(name)
    plain = Reader(data, name, find, Storages(name, None), set_state)
    magic, protocol, facts = plain.load(), plain.load(), plain.load()
    if magic != _MAGIC or protocol != _PROTOCOL or type(facts) is not dict:
        raise damaged(name, f"its head is not that of a PyTorch file (protocol {str(protocol)[:20]})")
    start = plain.position
    look = Storages(name, None)
    first = Reader(data, name, find, look, set_state, start)
    first.load()
    ends = Reader(data, name, find, Storages(name, None), set_state, first.position)
    keys = ends.load()
    places = _places(data, name, keys, look, ends.position)

    def fetch(key: str, size: int) -> np.ndarray:
        raw = np.frombuffer(data, np.uint8, size, places[key])
        # The elements begin wherever the pickle happened to end.
        return raw if raw.ctypes.data % _ALIGN == 0 else raw.copy()

    return Reader(data, name, find, Storages(name, fetch, sys.byteorder == "big"), set_state, start).load()


def _places(data: Any, name: str, keys: Any, look: Storages, position: int) -> dict[str, int]:
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(look.found):
        raise damaged(name, "the storages that follow are not those that its tensors need")
    places = {}
    for key in keys:
        kind, count, _ = look.found[key]
        size = count * kind.itemsize
        claimed = int.from_bytes(data[position : position + 8], "little", signed=True)
        if position + 8 + size > len(data):
            raise damaged(name, f"it is cut off: storage {key[:40]!r} has no room for {size:,} bytes")
        if claimed != count:
            raise damaged(name, f"storage {key[:40]!r} has {claimed:,} elements and should have {count:,}")
        places[key] = position + 8
        position += 8 + size
    if position != len(data):
        raise refused(name, f"{len(data) - position:,} bytes follow its last storage", "it may hold several objects")
    return places
