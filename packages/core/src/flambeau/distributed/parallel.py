"""Data parallel training as a piece of the loop: ``fit(..., parallel=DataParallel())``."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import backends
from ..errors import FlambeauError
from ..nn.norm import SyncBatchNorm
from . import group
from .buckets import GradientBuckets
from .sharding import ShardedBatches, SharedSeeds, none_if_empty
from .sync_norm import weightless

__all__ = ["DataParallel", "broadcast_tensors"]


def broadcast_tensors(backend: Any, tensors: Iterable[Any], src: int = 0) -> None:
    """Copies the tensors of rank `src` to all, one message for each dtype."""
    by_dtype: dict[Any, list[Any]] = {}
    for tensor in tensors:
        if tensor.array.size:
            by_dtype.setdefault(tensor.array.dtype, []).append(tensor)
    for held in by_dtype.values():
        xp = backends.of(held[0].array).xp
        flat = xp.concatenate([t.array.reshape(-1) for t in held])
        backend.broadcast(flat, src)
        if backend.rank == src:
            continue
        at = 0
        for t in held:
            t.array[...] = flat[at : at + t.array.size].reshape(t.array.shape)
            t._bump_version()
            at += t.array.size


class DataParallel:
    """All processes of the group train one model on parts of every batch.

    Each sums the gradients of its samples; the sums are added over the ranks and divided by the count of all, so that
    the result is that of one process with the whole batch, however unevenly the batch is divided.

    Args:
        bucket_cap_mb: size in MiB of the buckets in which gradients travel.
        reduce_dtype: "bfloat16" halves what float32 gradients send; they are added in float32.

    Raises:
        FlambeauError: there is no process group.
    """

    def __init__(self, bucket_cap_mb: float = 25, reduce_dtype: str | None = None) -> None:
        self.backend = group._need()
        if reduce_dtype not in (None, "bfloat16"):
            raise ValueError(f"DataParallel: reduce_dtype must be None or 'bfloat16', not {reduce_dtype!r}")
        self._cap = bucket_cap_mb
        self._wire: Any = None
        if reduce_dtype:
            import ml_dtypes

            self._wire = np.dtype(ml_dtypes.bfloat16)
        self.main = self.backend.rank == 0
        self._buckets: GradientBuckets | None = None
        self._seen: Any = None
        self._run: Any = None

    # -- data ----------------------------------------------------------------------------------------------------
    def loader(
        self,
        dataset: Any,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        collate_fn: Any = None,
        **settings: Any,
    ) -> Any:
        """A loader of this rank's part of every batch. The order is that of one process; `batch_size` is of all.

        Its state is the same on all ranks and does not depend on their number.
        """
        from ..data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

        seeds = SharedSeeds(self.backend)
        order = RandomSampler(dataset, generator=seeds) if shuffle else SequentialSampler(dataset)
        batches = ShardedBatches(BatchSampler(order, batch_size, drop_last), self.backend.rank, self.backend.size)
        made = DataLoader(dataset, batch_sampler=batches, generator=seeds, collate_fn=collate_fn, **settings)
        made.collate_fn = none_if_empty(made.collate_fn)
        return made

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """This rank's batches; None when others still have one."""
        if isinstance(getattr(loader, "batch_sampler", None), ShardedBatches):
            yield from loader
            return
        end = object()
        source = iter(loader)
        while True:
            batch = next(source, end)
            more = self.backend.gather_objects(batch is not end)
            if not any(more):
                return
            yield None if batch is end else batch

    # -- training ------------------------------------------------------------------------------------------------
    def start(self, run: Any, state: Any) -> None:
        """Gives all ranks the weights of rank 0 (or of the checkpoint) and each random numbers of its own."""
        from ..random import initial_seed
        from ..train.checkpoint import seed_everything

        rank = self.backend.rank
        if rank:
            # Rank 0 keeps the numbers of a single process; dropout must not repeat itself on the others.
            turn = 0 if state is None else state["counters"]["step"]
            seed_everything((int(initial_seed()) + 1_000_003 * rank + 7_919 * turn) % 2**62)
        if state is not None:
            run.load_state_dict(state)
        self._run = run
        modules = [run.model, *([run.ema] if run.ema is not None else [])]
        broadcast_tensors(self.backend, [t for m in modules for t in (*m.parameters(), *m.buffers())])
        params = [p for p in run.model.parameters() if p.requires_grad]
        self._buckets = GradientBuckets(self.backend, params, self._cap, self._wire)
        self._synchronised = [m for m in run.model.modules() if isinstance(m, SyncBatchNorm)]
        own = {id(b) for m in self._synchronised for b in m.buffers()}
        self._buffers = [b for b in run.model.buffers() if id(b) not in own]

    def end(self) -> None:
        """Takes the hooks off the parameters."""
        if self._buckets is not None:
            self._buckets.close()
            self._buckets = None

    def backward(self, run: Any, step: Any, batch: Any, accumulate: int, last: bool) -> tuple[float, float, int]:
        """One batch forward and backward; with the `last` one the sums over the ranks begin during backward."""
        assert self._buckets is not None
        if batch is None:
            if self._synchronised:
                self._compute_along(run.model, step)
            return 0.0, 0.0, 0
        if self._synchronised:
            self._seen = batch
        loss_sum, number, *samples = step(run.model, batch)
        value, number = float(loss_sum.item()), float(number)
        if math.isfinite(value) and (number or self._synchronised):
            self._buckets.armed = last
            objective = loss_sum if number else loss_sum * 0.0
            (objective if run.scaler is None else run.scaler.scale(objective)).backward()
            self._buckets.armed = False
        return value, number, int(samples[0] if samples else number)

    def _compute_along(self, model: Any, step: Any) -> None:
        """Others normalise over all ranks and wait for this one, which has no samples: it gives theirs no weight."""
        batch = self._seen
        if batch is None:
            fetcher = self._run.loader._fetcher()
            fetcher.begin(0)
            batch = fetcher.fetch(0, [0])
        with weightless:
            loss_sum, *_ = step(model, batch)
            (loss_sum * 0.0).backward()

    def reduce(self, run: Any, loss: float, count: float, samples: int, accumulate: int) -> tuple[float, float, int]:
        """Divides the summed gradients of all ranks by the count of all; (loss, count, samples) of all."""
        assert self._buckets is not None
        sums = self._buckets.finish(np.array([loss, count, samples]), lambda s: 1 / s[1] if s[1] else 0.0)
        if self._buffers:
            broadcast_tensors(self.backend, self._buffers)
        return float(sums[0]), float(sums[1]), round(float(sums[2]))

    # -- results -------------------------------------------------------------------------------------------------
    def merge(self, metrics: Mapping[str, Any]) -> None:
        """Makes the metrics those of the samples of all ranks, merged in the order of the ranks."""
        states = self.backend.gather_objects({name: metric.state_dict() for name, metric in metrics.items()})
        for name, metric in metrics.items():
            other = copy.deepcopy(metric)
            metric.load_state_dict(states[0][name])
            for state in states[1:]:
                other.load_state_dict(state[name])
                metric.merge(other)

    def agree(self, value: Any) -> Any:
        """The value that rank 0 has: decisions must be the same everywhere."""
        return self.backend.broadcast_object(value, 0)

    def barrier(self) -> None:
        self.backend.barrier()

    # -- checkpoints ---------------------------------------------------------------------------------------------
    def save(self, checkpoints: Any, run: Any, extra: Mapping[str, Any], best: bool) -> None:
        """Rank 0 writes the checkpoint; the state of a `ZeroRedundancyOptimizer` each rank for itself."""
        from ..train import shards
        from ..train.checkpoint import capture_rng

        sharded = hasattr(run.optimizer, "shard_state")
        state = {**run.state_dict(skip=("optimizer",) if sharded else ()), **extra}
        if sharded:
            step, size = run.counters.step, self.backend.size
            own = shards.shard_name(step, self.backend.rank, size)
            shards.write(checkpoints.path, own, run.optimizer.shard_state())
            names = [shards.shard_name(step, rank, size) for rank in range(size)]
            state["optimizer"] = {"shards": names, "param_groups": run.optimizer.groups_state()}
        state["ranks"] = self.backend.gather_objects(capture_rng())  # and all shards are written
        if self.main:
            checkpoints.save(state, best)
            if sharded:
                shards.remove_unused(checkpoints.path, [*checkpoints.files(), checkpoints.best])
        self.backend.barrier()

    def load(self, checkpoints: Any) -> Any:
        """The newest checkpoint, with the random numbers of this rank if the saved run had it."""
        state = checkpoints.load()
        steps = self.backend.gather_objects(state["counters"])
        if any(other != steps[0] for other in steps):
            raise FlambeauError("the ranks see different checkpoints", "put the folder on a file system that all share")
        ranks = state.pop("ranks", [state["rng"]])
        if self.backend.rank < len(ranks):
            state["rng"] = ranks[self.backend.rank]
        else:
            state.pop("rng")  # a new rank: `start` gave it numbers of its own
        return state
