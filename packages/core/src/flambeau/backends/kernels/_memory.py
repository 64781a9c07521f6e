"""Freed array memory stays with the process: a training loop then takes no page faults.

The C library gives large blocks back to the system when they are freed, and the next array of the same size faults
every page in again, which costs as much as a pass over the array. Asking glibc to keep freed memory removes these
faults as completely as a pool of buffers would, for all of NumPy's arrays, without a rule about who holds a buffer.
"""

import ctypes
import os

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULT_LIMIT = 1 << 30
_INT_MAX = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed blocks for reuse; whether it does.

    Free memory at the end of the heap above ``FLAMBEAU_KEEP_BYTES`` (1 GiB unless set, 0 turns this off) goes back to
    the system. The user's own ``MALLOC_...`` and ``GLIBC_TUNABLES`` settings are left alone.
    """
    limit = min(int(os.environ.get("FLAMBEAU_KEEP_BYTES", _DEFAULT_LIMIT)), _INT_MAX)
    tuned = any(name.startswith("MALLOC_") for name in os.environ)
    if limit <= 0 or tuned or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, limit))
