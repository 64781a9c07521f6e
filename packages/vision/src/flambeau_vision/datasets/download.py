"""Downloads that are asked for: checked by SHA-256, resumed, and in place only when whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from flambeau.errors import FlambeauError


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, path: str | os.PathLike, sha256_digest: str, *, timeout: float = 30.0) -> Path:
    """Fetch ``url`` into the file ``path``, unless a file with the right SHA-256 is there already.

    Data go to ``<path>.part`` first; a later call goes on where it broke off when the server can, else starts again.
    Nothing in Flambeau calls this by itself.

    Raises:
        FlambeauError: no network, the server refuses, or the sum is wrong. The mend says which file to put where.
    """
    path = Path(path)
    wanted = sha256_digest.lower()
    if path.is_file():
        if sha256(path) == wanted:
            return path
        raise FlambeauError(f"{path}: the file has another SHA-256 than {wanted}", "delete it to download it again")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    mend = f"fetch {url} on another machine and put it at {path} (SHA-256 {wanted})"
    try:
        _fetch(url, part, timeout)
    except urllib.error.HTTPError as error:
        raise FlambeauError(f"{url}: the server answers {error.code} {error.reason}", mend) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", None) or error
        raise FlambeauError(f"{url}: cannot be downloaded ({cause})", mend) from error
    found = sha256(part)
    if found != wanted:
        part.unlink()
        raise FlambeauError(f"{url}: the download has SHA-256 {found}, not {wanted}", mend)
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    return path


def _fetch(url: str, part: Path, timeout: float) -> None:
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        part.unlink()  # nothing is left to send: the sum decides, so start again
        response = urllib.request.urlopen(url, timeout=timeout)
        start = 0
    with contextlib.closing(response):
        goes_on = getattr(response, "status", 200) == 206
        expected = response.headers.get("Content-Length")
        received = 0
        with open(part, "ab" if goes_on else "wb") as file:
            while block := response.read(1 << 20):
                file.write(block)
                received += len(block)
    if expected is not None and received < int(expected):
        raise OSError(f"the connection broke after {start * goes_on + received} bytes; call again to go on")
