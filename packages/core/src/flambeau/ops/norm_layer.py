"""Normalisation of each sample by itself: layer, group, RMS."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._half import widened
from ._op import composite, op
from .elementwise import rsqrt
from .reduce import mean, sum
from .shape import expand, reshape, unsqueeze


def _channel(x: Any, ndim: int) -> Any:
    """(C,) as (1, C, 1, …)."""
    return reshape(x, (1, -1) + (1,) * (ndim - 2))


def _plus(total, term, like):
    """total + term, in the shape of `like`; total may be None."""
    return expand(term, tuple(like.shape)) if total is None else total + term


def _scaled(x: Any, weight: Any, bias: Any) -> Any:
    """x * weight + bias, per channel, for those that are given."""
    if weight is not None:
        x = x * _channel(weight, x.ndim)
    return x if bias is None else x + _channel(bias, x.ndim)


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


def _gn_ref(x, groups, w, b, eps):
    grouped = x.reshape(x.shape[0], groups, -1)
    m, r = grouped.mean(-1), 1 / np.sqrt(grouped.var(-1) + eps)
    out = ((grouped - m[..., None]) * r[..., None]).reshape(x.shape)
    s = (1, -1) + (1,) * (x.ndim - 2)
    return out * (1 if w is None else w.reshape(s)) + (0 if b is None else b.reshape(s)), m, r


@op(
    vjp={
        ("input", "weight", "bias"): lambda g, out1, out2, input, num_groups, weight, need: _group_norm_vjp(
            g, out1, out2, input, weight, num_groups, need
        )
    },
    samples=lambda t: [(t(2, 4, 3), 2, t(4), t(4), 1e-5), (t(2, 3, 2, 2), 3, None, None, 1e-5), (t(3, 4), 2, t(4))],
    ref=lambda x, groups, w=None, b=None, eps=1e-5: _gn_ref(x, groups, w, b, eps),
    method=False,
)
def native_group_norm(xp, input, num_groups, weight=None, bias=None, eps=1e-5):
    """(normalised over groups of channels and all positions, mean (N, groups), 1 / standard deviation)."""
    x = widened(input).reshape(input.shape[0], num_groups, -1)
    m = xp.mean(x, -1, keepdims=True)
    out = x - m
    rstd = 1 / xp.sqrt(xp.mean(xp.square(out), -1, keepdims=True) + x.dtype.type(eps))
    out *= rstd
    out = out.reshape(input.shape)
    shape = (1, -1) + (1,) * (input.ndim - 2)
    if weight is not None:
        out = out * weight.reshape(shape)
    if bias is not None:
        out = out + bias.reshape(shape)
    return out.astype(input.dtype, copy=False), m[..., 0], rstd[..., 0]


def _group_norm_vjp(g, mean_, rstd, input, weight, num_groups, need):
    """As for layer normalisation: cotangents of the statistics appear in second order."""
    dx = dweight = dbias = None
    if g[0] is not None:
        dx, dweight, dbias = group_norm_grad(g[0], input, mean_, rstd, weight, num_groups, need)
    if need[0] and (g[1] is not None or g[2] is not None):
        grouped = reshape(input, (input.shape[0], num_groups, -1))
        n = grouped.shape[2]
        more = None
        if g[1] is not None:
            more = _plus(more, unsqueeze(g[1] * (1 / n), -1), grouped)
        if g[2] is not None:
            slope = g[2] * (rstd * rstd * rstd) * (-1 / n)
            more = _plus(more, (grouped - unsqueeze(mean_, -1)) * unsqueeze(slope, -1), grouped)
        more = reshape(more, tuple(input.shape))
        dx = more if dx is None else dx + more
    return dx, dweight, dbias


@composite(
    samples=lambda t: [
        (t(2, 4, 3), t(2, 4, 3), t(2, 2), t(2, 2), t(4), 2), (t(2, 3, 2, 2), t(2, 3, 2, 2), t(2, 3), t(2, 3), None, 3)
    ],
    method=False,
)  # fmt: skip
def group_norm_grad(g, input, mean_, rstd, weight, num_groups, need=(True, True, True)):
    """The gradients of group normalisation for input, weight and bias, as far as needed."""
    grouped = (input.shape[0], num_groups, -1)
    hat = (reshape(input, grouped) - unsqueeze(mean_, -1)) * unsqueeze(rstd, -1)
    dx = None
    if need[0]:
        h = reshape(g if weight is None else g * _channel(weight, g.ndim), grouped)
        dx = unsqueeze(rstd, -1) * (h - mean(h, -1, True) - hat * mean(h * hat, -1, True))
        dx = reshape(dx, tuple(input.shape))
    axes = (0, *range(2, input.ndim))
    dweight = sum(g * reshape(hat, tuple(input.shape)), axes) if need[1] else None
    return dx, dweight, sum(g, axes) if need[2] else None


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalised over groups of channels and all positions (Wu and He 2018); input (N, C, …)."""
    if input.ndim < 2:
        raise RuntimeError(f"group_norm expects at least 2 dimensions, but got shape {list(input.shape)}")
    n, c = input.shape[:2]
    if num_groups < 1 or c % num_groups:
        raise RuntimeError(f"the number of channels ({c}) must be divisible by num_groups ({num_groups})")
    if not n or not math.prod(input.shape[1:]) // num_groups:
        return _scaled(input * 1, weight, bias)
    return native_group_norm(input, num_groups, weight, bias, eps)[0]


def _rms_ref(x, shape, w, eps):
    r = 1 / np.sqrt((x * x).mean(tuple(range(x.ndim - len(shape), x.ndim)), keepdims=True) + eps)
    return x * r * (1 if w is None else w), r


@op(
    vjp={
        ("input", "weight"): lambda g, out1, input, normalized_shape, weight, need: _rms_norm_vjp(
            g, out1, input, weight, len(normalized_shape), need
        )
    },
    samples=lambda t: [(t(3, 5), (5,), t(5), 1e-5), (t(2, 3, 4), (3, 4), None, 1e-3)],
    ref=_rms_ref,
    method=False,
)
def fused_rms_norm(xp, input, normalized_shape, weight, eps):
    """(input / root of its mean square over the last dimensions, times weight; 1 / that root)."""
    x = widened(input)
    axes = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    rstd = 1 / xp.sqrt(xp.mean(xp.square(x), axes, keepdims=True) + x.dtype.type(eps))
    out = x * rstd
    if weight is not None:
        out = out * weight
    return out.astype(input.dtype, copy=False), rstd


def _rms_norm_vjp(g, rstd, input, weight, k, need):
    dx = dweight = None
    if g[0] is not None:
        dx, dweight = rms_norm_grad(g[0], input, rstd, weight, k, need)
    if need[0] and g[1] is not None:
        n = math.prod(input.shape[input.ndim - k :])
        dx = _plus(dx, input * (g[1] * (rstd * rstd * rstd) * (-1 / n)), input)
    return dx, dweight


@composite(samples=lambda t: [(t(3, 5), t(3, 5), t(3, 1), t(5), 1), (t(3, 5), t(3, 5), t(3, 1), None, 1)], method=False)
def rms_norm_grad(g, input, rstd, weight, k, need=(True, True)):
    """The gradients of RMS normalisation for input and weight, as far as needed."""
    hat = input * rstd
    dx = None
    if need[0]:
        h = g if weight is None else g * weight
        dx = rstd * (h - hat * mean(h * hat, tuple(range(input.ndim - k, input.ndim)), True))
    lead = tuple(range(input.ndim - k))
    dweight = g * hat if need[1] else None
    return dx, sum(dweight, lead) if need[1] and lead else dweight


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """input / sqrt(mean(input²) + eps) over the last dimensions (Zhang and Sennrich 2019), times weight."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    dtype = getattr(input, "array", input).dtype
    if eps is None:
        eps = float(np.finfo(np.float32 if dtype.itemsize == 2 else dtype).eps)
    if dtype.kind != "c":
        return fused_rms_norm(input, shape, weight, eps)[0]
    axes = tuple(range(input.ndim - len(shape), input.ndim))
    out = input * rsqrt(mean(input * input, axes, True) + eps)
    return out if weight is None else out * weight
