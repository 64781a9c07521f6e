"""Arithmetic, exponentials, trigonometry, rounding, selection: one element in, one element out. Shapes broadcast."""

from __future__ import annotations

import numpy as np

from . import _special
from ._op import op
from .logic import cast, conj, logical_and, logical_not, logical_or

__all__: list[str] = []  # every op is exported through the registry


# -- arithmetic -------------------------------------------------------------------------------------------------
@op(
    vjp=dict(
        input=lambda g: g,
        other=lambda g, alpha: g if alpha == 1 else g * alpha,
    ),
    samples=lambda t: [(t(3, 4), t(4)), (t(2, 1), t(1, 3)), (t(), 2.5), (t(3), t(3), {"alpha": 2})],
    promote="arith",
    ref=lambda a, b, alpha=1: np.add(a, np.multiply(b, alpha)),
)
def add(xp, input, other, alpha=1):
    """input + alpha * other."""
    return xp.add(input, other if alpha == 1 else other * alpha)


@op(
    vjp=dict(input=lambda g: g, other=lambda g, alpha: -g if alpha == 1 else g * -alpha),
    samples=lambda t: [(t(3, 4), t(4)), (2.5, t(3)), (t(3), t(3), {"alpha": 2})],
    promote="arith",
    ref=lambda a, b, alpha=1: np.add(a, np.multiply(b, -alpha)),
)
def sub(xp, input, other, alpha=1):
    """input - alpha * other. Errors: TypeError for booleans."""
    return xp.subtract(input, other if alpha == 1 else other * alpha)


@op(
    vjp=dict(input=lambda g, other: g * conj(other), other=lambda g, input: g * conj(input)),
    samples=lambda t: [(t(3, 4), t(4)), (t(2, 1), t(1, 3)), (t(3), 2.0)],
    promote="arith",
    ref=np.multiply,
)
def mul(xp, input, other):
    """input * other."""
    return xp.multiply(input, other)


@op(
    vjp=dict(
        input=lambda g, other: g / conj(other),
        other=lambda g, input, other: -g * conj(input / (other * other)),
    ),
    samples=lambda t: [(t(3, 4), t(4, low=0.5, high=2)), (t(3), 2.0), (1.0, t(3, low=0.5, high=2))],
    promote="float",
    ref=lambda a, b: np.multiply(a, 1 / np.asarray(b)),
)
def true_divide(xp, input, other):
    """input / other; integers become the default float dtype."""
    return xp.true_divide(input, other)


@op(promote="arith", samples=lambda t: [(t(5, low=-9, high=9), t(5, low=0.5, high=3))], ref=np.floor_divide)
def floor_divide(xp, input, other):
    """floor(input / other), in the promoted dtype."""
    return xp.floor_divide(input, other)


@op(
    vjp=dict(input=lambda g: g, other=lambda g, input, other: -g * floor(input / other)),
    samples=lambda t: [(t(3, 4, low=1.1, high=1.9), t(4, low=0.3, high=0.34))],
    promote="arith",
    ref=lambda a, b: a - b * np.floor(a / b),
)
def remainder(xp, input, other):
    """The remainder with the sign of the divisor, as Python's %."""
    return xp.remainder(input, other)


@op(
    vjp=dict(input=lambda g: g, other=lambda g, input, other: -g * trunc(input / other)),
    samples=lambda t: [(t(3, 4, low=1.1, high=1.9), t(4, low=0.3, high=0.34))],
    promote="arith",
    ref=lambda a, b: a - b * np.trunc(a / b),
)
def fmod(xp, input, other):
    """The remainder with the sign of the dividend, as C's fmod."""
    return xp.fmod(input, other)


@op(
    vjp=dict(
        input=lambda g, input, exponent: g * conj(exponent * pow(input, exponent - 1)),
        exponent=lambda g, out, input: g * conj(where(input == 0, 0.0, out * log(where(input == 0, 1.0, input)))),
    ),
    samples=lambda t: [(t(3, 4, low=0.5, high=2), t(4)), (t(3), 3), (t(3), 2.0), (2.0, t(3))],
    promote="arith",
    ref=np.float_power,
)
def pow(xp, input, exponent):
    """input ** exponent. Errors: integers to negative integer powers raise."""
    if exponent.__class__ in (int, float) and exponent == 2:
        return xp.multiply(input, input)
    return xp.power(input, exponent)


@op(vjp=dict(input=lambda g: -g), samples=lambda t: [(t(3, 4),)], ref=lambda x: 0 - x)
def neg(xp, input):
    """-input."""
    return xp.negative(input)


@op(samples=lambda t: [(t(3, 4),)], ref=lambda x: x.copy(), vjp=dict(input=lambda g: g))
def positive(xp, input):
    """+input."""
    return xp.positive(input)


@op(
    vjp=dict(input=lambda g, input: g * sign(input)),
    samples=lambda t: [(t(3, 4, low=0.1),), (t(5, low=-1, high=-0.1),)],
    ref=lambda x: np.sqrt(x * x),
)
def abs(xp, input):
    """Absolute value (modulus of complex numbers); the gradient at 0 is 0."""
    return xp.abs(input)


@op(vjp=dict(input=lambda g: g * 0), samples=lambda t: [(t(3, 4, low=0.1),)], ref=lambda x: x / np.abs(x))
def sign(xp, input):
    """-1, 0 or 1 (x / |x| for complex numbers)."""
    return xp.sign(input)


@op(
    vjp=dict(input=lambda g, out: -g * conj(out * out)),
    samples=lambda t: [(t(3, 4, low=0.5, high=2),)],
    promote="float",
    ref=lambda x: x**-1.0,
)
def reciprocal(xp, input):
    """1 / input."""
    return xp.reciprocal(input)


@op(
    vjp=dict(input=lambda g, input: g * conj(input * 2)),
    samples=lambda t: [(t(3, 4),)],
    promote="arith",
    ref=lambda x: x**2,
)
def square(xp, input):
    """input ** 2."""
    return xp.square(input)


# -- exponentials and roots -------------------------------------------------------------------------------------
@op(
    vjp=dict(input=lambda g, out: g * conj(out)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: np.expm1(x) + 1,
)  # fmt: skip
def exp(xp, input):
    """e ** input."""
    return xp.exp(input)


@op(
    vjp=dict(input=lambda g, out: g * (out * 0.6931471805599453)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: 2.0**x,
)  # fmt: skip
def exp2(xp, input):
    """2 ** input."""
    return xp.exp2(input)


@op(
    vjp=dict(input=lambda g, out: g * (out + 1)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: np.exp(x) - 1,
)  # fmt: skip
def expm1(xp, input):
    """e ** input - 1, exact near 0."""
    return xp.expm1(input)


@op(
    vjp=dict(input=lambda g, input: g / conj(input)), samples=lambda t: [(t(3, 4, low=0.2, high=3),)],
    promote="float", ref=lambda x: np.log2(x) * np.log(2.0),
)  # fmt: skip
def log(xp, input):
    """Natural logarithm."""
    return xp.log(input)


@op(
    vjp=dict(input=lambda g, input: g / (input * 0.6931471805599453)), promote="float",
    samples=lambda t: [(t(3, 4, low=0.2, high=3),)], ref=lambda x: np.log(x) / np.log(2.0),
)  # fmt: skip
def log2(xp, input):
    """Logarithm to base 2."""
    return xp.log2(input)


@op(
    vjp=dict(input=lambda g, input: g / (input * 2.302585092994046)), promote="float",
    samples=lambda t: [(t(3, 4, low=0.2, high=3),)], ref=lambda x: np.log(x) / np.log(10.0),
)  # fmt: skip
def log10(xp, input):
    """Logarithm to base 10."""
    return xp.log10(input)


@op(
    vjp=dict(input=lambda g, input: g / (input + 1)), samples=lambda t: [(t(3, 4, low=-0.5),)], promote="float",
    ref=lambda x: np.log(1 + x),
)  # fmt: skip
def log1p(xp, input):
    """log(1 + input), exact near 0."""
    return xp.log1p(input)


@op(
    vjp=dict(
        input=lambda g, out, input: g * exp(input - out),
        other=lambda g, out, other: g * exp(other - out),
    ),
    samples=lambda t: [(t(3, 4), t(4)), (t(), t())],
    promote="float",
    ref=lambda a, b: np.log(np.exp(a) + np.exp(b)),
)
def logaddexp(xp, input, other):
    """log(exp(input) + exp(other)) without overflow."""
    return xp.logaddexp(input, other)


@op(
    vjp=dict(input=lambda g, out: g / conj(out * 2)), samples=lambda t: [(t(3, 4, low=0.3, high=3),)],
    promote="float", ref=lambda x: x**0.5,
)  # fmt: skip
def sqrt(xp, input):
    """Square root."""
    return xp.sqrt(input)


@op(
    vjp=dict(input=lambda g, out: g * (out * out * out * -0.5)), promote="float",
    samples=lambda t: [(t(3, 4, low=0.3, high=3),)], ref=lambda x: x**-0.5,
)  # fmt: skip
def rsqrt(xp, input):
    """1 / sqrt(input)."""
    return xp.reciprocal(xp.sqrt(input))


@op(
    vjp=dict(input=lambda g, out, input: g * (input / out), other=lambda g, out, other: g * (other / out)),
    samples=lambda t: [(t(3, 4, low=0.3), t(4, low=0.3))],
    promote="float",
    ref=lambda a, b: np.sqrt(a * a + b * b),
)
def hypot(xp, input, other):
    """sqrt(input² + other²)."""
    return xp.hypot(input, other)


# -- trigonometry -----------------------------------------------------------------------------------------------
@op(vjp=dict(input=lambda g, input: g * conj(cos(input))), samples=lambda t: [(t(3, 4),)], promote="float", ref=np.sin)
def sin(xp, input):
    """Sine."""
    return xp.sin(input)


@op(vjp=dict(input=lambda g, input: -g * conj(sin(input))), samples=lambda t: [(t(3, 4),)], promote="float", ref=np.cos)
def cos(xp, input):
    """Cosine."""
    return xp.cos(input)


@op(
    vjp=dict(input=lambda g, out: g * (out * out + 1)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: np.sin(x) / np.cos(x),
)  # fmt: skip
def tan(xp, input):
    """Tangent."""
    return xp.tan(input)


@op(
    vjp=dict(input=lambda g, input: g * rsqrt(1 - input * input)), promote="float",
    samples=lambda t: [(t(3, 4, low=-0.8, high=0.8),)], ref=lambda x: np.arctan2(x, np.sqrt(1 - x * x)),
)  # fmt: skip
def asin(xp, input):
    """Arc sine."""
    return xp.arcsin(input)


@op(
    vjp=dict(input=lambda g, input: -g * rsqrt(1 - input * input)), promote="float",
    samples=lambda t: [(t(3, 4, low=-0.8, high=0.8),)], ref=lambda x: np.arctan2(np.sqrt(1 - x * x), x),
)  # fmt: skip
def acos(xp, input):
    """Arc cosine."""
    return xp.arccos(input)


@op(
    vjp=dict(input=lambda g, input: g / (input * input + 1)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: np.arctan2(x, 1),
)  # fmt: skip
def atan(xp, input):
    """Arc tangent."""
    return xp.arctan(input)


@op(
    vjp=dict(
        input=lambda g, input, other: g * (other / (input * input + other * other)),
        other=lambda g, input, other: -g * (input / (input * input + other * other)),
    ),
    samples=lambda t: [(t(3, 4, low=0.3), t(4, low=0.3))],
    promote="float",
    ref=lambda a, b: np.angle(b + 1j * a),
)
def atan2(xp, input, other):
    """The angle of the point (other, input), in radians."""
    return xp.arctan2(input, other)


@op(vjp=dict(input=lambda g, input: g * cosh(input)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: (np.exp(x) - np.exp(-x)) / 2)  # fmt: skip
def sinh(xp, input):
    """Hyperbolic sine."""
    return xp.sinh(input)


@op(vjp=dict(input=lambda g, input: g * sinh(input)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: (np.exp(x) + np.exp(-x)) / 2)  # fmt: skip
def cosh(xp, input):
    """Hyperbolic cosine."""
    return xp.cosh(input)


@op(
    vjp=dict(input=lambda g, out: g * (1 - out * out)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: 1 - 2 / (np.exp(2 * x) + 1),
)  # fmt: skip
def tanh(xp, input):
    """Hyperbolic tangent."""
    return xp.tanh(input)


@op(
    vjp=dict(input=lambda g, input: g * (exp(-input * input) * 1.1283791670955126)), promote="float",
    samples=lambda t: [(t(3, 4),), (t(6, low=-7, high=7),)], ref=_special.erf_reference,
)  # fmt: skip
def erf(xp, input):
    """The error function (Cody 1969, Math. Comp. 23: rational approximations)."""
    return _special.erf(xp, input)


# -- rounding and bounds ----------------------------------------------------------------------------------------
@op(vjp=dict(input=lambda g: g * 0), samples=lambda t: [(t(3, 4, low=0.1, high=0.9),)], ref=np.floor)
def floor(xp, input):
    """The largest integer below or at."""
    return xp.floor(input) if input.dtype.kind in "fV" else input.copy()


@op(vjp=dict(input=lambda g: g * 0), samples=lambda t: [(t(3, 4, low=0.1, high=0.9),)], ref=np.ceil)
def ceil(xp, input):
    """The smallest integer above or at."""
    return xp.ceil(input) if input.dtype.kind in "fV" else input.copy()


@op(vjp=dict(input=lambda g: g * 0), samples=lambda t: [(t(3, 4, low=0.1, high=0.4),)], ref=np.trunc)
def trunc(xp, input):
    """The integer part."""
    return xp.trunc(input) if input.dtype.kind in "fV" else input.copy()


@op(vjp=dict(input=lambda g: g * 0), samples=lambda t: [(t(3, 4, low=0.1, high=0.4),)], ref=np.rint)
def round(xp, input, decimals=0):
    """The nearest integer, halves to even; `decimals` digits are kept."""
    return xp.round(input, decimals)


@op(
    vjp=dict(
        input=lambda g, input, min, max: g * _inside(input, min, max),
        min=lambda g, input, min, max: g * _below(input, min, max, g),
        max=lambda g, input, min, max: g * _above(input, min, max, g),
    ),
    samples=lambda t: [
        (t(3, 4), -0.5, 0.5),
        (t(3, 4), None, 0.5),
        (t(3, 4), -0.2),
        (t(3, 4), t(4, low=-0.9, high=-0.5)),
    ],
    promote="arith",
    ref=lambda x, min=None, max=None: np.clip(x, min, max),
)
def clamp(xp, input, min=None, max=None):
    """Limits to [min, max]; either may be None, a number or a tensor. ValueError when both are None."""
    if min is None and max is None:
        raise ValueError("at least one of min and max must be given")
    out = input if min is None else xp.maximum(input, min)
    return out if max is None else xp.minimum(out, max)


@op(
    vjp=dict(
        input=lambda g, input, other: g * _share(input, other, g),
        other=lambda g, input, other: g * _share(other, input, g),
    ),
    samples=lambda t: [(t(3, 4), t(4))],
    promote="arith",
    ref=lambda a, b: np.where(a > b, a, b),
)
def maximum(xp, input, other):
    """The larger of two, elementwise; equal elements share the gradient."""
    return xp.maximum(input, other)


@op(
    vjp=dict(
        input=lambda g, input, other: g * _share(other, input, g),
        other=lambda g, input, other: g * _share(input, other, g),
    ),
    samples=lambda t: [(t(3, 4), t(4))],
    promote="arith",
    ref=lambda a, b: np.where(a < b, a, b),
)
def minimum(xp, input, other):
    """The smaller of two, elementwise; equal elements share the gradient."""
    return xp.minimum(input, other)


def _inside(input, min, max):
    keep = None if min is None else input >= min
    if max is not None:
        keep = (input <= max) if keep is None else logical_and(keep, input <= max)
    return cast(keep, "like", input)


def _below(input, min, max, g):
    """Where `min` decides: the input is below it, and `max` does not overrule it."""
    return cast(input < min if max is None else logical_and(input < min, min < max), "like", g)


def _above(input, min, max, g):
    return cast(input > max if min is None else logical_or(input > max, max < min), "like", g)


def _share(a, b, g):
    """1 where a > b, 0.5 where equal, 0 elsewhere, in the dtype of g."""
    return (cast(a > b, "like", g) + cast(a >= b, "like", g)) * 0.5


# -- selection and blending -------------------------------------------------------------------------------------
@op(
    vjp=dict(
        input=lambda g, condition: g * cast(condition, "like", g),
        other=lambda g, condition: g * cast(logical_not(condition), "like", g),
    ),
    samples=lambda t: [(t(3, 4, dtype="bool"), t(3, 4), t(4)), (t(3, dtype="bool"), t(3), 0.0)],
    promote="arith",
    ref=lambda c, a, b: np.choose(c, [b, a]),
    method=False,
)
def where(xp, condition, input, other):
    """`input` where the condition holds, `other` elsewhere."""
    return xp.where(condition, input, other)


@op(
    vjp=dict(
        input=lambda g, weight: g * (1 - weight),
        end=lambda g, weight: g * weight,
        weight=lambda g, input, end: g * (end - input),
    ),
    samples=lambda t: [(t(3, 4), t(3, 4), 0.3), (t(3, 4), t(3, 4), t(4))],
    promote="arith",
    ref=lambda a, b, w: a * (1 - w) + b * w,
)
def lerp(xp, input, end, weight):
    """input + weight * (end - input)."""
    return input + weight * (end - input)


@op(
    vjp=dict(
        input=lambda g: g,
        tensor1=lambda g, tensor2, value: g * (tensor2 * value),
        tensor2=lambda g, tensor1, value: g * (tensor1 * value),
    ),
    samples=lambda t: [(t(3, 4), t(4), t(3, 1), {"value": 0.5})],
    promote="arith",
    ref=lambda x, a, b, value=1: x + value * a * b,
)
def addcmul(xp, input, tensor1, tensor2, value=1):
    """input + value * tensor1 * tensor2."""
    return input + value * tensor1 * tensor2


@op(
    vjp=dict(
        input=lambda g: g,
        tensor1=lambda g, tensor2, value: g * (value / tensor2),
        tensor2=lambda g, tensor1, tensor2, value: -g * (tensor1 * value / (tensor2 * tensor2)),
    ),
    samples=lambda t: [(t(3, 4), t(4), t(3, 1, low=0.5, high=2), {"value": 0.5})],
    promote="arith",
    ref=lambda x, a, b, value=1: x + value * a / b,
)
def addcdiv(xp, input, tensor1, tensor2, value=1):
    """input + value * tensor1 / tensor2."""
    return input + value * tensor1 / tensor2
