"""SIGTERM and Ctrl-C as a request: the running step is finished first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, TextIO

__all__ = ["RunStopped", "StopSignals"]


class RunStopped(SystemExit):
    """A run was asked to stop and has saved; uncaught, it ends the process with 128 + the number of the signal.

    Attributes:
        signal: the number of the signal (2 for Ctrl-C, 15 for SIGTERM).
        line: what happened and how to go on; it has been printed.
    """

    def __init__(self, number: int, line: str) -> None:
        super().__init__(128 + number)
        self.signal = number
        self.line = line

    def __str__(self) -> str:
        return self.line


class StopSignals:
    """While it is open SIGTERM and SIGINT are noted in `received` instead of ending the process.

    The second signal acts as it would without it, at once. Outside the main thread, where Python has no signals,
    nothing is changed.

    >>> import signal
    >>> with StopSignals() as stop:
    ...     stop.received is None
    True
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.received: int | None = None
        self._stream = stream
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._owner = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                # Ignored on purpose (nohup, a shell's background job), or set by something that is not Python: left so.
                if before not in (None, signal.SIG_IGN):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked child that has not set its own handler yet
            return
        if self.received is not None:
            self.__exit__()
            signal.raise_signal(number)
            return
        self.received = number
        name = signal.Signals(number).name
        # Not print(): the signal may have interrupted one, and buffered streams refuse to be entered twice.
        line = f"\n{name}: finishing this step, then saving a checkpoint (Ctrl-C ends at once)\n"
        stream = self._stream or sys.stderr
        try:
            os.write(stream.fileno(), line.encode())
        except (OSError, ValueError, AttributeError):
            pass
