"""16-bit floats: computed in float32 and rounded once, as PyTorch does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


def widened(array: Any) -> Any:
    """Float16 and bfloat16 as float32; any other array as it is."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind in "fV" else array


def in_float32(forward: F) -> F:
    """Declares that an op's function of one array (and plain settings) takes 16-bit floats through float32."""

    @functools.wraps(forward)
    def run(xp: Any, input: Any, *settings: Any) -> Any:
        wide = widened(input)
        out = forward(xp, wide, *settings)
        return out if wide is input else out.astype(input.dtype)

    return run  # type: ignore[return-value]
