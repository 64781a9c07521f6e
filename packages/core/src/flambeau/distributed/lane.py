"""Sums over MPI ranks in the order of the ranks, several of them in flight."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

__all__ = ["Lane", "Sum"]


class Lane:
    """A sequence of sums on communicators of its own.

    A sum has two parts, an exchange and a gathering. MPI wants all ranks to begin collectives of a communicator in one
    order, but exchanges end when they end: so the parts have a communicator each, and gatherings begin in the order of
    the sums.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.exchange = backend.mpi.COMM_WORLD.Dup()
        self.gather = backend.mpi.COMM_WORLD.Dup()
        self._waiting: deque[Sum] = deque()  # in exchange
        self._gathering: list[Sum] = []

    def start(self, flat: np.ndarray, wire: Any) -> Sum:
        work = Sum(self, flat, wire)
        self._waiting.append(work)
        return work

    def advance(self) -> None:
        """Does what can be done without waiting."""
        while self._waiting and self._waiting[0].exchanged():
            work = self._waiting.popleft()
            work.add()
            self._gathering.append(work)
        self._gathering = [work for work in self._gathering if not work.gathered()]

    def close(self) -> None:
        self.exchange.Free()
        self.gather.Free()


class Sum:
    """One sum: each rank gets its part from all others, adds the parts up, and gives the sum to all."""

    def __init__(self, lane: Lane, flat: np.ndarray, wire: Any) -> None:
        backend = lane.backend
        self._lane, self._flat = lane, flat
        size, self._byte = backend.size, backend.mpi.BYTE
        dtype = np.dtype(wire) if wire is not None else flat.dtype
        part = -(-flat.size // size)
        if flat.size == part * size and dtype == flat.dtype:
            given = flat
        else:
            given = np.zeros(part * size, dtype)
            given[: flat.size] = flat
        self._given = given
        self._got = np.empty((size, part), dtype)
        # Bytes are what every MPI understands, bfloat16 or not: nothing is computed on the way.
        self._width = part * dtype.itemsize
        self._done = False
        backend.started += 1
        self.number = backend.started
        self._request = lane.exchange.Ialltoall(self._bytes(given), self._bytes(self._got))

    def _bytes(self, array: np.ndarray) -> list[Any]:
        return [array.reshape(-1).view(np.uint8), self._width, self._byte]

    def exchanged(self) -> bool:
        return bool(self._request.Test())

    def add(self) -> None:
        """Adds the parts up and begins to give the sum to all."""
        got = self._got
        if got.dtype.itemsize == 2 and got.dtype.kind in "fV":
            total = got[0].astype(np.float32)
            for row in got[1:]:
                total += row.astype(np.float32)
            self._mine = total.astype(got.dtype)
        else:
            self._mine = got[0]
            for row in got[1:]:
                self._mine += row
        self._request = self._lane.gather.Iallgather(self._bytes(self._mine), self._bytes(self._given))

    def gathered(self) -> bool:
        if not self._done and self._request.Test():
            if self._given is not self._flat:
                self._flat[...] = self._given[: self._flat.size]
            self._done = True
        return self._done

    def advance(self) -> bool:
        """Does what can be done without waiting; whether the sum is complete."""
        if not self._done:
            self._lane.advance()
        return self._done

    is_completed = advance

    def wait(self, timeout: float | None = None) -> None:
        """Waits until the sum is complete; FlambeauError when that takes longer than the time limit."""
        if not self._done:
            self._lane.backend.wait(self.advance, f"a sum over the ranks (number {self.number})", timeout)
