"""Errors of reading and writing checkpoints."""

from __future__ import annotations

from ..errors import FlambeauError

__all__ = ["CheckpointError", "UnsupportedFormatError"]


class CheckpointError(FlambeauError):
    """A checkpoint is damaged, hostile or does not fit. Nothing of it was executed and nothing is half-loaded."""


class UnsupportedFormatError(CheckpointError, NotImplementedError):
    """The file is what it claims to be, but holds something that Flambeau does not read or write."""


def damaged(name: str, why: str) -> CheckpointError:
    """The error for a file that is cut, corrupt or lies."""
    return CheckpointError(f"{name} is damaged: {why}", "download or copy the file again")


def refused(name: str, why: str, mend: str = "convert it to a plain tensor and save again") -> UnsupportedFormatError:
    """The error for a sound file with something in it that is not supported."""
    return UnsupportedFormatError(f"{name} cannot be read: {why}", mend)
