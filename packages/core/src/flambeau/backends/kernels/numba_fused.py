"""Kernels from source text: what `flambeau.compile` writes for elementwise chains, compiled once for each text.

The text is a module of its own in the folder of compiled kernels, so Numba keeps its machine code there as it does for
the kernels of this package. Operations are rounded one by one, as NumPy does: no fused multiply-adds but those of the
activation functions, which are the same functions that the eager kernels are made of.
"""

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba.core.compiler import Compiler

from . import numba_setup
from .numba_setup import written, written_parallel

__all__ = ["driver", "kernels", "load", "row_body", "row_sum", "serial_driver"]

f = np.float32
kernels: dict[str, Callable] = {}
"""Compiled functions by their source text."""


class _NoAlias(Compiler):
    """Compiles for arguments whose memory does not overlap."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.state.flags.noalias = True


# Outputs never share memory with anything else that a kernel is given, so LLVM need not check for it.
row_body = numba.njit(
    error_model="numpy", nogil=True, boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True,
    pipeline_class=_NoAlias,
)  # fmt: skip
driver, serial_driver = written_parallel, written


@numba.njit(error_model="numpy", boundscheck=False)
def row_sum(x: Any) -> Any:
    """The sum of 8 to 128 numbers in the order in which NumPy adds a row: in eight lanes, then these by pairs."""
    n = x.size
    r0, r1, r2, r3, r4, r5, r6, r7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for i in range(1, n // 8):
        k = i * 8
        r0 += x[k]
        r1 += x[k + 1]
        r2 += x[k + 2]
        r3 += x[k + 3]
        r4 += x[k + 4]
        r5 += x[k + 5]
        r6 += x[k + 6]
        r7 += x[k + 7]
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(n // 8 * 8, n):
        total += x[i]
    return abs(total) if total == 0 else total  # NumPy starts with 0, so -0 is never the sum


def load(source: str) -> Callable:
    """The function `kernel` of a source text; OSError, RuntimeError or ImportError where it cannot be compiled."""
    found = kernels.get(source)
    if found is None:
        found = kernels[source] = _module(source).kernel
    return found


def _module(source: str) -> ModuleType:
    name = f"fused_{hashlib.sha256(source.encode()).hexdigest()[:24]}"
    path = _written(name, source)
    if path is None:  # nowhere to write: the text alone, compiled anew in each process
        module = ModuleType(name)
        exec(compile(source.replace("@driver", "@uncached"), f"<{name}>", "exec"), module.__dict__)
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Numba looks a function's module up
    spec.loader.exec_module(module)
    return module


def _written(name: str, source: str) -> Path | None:
    """The file with this text, written where there is none; it keeps its time, by which Numba knows its own files."""
    if not numba_setup._folder:
        return None
    path = Path(numba_setup._folder) / "fused" / f"{name}.py"
    try:
        if path.exists() and path.read_text(encoding="utf-8") == source:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        return None
    return path
