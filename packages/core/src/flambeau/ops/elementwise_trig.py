"""Trigonometric and hyperbolic functions; angles of complex numbers. Shapes broadcast."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import op
from .elementwise_exp import rsqrt, sqrt
from .elementwise_select import where
from .logic import complex, conj

__all__: list[str] = []  # every op is exported through the registry


@op(vjp=dict(input=lambda g, input: g * conj(cos(input))), samples=lambda t: [(t(3, 4),)], promote="float", ref=np.sin)
def sin(xp, input):
    """Sine."""
    return xp.sin(input)


@op(vjp=dict(input=lambda g, input: -g * conj(sin(input))), samples=lambda t: [(t(3, 4),)], promote="float", ref=np.cos)
def cos(xp, input):
    """Cosine."""
    return xp.cos(input)


@op(
    vjp=dict(input=lambda g, out: g * conj(out * out + 1)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: np.sin(x) / np.cos(x),
)  # fmt: skip
def tan(xp, input):
    """Tangent."""
    return xp.tan(input)


@op(
    vjp=dict(input=lambda g, input: g * conj(rsqrt(1 - input * input))), promote="float",
    samples=lambda t: [(t(3, 4, low=-0.8, high=0.8),)], ref=lambda x: np.arctan2(x, np.sqrt(1 - x * x)),
)  # fmt: skip
def asin(xp, input):
    """Arc sine."""
    return xp.arcsin(input)


@op(
    vjp=dict(input=lambda g, input: -g * conj(rsqrt(1 - input * input))), promote="float",
    samples=lambda t: [(t(3, 4, low=-0.8, high=0.8),)], ref=lambda x: np.arctan2(np.sqrt(1 - x * x), x),
)  # fmt: skip
def acos(xp, input):
    """Arc cosine."""
    return xp.arccos(input)


@op(
    vjp=dict(input=lambda g, input: g / conj(input * input + 1)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: np.arctan2(x, 1),
)  # fmt: skip
def atan(xp, input):
    """Arc tangent."""
    return xp.arctan(input)


@op(
    vjp=dict(
        input=lambda g, input, other: g * _over_square(other, input, other),
        other=lambda g, input, other: -g * _over_square(input, input, other),
    ),
    samples=lambda t: [(t(3, 4, low=0.3), t(4, low=0.3))],
    promote="float",
    ref=lambda a, b: np.angle(b + 1j * a),
)
def atan2(xp, input, other):
    """The angle of the point (other, input), in radians; its gradient at the origin is 0."""
    return xp.arctan2(input, other)


def _over_square(value: Any, input: Any, other: Any) -> Any:
    square = input * input + other * other
    origin = square == 0
    return where(origin, 0.0, value / where(origin, 1.0, square))


@op(vjp=dict(input=lambda g, input: g * conj(cosh(input))), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: (np.exp(x) - np.exp(-x)) / 2)  # fmt: skip
def sinh(xp, input):
    """Hyperbolic sine."""
    return xp.sinh(input)


@op(vjp=dict(input=lambda g, input: g * conj(sinh(input))), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: (np.exp(x) + np.exp(-x)) / 2)  # fmt: skip
def cosh(xp, input):
    """Hyperbolic cosine."""
    return xp.cosh(input)


@op(
    vjp=dict(input=lambda g, out: g * conj(1 - out * out)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: 1 - 2 / (np.exp(2 * x) + 1),
)  # fmt: skip
def tanh(xp, input):
    """Hyperbolic tangent."""
    return xp.tanh(input)


@op(
    vjp=dict(input=lambda g, input: g * conj(rsqrt(input * input + 1))), samples=lambda t: [(t(3, 4),)],
    promote="float", ref=lambda x: np.log(x + np.sqrt(x * x + 1)),
)  # fmt: skip
def asinh(xp, input):
    """Inverse hyperbolic sine."""
    return xp.arcsinh(input)


@op(
    vjp=dict(input=lambda g, input: g / conj(sqrt(input - 1) * sqrt(input + 1))), promote="float",
    samples=lambda t: [(t(3, 4, low=1.2, high=3),)], ref=lambda x: np.log(x + np.sqrt(x * x - 1)),
)  # fmt: skip
def acosh(xp, input):
    """Inverse hyperbolic cosine."""
    return xp.arccosh(input)


@op(
    vjp=dict(input=lambda g, input: g / conj(1 - input * input)), promote="float",
    samples=lambda t: [(t(3, 4, low=-0.8, high=0.8),)], ref=lambda x: np.log((1 + x) / (1 - x)) / 2,
)  # fmt: skip
def atanh(xp, input):
    """Inverse hyperbolic tangent."""
    return xp.arctanh(input)


@op(
    vjp=dict(input=lambda g, input, out: g * conj(_sinc_slope(input, out))), promote="float", ref=np.sinc,
    samples=lambda t: [(t(3, 4, low=0.2, high=2),), (t(3, low=-2, high=-0.3),)],
)  # fmt: skip
def sinc(xp, input):
    """sin(pi x) / (pi x), 1 at 0."""
    x = (input.astype(np.float32) if input.dtype.itemsize == 2 else input) * math.pi
    safe = xp.where(x == 0, 1, x)
    return xp.where(x == 0, 1, xp.sin(safe) / safe).astype(input.dtype)


def _sinc_slope(x: Any, out: Any) -> Any:
    zero = x == 0
    return where(zero, 0.0, (cos(x * math.pi) - out) / where(zero, 1.0, x))


def _in_degrees(xp: Any, x: Any, factor: float) -> Any:
    if x.dtype.kind == "c":
        raise TypeError(f"angles are real numbers, not {x.dtype}")
    return (x * factor).astype(x.dtype, copy=False)  # bfloat16 times a Python number is float32


@op(
    vjp=dict(input=lambda g: g * (math.pi / 180)), samples=lambda t: [(t(3, high=90),)], promote="float", ref=np.deg2rad
)
def deg2rad(xp, input):
    """Degrees to radians."""
    return _in_degrees(xp, input, math.pi / 180)


@op(vjp=dict(input=lambda g: g * (180 / math.pi)), samples=lambda t: [(t(3, 4),)], promote="float", ref=np.rad2deg)
def rad2deg(xp, input):
    """Radians to degrees."""
    return _in_degrees(xp, input, 180 / math.pi)


# -- complex numbers --------------------------------------------------------------------------------------------
@op(
    vjp=dict(input=lambda g, input: _angle_vjp(g, input)), samples=lambda t: [(t(3, 4),)], promote="float", ref=np.angle
)
def angle(xp, input):
    """The argument of complex numbers, in (-pi, pi]; 0 or pi for real ones."""
    if input.dtype.kind == "c":
        return xp.angle(input)
    return xp.where(xp.isnan(input), input, xp.where(input < 0, math.pi, 0.0)).astype(input.dtype)


def _angle_vjp(g: Any, input: Any) -> Any:
    if getattr(input, "array", input).dtype.kind != "c":
        return g * 0
    square = input.real * input.real + input.imag * input.imag
    zero = square == 0
    return where(zero, 0.0, g * (input / where(zero, 1.0, square)) * 1j)


def polar(abs: Any, angle: Any) -> Any:
    """The complex numbers of a modulus and an angle in radians."""
    return complex(abs * cos(angle), abs * sin(angle))
