"""Activation functions and softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import get_default_dtype
from ._half import in_float32
from ._op import composite, method, op
from .activation_softmax import (  # noqa: F401 - a part of this family
    log_softmax,
    log_softmax_grad,
    softmax,
    softmax_grad,
    softmin,
)
from .elementwise import clamp, erf, exp, log, maximum, minimum, tanh, where
from .logic import cast, conj

_FLAT = math.sqrt(2 / math.pi)


def _sigmoid(xp: Any, x: Any) -> Any:
    return 1 / (1 + xp.exp(-x))  # exp(-x) overflows to inf where the result is 0


@op(vjp=dict(input=lambda g, out: relu_grad(g, out)), samples=lambda t: [(t(3, 4, low=0.1),), (t(5, high=-0.1),)],
    ref=lambda x: (x + np.abs(x)) / 2)  # fmt: skip
def relu(xp, input):
    """max(input, 0)."""
    return xp.maximum(input, 0)


@op(
    vjp=dict(g=lambda g, result: relu_grad(g, result)), samples=lambda t: [(t(3, 4), t(3, 4))],
    ref=lambda g, result: g * (np.sign(result) + 1) / 2, method=False,
)  # fmt: skip
def relu_grad(xp, g, result):
    """`g` where the `result` of relu is positive, 0 elsewhere."""
    return xp.where(result > 0, g, 0)


@op(
    vjp=dict(input=lambda g, out: g * conj(out * (1 - out))), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: 0.5 + 0.5 * np.tanh(0.5 * x),
)  # fmt: skip
@in_float32
def sigmoid(xp, input):
    """1 / (1 + exp(-input))."""
    return _sigmoid(xp, input)


@op(
    vjp=dict(input=lambda g, input: g * sigmoid(-input)), samples=lambda t: [(t(3, 4),)],
    ref=lambda x: -np.log(1 + np.exp(-x)), method=False,
)  # fmt: skip
@in_float32
def logsigmoid(xp, input):
    """log(sigmoid(input)) without overflow."""
    return -(xp.maximum(-input, 0) + xp.log1p(xp.exp(-xp.abs(input))))


@op(
    vjp=dict(input=lambda g, input: silu_grad(g, input)), samples=lambda t: [(t(3, 4),)],
    ref=lambda x: x * (0.5 + 0.5 * np.tanh(0.5 * x)), method=False,
)  # fmt: skip
@in_float32
def silu(xp, input):
    """input * sigmoid(input) (Elfwing et al. 2017; "swish")."""
    return input * _sigmoid(xp, input)


@composite(samples=lambda t: [(t(3, 4), t(3, 4))], method=False)
def silu_grad(g, input):
    """The gradient of silu for the cotangent `g`."""
    s = sigmoid(input)
    return g * conj(s * (1 + input * (1 - s)))


@op(
    vjp=dict(input=lambda g, input, approximate: gelu_grad(g, input, approximate)),
    samples=lambda t: [(t(3, 4),), (t(3, 4), "tanh")],
    ref=lambda x, approximate="none": 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) if approximate == "none"
    else 0.5 * x * (1 + np.tanh(_FLAT * (x + 0.044715 * x**3))),
    method=False,
)  # fmt: skip
@in_float32
def gelu(xp, input, approximate="none"):
    """input * P(Z <= input) for a standard normal Z (Hendrycks and Gimpel 2016), exact or by tanh."""
    if approximate == "tanh":
        return 0.5 * input * (1 + xp.tanh(_FLAT * (input + 0.044715 * input * input * input)))
    if approximate != "none":
        raise ValueError(f"approximate must be 'none' or 'tanh', not {approximate!r}")
    return 0.5 * input * (1 + erf(input * math.sqrt(0.5)))


@composite(samples=lambda t: [(t(3, 4), t(3, 4)), (t(3, 4), t(3, 4), "tanh")], method=False)
def gelu_grad(g, input, approximate="none"):
    """The gradient of gelu for the cotangent `g`."""
    x = input
    if approximate == "tanh":
        t = tanh((x + x * x * x * 0.044715) * _FLAT)
        return g * ((1 + t) * 0.5 + x * (1 - t * t) * ((1 + x * x * 0.134145) * (0.5 * _FLAT)))
    return g * ((1 + erf(x * math.sqrt(0.5))) * 0.5 + x * exp(x * x * -0.5) * (_FLAT * 0.5))


@op(
    vjp=dict(input=lambda g, input, negative_slope: where(input > 0, g, g * negative_slope)),
    samples=lambda t: [(t(3, 4, low=0.1),), (t(5, high=-0.1), 0.2)],
    ref=lambda x, s=0.01: np.maximum(x, 0) + s * np.minimum(x, 0),
    method=False,
)
@in_float32
def leaky_relu(xp, input, negative_slope=0.01):
    """input where positive, negative_slope * input elsewhere."""
    return xp.where(input > 0, input, input * negative_slope)


@op(
    vjp=dict(input=lambda g, input, alpha: where(input > 0, g, g * exp(minimum(input, 0.0)) * alpha)),
    samples=lambda t: [(t(3, 4, low=0.1),), (t(5, high=-0.1), 0.7)],
    ref=lambda x, a=1.0: np.maximum(x, 0) + a * np.expm1(np.minimum(x, 0)),
    method=False,
)
@in_float32
def elu(xp, input, alpha=1.0):
    """input where positive, alpha * (exp(input) - 1) elsewhere (Clevert et al. 2015)."""
    return xp.where(input > 0, input, alpha * xp.expm1(xp.minimum(input, 0)))


def selu(input: Any) -> Any:
    """Self-normalising ELU (Klambauer et al. 2017)."""
    return elu(input, 1.6732632423543772) * 1.0507009873554805


def celu(input: Any, alpha: float = 1.0) -> Any:
    """Continuously differentiable ELU (Barron 2017)."""
    return maximum(input, 0.0) + minimum((exp(minimum(input / alpha, 0.0)) - 1) * alpha, 0.0)


@op(
    vjp=dict(input=lambda g, input, beta, threshold: softplus_grad(g, input, beta, threshold)),
    samples=lambda t: [(t(3, 4),), (t(3, 4), 2.0)],
    ref=lambda x, b=1.0: np.log(1 + np.exp(b * x)) / b,
    method=False,
)
def softplus(xp, input, beta=1.0, threshold=20.0):
    """log(1 + exp(beta * input)) / beta; the input itself above the threshold."""
    scaled = input * beta
    soft = (xp.maximum(scaled, 0) + xp.log1p(xp.exp(-xp.abs(scaled)))) / beta
    return xp.where(scaled > threshold, input, soft).astype(input.dtype)


@op(
    vjp=dict(
        g=lambda h, input, beta, threshold: softplus_grad(h, input, beta, threshold),
        input=lambda h, g, input, beta, threshold: softplus_curvature(h * g, input, beta, threshold),
    ),
    samples=lambda t: [(t(3, 4), t(3, 4)), (t(3, 4), t(3, 4), 2.0)],
    ref=lambda g, x, b=1.0: g / (1 + np.exp(-b * x)),
    method=False,
)
def softplus_grad(xp, g, input, beta=1.0, threshold=20.0):
    """The gradient of softplus for the cotangent `g`."""
    scaled = input * beta
    return xp.where(scaled > threshold, g, g * _sigmoid(xp, scaled)).astype(input.dtype, copy=False)


@composite(samples=lambda t: [(t(3, 4), t(3, 4)), (t(3, 4), t(3, 4), 2.0)], method=False)
def softplus_curvature(g, input, beta=1.0, threshold=20.0):
    """`g` times the second derivative of softplus."""
    scaled = input * beta
    s = sigmoid(scaled)
    return where(scaled > threshold, 0.0, g * (s * (1 - s) * beta))


def mish(input: Any) -> Any:
    """input * tanh(softplus(input)) (Misra 2019)."""
    return input * tanh(softplus(input))


def softsign(input: Any) -> Any:
    """input / (1 + |input|)."""
    from .elementwise import abs

    return input / (1 + abs(input))


def tanhshrink(input: Any) -> Any:
    """input - tanh(input)."""
    return input - tanh(input)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """Limited to [min_val, max_val]."""
    return clamp(input, min_val, max_val)


def relu6(input: Any) -> Any:
    """Limited to [0, 6]."""
    return clamp(input, 0.0, 6.0)


@op(
    vjp=dict(input=lambda g, input: where((input > -3) & (input < 3), g * (1 / 6), 0.0)),
    samples=lambda t: [(t(3, 4),)],
    ref=lambda x: np.clip(x + 3, 0, 6) / 6,
    method=False,
)
@in_float32
def hardsigmoid(xp, input):
    """clip(input + 3, 0, 6) / 6."""
    return xp.clip(input + 3, 0, 6) / 6


@op(
    vjp=dict(input=lambda g, input: where(input < -3, 0.0, where(input <= 3, g * (input / 3 + 0.5), g))),
    samples=lambda t: [(t(3, 4),)],
    ref=lambda x: x * np.clip(x + 3, 0, 6) / 6,
    method=False,
)
@in_float32
def hardswish(xp, input):
    """input * hardsigmoid(input) (Howard et al. 2019)."""
    return input * (xp.clip(input + 3, 0, 6) / 6)


def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """0 within [-lambd, lambd], the input elsewhere."""
    return where((input > lambd) | (input < -lambd), input, 0.0)


def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """The input moved by lambd towards 0, where it stops."""
    return where(input > lambd, input - lambd, where(input < -lambd, input + lambd, input * 0))


def threshold(input: Any, threshold: float, value: float) -> Any:
    """The input where it is above the threshold, `value` elsewhere."""
    return where(input > threshold, input, value)


def prelu(input: Any, weight: Any) -> Any:
    """input where positive, weight * input elsewhere; weight: one number, or one per channel (dimension 1)."""
    from .shape import reshape

    if weight.ndim > 1 or (
        weight.shape not in ((), (1,)) and weight.shape[0] != (input.shape[1] if input.ndim > 1 else 1)
    ):
        raise RuntimeError(
            f"prelu: weight {list(weight.shape)} must have one entry, or one per channel of input {list(input.shape)}"
        )
    if tuple(weight.shape) in ((), (1,)):
        weight = reshape(weight, ())
    else:
        weight = reshape(weight, (1, -1) + (1,) * (input.ndim - 2))
    return maximum(input, 0.0) + weight * minimum(input, 0.0)


def glu(input: Any, dim: int = -1) -> Any:
    """The first half along `dim` times the sigmoid of the second (Dauphin et al. 2016)."""
    from .shape import chunk

    if input.shape[dim] % 2:
        raise RuntimeError(f"glu: dimension {dim} must have an even size, not {input.shape[dim]}")
    a, b = chunk(input, 2, dim)
    return a * sigmoid(b)


@method()
def logit(input: Any, eps: float | None = None) -> Any:
    """log(input / (1 - input)); the input is limited to [eps, 1 - eps] when eps is given."""
    if getattr(input, "array", input).dtype.kind in "biu":  # 1 - input wraps around for unsigned integers
        input = cast(input, get_default_dtype().numpy)
    if eps is not None:
        input = clamp(input, eps, 1 - eps)
    return log(input / (1 - input))
