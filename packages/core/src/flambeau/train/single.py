"""What the loop asks of the processes that train together, answered for one process alone.

``flambeau.distributed.DataParallel`` has the same methods and answers for several.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..data import DataLoader
from .checkpoint import CheckpointFolder

__all__ = ["OneProcess", "processes"]


class OneProcess:
    """One process: it has all samples, and writes and prints by itself."""

    main = True

    def loader(self, dataset: Any, batch_size: int, **settings: Any) -> DataLoader:
        """A loader of this process's share of each batch."""
        return DataLoader(dataset, batch_size, **settings)

    def start(self, run: Any, state: Any) -> None:
        """Makes the run ready, from a checkpoint's `state` if it is not None."""
        if state is not None:
            run.load_state_dict(state)

    def end(self) -> None:
        """The run is over, one way or the other."""

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        """The batches of an epoch; None where others still have one."""
        return loader

    def backward(self, run: Any, step: Any, batch: Any, accumulate: int, last: bool) -> tuple[float, float, int]:
        """One batch forward and backward; (loss, count, samples). `last`: the gradients are complete with it."""
        loss_sum, number, *samples = step(run.model, batch)
        value, number = float(loss_sum.item()), float(number)
        if number and math.isfinite(value):
            # Alone, a batch is divided before backward; in a group the summed gradient by the group's count.
            objective = loss_sum / number if accumulate == 1 else loss_sum
            (objective if run.scaler is None else run.scaler.scale(objective)).backward()
        return value, number, int(samples[0] if samples else number)

    def reduce(self, run: Any, loss: float, count: float, samples: int, accumulate: int) -> tuple[float, float, int]:
        """Makes the gradients those of the mean over all batches gathered; (loss, count, samples) of them all."""
        if accumulate > 1 and count:
            for group in run.optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        # Not in place: two gradients may share memory.
                        parameter.grad = parameter.grad * (1.0 / count)
        return loss, count, samples

    def merge(self, metrics: Mapping[str, Any]) -> None:
        """Makes the metrics those of the samples of all processes."""

    def agree(self, value: Any) -> Any:
        """The value that the main process has."""
        return value

    def barrier(self) -> None:
        """Waits for the others."""

    def save(self, checkpoints: CheckpointFolder, run: Any, extra: Mapping[str, Any], best: bool) -> None:
        """Writes a checkpoint of the run, with `extra` beside its state."""
        checkpoints.save({**run.state_dict(), **extra}, best)

    def load(self, checkpoints: CheckpointFolder) -> Any:
        """The newest whole checkpoint."""
        return checkpoints.load()


def processes() -> Any:
    """`OneProcess`, or `DataParallel` where a launcher (``mpiexec``, ``srun``) started several; joins them if needed.

    Raises:
        MissingExtraError: there are several, and mpi4py is not installed.
    """
    from .. import launch
    from ..distributed import group

    if not group.is_initialized():
        if launch.world_size() == 1:
            return OneProcess()
        group.init_process_group()
    if group.get_world_size() == 1:
        return OneProcess()
    from ..distributed.parallel import DataParallel

    return DataParallel()
