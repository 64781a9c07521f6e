"""Checks and layouts that the oneDNN kernels share: float32 arrays (N, C, *spatial), C-ordered or channels last."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _onednn

__all__ = ["accepts", "compiled", "dense", "empty", "layout"]

_FLOAT32 = np.dtype(np.float32)  # native byte order


def accepts(*arrays: np.ndarray) -> bool:
    """Whether the kernels can take these arrays: native float32, not empty, and not in a forked child."""
    if _onednn.disabled:
        return False
    return all(array.dtype == _FLOAT32 and array.size for array in arrays)


_modules: dict[str, Any] = {}


def compiled(name: str) -> Any:
    """A module of kernels that Numba compiles, loaded now; None where Numba is missing, or in a forked child."""
    module = _modules.get(name)
    if module is None:
        try:
            module = importlib.import_module(f".{name}", __package__)
        except ImportError:
            module = False
        _modules[name] = module
    return module if module and importlib.import_module(".numba_setup", __package__).ready() else None


def _last(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, *range(2, array.ndim), 1)


def dense(array: np.ndarray) -> tuple[np.ndarray, bool]:
    """The array if it is dense in one of the two layouts, else a C-ordered copy; and whether channels are last."""
    if array.flags.c_contiguous:
        return array, False
    if _last(array).flags.c_contiguous:
        return array, True
    return np.ascontiguousarray(array), False


def empty(shape: Sequence[int], channels_last: bool = False, dtype: type = np.float32) -> np.ndarray:
    """A new array of shape (N, C, *spatial) in the wanted layout."""
    if not channels_last:
        return np.empty(shape, dtype)
    array: np.ndarray = np.empty((shape[0], *shape[2:], shape[1]), dtype)
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def layout(shape: Sequence[int], channels_last: bool = False, dtype: int = _onednn.F32) -> Any:
    """Memory descriptor of a dense array (N, C, *spatial)."""
    return _onednn.descriptor(shape, _onednn.dense_strides(shape, channels_last), dtype)
