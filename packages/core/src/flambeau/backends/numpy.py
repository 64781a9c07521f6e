"""The CPU backend: NumPy, with optional fast kernels from `backends.kernels`."""

from __future__ import annotations

import numpy

from ..device import device
from . import memory
from .base import Backend


class NumpyBackend(Backend):
    """Arrays in host memory."""

    def from_host(self, array: numpy.ndarray, where: device) -> numpy.ndarray:
        """The array itself."""
        return array

    def to_host(self, array: numpy.ndarray) -> numpy.ndarray:
        """The array itself."""
        return array

    def statistics(self, where: device) -> dict[str, int]:
        """Those of the process's heap."""
        return {**memory.host_statistics(), "keep_bytes": memory.keep_freed_memory()}

    def empty_cache(self) -> None:
        """Gives free pages of the heap back to the system."""
        memory.release_free_memory()
