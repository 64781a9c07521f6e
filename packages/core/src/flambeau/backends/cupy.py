"""The GPU backend: CuPy, imported when a CUDA device is first asked for."""

from __future__ import annotations

from typing import Any

import numpy

from ..device import device
from ..errors import FlambeauError
from .base import Backend


class CupyBackend(Backend):
    """Arrays in the memory of CUDA devices."""

    name = "cupy"

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as e:
            raise FlambeauError(
                f"device 'cuda' needs CuPy, which cannot be imported ({e})",
                "pip install 'flambeau-core[cuda12]' (or [cuda13], for the CUDA version of the driver)",
                exit_code=3,
            ) from None
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as e:
            raise FlambeauError(f"no CUDA device is available ({e})", "use device 'cpu'", exit_code=4) from None
        self.xp = cupy
        self.count = count

    def from_host(self, array: numpy.ndarray, where: device) -> Any:
        """Copies to device `where` (the current one when it has no index)."""
        index = self.xp.cuda.Device().id if where.index is None else where.index
        if index >= self.count:
            raise FlambeauError(
                f"device 'cuda:{index}' does not exist: {self.count} CUDA device(s) found",
                f"use an index below {self.count}",
                exit_code=4,
            )
        with self.xp.cuda.Device(index):
            return self.xp.asarray(array)

    def to_host(self, array: Any) -> numpy.ndarray:
        """Copies to host memory."""
        return self.xp.asnumpy(array)

    def device_of(self, array: Any) -> device:
        """``cuda:n``."""
        return device("cuda", array.device.id)

    def synchronize(self) -> None:
        """Waits for the current device."""
        self.xp.cuda.get_current_stream().synchronize()

    def statistics(self, where: device) -> dict[str, int]:
        """Bytes of CuPy's memory pool on a device, as `flambeau.memory_stats` names them."""
        with self.xp.cuda.Device(where.index):
            pool = self.xp.get_default_memory_pool()
            used, total = pool.used_bytes(), pool.total_bytes()
        return {"allocated_bytes": used, "free_bytes": total - used, "reserved_bytes": total}

    def empty_cache(self) -> None:
        """Frees the unused blocks of the pools, on the device and of pinned host memory."""
        self.xp.get_default_memory_pool().free_all_blocks()
        self.xp.get_default_pinned_memory_pool().free_all_blocks()
