"""DataLoader: batches in a fixed order, loaded ahead by worker processes, resumable in the middle of an epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .collate import default_collate, default_convert
from .dataset import IterableDataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler
from .seeding import draw_seed, generator_state, set_generator_state
from .worker import END, Fetcher, WorkerPool

__all__ = ["DataLoader"]

_Numbered = Iterator[tuple[int, Any]]  # a batch's number and its index, or indices


@dataclass
class _Progress:
    """How far an epoch has come: enough to repeat the rest of it."""

    seed: int
    sampler: Any
    batches: int = 0
    finished: bool = False
    ahead: set[int] = field(default_factory=set)  # numbers given out before their turn (in_order=False)

    def note(self, number: int) -> None:
        """Batch `number` has been given out."""
        self.ahead.add(number)
        while self.batches in self.ahead:
            self.ahead.remove(self.batches)
            self.batches += 1


class DataLoader:
    """Iterates a dataset in batches, with PyTorch's arguments.

    Batches come in the sampler's order whatever `num_workers` is, and the augmentation of a sample (drawn from
    :func:`sample_rng`) depends on the seed, the epoch and the sample alone. ``state_dict()`` may be taken between any
    two batches; after ``load_state_dict()`` the next iteration gives the remaining batches of that epoch, without
    loading the earlier ones of a map-style dataset.

    Args:
        dataset: a `Dataset` (indexed) or an `IterableDataset`.
        batch_size: samples a batch; None gives single samples.
        shuffle: a new random order every epoch.
        sampler: order of the indices, instead of `shuffle`.
        batch_sampler: lists of indices, instead of `batch_size`, `shuffle`, `sampler` and `drop_last`.
        num_workers: processes that load ahead; 0 loads in this one.
        collate_fn: turns a list of samples into a batch.
        pin_memory, pin_memory_device: have no effect: batches stay in ordinary memory.
        drop_last: leave out the last batch when it is short.
        timeout: seconds to wait for a batch of a worker; 0 has no limit.
        worker_init_fn: called with the worker's id when it starts.
        multiprocessing_context: "fork", "spawn", "forkserver" or a context; None chooses what is safe.
        generator: where the seeds come from: ``flambeau.Generator`` or a NumPy generator; None is the global one.
        prefetch_factor: batches that each worker loads ahead (2).
        persistent_workers: keep the workers from epoch to epoch.
        in_order: False gives each batch as soon as a worker has it, so that a slow one holds up no other; which comes
            first is then a matter of timing.

    Raises:
        ValueError: arguments that contradict each other.
        WorkerError: (while iterating) a worker died or timed out; what a dataset raises passes through.

    >>> import numpy as np, flambeau.data as data
    >>> loader = data.DataLoader(data.TensorDataset(np.arange(5)), batch_size=2)
    >>> [batch[0].tolist() for batch in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check(num_workers, timeout, prefetch_factor, persistent_workers)
        iterable = isinstance(dataset, IterableDataset)
        if iterable and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError("DataLoader: an IterableDataset sets its own order: no shuffle, sampler or batch_sampler")
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: sampler and shuffle exclude each other")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ValueError("DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last")
        if batch_sampler is None and batch_size is None and drop_last:
            raise ValueError("DataLoader: batch_size=None excludes drop_last")
        if batch_size is not None and (type(batch_size) is not int or batch_size <= 0):
            raise ValueError(f"DataLoader: batch_size must be a positive integer or None, not {batch_size!r}")

        if sampler is None and not iterable and batch_sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_sampler is not None:
            batch_size = None
        elif batch_size is not None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        batched = batch_sampler is not None or (iterable and batch_size is not None)

        self.dataset = dataset
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.in_order = in_order
        self.drop_last = drop_last
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.generator = generator
        self.prefetch_factor = (prefetch_factor or 2) if num_workers else None
        self.persistent_workers = persistent_workers
        self._iterable = iterable
        self._batched = batched
        self._pool: WorkerPool | None = None
        self._progress: _Progress | None = None
        self._resume: dict[str, Any] | None = None

    def __len__(self) -> int:
        if not self._iterable:
            return len(self._indices)  # type: ignore[arg-type]
        samples = len(self.dataset)
        if self.batch_size is None:
            return samples
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        resume, self._resume = self._resume, None
        sampler = self._indices
        if resume is not None and not resume["finished"]:
            seed, skip = resume["seed"], resume["batches"]
            if resume["sampler"] is not None:
                sampler.load_state_dict(resume["sampler"])  # type: ignore[union-attr]
        else:
            seed, skip = draw_seed(self.generator), 0
        indices = iter(sampler) if sampler is not None else _forever()
        state = sampler.state_dict() if sampler is not None and hasattr(sampler, "state_dict") else None
        self._progress = progress = _Progress(seed, state)
        if not self._iterable:
            for _ in range(skip):
                next(indices, None)
            progress.batches = skip
            progress.ahead = set(resume.get("ahead", ())) if resume and not resume["finished"] else set()
        given = frozenset(progress.ahead)
        numbered = (pair for pair in enumerate(indices, progress.batches) if pair[0] not in given)
        loaded = self._load_here(progress, numbered) if not self.num_workers else self._load_ahead(progress, numbered)
        return _Batches(loaded, progress, self._iterable, skip if self._iterable else 0)

    @property
    def _indices(self) -> Iterable[Any] | None:
        return self.batch_sampler if self.batch_sampler is not None else self.sampler

    def _fetcher(self) -> Fetcher:
        size = self.batch_size if self._iterable else None
        return Fetcher(self.dataset, self.collate_fn, self._iterable, size, self.drop_last, self._batched)

    def _load_here(self, progress: _Progress, indices: _Numbered) -> Iterator[tuple[int, Any]]:
        fetcher = self._fetcher()
        fetcher.begin(progress.seed)
        for number, index in indices:
            batch = fetcher.fetch(number, index)
            if batch is END:
                return
            yield number, batch

    def _load_ahead(self, progress: _Progress, indices: _Numbered) -> Iterator[tuple[int, Any]]:
        pool = self._pool
        if pool is None or not pool.shutdown.alive:
            pool = WorkerPool(
                self._fetcher(),
                self.num_workers,
                self.worker_init_fn,
                progress.seed,
                self.multiprocessing_context,
                self.timeout,
            )
        self._pool = pool if self.persistent_workers else None
        epoch = pool.begin(progress.seed)
        # The workers start now, not at the first next(): the caller may have other things to do.
        queue = _Queue(pool, indices, self.in_order)
        queue.fill(self.num_workers * (self.prefetch_factor or 2))
        return _drain(queue, epoch=epoch, keep=self.persistent_workers)

    def state_dict(self) -> dict[str, Any]:
        """The position of the newest iteration: plain data, to be saved with a checkpoint.

        Errors: NotImplementedError for an iterable dataset with workers and ``in_order=False``, whose order no seed
        can repeat.
        """
        if self._iterable and self.num_workers and not self.in_order:
            raise NotImplementedError("DataLoader.state_dict: iterable dataset with in_order=False; use in_order=True")
        if self._resume is not None:
            return dict(self._resume)
        p = self._progress or _Progress(0, None, finished=True)
        generators = [generator_state(generator) for generator in self._generators()]
        return {
            "seed": p.seed,
            "sampler": p.sampler,
            "batches": p.batches,
            "finished": p.finished,
            "generators": generators,
            **({"ahead": sorted(p.ahead)} if p.ahead else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on where the saved one stood. The dataset and batch size must be the same."""
        missing = {"seed", "sampler", "batches", "finished", "generators"} - state.keys()
        if missing:
            raise ValueError(f"DataLoader.load_state_dict: {', '.join(sorted(missing))} missing from the state")
        for generator, saved in zip(self._generators(), state["generators"], strict=True):
            set_generator_state(generator, saved)
        self._resume = dict(state)

    def _generators(self) -> list[Any]:
        """Where the seeds of this loader and its samplers come from."""
        inner = getattr(self.batch_sampler, "sampler", None)
        return [getattr(owner, "generator", None) for owner in (self, self.sampler, self.batch_sampler, inner)]


class _Batches:
    """Notes the batches given out; a loader's state is what the caller has seen, not what was loaded ahead."""

    def __init__(self, batches: Iterator[tuple[int, Any]], progress: _Progress, counted: bool, skip: int) -> None:
        self._batches = batches
        self._progress = progress
        self._counted = counted  # an iterable dataset's numbers have gaps, where a worker had no more
        for _ in range(skip):
            next(self, None)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            number, batch = next(self._batches)
        except StopIteration:
            self._progress.finished = True
            raise
        self._progress.note(self._progress.batches if self._counted else number)
        return batch


class _Queue:
    """What the workers of a pool have been asked for. They take turns, or (not `in_order`) whoever is done goes on."""

    def __init__(self, pool: WorkerPool, indices: _Numbered, in_order: bool) -> None:
        self.pool = pool
        self._indices = indices
        self._in_order = in_order
        self._asked: deque[tuple[int, int]] = deque()  # (worker, number)
        self._turn = deque(range(pool.size))

    def fill(self, depth: int) -> None:
        """Asks for the first `depth` batches."""
        try:
            for _ in range(depth):
                self._ask()
        except BaseException:
            self.pool.shutdown()
            raise

    def _ask(self, worker: int | None = None) -> None:
        if not self._turn:
            return
        try:
            number, index = next(self._indices)
        except StopIteration:
            return
        if worker is None:
            worker = self._turn[0]
            self._turn.rotate(-1)
        self.pool.submit(worker, number, index)
        self._asked.append((worker, number))

    def __bool__(self) -> bool:
        return bool(self._asked)

    def take(self) -> tuple[int, Any]:
        """The next batch and its number; the batch is END when the worker has no more."""
        if self._in_order:
            wanted = dict([self._asked[0]])
        else:
            wanted = dict(reversed(self._asked))  # the oldest of each worker
        worker, batch = self.pool.receive(wanted)
        self._asked.remove((worker, wanted[worker]))
        if batch is END:
            if worker in self._turn:
                self._turn.remove(worker)
        else:
            self._ask(None if self._in_order else worker)
        return wanted[worker], batch


def _drain(queue: _Queue, *, epoch: int, keep: bool) -> Iterator[tuple[int, Any]]:
    healthy = False
    try:
        while queue:
            if queue.pool.epoch != epoch:
                healthy = True
                raise RuntimeError("DataLoader: with persistent_workers a newer iteration ended this one")
            number, batch = queue.take()
            if batch is not END:
                yield number, batch
        healthy = True
    except GeneratorExit:
        healthy = True
        raise
    finally:
        if not (keep and healthy):
            queue.pool.shutdown()


def _forever() -> Iterator[None]:
    while True:
        yield None


def _check(workers: Any, timeout: float, prefetch: int | None, persistent: bool) -> None:
    if type(workers) is not int or workers < 0:
        raise ValueError(f"DataLoader: num_workers must be an integer >= 0, not {workers!r}")
    if timeout < 0:
        raise ValueError(f"DataLoader: timeout must be >= 0, not {timeout!r}")
    if not workers and (prefetch is not None or persistent):
        raise ValueError("DataLoader: prefetch_factor and persistent_workers need num_workers > 0")
    if prefetch is not None and prefetch < 1:
        raise ValueError(f"DataLoader: prefetch_factor must be >= 1, not {prefetch!r}")
