"""The bytes of a file, mapped or read."""

from __future__ import annotations

import mmap
import os
from typing import Any

from ..errors import FlambeauError

__all__ = ["open_buffer"]


def open_buffer(path: str | os.PathLike[str], mapped: bool = True) -> Any:
    """The writable bytes of a file; writing to them never changes the file.

    Args:
        path: the file.
        mapped: map it into memory, copied page by page when written to, instead of reading it whole.

    Raises:
        FlambeauError: the file is missing, a folder or unreadable.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if mapped and size:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            buffer = bytearray(size)
            return buffer[: file.readinto(buffer)]
    except FileNotFoundError:
        raise FlambeauError(f"{name} does not exist", "check the path") from None
    except IsADirectoryError:
        raise FlambeauError(f"{name} is a folder, not a file", "give the file inside it") from None
    except (OSError, ValueError) as error:
        raise FlambeauError(f"cannot read {name}: {error}", "check the file and its permissions") from error
