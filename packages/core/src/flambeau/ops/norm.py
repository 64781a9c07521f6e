"""Normalisation: batch, layer, group, instance, RMS."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import composite, op
from .elementwise import rsqrt
from .norm_layer import (  # noqa: F401 - a part of this family
    _channel,
    _plus,
    _scaled,
    fused_rms_norm,
    group_norm,
    group_norm_grad,
    layer_norm,
    layer_norm_grad,
    native_group_norm,
    native_layer_norm,
    rms_norm,
    rms_norm_grad,
)
from .pool import avg_pool2d
from .reduce import sum
from .shape import pad, reshape


def _bn_ref(x, w, b, eps):
    axes = (0, *range(2, x.ndim))
    m, v = x.mean(axes), x.var(axes)
    s = (1, -1) + (1,) * (x.ndim - 2)
    out = (x - m.reshape(s)) / np.sqrt(v.reshape(s) + eps)
    return out * (1 if w is None else w.reshape(s)) + (0 if b is None else b.reshape(s)), m, v


@op(
    vjp={
        ("input", "weight", "bias"): lambda g, out1, out2, input, weight, eps, need: _batch_norm_vjp(
            g, out1, out2, input, weight, eps, need
        )
    },
    samples=lambda t: [(t(3, 2, 4), t(2), t(2), 1e-5), (t(4, 3, 2, 2), None, None, 1e-3), (t(5, 3), t(3), t(3), 1e-5)],
    ref=_bn_ref,
    method=False,
)
def batch_norm_train(xp, input, weight, bias, eps):
    """(normalised by the batch's statistics, mean (C,), biased variance (C,)); Ioffe and Szegedy 2015.

    Gradients flow through the first output only, as in PyTorch.
    """
    axes = (0, *range(2, input.ndim))
    shape = (1, -1) + (1,) * (input.ndim - 2)
    m = xp.mean(input, axes, dtype=np.float32 if input.dtype.itemsize == 2 else None)
    centred = input - m.reshape(shape).astype(input.dtype)
    v = xp.mean(xp.square(centred), axes, dtype=np.float32 if input.dtype.itemsize == 2 else None)
    scale = 1 / xp.sqrt(v + v.dtype.type(eps))
    if weight is not None:
        scale = scale * weight
    centred *= scale.reshape(shape).astype(input.dtype)
    if bias is not None:
        centred += bias.reshape(shape).astype(input.dtype)
    return centred, m, v


def _batch_norm_vjp(g, mean, var, input, weight, eps, need):
    """The statistics have cotangents only in second order, where the first-order formula used them."""
    dx = dweight = dbias = None
    if g[0] is not None:
        dx, dweight, dbias = batch_norm_grad(g[0], input, mean, var, weight, eps, need)
    if need[0]:
        n = math.prod(input.shape) // input.shape[1]
        if g[1] is not None:
            dx = _plus(dx, _channel(g[1] * (1 / n), input.ndim), input)
        if g[2] is not None:
            dx = _plus(dx, (input - _channel(mean, input.ndim)) * _channel(g[2] * (2 / n), input.ndim), input)
    return dx, dweight, dbias


@composite(
    samples=lambda t: [(t(3, 2, 4), t(3, 2, 4), t(2), t(2, low=0.5), t(2), 1e-5, (True, True, True))], method=False
)
def batch_norm_grad(g, input, mean, var, weight, eps, need):
    """The gradients of batch normalisation for input, weight and bias, as far as needed."""
    axes = (0, *range(2, input.ndim))
    n = math.prod(input.shape) // input.shape[1]
    rstd = _channel(rsqrt(var + eps), input.ndim)
    hat = (input - _channel(mean, input.ndim)) * rstd
    dbias = sum(g, axes)
    dweight = sum(g * hat, axes)
    dx = None
    if need[0]:
        scale = rstd if weight is None else rstd * _channel(weight, input.ndim)
        dx = (g - _channel(dbias, input.ndim) * (1 / n) - hat * (_channel(dweight, input.ndim) * (1 / n))) * scale
    return dx, dweight, dbias


@composite(
    samples=lambda t: [(t(3, 2, 4), t(2), t(2, low=0.5, high=2), t(2), t(2), 1e-5)], method=False,
    ref=lambda x, m, v, w, b, eps: (x - m[:, None]) / np.sqrt(v[:, None] + eps) * w[:, None] + b[:, None],
)  # fmt: skip
def batch_norm_eval(input, running_mean, running_var, weight, bias, eps):
    """Normalised by given statistics: one scale and one shift per channel."""
    scale = rsqrt(running_var + eps)
    if weight is not None:
        scale = scale * weight
    shift = -running_mean * scale
    if bias is not None:
        shift = shift + bias
    return input * _channel(scale, input.ndim) + _channel(shift, input.ndim)


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Batch normalisation of (N, C, …); in training the running statistics are updated in place."""
    if not math.prod(input.shape):
        return _scaled(input * 1, weight, bias)
    if input.ndim < 2:
        raise ValueError(f"batch_norm expects an input (N, C, …), but got shape {list(input.shape)}")
    for name, given in (("running_mean", running_mean), ("weight", weight)):
        if given is not None and given.shape[0] != input.shape[1]:
            raise RuntimeError(
                f"batch_norm: {name} has {given.shape[0]} channels but the input {list(input.shape)} has "
                f"{input.shape[1]} (dimension 1); num_features of the layer must be {input.shape[1]}"
            )
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var must be given when training is False")
        return batch_norm_eval(input, running_mean, running_var, weight, bias, eps)
    count = math.prod(input.shape) // input.shape[1]
    if count <= 1:
        raise ValueError(f"expected more than 1 value per channel when training, got input size {list(input.shape)}")
    out, m, v = batch_norm_train(input, weight, bias, eps)
    if running_mean is not None:
        unbiased = v.array * (count / (count - 1))
        for running, new in ((running_mean, m.array), (running_var, unbiased)):
            running.array *= 1 - momentum
            running.array += (new * momentum).astype(running.array.dtype)
            running._bump_version()
    return out


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalised per sample and channel (Ulyanov et al. 2016); input (N, C, …)."""
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ValueError("instance_norm: running_mean and running_var must be given without use_input_stats")
        return batch_norm_eval(input, running_mean, running_var, weight, bias, eps)
    if math.prod(input.shape[2:]) == 1:
        raise ValueError(f"expected more than 1 spatial element when training, got input size {list(input.shape)}")
    if running_mean is not None:
        axes = tuple(range(2, input.ndim))
        count = math.prod(input.shape[2:])
        a = input.array
        for running, new in (
            (running_mean, a.mean(axes).mean(0)),
            (running_var, a.var(axes).mean(0) * (count / max(count - 1, 1))),
        ):
            running.array *= 1 - momentum
            running.array += (new * momentum).astype(running.array.dtype)
            running._bump_version()
    return group_norm(input, input.shape[1], weight, bias, eps)


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """input / (k + alpha * mean of input² over `size` neighbouring channels) ** beta (Krizhevsky et al. 2012)."""
    if input.ndim < 3:
        raise ValueError(f"local_response_norm expects an input (N, C, …) of 3 or more dimensions, not {input.ndim}")
    if not math.prod(input.shape):
        return input
    return input / (_neighbours(input * input, size // 2, (size - 1) // 2, size) * alpha + k) ** beta


def _neighbours(x: Any, before: int, after: int, divisor: int) -> Any:
    """The sum over channels c - before … c + after, those outside counting 0, divided by `divisor`."""
    flat = reshape(x, (x.shape[0], 1, x.shape[1], math.prod(x.shape[2:])))
    padded = pad(flat, (0, 0, before, after))
    return reshape(avg_pool2d(padded, (before + after + 1, 1), 1, divisor_override=divisor), tuple(x.shape))
