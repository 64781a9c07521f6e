"""The errors that Flambeau raises on purpose: a line of cause, a line of mend, an exit code for the command line."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_DEVICE = 4
EXIT_INTERRUPTED = 130

__all__ = [
    "EXIT_DEVICE",
    "EXIT_FAILURE",
    "EXIT_INTERRUPTED",
    "EXIT_MISSING",
    "EXIT_OK",
    "EXIT_USAGE",
    "DeviceUnavailableError",
    "FlambeauError",
    "MissingExtraError",
    "UsageError",
]


class FlambeauError(Exception):
    """An error with a cause and a mend, both one line.

    Args:
        message: what went wrong (the cause).
        mend: what the reader can do about it; empty when there is nothing to say.
        exit_code: what the command line exits with; the class's own code when left out.

    >>> error = FlambeauError("photo.jpg is empty", "pass a file with an image in it")
    >>> str(error), error.mend, error.exit_code
    ('photo.jpg is empty', 'pass a file with an image in it', 1)
    """

    exit_code: int = EXIT_FAILURE

    def __init__(self, message: str, mend: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.mend = mend
        if exit_code is not None:
            self.exit_code = exit_code

    @property
    def cause(self) -> str:
        """The message, without the mend."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.cause, self.mend, self.exit_code)


class UsageError(FlambeauError):
    """A wrong argument or option: exit code 2."""

    exit_code = EXIT_USAGE


class MissingExtraError(FlambeauError):
    """A package or extra that is needed is not installed: exit code 3. The mend is the exact ``pip install`` line."""

    exit_code = EXIT_MISSING


class DeviceUnavailableError(FlambeauError):
    """The device that was asked for is not there: exit code 4."""

    exit_code = EXIT_DEVICE
