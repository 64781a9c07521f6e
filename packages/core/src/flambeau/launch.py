"""Who this process is, as the launcher says: torchrun's variables, or those of Open MPI, MPICH or SLURM."""

from __future__ import annotations

import os

from .errors import UsageError

__all__ = ["global_rank", "is_main_process", "local_rank", "world_size"]

_RANK = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")
_SIZE = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_LOCAL = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


def _number(names: tuple[str, ...], default: int) -> int:
    for name in names:
        text = os.environ.get(name, "")
        if text:
            if not text.isdigit():
                raise UsageError(f"the variable {name} is {text!r}", f"set {name} to a number, or unset it")
            return int(text)
    return default


def _by_srun() -> bool:
    """Whether srun started this process; in the batch script itself SLURM's variables count no processes."""
    return os.environ.get("SLURM_STEP_NUM_TASKS", "").isdigit() and "SLURM_PROCID" in os.environ


def world_size() -> int:
    """The number of processes that the launcher started; 1 without a launcher."""
    return _number((*_SIZE, "SLURM_STEP_NUM_TASKS") if _by_srun() else _SIZE, 1)


def global_rank() -> int:
    """The number of this process among all, from 0."""
    return _number((*_RANK, "SLURM_PROCID") if _by_srun() else _RANK, 0)


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return _number(_LOCAL, 0)


def is_main_process() -> bool:
    """Whether this is the process that prints and writes files: rank 0, or the only one."""
    return world_size() == 1 or global_rank() == 0
