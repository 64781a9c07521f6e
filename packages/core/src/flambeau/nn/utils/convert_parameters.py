"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from ... import ops
from ...tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters joined into one vector."""
    return ops.cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Cuts a vector into the parameters; the inverse of :func:`parameters_to_vector`.

    The parameters share memory with ``vec`` afterwards.

    Raises:
        TypeError: ``vec`` is not a tensor.
        ValueError: the numbers of elements differ.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected a Tensor, got {type(vec).__name__}")
    parameters = list(parameters)
    needed = sum(parameter.numel() for parameter in parameters)
    if vec.numel() != needed:
        raise ValueError(f"the vector has {vec.numel()} elements, but the parameters need {needed}")
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = vec[start:stop].reshape(parameter.shape).detach()
        start = stop
