"""What a backend provides: an array namespace, copies to and from the host, and its fast kernels."""

from __future__ import annotations

from typing import Any

import numpy

from ..device import CPU, device


class Backend:
    """An array library. `xp` follows NumPy's API; ops are written against it and never ask which it is."""

    name = "numpy"
    xp: Any = numpy

    def from_host(self, array: numpy.ndarray, where: device) -> Any:
        """The host array as an array of this backend on device `where`."""
        raise NotImplementedError

    def to_host(self, array: Any) -> numpy.ndarray:
        """A NumPy array with the same values (shared memory where that is possible)."""
        raise NotImplementedError

    def device_of(self, array: Any) -> device:
        """The device on which `array` lives."""
        return CPU

    def synchronize(self) -> None:
        """Waits until all work queued on the device is done."""

    def statistics(self, where: device) -> dict[str, int]:
        """Bytes of memory in use and kept for reuse, as `flambeau.memory_stats` names them."""
        raise NotImplementedError

    def empty_cache(self) -> None:
        """Gives memory that is kept for reuse back."""
