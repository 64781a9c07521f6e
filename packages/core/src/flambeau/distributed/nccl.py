"""The NCCL backend: collectives between GPUs through CuPy (``cupyx.distributed``).

Not run yet: it was written from CuPy's documentation, on machines without GPUs.
"""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np

from ..errors import MissingExtraError, UsageError
from ..launch import global_rank, local_rank, world_size

__all__ = ["NCCLBackend"]

_OPS = {"SUM": "sum", "AVG": "sum", "PRODUCT": "prod", "MIN": "min", "MAX": "max"}


class _Done:
    """A collective that is queued on the stream: later work on the stream waits for it, and so need not the caller."""

    def advance(self) -> bool:
        return True

    is_completed = advance

    def wait(self, timeout: float | None = None) -> None:
        return None


class _Placed(_Done):
    def __init__(self, place: Any) -> None:
        self._place = place

    def wait(self, timeout: float | None = None) -> None:
        place, self._place = self._place, None
        if place is not None:
            place()


class NCCLBackend:
    """One process for each GPU, chosen by the local rank; rank 0 listens at MASTER_ADDR:MASTER_PORT."""

    name = "nccl"

    def __init__(self, timeout: float) -> None:
        try:
            import cupy
            from cupy.cuda import nccl  # noqa: F401 - missing where CuPy was built without it
            from cupyx import distributed
        except ImportError as error:
            cause = f"the backend nccl needs CuPy with NCCL ({error})"
            raise MissingExtraError(cause, 'pip install "flambeau-core[cuda12]" nvidia-nccl-cu12') from None
        self.rank, self.size, self.timeout = global_rank(), world_size(), timeout
        cupy.cuda.Device(local_rank() % cupy.cuda.runtime.getDeviceCount()).use()
        address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), os.environ.get("MASTER_PORT", "13333")
        if not port.isdigit():
            raise UsageError(f"the variable MASTER_PORT is {port!r}", "set it to a free port")
        self.cupy = cupy
        self.started = 0
        self.report: Any = lambda reason: None
        self.comm = distributed.init_process_group(self.size, self.rank, host=address, port=int(port))

    def start_sum(self, flat: Any, wire: Any = None, lane: str = "main") -> Any:
        """As `MPIBackend.start_sum`; NCCL's order of summation is fixed for a given number of GPUs."""
        self.started += 1
        if wire is None or np.dtype(wire) == flat.dtype:
            self.comm.all_reduce(flat, flat, "sum")
            return _Done()
        # NCCL would add in 16 bits: exchanged as bytes, added in float32.
        part = -(-flat.size // self.size)
        given = self.cupy.zeros(part * self.size, wire)
        given[: flat.size] = flat.astype(wire)
        got = self.cupy.empty_like(given)
        self.comm.all_to_all(_bytes(given, self.size), _bytes(got, self.size))
        mine = got.reshape(self.size, part).astype(np.float32).sum(0).astype(wire)
        result = self.cupy.empty_like(given)
        self.comm.all_gather(_bytes(mine), _bytes(result, self.size), mine.nbytes)
        return _Placed(lambda: flat.__setitem__(..., result[: flat.size].astype(flat.dtype)))

    def start_reduce(self, array: Any, op: str) -> Any:
        if op not in _OPS:
            raise NotImplementedError(f"the backend nccl has no reduction {op}")
        self.started += 1
        self.comm.all_reduce(array, array, _OPS[op])
        return _Done()

    def broadcast(self, array: Any, src: int) -> None:
        self.started += 1
        self.comm.broadcast(array, src)

    def all_gather(self, array: Any) -> Any:
        self.started += 1
        result = self.cupy.empty((self.size, *array.shape), array.dtype)
        self.comm.all_gather(array, result, array.size)
        return result

    def send(self, array: Any, dst: int, tag: int) -> None:
        self.comm.send(array, dst)

    def receive(self, array: Any, src: int | None, tag: int) -> int:
        if src is None:
            raise NotImplementedError("recv: the backend nccl must be told the source rank")
        self.comm.recv(array, src)
        return src

    def barrier(self) -> None:
        self.started += 1
        self.comm.barrier()

    def gather_objects(self, value: Any) -> list[Any]:
        data = self.cupy.asarray(np.frombuffer(pickle.dumps(value), np.uint8))
        sizes = self.all_gather(self.cupy.array([data.size], np.int64)).get()[:, 0]
        padded = self.cupy.zeros(int(sizes.max()), np.uint8)
        padded[: data.size] = data
        rows = self.all_gather(padded).get()
        return [pickle.loads(row[:n].tobytes()) for row, n in zip(rows, sizes, strict=True)]

    def broadcast_object(self, value: Any, src: int) -> Any:
        return self.gather_objects(value if self.rank == src else None)[src]

    def abort(self, code: int) -> None:
        """Ends this process; the others are told by the watchdog."""
        os._exit(code)

    def close(self) -> None:
        self.comm.stop()


def _bytes(array: Any, rows: int | None = None) -> Any:
    flat = array.view(np.uint8)
    return flat if rows is None else flat.reshape(rows, -1)
