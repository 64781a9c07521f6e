"""Gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ... import backends, ops
from ...autograd.engine import mark_modified
from ...ops.linalg_norm import _root_of_squares
from ...tensor import Tensor, as_array

Tensors = Tensor | Iterable[Tensor]
_WORTH_KERNEL = 1 << 13  # elements of all arrays: fewer are done before Numba has been loaded
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _gradients(parameters: Tensors) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _kernel(arrays: list[Any]) -> tuple[Any, Any, Any] | None:
    """The compiled kernels with their table and tasks for these arrays; None where they do not apply."""
    try:
        from ...backends.kernels import numba_optim
    except ImportError:  # no Numba
        return None
    found = numba_optim.table(arrays)
    return None if found is None else (numba_optim, *found)


def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """The norm of all tensors as if they were one vector. ``foreach`` changes nothing here.

    Raises:
        RuntimeError: it is not finite and ``error_if_nonfinite``.
    """
    arrays = [tensor.array for tensor in ([tensors] if isinstance(tensors, Tensor) else tensors)]
    if not arrays:
        return ops.tensor(0.0)
    order = float(norm_type)
    dtype = arrays[0].dtype
    if order == 2 and dtype in _FLOATS and all([array.dtype == dtype for array in arrays]):
        total = as_array(_root_of_squares(arrays))
    else:
        xp = backends.of(arrays[0]).xp
        widened = [a.astype(xp.float32) if a.dtype.itemsize == 2 else a for a in arrays]
        norms = xp.stack([xp.linalg.norm(array.reshape(-1), order) for array in widened])
        total = as_array(xp.linalg.norm(norms, order))
        if arrays[0].dtype.itemsize == 2:
            total = total.astype(arrays[0].dtype)
    if error_if_nonfinite and not math.isfinite(float(total)):
        raise RuntimeError(
            f"the total norm of order {norm_type} is {float(total)}: some gradient is not finite, so it cannot be "
            "clipped; pass error_if_nonfinite=False to scale anyway"
        )
    return Tensor._wrap(total)


def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale all gradients by max_norm / total_norm where that is below 1, with a norm that is known already."""
    arrays = [gradient.array for gradient in _gradients(parameters)]
    if not arrays:
        return
    scale = (float(max_norm) / (total_norm.array + 1e-6)).clip(max=1.0)
    if isinstance(scale, np.generic | np.ndarray) and scale == 1:  # nothing to clip
        return
    apart = len({id(array) for array in arrays}) == len(arrays) and all([a.flags.writeable for a in arrays])
    worth = apart and sum([array.size for array in arrays]) >= _WORTH_KERNEL
    kernel = _kernel(arrays) if worth else None
    if kernel is not None:
        kernels, objects, tasks = kernel
        kernels.scale(objects, tasks, scale)
    else:
        for array in arrays:
            array *= scale.astype(array.dtype)
    for array in arrays:
        mark_modified(array)


def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients so that their total norm is at most ``max_norm`` (Pascanu et al. 2013).

    Returns the norm before. ``foreach`` changes nothing here.

    Raises:
        RuntimeError: the norm is not finite and ``error_if_nonfinite``.

    >>> import flambeau
    >>> w = flambeau.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> clip_grad_norm_([w], 1.0).item()
    10.0
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total = get_total_norm(_gradients(parameters), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(parameters, max_norm, total)
    return total


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clamp all gradients to [-clip_value, clip_value]."""
    bound = float(clip_value)
    for gradient in _gradients(parameters):
        array = gradient.array
        backends.of(array).xp.clip(array, -bound, bound, out=array)
