"""Numba for the kernels: decorators, the folder of compiled code, threads, and which arrays kernels take.

Kernels are compiled on their first call for a dtype and kept in the user's cache folder, apart for each version of
these sources (Numba itself only watches the file of a function, not those of the functions that it calls). They run on
OpenMP's threads, which oneDNN's kernels use as well: two pools would spin against each other. Work is divided by the
shapes alone, never by the number of threads, so that this number does not change results.
"""

import contextlib
import ctypes
import hashlib
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

try:  # first: OpenMP reads its settings when it is loaded
    from . import _onednn  # noqa: F401
except ImportError:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see _onednn._openmp_settings
    with contextlib.suppress(OSError):
        ctypes.CDLL("libgomp.so.1")

import numba

from . import _threads

__all__ = [
    "BLOCK", "accepts", "cache_folder", "elementwise", "flat", "helper", "inlined_sum", "ready", "reducing",
    "rows_of_task", "scalar", "serial", "threads", "written", "written_parallel",
]  # fmt: skip

BLOCK = 1 << 13  # elements that one task of an elementwise kernel works on

disabled = False
_LAYERS = ("omp", "tbb")  # "workqueue" ends the process when two Python threads call kernels at once


def cache_folder() -> Path:
    """Where compiled kernels are kept, for these very sources."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        base = Path(given)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("numba_*.py")):
        digest.update(source.read_bytes())
    return base / "flambeau" / "numba" / digest.hexdigest()[:16]


@contextlib.contextmanager
def _cache_in(folder: str) -> Iterator[None]:
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, folder
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


try:
    _folder = str(cache_folder())
except (OSError, RuntimeError):  # no home, or sources that cannot be read
    _folder = ""


def _compiler(**options: Any) -> Callable:
    def decorate(function: Callable) -> Any:
        if _folder:
            with contextlib.suppress(RuntimeError, OSError), _cache_in(_folder):
                return numba.njit(cache=True, **options)(function)
        return numba.njit(**options)(function)  # nowhere to write: compiled anew in each process

    return decorate


# No "nnan" and no "ninf": NaN and infinities go through kernels as through NumPy.
_EXACT = {"contract"}
_SUMS = _EXACT | {"reassoc"}
_COMMON: dict[str, Any] = dict(error_model="numpy", nogil=True, boundscheck=False)
scalar = numba.njit(error_model="numpy", fastmath=_EXACT, forceinline=True)
"""A function of numbers that kernels inline."""
helper = numba.njit(fastmath=_EXACT, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_COMMON)
"""A function of arrays that kernels call."""
serial = _compiler(fastmath=_EXACT, **_COMMON)
"""A kernel on the calling thread alone, for small work or as a part of a parallel one."""
elementwise = _compiler(parallel=True, fastmath=_EXACT, **_COMMON)
"""A parallel kernel whose arithmetic is done as written, but for fused multiply-adds."""
reducing = _compiler(parallel=True, fastmath=_SUMS, **_COMMON)
"""A parallel kernel that adds up in the lanes of vector registers; the order depends on the shapes alone."""
inlined_sum = numba.njit(error_model="numpy", fastmath=_SUMS, forceinline=True)
"""A function of vectors that such kernels inline."""
written = _compiler(**_COMMON)
"""A kernel on the calling thread that rounds after every operation, as NumPy does."""
written_parallel = _compiler(parallel=True, **_COMMON)
"""The same on all threads."""


# -- threads ----------------------------------------------------------------------------------------------------------
def _count(wanted: Any = None) -> int:
    return max(1, min(int(wanted or _threads.default_threads()), numba.config.NUMBA_NUM_THREADS))


class _Thread(threading.local):
    count = 0


_wanted, _this = _count(), _Thread()


def _launch() -> None:
    if numba.config.THREADING_LAYER == "default":
        importlib.import_module("numba.np.ufunc.omppool")  # ImportError where there is no OpenMP

        numba.config.THREADING_LAYER = "omp"
    with _threads.kept():  # the start of the pool would set OpenMP's number, and oneDNN's with it
        numba.set_num_threads(_wanted)
    layer = numba.threading_layer() if _running() else numba.config.THREADING_LAYER
    if layer not in _LAYERS:
        raise ImportError(f"the kernels need Numba's threading layer omp or tbb, but {layer} is in use")


def _running() -> bool:
    try:
        return bool(numba.threading_layer())
    except ValueError:
        return False


def set_num_threads(count: int) -> None:
    """Use `count` threads from now on, at most as many as Numba has started (NUMBA_NUM_THREADS, or the cores)."""
    global _wanted
    _wanted = _count(count)


def ready() -> bool:
    """Whether kernels may run here and now: not in a forked child, which has none of OpenMP's threads."""
    if disabled:
        return False
    if _this.count != _wanted:  # Numba counts for each Python thread
        with _threads.kept():
            numba.set_num_threads(_wanted)
        _this.count = _wanted
    return True


def rows_of_task(count: int) -> int:
    """Rows of a matrix for a task of a kernel in which each row is computed alone: the division cannot show then."""
    return max(16, -(-count // _wanted))


def threads() -> int:
    """How many threads kernels use; for divisions of work that cannot show in the results."""
    return _wanted


def _disable_in_child() -> None:
    global disabled
    disabled = True


_launch()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disable_in_child)


# -- arrays -----------------------------------------------------------------------------------------------------------
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def accepts(*arrays: Any, double: bool = False) -> bool:
    """Whether kernels take these: NumPy arrays of native float32 (or, with `double`, of float64), all the same."""
    dtype = arrays[0].dtype
    if dtype is not _FLOAT32 and dtype != _FLOAT32 and not (double and dtype == _FLOAT64):
        return False
    for array in arrays:
        if type(array) is not np.ndarray or (array.dtype is not dtype and array.dtype != dtype):
            return False
    return ready()


def flat(*arrays: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """The arrays as vectors that share their memory, in one order of elements; None if there is no such order.

    Dense arrays in another order than C's (transposed, channels last) are fine as long as they agree.
    """
    if all([array.flags.c_contiguous for array in arrays]):
        return tuple([array.reshape(-1) for array in arrays])
    first = arrays[0]
    if any(array.strides != first.strides for array in arrays):
        return None
    order = sorted(range(first.ndim), key=first.strides.__getitem__, reverse=True)
    moved = [array.transpose(order) for array in arrays]
    return tuple([array.reshape(-1) for array in moved]) if moved[0].flags.c_contiguous else None
