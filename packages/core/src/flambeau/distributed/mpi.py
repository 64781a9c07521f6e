"""The MPI backend: collectives on NumPy arrays through mpi4py, each with a time limit."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import FlambeauError, MissingExtraError
from .lane import Lane, Sum

__all__ = ["MPIBackend", "Work"]


def load_mpi() -> Any:
    """mpi4py's MPI module, initialised for calls from several threads.

    Raises:
        MissingExtraError: mpi4py, or the MPI library under it, is not installed.
    """
    try:
        import mpi4py

        mpi4py.rc.thread_level = "multiple"
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError(
            f"data parallel training needs mpi4py and an MPI library ({error})", 'pip install "flambeau-core[mpi]"'
        ) from None
    return MPI


class Work:
    """A running collective of one MPI request."""

    def __init__(self, backend: Any, name: str, request: Any, place: Callable[[], None]) -> None:
        self._backend, self._request, self._place = backend, request, place
        self._done = False
        backend.started += 1
        self._what = f"{name} (number {backend.started})"

    def advance(self) -> bool:
        """Whether it is complete."""
        if not self._done and self._request.Test():
            self._place()
            self._done = True
        return self._done

    is_completed = advance

    def wait(self, timeout: float | None = None) -> None:
        """Waits until it is complete; FlambeauError when that takes longer than the time limit."""
        self._backend.wait(self.advance, self._what, timeout)


class MPIBackend:
    """Arrays go as they lie in memory; types that MPI does not know (bfloat16) are summed here, in float32."""

    name = "mpi"

    def __init__(self, timeout: float) -> None:
        mpi = load_mpi()
        self.mpi = mpi
        self.timeout = timeout
        self.comm = mpi.COMM_WORLD.Dup()  # buckets in flight must not be confused with what a program sends itself
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self.started = 0
        self.report: Callable[[str], None] = lambda reason: None
        self._lanes = {"main": Lane(self), "buckets": Lane(self)}

    # -- waiting -------------------------------------------------------------------------------------------------
    def wait(self, done: Callable[[], bool], what: str, timeout: float | None = None) -> None:
        """Polls: a blocking call could be ended by nobody, and would keep a core busy."""
        limit = self.timeout if timeout is None else timeout
        began = time.monotonic()
        polls = 0
        while not done():
            polls += 1
            if polls < 200:
                os.sched_yield() if hasattr(os, "sched_yield") else time.sleep(0)
                continue
            waited = time.monotonic() - began
            if waited > limit:
                cause = f"rank {self.rank} waited {waited:.0f} s in {what}"
                self.report(cause)
                raise FlambeauError(cause, "look at the other ranks, or raise the time limit (timeout)")
            time.sleep(min(1e-3, 2e-5 + waited / 100))

    def _finish(self, request: Any, what: str) -> None:
        self.started += 1
        self.wait(request.Test, f"{what} (number {self.started})")

    # -- sums ----------------------------------------------------------------------------------------------------
    def start_sum(self, flat: np.ndarray, wire: Any = None, lane: str = "main") -> Sum:
        """Begins to sum `flat` (one dimension, contiguous) over the ranks, in place and in the order of the ranks.

        It sends the bytes of a ring all-reduce, in an order of additions that no library or network can change. `wire`
        is the type that travels, e.g. bfloat16; sums of 16-bit numbers are taken in float32. Sums on two lanes
        ("main", "buckets") need not begin in the same order on all ranks.
        """
        return self._lanes[lane].start(flat, wire)

    def start_reduce(self, array: np.ndarray, op: str) -> Any:
        """Begins to reduce `array` (contiguous) over the ranks, in place."""
        if op in ("SUM", "AVG"):
            return self.start_sum(array.reshape(-1))
        converted = array.astype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind in "fV" else array
        operation = getattr(self.mpi, "PROD" if op == "PRODUCT" else op)

        def place() -> None:
            if converted is not array:
                array[...] = converted

        return Work(self, "all_reduce", self.comm.Iallreduce(self.mpi.IN_PLACE, converted, operation), place)

    # -- copies --------------------------------------------------------------------------------------------------
    def _bytes(self, array: np.ndarray) -> list[Any]:
        return [array.reshape(-1).view(np.uint8), self.mpi.BYTE]

    def broadcast(self, array: np.ndarray, src: int) -> None:
        """Copies `array` (contiguous) of rank `src` to all."""
        self._finish(self.comm.Ibcast(self._bytes(array), src), "broadcast")

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """The arrays of all ranks (contiguous, of one shape), stacked."""
        result = np.empty((self.size, *array.shape), array.dtype)
        self._finish(self.comm.Iallgather(self._bytes(array), self._bytes(result)), "all_gather")
        return result

    def send(self, array: np.ndarray, dst: int, tag: int) -> None:
        self.wait(self.comm.Isend(self._bytes(array), dst, tag).Test, f"send to rank {dst}")

    def receive(self, array: np.ndarray, src: int | None, tag: int) -> int:
        status = self.mpi.Status()
        source = self.mpi.ANY_SOURCE if src is None else src
        request = self.comm.Irecv(self._bytes(array), source, tag)
        self.wait(lambda: request.Test(status), f"recv from {'any rank' if src is None else f'rank {src}'}")
        return int(status.Get_source())

    def barrier(self) -> None:
        self._finish(self.comm.Ibarrier(), "barrier")

    # -- objects -------------------------------------------------------------------------------------------------
    def gather_objects(self, value: Any) -> list[Any]:
        """The picklable objects of all ranks."""
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = self.all_gather(np.array([data.size], np.int64))[:, 0]
        padded = np.zeros(int(sizes.max()), np.uint8)
        padded[: data.size] = data
        return [pickle.loads(row[:n].tobytes()) for row, n in zip(self.all_gather(padded), sizes, strict=True)]

    def broadcast_object(self, value: Any, src: int) -> Any:
        """The object of rank `src`."""
        data = np.frombuffer(pickle.dumps(value), np.uint8).copy() if self.rank == src else np.zeros(0, np.uint8)
        size = np.array([data.size], np.int64)
        self.broadcast(size, src)
        if self.rank != src:
            data = np.zeros(int(size[0]), np.uint8)
        self.broadcast(data, src)
        return pickle.loads(data.tobytes())

    # -- end -----------------------------------------------------------------------------------------------------
    def abort(self, code: int) -> None:
        """Ends all processes of the job."""
        self.mpi.COMM_WORLD.Abort(code)

    def close(self) -> None:
        self.comm.Free()
        for lane in self._lanes.values():
            lane.close()
