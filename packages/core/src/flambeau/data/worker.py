"""Worker processes of a `DataLoader`: they load batches; a dead one is an error, never a hang."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import FlambeauError
from . import transport
from .seeding import enter_batch, enter_sample, enter_worker, enter_worker_batch, limit_threads, sample_scope

__all__ = ["Fetcher", "WorkerError", "WorkerPool"]

END = "end"  # an iterable dataset has nothing more


class WorkerError(FlambeauError, RuntimeError):
    """A worker process died, timed out, or raised what cannot be passed on."""


class _WorkerTraceback(Exception):
    """Shown as the cause of an error that was raised in a worker."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@dataclass
class Fetcher:
    """Loads one batch after the other from a dataset; runs in the main process or in workers.

    Args:
        iterable: whether the dataset is read in order instead of by index.
        batch_size: samples a batch of an iterable dataset; None takes single samples, unbatched.
        batched: whether an index of a map-style dataset is a list of indices.
    """

    dataset: Any
    collate_fn: Callable[[Any], Any]
    iterable: bool
    batch_size: int | None
    drop_last: bool
    batched: bool

    def begin(self, seed: int, worker: int = 0) -> None:
        """Starts an epoch."""
        self._seed = seed
        self._stream: Iterator[Any] | None = None
        self._worker = worker
        self._taken = 0

    def fetch(self, number: int, index: Any) -> Any:
        """Batch `number`; the constant END when an iterable dataset has no more."""
        with sample_scope(self._seed) as scope:
            try:
                samples = self._read(scope) if self.iterable else self._gather(scope, index)
                if samples is END:
                    return END
                enter_batch(scope, number)
                return self.collate_fn(samples)
            except StopIteration as error:
                # It would end the caller's loop without a word.
                raise RuntimeError("the dataset or collate_fn raised StopIteration") from error

    def _gather(self, scope: Any, index: Any) -> Any:
        if not self.batched:
            enter_sample(scope, index)
            return self.dataset[index]
        several = getattr(self.dataset, "__getitems__", None)
        if several is not None:
            enter_batch(scope, index[0] if index else 0)
            return several(index)
        samples = []
        for i in index:
            enter_sample(scope, i)
            samples.append(self.dataset[i])
        return samples

    def _read(self, scope: Any) -> Any:
        samples: list[Any] = []
        while len(samples) < (self.batch_size or 1):
            enter_sample(scope, (self._worker, self._taken))
            if self._stream is None:
                self._stream = iter(self.dataset)
            try:
                samples.append(next(self._stream))
            except StopIteration:
                break
            self._taken += 1
        if not samples or (self.drop_last and self.batch_size and len(samples) < self.batch_size):
            return END
        return samples if self.batch_size else samples[0]


def _worker_main(
    connection: Connection,
    inherited: list[Connection],
    fetcher: Fetcher,
    worker: int,
    workers: int,
    init: Any,
    seed: int,
    folder: str | None,
) -> None:
    # With a copy of the main process's ends open here, its death would not close the pipes, and workers would live on.
    for other in inherited:
        other.close()
    # Ctrl-C, and a batch system's SIGTERM, go to all processes; the main one ends its step, then stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    number = -1
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            limit_threads()
            enter_worker(worker, workers, seed, fetcher.dataset)
            if init is not None:
                init(worker)
            epoch = -1
            while (task := connection.recv()) is not None:
                number = -1
                if task[0] != epoch:
                    epoch, seed = task[0], task[1]
                    enter_worker(worker, workers, seed, fetcher.dataset)
                    fetcher.begin(seed, worker)
                number = task[2]
                if not fetcher.iterable:
                    enter_worker_batch(seed, number)
                try:
                    batch = fetcher.fetch(number, task[3])
                except Exception as error:
                    _send_error(connection, epoch, number, error, folder)
                else:
                    kind = END if batch is END else "batch"
                    transport.send(connection, (epoch, number, kind), None if batch is END else batch, folder)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except BaseException as error:
            _send_error(connection, None, number, error, folder)
            if not isinstance(error, Exception):
                raise


def _send_error(
    connection: Connection, epoch: int | None, number: int, error: BaseException, folder: str | None
) -> None:
    text = "".join(traceback.format_exception(error))
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)
    except Exception:
        packed = pickle.dumps(None)
    transport.send(connection, (epoch, number, "error"), (packed, text, repr(error)), folder)


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _stop_all() -> None:
    for pool in list(_pools):
        pool.shutdown()


# Before multiprocessing's own end, which would wait for the workers after a SIGTERM that they ignore.
atexit.register(_stop_all)


class WorkerPool:
    """`num_workers` processes, each with a pipe of its own.

    Args:
        context: a multiprocessing context or its name; None chooses.
        timeout: seconds to wait for a batch; 0 waits for as long as the worker lives.
    """

    def __init__(
        self, fetcher: Fetcher, num_workers: int, init: Any, seed: int, context: Any = None, timeout: float = 0
    ) -> None:
        if context is None or isinstance(context, str):
            context = multiprocessing.get_context(context or _start_method())
        self.size = num_workers
        self.epoch = -1
        self._timeout = timeout
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        folder = None if transport.ANONYMOUS else tempfile.mkdtemp(prefix="flambeau-")
        self.shutdown = weakref.finalize(self, _stop, self._processes, self._connections, folder, os.getpid())
        _pools.add(self)
        for worker in range(num_workers):
            ours, theirs = context.Pipe()
            inherited = [*self._connections, ours] if context.get_start_method() == "fork" else []
            arguments = (theirs, inherited, fetcher, worker, num_workers, init, seed, folder)
            process = context.Process(
                target=_worker_main, args=arguments, daemon=True, name=f"DataLoader worker {worker}"
            )
            try:
                with warnings.catch_warnings():
                    # Python 3.12+ warns of any fork beside threads; the worker touches no lock of theirs.
                    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
                    process.start()
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                self.shutdown()
                mend = "define dataset, collate_fn and worker_init_fn at the top of a module, or use num_workers=0"
                raise WorkerError(f"cannot send the dataset to worker processes: {error}", mend) from error
            # With our copy closed, the worker's death closes the pipe, and reading it cannot hang.
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)

    def begin(self, seed: int) -> int:
        """Starts an epoch and gives its number; what workers still send of an earlier one is dropped."""
        self.epoch += 1
        self._seed = seed
        return self.epoch

    def submit(self, worker: int, number: int, index: Any) -> None:
        """Asks a worker for batch `number`."""
        with contextlib.suppress(OSError):  # a dead worker is noticed in order, when its batch is wanted
            self._connections[worker].send((self.epoch, self._seed, number, index))

    def receive(self, wanted: dict[int, int]) -> tuple[int, Any]:
        """The first batch to come from one of the workers asked; END in its place when the worker has no more.

        Args:
            wanted: worker -> the number of the batch that it sends next.

        Raises:
            WorkerError: a worker died or none answered in time.
            Exception: what the dataset raised, with the worker's traceback as its cause.
        """
        watched: dict[Any, int] = {self._connections[worker]: worker for worker in wanted}
        watched |= {self._processes[worker].sentinel: worker for worker in wanted}
        deadline = time.monotonic() + self._timeout if self._timeout else None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait(list(watched), left)
            if not ready:
                who = ", ".join(str(worker) for worker in wanted)
                cause = f"DataLoader worker {who} gave no batch within {self._timeout:g} seconds"
                raise WorkerError(cause, "raise timeout=, or look for what blocks in the dataset")
            worker = watched[ready[0]]
            connection = self._connections[worker]
            if connection not in ready and not connection.poll():
                raise self._death(worker)
            try:
                (epoch, sent, kind), load = transport.receive(connection)
            except (EOFError, OSError):
                raise self._death(worker) from None
            if kind == "error" and epoch in (None, self.epoch):
                _raise_remote(worker, sent, *load())
            if epoch == self.epoch:
                assert sent == wanted[worker], (sent, wanted)
                return worker, END if kind == END else load()

    def _death(self, worker: int) -> WorkerError:
        process = self._processes[worker]
        process.join(5)
        code = process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                reason = f"was killed by signal {-code} ({signal.Signals(-code).name})"
                mend = (
                    "if memory ran out, use fewer workers or smaller batches" if -code == 9 else "see its output above"
                )
                return WorkerError(f"DataLoader worker {worker} (pid {process.pid}) {reason}", mend)
        mend = "use num_workers=0 to see where it stops"
        return WorkerError(f"DataLoader worker {worker} (pid {process.pid}) exited unexpectedly (code {code})", mend)


def _raise_remote(worker: int, number: int, packed: bytes, text: str, shown: str) -> None:
    error = pickle.loads(packed)
    cause = _WorkerTraceback(text)
    where = f"batch {number}" if number >= 0 else "the start"
    if not isinstance(error, Exception):
        raise WorkerError(f"DataLoader worker {worker} failed at {where}: {shown}", "see its traceback") from cause
    error.add_note(f"raised in DataLoader worker {worker} at {where}")
    raise error from cause


def _start_method() -> str:
    """fork where it is safe: on Linux, unless a GPU context (which does not survive it) may exist."""
    return "fork" if sys.platform.startswith("linux") and "cupy" not in sys.modules else "spawn"


def _stop(processes: list[Any], connections: list[Connection], folder: str | None, owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child that drops its copy of the pool
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.send(None)
        connection.close()
    deadline = time.monotonic() + 0.5
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.kill()  # workers ignore SIGTERM
        process.join()
        process.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
