"""Video: frames of a file one after another, and frames back into a file (extra ``[video]``)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from flambeau.errors import FlambeauError, MissingExtraError


def read_frames(path: str | os.PathLike, *, every: int = 1) -> Iterator[np.ndarray]:
    """The frames of a video's first picture stream as uint8 RGB (H, W, 3), decoded as they are asked for.

    Args:
        path: any file that FFmpeg reads.
        every: give each n-th frame only.

    Raises:
        MissingExtraError: PyAV is not installed.
        FlambeauError: no such file, not a video, or broken somewhere (after the frames before).
    """
    if every < 1:
        raise ValueError(f"every is at least 1, not {every}")
    av = _av()
    number = 0
    with _open(av, path) as container:
        try:
            for frame in container.decode(video=0):
                if number % every == 0:
                    yield frame.to_ndarray(format="rgb24")
                number += 1
        except av.error.FFmpegError as error:
            raise FlambeauError(
                f"{path}: the video is broken after {number} frames ({error.strerror})", "copy the file again"
            ) from error
    if number == 0:
        raise FlambeauError(f"{path}: the video has no frames", "copy the file again")


def frame_rate(path: str | os.PathLike) -> float:
    """Frames a second of a video's first picture stream.

    Raises:
        MissingExtraError, FlambeauError: as :func:`read_frames`.
    """
    with _open(_av(), path) as container:
        return float(container.streams.video[0].average_rate or 0)


def write_frames(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float = 25.0) -> int:
    """Write uint8 RGB frames (H, W, 3) as a video (H.264 in ``.mp4`` or ``.mkv``), whole or not at all.

    H.264 wants even sides: an odd last row or column is cut.

    Returns:
        The number of frames.

    Raises:
        MissingExtraError: PyAV is not installed.
        FlambeauError: no frames, frames of several sizes, or the file cannot be written.
    """
    av, path = _av(), Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    count, size = 0, (0, 0)
    try:
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "18"}
            for frame in frames:
                if count == 0:
                    size = frame.shape[:2]
                    stream.height, stream.width = (side - side % 2 for side in size)
                if frame.shape != (*size, 3) or frame.dtype != np.uint8:
                    raise FlambeauError(
                        f"frame {count} is {frame.dtype} {frame.shape}, not uint8 {(*size, 3)}",
                        "give uint8 RGB frames of one size",
                    )
                even = np.ascontiguousarray(frame[: stream.height, : stream.width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
                count += 1
            if count == 0:
                raise FlambeauError(f"{path}: no frames to write", "give at least one")
            container.mux(stream.encode(None))
        os.replace(part, path)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise FlambeauError(f"{path}: cannot write the video ({cause})", "use .mp4 in a folder that exists") from error
    finally:
        with suppress(OSError):
            part.unlink()
    return count


def _av() -> Any:
    try:
        return import_module("av")
    except ImportError as error:
        raise MissingExtraError("videos need PyAV", 'pip install "flambeau-vision[video]"') from error


def _open(av: Any, path: str | os.PathLike) -> Any:
    if not os.path.isfile(path):
        raise FlambeauError(f"{path}: no such file", "check the path")
    try:
        container = av.open(os.fspath(path))
    except (OSError, ValueError) as error:
        raise FlambeauError(f"{path}: not a video ({getattr(error, 'strerror', error)})", "give an .mp4") from error
    if not container.streams.video:
        container.close()
        raise FlambeauError(f"{path}: no pictures in this file, only sound or text", "give a video")
    return container
