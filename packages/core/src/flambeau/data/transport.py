"""Batches between processes: arrays lie in anonymous shared memory, only its file descriptor travels.

Pickle protocol 5 hands the arrays out beside the pickle, so whatever a ``collate_fn`` returns is carried without
copying arrays through a pipe. The receiver maps the same memory: its arrays are the sender's. The memory has no name,
hence nothing can leak, whoever is killed. Where ``memfd_create`` is missing (not Linux) a file in a private folder
takes its place.
"""

from __future__ import annotations

import mmap
import os
import pickle
import secrets
import struct
import weakref
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["receive", "send"]

ANONYMOUS = hasattr(os, "memfd_create")
_INLINE = 4096  # messages stay smaller than a pipe's buffer, so that sending one never waits for the reader
_ALIGN = 64
_MAX_MAPPED = 64  # every mapping keeps a file descriptor open; beyond this many live batches, copy
_mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def send(connection: Connection, head: tuple[Any, ...], payload: Any, folder: str | None) -> None:
    """Sends `head` (small) and `payload` (any picklable object).

    Args:
        folder: where files take the place of anonymous memory; None where there is such memory.
    """
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(payload, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(pickled), *(buffer.raw() for buffer in buffers)]
    if sum(part.nbytes for part in parts) <= _INLINE and len(parts) <= 16:
        connection.send_bytes(pickle.dumps((head, [bytes(part) for part in parts], None)))
        return
    sizes = struct.pack(f"<{len(parts) + 1}Q", len(parts), *(part.nbytes for part in parts))
    if folder is None:
        name, descriptor = "", os.memfd_create("flambeau-batch", os.MFD_CLOEXEC)
    else:
        name = os.path.join(folder, secrets.token_hex(8))
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        end = _write(descriptor, memoryview(sizes), 0)
        for part in parts:
            end = _write(descriptor, part, _aligned(end))
        connection.send_bytes(pickle.dumps((head, end, name)))
        if folder is None:
            reduction.send_handle(connection, descriptor, os.getppid())  # type: ignore[arg-type]
    finally:
        os.close(descriptor)


def receive(connection: Connection) -> tuple[tuple[Any, ...], Any]:
    """The next ``(head, load)``; ``load()`` gives the payload.

    Raises:
        EOFError, OSError: the sender is gone.
    """
    head, parts, name = pickle.loads(connection.recv_bytes())
    if name is None:
        # bytearray: arrays that come out of immutable bytes would be read-only.
        return head, lambda: pickle.loads(parts[0], buffers=[bytearray(part) for part in parts[1:]])
    descriptor = os.open(name, os.O_RDWR | getattr(os, "O_BINARY", 0)) if name else reduction.recv_handle(connection)
    size = parts
    try:
        memory: Any = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE) if not name else None
        if memory is None or len(_mapped) >= _MAX_MAPPED:
            memory = bytearray(size)
            with open(descriptor, "rb", closefd=False) as file:
                file.seek(0)
                file.readinto(memory)
        else:
            _mapped.add(memory)
    finally:
        os.close(descriptor)
        if name:
            os.unlink(name)
    return head, lambda: _load(memory)


def _load(memory: Any) -> Any:
    view = memoryview(memory)
    (count,) = struct.unpack_from("<Q", view)
    sizes = struct.unpack_from(f"<{count}Q", view, 8)
    parts, end = [], 8 * (count + 1)
    for size in sizes:
        start = _aligned(end)
        end = start + size
        parts.append(view[start:end])
    return pickle.loads(parts[0], buffers=parts[1:])


def _aligned(position: int) -> int:
    return -(-position // _ALIGN) * _ALIGN


def _write(descriptor: int, part: memoryview, position: int) -> int:
    os.lseek(descriptor, position, os.SEEK_SET)
    while part.nbytes:
        written = os.write(descriptor, part)
        part, position = part[written:], position + written
    return position
