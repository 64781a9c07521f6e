"""Reading text: plain or gzipped UTF-8 from a file or standard input, and the files of a split in a folder."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from flambeau.errors import FlambeauError

#: Names under which the files of a split are found.
SPLIT_NAMES = {"val": ("val", "valid", "validation", "dev"), "valid": ("valid", "val", "validation", "dev")}
#: What `predict` adds to the mend of a file that is not there.
TEXT_OPTION = "; add --set text=true when the input is the text itself"


def read_text(source: str | Path, hint: str = "") -> str:
    r"""The text of a file (``.gz`` is unpacked) or, for ``"-"``, of standard input. Line ends become ``\n``.

    Args:
        hint: added to the mend when there is no such file.

    Raises:
        FlambeauError: missing, a folder, empty, damaged, or not UTF-8.
    """
    name = "standard input" if str(source) == "-" else str(source)
    content = _unpack(_read_bytes(source, name, hint), name)
    if not content.strip():
        raise FlambeauError(f"{name} is empty", "give a file with text in it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FlambeauError(
            f"{name} is not UTF-8 text (line {line})", "convert it first: iconv -f latin1 -t utf-8 FILE"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_bytes(source: str | Path, name: str, hint: str) -> bytes:
    if str(source) == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except FileNotFoundError as error:
        raise FlambeauError(f"{name} does not exist", f"check the path{hint}") from error
    except IsADirectoryError as error:
        raise FlambeauError(f"{name} is a folder", "give the name of a text file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        why = getattr(error, "strerror", None) or str(error)
        raise FlambeauError(f"{name} cannot be read: {why}", f"check the path{hint}") from error


def _unpack(content: bytes, name: str) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise FlambeauError(f"{name} is a damaged gzip file", "fetch it again") from error


def read_lines(source: str | Path, hint: str = "") -> list[str]:
    r"""The lines of a text. Only ``\n`` separates lines, so that files aligned line by line stay aligned."""
    lines = read_text(source, hint).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def texts_of(source: str, is_text: bool) -> list[str]:
    """What an input of `predict` holds: its lines, or the lines of the text that it is itself."""
    return source.split("\n") if is_text else read_lines(source, TEXT_OPTION)


def split_file(folder: str | Path, split: str, endings: Sequence[str]) -> Path | None:
    """The file of `split` in `folder`: ``<split><ending>`` or ``<split><ending>.gz``; None when there is none."""
    for name in SPLIT_NAMES.get(split, (split,)):
        for ending in endings:
            for path in (Path(folder) / f"{name}{ending}", Path(folder) / f"{name}{ending}.gz"):
                if path.is_file():
                    return path
    return None


def only_file(folder: str | Path, endings: Sequence[str]) -> Path | None:
    """The one data file of a folder (read-mes aside), when it has exactly one."""
    skipped = ("readme", "license", "licence", "classes")
    allowed = {"", *endings}
    found = [
        path
        for path in sorted(Path(folder).iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and not path.name.lower().startswith(skipped)
        and Path(path.name.removesuffix(".gz")).suffix.lower() in allowed
    ]
    return found[0] if len(found) == 1 else None
