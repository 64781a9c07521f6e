"""Samplers: in which order the samples of a dataset are visited.

A sampler whose order is random draws one seed an epoch, when iteration begins; ``state_dict`` holds that seed and
``load_state_dict`` makes the next iteration repeat the same order.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .seeding import draw_seed

__all__ = [
    "BatchSampler",
    "DistributedSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
]


class Sampler:
    """Base class: ``__iter__`` yields indices, ``__len__`` says how many."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__(self)")


class SequentialSampler(Sampler):
    """0, 1, 2, … in order."""

    def __init__(self, data_source: Any) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class _SeededSampler(Sampler):
    """One seed an epoch, drawn from `generator` (or the global one), recorded and replayable."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self._seed: int | None = None
        self._replay: int | None = None

    def __iter__(self) -> Iterator[int]:
        # Not a generator function: the seed must be drawn now, so that state_dict() is right before the first index.
        self._seed = draw_seed(self.generator) if self._replay is None else self._replay
        self._replay = None
        return iter(self._order(np.random.default_rng(self._seed)))

    def _order(self, rng: np.random.Generator) -> Iterable[int]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The seed of the latest iteration."""
        return {"seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration repeats the order of the saved one."""
        self._replay = state["seed"]


class RandomSampler(_SeededSampler):
    """A random order: a permutation, or draws with replacement.

    >>> sorted(RandomSampler(range(5)))
    [0, 1, 2, 3, 4]
    """

    def __init__(
        self, data_source: Any, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ) -> None:
        super().__init__(generator)
        if num_samples is not None and (type(num_samples) is not int or num_samples <= 0):
            raise ValueError(f"RandomSampler: num_samples must be a positive integer, not {num_samples!r}")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def _order(self, rng: np.random.Generator) -> Iterable[int]:
        size = len(self.data_source)
        if self.replacement:
            return rng.integers(size, size=self.num_samples).tolist() if size else []
        rounds = math.ceil(self.num_samples / size) if size else 0
        order: list[int] = []
        for _ in range(rounds):
            order += rng.permutation(size).tolist()
        return order[: self.num_samples]

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(_SeededSampler):
    """The given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        super().__init__(generator)
        self.indices = indices

    def _order(self, rng: np.random.Generator) -> Iterable[int]:
        return [self.indices[i] for i in rng.permutation(len(self.indices))]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(_SeededSampler):
    """Indices drawn with probability in proportion to `weights`."""

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None
    ) -> None:
        super().__init__(generator)
        values = np.asarray(getattr(weights, "array", weights), np.float64)
        if type(num_samples) is not int or num_samples <= 0:
            raise ValueError(f"WeightedRandomSampler: num_samples must be a positive integer, not {num_samples!r}")
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
            raise ValueError("WeightedRandomSampler: weights must be one row of finite numbers >= 0, not all zero")
        if not replacement and num_samples > np.count_nonzero(values):
            raise ValueError(
                "WeightedRandomSampler: without replacement num_samples may not exceed the positive weights"
            )
        self.weights = values
        self.num_samples = num_samples
        self.replacement = replacement

    def _order(self, rng: np.random.Generator) -> Iterable[int]:
        p = self.weights / self.weights.sum()
        return rng.choice(len(p), self.num_samples, self.replacement, p).tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of `batch_size` indices from another sampler; the last one may be shorter unless `drop_last`.

    >>> list(BatchSampler(SequentialSampler(range(5)), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool) -> None:
        if type(batch_size) is not int or batch_size <= 0:
            raise ValueError(f"BatchSampler: batch_size must be a positive integer, not {batch_size!r}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"BatchSampler: drop_last must be True or False, not {drop_last!r}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[Any]]:
        return self._batches(iter(self.sampler))

    def _batches(self, indices: Iterator[Any]) -> Iterator[list[Any]]:
        batch = []
        for index in indices:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return full + (1 if rest and not self.drop_last else 0)

    def state_dict(self) -> dict[str, Any] | None:
        """The state of the inner sampler; None when it has none."""
        return self.sampler.state_dict() if hasattr(self.sampler, "state_dict") else None

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.sampler.load_state_dict(state)  # type: ignore[attr-defined]


class DistributedSampler(Sampler):
    """The share of one of several processes: every `num_replicas`-th index, from `rank` on.

    Every index is in exactly one share, so shares differ in length by at most one. (PyTorch repeats indices to make
    them equal, which counts those samples twice.) With `drop_last` the indices that are too many are left out. The
    order depends on `seed` and the epoch; call :meth:`set_epoch` before each epoch, or it is the same in all.

    >>> list(DistributedSampler(range(5), num_replicas=2, rank=1, shuffle=False))
    [1, 3]

    Args:
        num_replicas, rank: of ``flambeau.distributed``'s process group when left out.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            group = sys.modules.get("flambeau.distributed.group")  # without it there is no process group
            if group is None or not group.is_initialized():
                raise RuntimeError("DistributedSampler: pass num_replicas and rank; there is no process group to ask")
            num_replicas = group.get_world_size() if num_replicas is None else num_replicas
            rank = group.get_rank() if rank is None else rank
        if not 0 <= rank < num_replicas:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        self.shuffle = shuffle
        self.seed = seed
        size = len(dataset)
        self.total_size = size // num_replicas * num_replicas if drop_last else size
        self.num_samples = len(range(rank, self.total_size, num_replicas))

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(size).tolist() if self.shuffle else list(range(size))
        return iter(order[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Gives the next iteration the order of this epoch."""
        self.epoch = epoch
