"""Atomic file writing: a reader sees the old file or the whole new one, never a part of it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from typing import IO, Any

from ..errors import FlambeauError

__all__ = ["FULL", "atomic_write", "remove_leftovers", "sync_folder"]

FULL = {  # errors that mean: no room
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too big",
}
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp")
_WHY = {
    errno.EACCES: ("permission denied", "choose a folder that you may write to"),
    errno.EPERM: ("permission denied", "choose a folder that you may write to"),
    errno.EROFS: ("the file system is read-only", "choose a folder that you may write to"),
    errno.ENOENT: ("its folder does not exist", "create the folder first"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "choose another path"),
    errno.EISDIR: ("it is a folder", "give the name of a file"),
    errno.ENAMETOOLONG: ("its name is too long", "choose a shorter name"),
}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb", encoding: str | None = None) -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` that takes its place when the block ends without an error.

    The data reach the disk (fsync) before the rename, so a crash or a full disk leaves the old file whole. Permissions
    follow the umask. A symbolic link is followed; a device such as ``/dev/stdout`` is written directly.

    Args:
        path: the file to write.
        mode: ``"wb"`` or ``"w"``.
        encoding: of a text file; UTF-8 when left out.

    Raises:
        FlambeauError: the folder is missing or not writable, or the disk is full. Nothing is left behind.

    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_write(target, "w") as file:
    ...     _ = file.write("whole or not at all")
    >>> target.read_text()
    'whole or not at all'
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"atomic_write: mode is {mode!r}; it must be 'wb' or 'w'")
    encoding = None if mode == "wb" else encoding or "utf-8"
    target = os.path.realpath(os.fspath(path))
    try:
        existing = os.stat(target).st_mode
    except FileNotFoundError:
        existing = stat.S_IFREG
    except OSError as error:  # such as a name that is too long: now, not after hours of work
        raise _as_flambeau(path, error) from error
    if stat.S_ISDIR(existing):
        raise FlambeauError(f"cannot write {os.fspath(path)}: it is a folder", "give the name of a file")
    if not stat.S_ISREG(existing):
        with _explained(path), open(target, mode, encoding=encoding) as file:
            yield file
        return
    folder, name = os.path.split(target)
    # O_EXCL with mode 0o666 leaves the permissions to the umask, which tempfile's 0o600 would not.
    temporary = os.path.join(folder, f".{name[:80]}.{secrets.token_hex(6)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise _as_flambeau(path, error) from error
    try:
        with _explained(path):
            with os.fdopen(descriptor, mode, encoding=encoding) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            try:
                os.replace(temporary, target)
            except OSError as error:
                raise _as_flambeau(path, error) from error
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def remove_leftovers(folder: str | os.PathLike[str], names: Iterable[str] | None = None) -> list[str]:
    """Removes temporary files of writers that were killed; returns their names. Only for who is alone in `folder`.

    Args:
        folder: not its sub-folders; one that is missing has none.
        names: of the files that were being written; None for any.
    """
    removed = []
    wanted = None if names is None else {name[:80] for name in names}
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            match = _TEMPORARY.fullmatch(entry)
            if match and (wanted is None or match[1] in wanted):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, entry))
                    removed.append(entry)
    return removed


@contextlib.contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Only what writing itself can raise is translated: an error of the caller's block passes as it is."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise _as_flambeau(path, error) from error
        raise


def _as_flambeau(path: str | os.PathLike[str], error: OSError) -> FlambeauError:
    if error.errno in FULL:
        cause, mend = FULL[error.errno], "free some space or choose another disk; the old file is untouched"
    else:
        cause, mend = _WHY.get(error.errno or 0, (error.strerror or str(error), "choose another path"))
    return FlambeauError(f"cannot write {os.fspath(path)}: {cause}", mend)


def sync_folder(folder: str) -> None:
    """Makes the rename itself durable; not every file system can, and then nothing is lost but durability."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
