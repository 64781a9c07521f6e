"""Which samples are whose: every batch is divided among the ranks, in one order for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..data.sampler import BatchSampler

__all__ = ["ShardedBatches", "SharedSeeds", "none_if_empty"]


class ShardedBatches:
    """This rank's part of each batch of `batches`: every `size`-th index. A short batch may leave some ranks none."""

    def __init__(self, batches: BatchSampler, rank: int, size: int) -> None:
        self.batches, self.rank, self.size = batches, rank, size

    def __iter__(self) -> Iterator[list[Any]]:
        order = iter(self.batches)  # now, so that state_dict() is that of this iteration
        return (batch[self.rank :: self.size] for batch in order)

    def __len__(self) -> int:
        return len(self.batches)

    def state_dict(self) -> dict[str, Any] | None:
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        self.batches.load_state_dict(state)


class SharedSeeds:
    """Stands where a loader wants a generator: the seeds are those that rank 0 draws from its global generator."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Any:
        from ..random import default_generator

        own = int(default_generator().integers(low, high, shape)) if self._backend.rank == 0 else None
        return self._backend.broadcast_object(own, 0)

    def get_state(self) -> None:
        """None: a checkpoint saves the global generator itself."""

    def set_state(self, state: Any) -> None:
        """There is nothing to set."""


class _NoneIfEmpty:
    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Any:
        return self.collate(samples) if len(samples) else None


def none_if_empty(collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`collate`, but None for no samples."""
    return _NoneIfEmpty(collate)
