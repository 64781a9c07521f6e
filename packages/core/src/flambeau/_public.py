"""Small public functions that are neither ops nor types."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

from . import backends
from .backends.kernels._threads import default_threads
from .device import device as _device
from .tensor import Tensor, _print_options


def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating-point one."""
    return input.is_floating_point()


def is_complex(input: Tensor) -> bool:
    """Whether the dtype is complex."""
    return input.is_complex()


def numel(input: Tensor) -> int:
    """Number of elements."""
    return input.numel()


def typename(obj: Any) -> str:
    """The full name of an object's type."""
    return f"{type(obj).__module__}.{type(obj).__qualname__}"


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
) -> None:
    """How tensors are printed."""
    given = dict(precision=precision, threshold=threshold, edgeitems=edgeitems, linewidth=linewidth)
    _print_options.update({k: v for k, v in given.items() if v is not None})


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted: same machine and seed give the same bits here in any case."""


def are_deterministic_algorithms_enabled() -> bool:
    """Always True."""
    return True


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted ("highest", "high", "medium"): products of float32 are made in float32."""
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"the precision must be 'highest', 'high' or 'medium', not {precision!r}")


def get_float32_matmul_precision() -> str:
    """Always "highest"."""
    return "highest"


def get_default_device() -> _device:
    """Where tensors are made when no device is named: the CPU."""
    return _device("cpu")


def get_num_threads() -> int:
    """Threads that CPU kernels use: FLAMBEAU_NUM_THREADS, else OMP_NUM_THREADS, else the number of usable cores."""
    return default_threads()


def set_num_threads(n: int) -> None:
    """Sets the number of threads of the fast kernels. NumPy's own products follow OPENBLAS_NUM_THREADS at the start."""
    if int(n) < 1:
        raise ValueError(f"the number of threads must be at least 1, not {n}")
    os.environ["FLAMBEAU_NUM_THREADS"] = str(int(n))  # for kernels that are loaded later, and for worker processes
    for name in ("_onednn", "numba_setup"):
        kernels = sys.modules.get(f"{__package__}.backends.kernels.{name}")
        if kernels is not None:
            kernels.set_num_threads(n)


def memory_stats(device: Any = None) -> dict[str, int]:
    """How much memory is in use and how much is kept for reuse, in bytes.

    Args:
        device: None or "cpu", or a CUDA device.

    Returns:
        ``allocated_bytes`` (in use), ``free_bytes`` (freed, kept for the next arrays), ``reserved_bytes`` (both
        together) and, on the CPU, where the numbers are the whole process's, ``keep_bytes`` (how much may be kept,
        0 where freed memory goes back to the system at once), ``peak_resident_bytes`` and ``page_faults`` (those of
        the process so far: a steady loop adds none). What the C library does not count is absent.

    >>> import flambeau
    >>> flambeau.memory_stats()["page_faults"] > 0
    True
    """
    where = _device("cpu" if device is None else device)
    return backends.get(where).statistics(where)


def empty_cache() -> None:
    """Gives memory that is kept for reuse back to the system (and to the CUDA driver, if CUDA is in use)."""
    backends.cpu.empty_cache()
    if backends._cuda is not None:
        backends._cuda.empty_cache()


def _cuda_count() -> int:
    try:
        return getattr(backends.get(_device("cuda")), "count", 0)
    except Exception:  # no CuPy, no driver, no device: all mean 0
        return 0


cuda = SimpleNamespace(
    is_available=lambda: _cuda_count() > 0,
    device_count=_cuda_count,
    synchronize=lambda device=None: backends.get(_device("cuda")).synchronize(),
    empty_cache=empty_cache,
    memory_stats=lambda device="cuda": memory_stats(device),
)
