"""Pieces that the optimizers share: checks of settings, state tensors, and passes over memory in blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .. import backends, dtypes
from ..tensor import Tensor

_BLOCK = 1 << 15  # elements: the arrays of one block stay in the cache between the passes of an update


def new_step(value: float = 0) -> Tensor:
    """The step counter of a parameter, as PyTorch keeps it: in float32 unless the default dtype is float64."""
    wide = dtypes.get_default_dtype() is dtypes.float64
    return Tensor._wrap(np.full((), value, np.float64 if wide else np.float32))


def zeros_like(param: Any) -> Tensor:
    """A state tensor of zeros for a parameter's array."""
    return Tensor._wrap(namespace(param).zeros_like(param))


def advance(state: dict[str, Any]) -> int:
    """Count one step; returns the number of this step, from 1."""
    counter = state["step"].array
    counter += 1
    return int(counter)


def namespace(array: Any) -> Any:
    """NumPy or CuPy."""
    return np if type(array) is np.ndarray else backends.of(array).xp


def check_range(**values: Any) -> None:
    """ValueError for a negative setting, or a learning rate that is a tensor of several elements."""
    for name, value in values.items():
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"Tensor {name} must be 1-element, not of shape {tuple(value.shape)}")
        if value < 0.0:
            raise ValueError(f"invalid {name}: {float(value)}; it must not be negative")


def check_betas(betas: Iterable[Any]) -> None:
    """ValueError for decay rates outside of [0, 1)."""
    betas = tuple(betas)
    if len({isinstance(beta, Tensor) for beta in betas}) > 1:
        raise ValueError("betas must be either both floats or both Tensors")
    for i, beta in enumerate(betas):
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{i}] must be 1-element")
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"invalid beta parameter at index {i}: {float(beta)}; it must lie in [0, 1)")


def check_switches(settings: dict[str, Any]) -> None:
    """The switches that choose PyTorch's implementation: contradictions are errors as there, else no effect."""
    fused, foreach = settings.get("fused"), settings.get("foreach")
    if fused and settings.get("differentiable"):
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together")
    if settings.get("differentiable"):
        raise NotImplementedError("differentiable=True is not supported: steps change the parameters in place")
    if foreach and "capturable" in settings and not settings["capturable"]:
        values = {"lr": settings.get("lr")}
        values |= {f"betas[{i}]": beta for i, beta in enumerate(settings.get("betas", ()))}
        for name, value in values.items():
            if isinstance(value, Tensor):
                raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True")


def decayed(grad: Any, param: Any, weight_decay: float, work: Any) -> Any:
    """The gradient of the loss with the L2 penalty ``weight_decay / 2 * |param|^2``, in ``work`` if there is one."""
    if not weight_decay:
        return grad
    namespace(param).multiply(param, weight_decay, out=work)
    work += grad
    return work


def average(mean: Any, value: Any, beta: float, work: Any) -> None:
    """``mean = beta * mean + (1 - beta) * value``, in place."""
    namespace(mean).multiply(value, 1 - beta, out=work)
    mean *= beta
    mean += work


def average_square(mean: Any, value: Any, beta: float, work: Any) -> None:
    """``mean = beta * mean + (1 - beta) * value**2``, in place."""
    namespace(mean).multiply(value, value, out=work)
    work *= 1 - beta
    mean *= beta
    mean += work


def blocks(*arrays: Any, work: int = 1) -> Iterator[tuple[Any, ...]]:
    """The arrays in pieces that fit the cache, each with ``work`` scratch arrays of its shape after them.

    An update passes over its arrays several times: piece by piece that costs one trip to memory. Arrays that are
    small, not contiguous or on a GPU come whole. What is in the scratch arrays lasts until the next piece.
    """
    first = arrays[0]
    size = first.size
    if type(first) is not np.ndarray:
        yield (*arrays, *(backends.of(first).xp.empty_like(first) for _ in range(work)))
    elif size <= _BLOCK:
        shape, buffers = first.shape, _buffers(first.dtype, work)
        yield (*arrays, *[buffer[:size].reshape(shape) for buffer in buffers])
    elif all(a.flags.c_contiguous for a in arrays):
        flat = [a.reshape(-1) for a in arrays]
        buffers = _buffers(first.dtype, work)
        for start in range(0, size, _BLOCK):
            pieces = [a[start : start + _BLOCK] for a in flat]
            if size - start < _BLOCK:
                buffers = [buffer[: size - start] for buffer in buffers]
            yield (*pieces, *buffers)
    else:
        yield (*arrays, *(np.empty_like(first) for _ in range(work)))


class _Buffers(threading.local):
    """One thread's scratch memory by dtype; it is kept, so that steps allocate nothing."""

    def __init__(self) -> None:
        self.of: dict[str, list[np.ndarray]] = {}


_kept = _Buffers()


def _buffers(dtype: np.dtype, count: int) -> list[np.ndarray]:
    found = _kept.of.setdefault(dtype.char, [])
    while len(found) < count:
        found.append(np.empty(_BLOCK, dtype))
    return found[:count]


# -- parameters that are not plain float32 or float64 -----------------------------------------------------------------


def plain(array: Any) -> Any:
    """Complex numbers as pairs of real ones (sharing memory), 16-bit floats as float32 (a copy)."""
    if array.dtype.kind == "c":
        return as_real(array)
    if array.dtype.itemsize == 2 and array.dtype.kind in "fV":
        return array.astype(np.float32)
    return array


def unplain(array: Any, like: Any) -> Any:
    """A state array made for ``plain(like)``, as one for ``like``."""
    if array.shape == (*like.shape, 2) and like.dtype.kind == "c":
        return array.view(like.dtype)[..., 0]
    return array.astype(like.dtype) if array.shape == like.shape and like.dtype.itemsize == 2 else array


def as_real(array: Any) -> Any:
    """A complex array seen as real numbers, with a last dimension of size 2."""
    return array[..., None].view(array.real.dtype) if array.dtype.kind == "c" else array
