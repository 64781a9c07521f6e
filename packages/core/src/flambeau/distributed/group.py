"""The group of all processes and the collectives on Tensors, under PyTorch's names (``torch.distributed``)."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any

from .. import launch
from ..errors import FlambeauError, UsageError
from ..tensor import Tensor
from .watchdog import Watchdog, install_excepthook

__all__ = [
    "ReduceOp", "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "barrier", "broadcast",
    "broadcast_object_list", "destroy_process_group", "get_backend", "get_rank", "get_world_size",
    "init_process_group", "is_available", "is_initialized", "new_group", "recv", "reduce_scatter",
    "reduce_scatter_tensor", "send",
]  # fmt: skip

DEFAULT_TIMEOUT = 60.0


class ReduceOp(Enum):
    """How values of the ranks become one."""

    SUM = "SUM"
    AVG = "AVG"
    PRODUCT = "PRODUCT"
    MIN = "MIN"
    MAX = "MAX"
    BAND = "BAND"
    BOR = "BOR"
    BXOR = "BXOR"


class _Group:
    """The state of this process: its backend, its watchdog."""

    def __init__(self, backend: Any, heartbeat: float) -> None:
        self.backend = backend
        self.dog: Watchdog | None = Watchdog(backend, heartbeat) if backend.size > 1 else None
        self.undo: Callable[[], None] = lambda: None
        if self.dog is not None:
            backend.report = self.dog.report
            self.undo = install_excepthook(backend, lambda: self.dog)


_group: _Group | None = None


def current() -> Any:
    """The backend; None where there is no group."""
    return None if _group is None else _group.backend


def fail(reason: str, code: int = 1) -> None:
    """Ends the job on all ranks because this one cannot go on; without other ranks it does nothing."""
    if _group is not None and _group.dog is not None:
        _group.dog.report(f"rank {_group.backend.rank} failed: {reason}")


def _need(group: Any = None) -> Any:
    if group is not None:
        raise NotImplementedError("groups of some of the processes are not supported; leave group out")
    if _group is None:
        raise FlambeauError("there is no process group", "call flambeau.distributed.init_process_group() first")
    return _group.backend


def _seconds(timeout: Any) -> float:
    if timeout is None:
        text = os.environ.get("FLAMBEAU_DISTRIBUTED_TIMEOUT", "")
        try:
            value = float(text) if text else DEFAULT_TIMEOUT
        except ValueError:
            raise UsageError(f"FLAMBEAU_DISTRIBUTED_TIMEOUT is {text!r}", "set it to a number of seconds") from None
    else:
        value = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if not value > 0:
        raise ValueError(f"init_process_group: timeout must be positive, not {value}")
    return value


def is_available() -> bool:
    """Whether mpi4py is installed."""
    from importlib.util import find_spec

    return find_spec("mpi4py") is not None


def init_process_group(
    backend: str | None = None, init_method: str | None = None, timeout: timedelta | float | None = None
) -> None:
    """Joins the processes that the launcher (``mpiexec``, ``srun``) started into one group.

    Args:
        backend: "mpi" for CPUs (and for None), "nccl" for GPUs.
        init_method: None or "env://": who is who is always read from the environment.
        timeout: seconds (or a timedelta) after which a wait for other ranks, or the silence of one, ends the job
            on all of them; None reads FLAMBEAU_DISTRIBUTED_TIMEOUT, else 60.

    Raises:
        MissingExtraError: mpi4py (or CuPy) is not installed.
        RuntimeError: there is a group already.
    """
    global _group
    if _group is not None:
        raise RuntimeError("the process group is initialised already; call destroy_process_group() first")
    if init_method not in (None, "env://"):
        raise NotImplementedError(f"init_method {init_method!r}: only 'env://' is supported")
    if backend not in (None, "mpi", "nccl"):
        raise ValueError(f"backend {backend!r} is not known; the backends are 'mpi' and 'nccl'")
    seconds = _seconds(timeout)
    if backend == "nccl":
        from .nccl import NCCLBackend

        made: Any = NCCLBackend(seconds)
    else:
        from .mpi import MPIBackend

        made = MPIBackend(seconds)
        expected = launch.world_size()
        if expected != made.size:
            cause = f"the launcher speaks of {expected} processes, MPI of {made.size}"
            raise FlambeauError(cause, "use the mpiexec that belongs to the MPI library of mpi4py, or srun --mpi=pmix")
    made.barrier()  # all are here: what was checked before is checked everywhere
    _group = _Group(made, seconds)


def destroy_process_group(group: Any = None) -> None:
    """Leaves the group; all ranks must call it (the end of the process does)."""
    global _group
    _need(group)
    held, _group = _group, None
    assert held is not None
    held.undo()
    if held.dog is not None:
        held.dog.close()
    held.backend.close()


@atexit.register
def _leave() -> None:
    if _group is not None:
        destroy_process_group()


def is_initialized() -> bool:
    """Whether there is a group."""
    return _group is not None


def get_rank(group: Any = None) -> int:
    """The number of this process in the group."""
    return int(_need(group).rank)


def get_world_size(group: Any = None) -> int:
    """The number of processes in the group."""
    return int(_need(group).size)


def get_backend(group: Any = None) -> str:
    """ "mpi" or "nccl"."""
    return str(_need(group).name)


def new_group(ranks: Sequence[int] | None = None, **settings: Any) -> None:
    """Not supported, except for the group of all."""
    _need()
    if ranks is not None and sorted(ranks) != list(range(get_world_size())):
        raise NotImplementedError("groups of some of the processes are not supported")
    return None


def barrier(group: Any = None, async_op: bool = False) -> None:
    """Waits until all ranks are here."""
    if async_op:
        raise NotImplementedError("barrier: async_op is not supported")
    _need(group).barrier()


class _Result:
    """A running collective: ``wait()``, ``is_completed()``."""

    def __init__(self, work: Any, place: Callable[[], None]) -> None:
        self._work, self._place, self._placed = work, place, False

    def is_completed(self) -> bool:
        return bool(self._work.is_completed())

    def wait(self, timeout: Any = None) -> bool:
        self._work.wait(None if timeout is None else _seconds(timeout))
        if not self._placed:
            self._placed = True
            self._place()
        return True


def _contiguous(tensor: Tensor) -> Any:
    return tensor.array.copy(order="C")


def all_reduce(tensor: Tensor, op: ReduceOp = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Any:
    """Reduces `tensor` over all ranks, in place; sums are taken in the order of the ranks.

    With `async_op` the result has ``wait()``, after which `tensor` is the reduced one.
    """
    backend = _need(group)
    held = _contiguous(tensor)
    name = ReduceOp(op).value
    if name == "AVG" and held.dtype.kind in "biu":
        raise ValueError("all_reduce: AVG needs floating-point numbers")

    def place() -> None:
        value = held / held.dtype.type(backend.size) if name == "AVG" else held
        tensor.array[...] = value
        tensor._bump_version()

    result = _Result(backend.start_reduce(held, name), place)
    if async_op:
        return result
    result.wait()
    return None


def broadcast(tensor: Tensor, src: int = 0, group: Any = None, async_op: bool = False) -> None:
    """Copies `tensor` of rank `src` into that of all others."""
    if async_op:
        raise NotImplementedError("broadcast: async_op is not supported")
    backend = _need(group)
    held = _contiguous(tensor)
    backend.broadcast(held, src)
    if backend.rank != src:
        tensor.array[...] = held
        tensor._bump_version()


def all_gather(tensor_list: list[Tensor], tensor: Tensor, group: Any = None, async_op: bool = False) -> None:
    """Fills `tensor_list` (one tensor a rank) with the `tensor` of each rank."""
    if async_op:
        raise NotImplementedError("all_gather: async_op is not supported")
    backend = _need(group)
    if len(tensor_list) != backend.size:
        raise ValueError(f"all_gather: the list has {len(tensor_list)} tensors for {backend.size} ranks")
    for target, row in zip(tensor_list, backend.all_gather(_contiguous(tensor)), strict=True):
        target.array[...] = row
        target._bump_version()


def all_gather_into_tensor(output_tensor: Tensor, input_tensor: Tensor, group: Any = None) -> None:
    """As `all_gather`, into one tensor: concatenated along the first dimension, or stacked."""
    rows = _need(group).all_gather(_contiguous(input_tensor))
    output_tensor.array[...] = rows.reshape(output_tensor.array.shape)
    output_tensor._bump_version()


def reduce_scatter(
    output: Tensor, input_list: list[Tensor], op: ReduceOp = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> None:
    """Reduces the tensors of the list over all ranks; rank r gets number r."""
    if async_op:
        raise NotImplementedError("reduce_scatter: async_op is not supported")
    from .. import ops

    backend = _need(group)
    if len(input_list) != backend.size:
        raise ValueError(f"reduce_scatter: the list has {len(input_list)} tensors for {backend.size} ranks")
    stacked = ops.stack([t.detach() for t in input_list])
    all_reduce(stacked, op)
    output.array[...] = stacked.array[backend.rank]
    output._bump_version()


def reduce_scatter_tensor(output: Tensor, input: Tensor, op: ReduceOp = ReduceOp.SUM, group: Any = None) -> None:
    """As `reduce_scatter` with the list as one tensor, split along the first dimension."""
    size = _need(group).size
    reduce_scatter(output, [part.reshape(tuple(output.shape)) for part in input.detach().chunk(size)], op)


def send(tensor: Tensor, dst: int, group: Any = None, tag: int = 0) -> None:
    """Sends `tensor` to rank `dst`, which must call `recv`."""
    _need(group).send(_contiguous(tensor), dst, tag)


def recv(tensor: Tensor, src: int | None = None, group: Any = None, tag: int = 0) -> int:
    """Receives into `tensor` from rank `src` (None: any); returns the sender."""
    held = _contiguous(tensor)
    source = int(_need(group).receive(held, src, tag))
    tensor.array[...] = held
    tensor._bump_version()
    return source


def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    """Fills `object_list` (one entry a rank) with the picklable objects of the ranks."""
    object_list[:] = _need(group).gather_objects(obj)


def broadcast_object_list(object_list: list[Any], src: int = 0, group: Any = None) -> None:
    """Replaces the objects of the list by those of rank `src`."""
    object_list[:] = _need(group).broadcast_object(object_list, src)
