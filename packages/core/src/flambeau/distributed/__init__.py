"""Data parallel training: MPI on CPUs, NCCL on GPUs, under the names of ``torch.distributed``.

Start a program N times with ``mpiexec -n N python program.py``; `init_process_group` joins the processes. Importing
this package imports no MPI.
"""

from ..launch import is_main_process, local_rank
from . import optim
from .group import (
    ReduceOp,
    all_gather,
    all_gather_into_tensor,
    all_gather_object,
    all_reduce,
    barrier,
    broadcast,
    broadcast_object_list,
    destroy_process_group,
    get_backend,
    get_rank,
    get_world_size,
    init_process_group,
    is_available,
    is_initialized,
    new_group,
    recv,
    reduce_scatter,
    reduce_scatter_tensor,
    send,
)
from .parallel import DataParallel

__all__ = [
    "DataParallel",
    "ReduceOp",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "destroy_process_group",
    "get_backend",
    "get_rank",
    "get_world_size",
    "init_process_group",
    "is_available",
    "is_initialized",
    "is_main_process",
    "local_rank",
    "new_group",
    "optim",
    "recv",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "send",
]
