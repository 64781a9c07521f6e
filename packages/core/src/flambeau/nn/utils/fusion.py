"""Batch norm folded into the layer before it, for inference."""

from __future__ import annotations

import copy
from typing import Any

from ... import ops
from ...autograd.modes import no_grad
from ...tensor import Tensor
from ..module import Module
from ..parameter import Parameter


def _scale_and_shift(bn_rm, bn_rv, bn_eps, bn_w, bn_b) -> tuple[Tensor, Tensor]:
    scale = ops.rsqrt(bn_rv + bn_eps)
    scale = scale if bn_w is None else scale * bn_w
    return scale, -bn_rm * scale if bn_b is None else bn_b - bn_rm * scale


@no_grad()
def _fused(weight: Tensor, bias: Tensor | None, dim: int, statistics: Any) -> tuple[Parameter, Parameter]:
    """Weight and bias after scaling the weight along its output dimension."""
    scale, shift = _scale_and_shift(*statistics)
    shape = [1] * weight.ndim
    shape[dim] = -1
    fused = weight * scale.reshape(shape)
    offset = shift if bias is None else bias * scale + shift
    kind = weight.dtype
    trained = weight.requires_grad, weight.requires_grad if bias is None else bias.requires_grad
    return Parameter(fused.to(kind), trained[0]), Parameter(offset.to(kind if bias is None else bias.dtype), trained[1])


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution that includes the batch norm after it. ``transpose``: of a transposed one."""
    return _fused(conv_w, conv_b, 1 if transpose else 0, (bn_rm, bn_rv, bn_eps, bn_w, bn_b))


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a linear layer that includes the batch norm after it."""
    return _fused(linear_w, linear_b, 0, (bn_rm, bn_rv, bn_eps, bn_w, bn_b))


def _fuse(name: str, layer: Any, bn: Any, dim: int) -> Any:
    if layer.training or bn.training:
        raise ValueError(f"{name}: put both modules into evaluation mode with eval() first")
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError(f"{name}: the batch norm keeps no running statistics")
    fused = copy.deepcopy(layer)
    statistics = (bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    fused.weight, fused.bias = _fused(layer.weight, layer.bias, dim, statistics)
    return fused


def fuse_conv_bn_eval(conv: Module, bn: Module, transpose: bool = False) -> Module:
    """A convolution that does what ``conv`` followed by ``bn`` does; both must be in evaluation mode."""
    return _fuse("fuse_conv_bn_eval", conv, bn, 1 if transpose else 0)


def fuse_linear_bn_eval(linear: Module, bn: Module) -> Module:
    """A linear layer that does what ``linear`` followed by ``bn`` does; both must be in evaluation mode."""
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise ValueError(
            f"fuse_linear_bn_eval: the linear layer gives {linear.out_features} features, "
            f"the batch norm takes {bn.num_features}"
        )
    return _fuse("fuse_linear_bn_eval", linear, bn, 0)
