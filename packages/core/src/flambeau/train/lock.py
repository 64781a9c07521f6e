"""One process at a time in a run's folder."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from pathlib import Path

from ..errors import FlambeauError

__all__ = ["FolderLock"]

_BUSY = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_held: set[int] = set()  # descriptors of the locks that this process holds


class FolderLock:
    """A lock on a folder that ends with its holder, also when that is killed: the operating system keeps it.

    The file ``.lock`` names the holder; it stays, for removing it would let two processes lock two files.

    >>> import tempfile
    >>> with FolderLock(tempfile.mkdtemp()) as lock:
    ...     lock.held
    True
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / ".lock"
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            FlambeauError: another run holds it (the line says which process), or the file cannot be made.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise FlambeauError(
                f"cannot write {self.path}: {error.strerror}", "choose a folder that you may write to"
            ) from error
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _BUSY:
                holder = _read(descriptor) or "another process"
                os.close(descriptor)
                cause = f"{self.path.parent} is in use: {holder} trains there"
                raise FlambeauError(cause, "wait for it, stop it, or choose another output folder") from None
            # A file system that has no locks, such as some of network drives: the run goes on without one.
        self._descriptor = descriptor
        _held.add(descriptor)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        """Gives the lock back; nothing happens when it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        # One byte far behind the name of the holder, which stays readable.
        os.lseek(descriptor, 2**20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        return
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read(descriptor: int) -> str:
    with contextlib.suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        return " ".join(os.read(descriptor, 200).decode("utf-8", "replace").split())
    return ""


def _leave_to_parent() -> None:
    """In a forked child, such as a loader's worker: it must not keep the lock when the run is killed."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
