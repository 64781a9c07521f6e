"""Normalisation: batch, layer, group, instance, RMS."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import composite, op
from .elementwise import rsqrt
from .logic_complex import cast
from .pool import avg_pool2d
from .reduce import mean, sum
from .shape import expand, pad, reshape


def _channel(x: Any, ndim: int) -> Any:
    """(C,) as (1, C, 1, …)."""
    return reshape(x, (1, -1) + (1,) * (ndim - 2))


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


def _plus(total, term, like):
    """total + term, in the shape of `like`; total may be None."""
    return expand(term, tuple(like.shape)) if total is None else total + term


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


def _scaled(x: Any, weight: Any, bias: Any) -> Any:
    """x * weight + bias, per channel, for those that are given."""
    if weight is not None:
        x = x * _channel(weight, x.ndim)
    return x if bias is None else x + _channel(bias, x.ndim)


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


def _ln_ref(x, shape, w, b, eps):
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    m = x.mean(axes, keepdims=True)
    r = 1 / np.sqrt(x.var(axes, keepdims=True) + eps)
    return (x - m) * r * (1 if w is None else w) + (0 if b is None else b), m, r


@op(
    vjp={
        ("input", "weight", "bias"): lambda g, out1, out2, input, normalized_shape, weight, need: _layer_norm_vjp(
            g, out1, out2, input, weight, len(normalized_shape), need
        )
    },
    samples=lambda t: [(t(3, 5), (5,), t(5), t(5), 1e-5), (t(2, 3, 4), (3, 4), None, None, 1e-5)],
    ref=_ln_ref,
    method=False,
)
def native_layer_norm(xp, input, normalized_shape, weight, bias, eps):
    """(normalised over the last dimensions, mean, 1 / standard deviation); Ba et al. 2016."""
    k = len(normalized_shape)
    if tuple(input.shape[input.ndim - k :]) != tuple(normalized_shape):
        raise RuntimeError(
            f"the last dimensions of the input {list(input.shape)} must be the normalized_shape "
            f"{list(normalized_shape)}"
        )
    axes = tuple(range(input.ndim - k, input.ndim))
    x = input.astype(np.float32) if input.dtype.itemsize == 2 else input
    m = xp.mean(x, axes, keepdims=True)
    out = x - m
    rstd = 1 / xp.sqrt(xp.mean(xp.square(out), axes, keepdims=True) + x.dtype.type(eps))
    out *= rstd
    if weight is not None:
        out = out * weight
    if bias is not None:
        out += bias
    return out.astype(input.dtype, copy=False), m, rstd


def _layer_norm_vjp(g, mean, rstd, input, weight, k, need):
    """As for batch normalisation: cotangents of the statistics appear in second order."""
    dx = dweight = dbias = None
    if g[0] is not None:
        dx, dweight, dbias = layer_norm_grad(g[0], input, mean, rstd, weight, k, need)
    if need[0]:
        n = math.prod(input.shape[input.ndim - k :])
        if g[1] is not None:
            dx = _plus(dx, g[1] * (1 / n), input)
        if g[2] is not None:
            dx = _plus(dx, (input - mean) * (g[2] * (rstd * rstd * rstd) * (-1 / n)), input)
    return dx, dweight, dbias


@composite(samples=lambda t: [(t(3, 5), t(3, 5), t(3, 1), t(3, 1), t(5), 1, (True, True, True))], method=False)
def layer_norm_grad(g, input, mean_, rstd, weight, k, need):
    """The gradients of layer normalisation for input, weight and bias, as far as needed."""
    axes = tuple(range(input.ndim - k, input.ndim))
    lead = tuple(range(input.ndim - k))
    hat = (input - mean_) * rstd
    dx = None
    if need[0]:
        h = g if weight is None else g * weight
        dx = rstd * (h - mean(h, axes, True) - hat * mean(h * hat, axes, True))
    if not lead:
        return dx, g * hat, g
    return dx, sum(g * hat, lead) if need[1] else None, sum(g, lead) if need[2] else None


def layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Zero mean and unit variance over the last dimensions `normalized_shape`, then weight and bias."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    return native_layer_norm(input, shape, weight, bias, eps)[0]


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalised over groups of channels and all positions (Wu and He 2018); input (N, C, …)."""
    if input.ndim < 2:
        raise RuntimeError(f"group_norm expects at least 2 dimensions, but got shape {list(input.shape)}")
    n, c = input.shape[:2]
    if num_groups < 1 or c % num_groups:
        raise RuntimeError(f"the number of channels ({c}) must be divisible by num_groups ({num_groups})")
    size = math.prod(input.shape[1:]) // num_groups
    if not n or not size:
        return _scaled(input * 1, weight, bias)
    grouped = reshape(input, (n, num_groups, size))
    out = reshape(native_layer_norm(grouped, (size,), None, None, eps)[0], tuple(input.shape))
    return _scaled(out, weight, bias)


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


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """input / sqrt(mean(input²) + eps) over the last dimensions (Zhang and Sennrich 2019), times weight."""
    k = 1 if isinstance(normalized_shape, int) else len(normalized_shape)
    axes = tuple(range(input.ndim - k, input.ndim))
    dtype = getattr(input, "array", input).dtype
    half = dtype.itemsize == 2 and dtype.kind in "fV"  # computed in float32 and rounded once
    if eps is None:
        eps = float(np.finfo(np.float32 if half else dtype).eps)
    x = cast(input, "float32") if half else input
    out = x * rsqrt(mean(x * x, axes, True) + eps)
    out = out if weight is None else out * weight
    return cast(out, dtype) if half else out


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
