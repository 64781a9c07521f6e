"""Helpers on parameters: gradient clipping, flattening, fusing."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

from .. import backends, ops
from ..tensor import Tensor
from .conv import _Conv
from .norm import _BatchNorm
from .parameter import Parameter


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def get_total_norm(tensors: Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """The norm of all tensors as if they were one vector.

    Raises:
        RuntimeError: it is not finite and ``error_if_nonfinite``.
    """
    arrays = [tensor.array for tensor in tensors]
    if not arrays:
        return ops.tensor(0.0)
    xp = backends.of(arrays[0]).xp
    norms = xp.stack([xp.linalg.norm(array.reshape(-1), norm_type) for array in arrays])
    total = xp.asarray(xp.linalg.norm(norms, norm_type))
    if error_if_nonfinite and not math.isfinite(float(total)):
        raise RuntimeError(f"the total norm of order {norm_type} is {float(total)}: some gradient is not finite")
    return Tensor._wrap(total)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients so that their total norm is at most ``max_norm`` (Pascanu et al. 2013).

    Returns the norm before.

    >>> import flambeau
    >>> w = flambeau.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> clip_grad_norm_([w], 1.0).item()
    10.0
    """
    gradients = _gradients(parameters)
    total = get_total_norm(gradients, float(norm_type), error_if_nonfinite)
    scale = (max_norm / (total.array + 1e-6)).clip(max=1.0)
    for gradient in gradients:
        gradient.array *= scale.astype(gradient.array.dtype)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Clamp all gradients to [-clip_value, clip_value]."""
    for gradient in _gradients(parameters):
        array = gradient.array
        backends.of(array).xp.clip(array, -clip_value, clip_value, out=array)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters joined into one vector."""
    return ops.cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy pieces of a vector into the parameters, in place; the inverse of :func:`parameters_to_vector`."""
    parameters = list(parameters)
    needed = sum(parameter.numel() for parameter in parameters)
    if vec.numel() != needed:
        raise ValueError(f"the vector has {vec.numel()} elements, but the parameters need {needed}")
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.array[...] = vec.array[start:stop].reshape(parameter.array.shape)
        parameter._bump_version()
        start = stop


def fuse_conv_bn_eval(conv: _Conv, bn: _BatchNorm) -> _Conv:
    """A convolution that does what ``conv`` followed by ``bn`` does; both must be in evaluation mode."""
    if conv.training or bn.training:
        raise ValueError("fuse_conv_bn_eval: put both modules into evaluation mode with eval() first")
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("fuse_conv_bn_eval: the batch norm keeps no running statistics")
    fused = copy.deepcopy(conv)
    array = backends.of(conv.weight.array).xp
    scale = 1 / array.sqrt(bn.running_var.array + bn.eps)
    if bn.weight is not None:
        scale = scale * bn.weight.array
    bias = -bn.running_mean.array if conv.bias is None else conv.bias.array - bn.running_mean.array
    shift = bias * scale if bn.bias is None else bias * scale + bn.bias.array
    out_first = (-1,) + (1,) * (conv.weight.ndim - 1)
    weight = conv.weight.array * scale.reshape(out_first)
    dtype = conv.weight.array.dtype
    fused.weight = Parameter(Tensor._wrap(weight.astype(dtype)), conv.weight.requires_grad)
    fused.bias = Parameter(Tensor._wrap(shift.astype(dtype)), conv.weight.requires_grad)
    return fused
