"""Seeds of data loading: every sample has a random generator of its own, whichever process loads it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["WorkerInfo", "draw_seed", "get_worker_info", "sample_rng"]

_SAMPLE, _BATCH, _GLOBALS = 0, 1, 2


@dataclass(frozen=True)
class WorkerInfo:
    """What :func:`get_worker_info` tells: `id`, `num_workers`, `seed` (of this worker and epoch), `dataset`."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The worker that this code runs in; None in the main process."""
    return _worker_info


class _Scope:
    """The seed of the running epoch and the sample (or batch) in hand."""

    __slots__ = ("kind", "number", "rng", "seed")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.enter(_SAMPLE, 0)

    def enter(self, kind: int, number: Any) -> None:
        self.kind, self.number = kind, number
        self.rng: np.random.Generator | None = None

    def generator(self, kind: int, number: Any) -> np.random.Generator:
        key = [self.seed, kind, _as_entropy(number)]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


_scope: ContextVar[_Scope | None] = ContextVar("flambeau_sample", default=None)


def sample_rng(index: Any = None) -> np.random.Generator:
    """The NumPy generator of the sample that is being loaded: draw every augmentation from it.

    It depends on the loader's seed, the epoch and the sample's index alone, so a sample is augmented alike whatever the
    number of workers, and after a resume. In ``collate_fn`` it is the generator of the batch. Outside a `DataLoader` it
    follows Flambeau's global seed.

    Args:
        index: of the sample, where several are loaded at once (``__getitems__``).

    >>> import flambeau.data as data
    >>> class Noise(data.Dataset):
    ...     def __len__(self):
    ...         return 4
    ...
    ...     def __getitem__(self, index):
    ...         return data.sample_rng().normal()
    >>> len(list(data.DataLoader(Noise(), batch_size=2)))
    2
    """
    scope = _scope.get()
    if scope is None:
        return np.random.default_rng(draw_seed(None))
    if index is not None:
        return scope.generator(_SAMPLE, index)
    if scope.rng is None:
        scope.rng = scope.generator(scope.kind, scope.number)
    return scope.rng


@contextlib.contextmanager
def sample_scope(seed: int) -> Iterator[Any]:
    """Within it `sample_rng` follows `seed`; ``enter_sample``/``enter_batch`` of the scope set whose turn it is."""
    scope = _Scope(seed)
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def enter_sample(scope: Any, index: Any) -> None:
    scope.enter(_SAMPLE, index)


def enter_batch(scope: Any, number: int) -> None:
    scope.enter(_BATCH, number)


def _as_entropy(number: Any) -> int:
    if isinstance(number, (int, np.integer)):
        return int(number) & (2**64 - 1)
    return int.from_bytes(hashlib.sha256(repr(number).encode()).digest()[:8], "little")


def draw_seed(generator: Any) -> int:
    """A 62-bit seed from a ``flambeau.Generator``, a NumPy generator, or (None) Flambeau's global generator."""
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(2**62))
    from ..random import default_generator

    return int((generator or default_generator()).integers(0, 2**62, ()))


def generator_state(generator: Any) -> Any:
    """The state of a generator as plain data; None for the global one, which a checkpoint saves itself."""
    if generator is None:
        return None
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()


def set_generator_state(generator: Any, state: Any) -> None:
    if generator is None or state is None:
        return
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def enter_worker(worker_id: int, num_workers: int, base_seed: int, dataset: Any) -> None:
    """Sets up the seeds of a worker process for one epoch; the worker's seed is ``base_seed + worker_id``."""
    global _worker_info
    seed = base_seed + worker_id
    _worker_info = WorkerInfo(worker_id, num_workers, seed, dataset)
    _seed_globals(seed)


def enter_worker_batch(base_seed: int, number: int) -> None:
    """Seeds the global generators for one batch: what a dataset draws from them, instead of from `sample_rng`, then
    depends neither on which worker loads the batch nor on where a resumed epoch begins."""
    _seed_globals(int(np.random.SeedSequence([base_seed, _GLOBALS, number]).generate_state(1, np.uint64)[0]))


def _seed_globals(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    from ..random import manual_seed

    manual_seed(seed)


def limit_threads() -> None:
    """One computing thread in a worker: workers are the parallelism, and OpenMP's pool does not survive a fork."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if "omp" in line and ".so" in line}
        for path in paths:
            if any(name in os.path.basename(path) for name in ("libgomp", "libomp", "libiomp")):
                with contextlib.suppress(OSError, AttributeError):
                    ctypes.CDLL(path).omp_set_num_threads(1)
