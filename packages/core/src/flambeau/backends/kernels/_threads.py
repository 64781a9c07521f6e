"""How many threads kernels use: one number for oneDNN, for Numba and for whatever shares OpenMP with them.

The number of threads decides in which order some kernels add, hence the last bits of results. It must not depend on
which library was loaded first: Numba, for one, sets OpenMP's number anew when it starts its pool.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

__all__ = ["default_threads", "kept"]


def default_threads() -> int:
    """FLAMBEAU_NUM_THREADS, else OMP_NUM_THREADS (its first number), else the number of usable cores."""
    for name in ("FLAMBEAU_NUM_THREADS", "OMP_NUM_THREADS"):
        given = os.environ.get(name, "").split(",")[0].strip()
        if given.isdecimal() and int(given) > 0:
            return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def openmp() -> Any:
    """GNU's OpenMP library, which oneDNN and Numba use.

    Raises:
        OSError: there is none.
    """
    return ctypes.CDLL("libgomp.so.1")


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """OpenMP's number of threads is afterwards what it was before."""
    try:
        library = openmp()
    except OSError:
        yield
        return
    before = library.omp_get_max_threads()
    try:
        yield
    finally:
        library.omp_set_num_threads(before)
