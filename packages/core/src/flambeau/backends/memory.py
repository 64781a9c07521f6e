"""Freed array memory stays with the process: a training loop then takes no page faults.

The C library gives large blocks back to the system when they are freed, and the next array of the same size faults
every page in again, which costs as much as a pass over the array. Asking glibc to keep freed memory removes these
faults as completely as a pool of buffers would, for all of NumPy's arrays, without a rule about who holds a buffer
(docs/decisions/0012).
"""

import ctypes
import functools
import os
from typing import Any

__all__ = ["host_statistics", "keep_freed_memory", "release_free_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULT_LIMIT = 1 << 30
_INT_MAX = (1 << 31) - 1
_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def _c_function(name: str) -> Any:
    """A function of the C library, None where it has none of that name (only glibc has those used here)."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None


@functools.cache
def keep_freed_memory() -> int:
    """Tell the C library to keep freed blocks for reuse, once; the bytes that it may keep, 0 where it does not.

    Free memory at the end of the heap above ``FLAMBEAU_KEEP_BYTES`` (1 GiB unless set, 0 turns this off) goes back to
    the system. The user's own ``MALLOC_...`` and ``GLIBC_TUNABLES`` settings are left alone.
    """
    given = os.environ.get("FLAMBEAU_KEEP_BYTES", "")
    limit = min(int(given), _INT_MAX) if given.isdecimal() else _DEFAULT_LIMIT
    tuned = any(name.startswith("MALLOC_") for name in os.environ)
    if limit <= 0 or tuned or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return 0
    mallopt = _c_function("mallopt")
    return limit if mallopt and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, limit) else 0


def host_statistics() -> dict[str, int]:
    """Bytes of the process's heap (empty where the C library does not count them), see `flambeau.memory_stats`."""
    statistics: dict[str, int] = {}
    mallinfo = _c_function("mallinfo2")
    if mallinfo:
        mallinfo.restype = _Mallinfo2
        info = mallinfo()
        statistics = {
            "allocated_bytes": info.uordblks + info.hblkhd,
            "reserved_bytes": info.arena + info.hblkhd,
            "free_bytes": info.fordblks,
        }
    try:
        import resource
    except ImportError:  # Windows
        return statistics
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return {**statistics, "peak_resident_bytes": usage.ru_maxrss * unit, "page_faults": usage.ru_minflt}


def release_free_memory() -> bool:
    """Give all free memory back to the system; whether there was any."""
    trim = _c_function("malloc_trim")
    return bool(trim and trim(0))
