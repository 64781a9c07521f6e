"""Backends: NumPy always, CuPy from the first use of a CUDA device on."""

from __future__ import annotations

from typing import Any

import numpy as _numpy

from ..device import device
from .base import Backend
from .memory import keep_freed_memory
from .numpy import NumpyBackend

keep_freed_memory()
cpu = NumpyBackend()
_cuda: Backend | None = None


def get(where: device) -> Backend:
    """The backend that serves a device; importing CuPy happens here and nowhere else."""
    global _cuda
    if where.type == "cpu":
        return cpu
    if _cuda is None:
        from .cupy import CupyBackend

        _cuda = CupyBackend()
    return _cuda


def of(array: Any) -> Backend:
    """The backend an array belongs to."""
    if _cuda is None or isinstance(array, _numpy.ndarray | _numpy.generic):
        return cpu
    return _cuda


def namespace(values: Any) -> Any:
    """The array namespace shared by the arrays among `values`; RuntimeError when they are on two devices."""
    if _cuda is None:
        return _numpy
    found: Any = None
    for v in values:
        if not hasattr(v, "dtype"):
            continue
        backend = of(v)
        if found is None or (v.ndim and backend is not found):
            if found is not None and found is not backend:
                raise RuntimeError(
                    "expected all tensors on one device, but found at least two, cpu and cuda; "
                    "move them together with .to(device)"
                )
            found = backend
    return _numpy if found is None else found.xp
