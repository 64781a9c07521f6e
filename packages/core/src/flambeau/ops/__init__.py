"""Every operation on tensors, by PyTorch's name. One file per family; importing this attaches the methods to Tensor."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ..backends import kernels as _kernels
from . import (  # families register their ops on import
    _op,
    activation,
    attention,
    conv,
    create,
    elementwise,
    fft,
    index,
    inplace,
    linalg,
    logic,
    loss,
    matmul,
    norm,
    pool,
    quantized,
    queries,
    random,
    recurrent,
    reduce,
    resample,
    shape,
    sort,
    special,
    windows,
)
from . import methods as _methods
from ._op import REGISTRY, composite, kernel, op

_FAMILIES = (
    elementwise, logic, shape, reduce, index, sort, matmul, conv, pool, norm, activation, loss, attention, resample,
    create, random, linalg, fft, special, windows, queries, recurrent, quantized,
)  # fmt: skip


def _declared_in(family: Any, value: Any) -> bool:
    """Whether the family, or a part of it (ops/linalg.py and ops/linalg_solve.py), declares the function."""
    module = getattr(value, "__module__", "")
    return module == family.__name__ or module.startswith(family.__name__ + "_")


def _collect() -> dict:
    """Public functions that a family defines itself, and the ops declared there."""
    found = {}
    for family in _FAMILIES:
        for name, value in vars(family).items():
            if not name.startswith("_") and callable(value) and _declared_in(family, value):
                found[name] = value
    return found | _op.ALIASES


if TYPE_CHECKING:  # the names below are collected, which a type checker cannot see

    def __getattr__(name: str) -> Any: ...


_public = _collect()
globals().update(_public)
__all__ = sorted([*_public, "REGISTRY", "composite", "kernel", "op"])

_kernels.register()

# log(0) is -inf and 0/0 is NaN without a word, as in PyTorch; NumPy's warnings elsewhere stay as they are.
warnings.filterwarnings(
    "ignore", r"(divide by zero|invalid value|overflow|underflow) encountered", RuntimeWarning, module=r"flambeau\b"
)
