"""Arithmetic: sums, products, quotients, remainders, signs. Shapes broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import alias, method, op
from .elementwise_select import floor, trunc, where
from .logic import conj, real

__all__: list[str] = []  # every op is exported through the registry


@op(
    vjp=dict(
        input=lambda g: g,
        other=lambda g, alpha: g if alpha == 1 else g * conj(alpha),
    ),
    samples=lambda t: [(t(3, 4), t(4)), (t(2, 1), t(1, 3)), (t(), 2.5), (t(3), t(3), {"alpha": 2})],
    promote="arith",
    ref=lambda a, b, alpha=1: np.add(a, np.multiply(b, alpha)),
)
def add(xp, input, other, alpha=1):
    """input + alpha * other."""
    return xp.add(input, other if alpha == 1 else other * alpha)


@op(
    vjp=dict(input=lambda g: g, other=lambda g, alpha: -g if alpha == 1 else g * -conj(alpha)),
    samples=lambda t: [(t(3, 4), t(4)), (2.5, t(3)), (t(3), t(3), {"alpha": 2})],
    promote="arith",
    ref=lambda a, b, alpha=1: np.add(a, np.multiply(b, -alpha)),
)
def sub(xp, input, other, alpha=1):
    """input - alpha * other. Errors: TypeError for booleans."""
    return xp.subtract(input, other if alpha == 1 else other * alpha)


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """other - alpha * input."""
    return sub(other, input, alpha=alpha)


@op(
    vjp=dict(input=lambda g, other: g * conj(other), other=lambda g, input: g * conj(input)),
    samples=lambda t: [(t(3, 4), t(4)), (t(2, 1), t(1, 3)), (t(3), 2.0)],
    promote="arith",
    ref=np.multiply,
)
def mul(xp, input, other):
    """input * other."""
    return xp.multiply(input, other)


# -- division ---------------------------------------------------------------------------------------------------
@op(
    vjp=dict(
        input=lambda g, other: g / conj(other),
        other=lambda g, input, other: -g * conj(input / other / other),
    ),
    samples=lambda t: [(t(3, 4), t(4, low=0.5, high=2)), (t(3), 2.0), (1.0, t(3, low=0.5, high=2))],
    promote="float",
    ref=lambda a, b: np.multiply(a, 1 / np.asarray(b)),
)
def true_divide(xp, input, other):
    """input / other; integers become the default float dtype."""
    return xp.true_divide(input, other)


def _check_divisor(xp: Any, name: str, input: Any, other: Any) -> None:
    """Integers divided by 0 raise, as in PyTorch; complex numbers and booleans have no remainder."""
    dtype = (input if hasattr(input, "dtype") else other).dtype
    if dtype.kind in "cb":
        raise TypeError(f"{name} is not implemented for {dtype}")
    if dtype.kind in "iu" and not bool(xp.all(other)):
        raise RuntimeError("ZeroDivisionError")


@op(promote="arith", samples=lambda t: [(t(5, low=-9, high=9), t(5, low=0.5, high=3))], ref=np.floor_divide)
def floor_divide(xp, input, other):
    """floor(input / other), in the promoted dtype. Errors: RuntimeError for integers divided by 0."""
    _check_divisor(xp, "floor_divide", input, other)
    return xp.floor_divide(input, other)


@op(
    vjp=dict(input=lambda g: g * 0, other=lambda g: g * 0),
    samples=lambda t: [
        (t(5, low=0.1, high=0.4), t(5, low=0.5, high=3), "floor"),
        (t(5, low=0.1, high=0.4), 0.5, "trunc"),
    ],
    promote="arith",
    ref=lambda a, b, mode: np.floor(a / b),
    method=False,
)
def div_rounded(xp, input, other, rounding_mode):
    """input / other, rounded down ("floor") or towards 0 ("trunc"), in the promoted dtype; its gradient is 0."""
    _check_divisor(xp, "div", input, other)
    if rounding_mode == "floor":
        return xp.floor_divide(input, other)
    if (input if hasattr(input, "dtype") else other).dtype.kind not in "iu":
        return xp.trunc(xp.true_divide(input, other))
    quotient = xp.floor_divide(input, other)
    inexact = quotient * other != input
    return quotient + xp.logical_and(inexact, quotient < 0)


@method()
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """input / other; rounding_mode "floor" or "trunc" rounds and keeps the promoted dtype."""
    if rounding_mode is None:
        return true_divide(input, other)
    if rounding_mode not in ("floor", "trunc"):
        raise RuntimeError(f"rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}")
    return div_rounded(input, other, rounding_mode)


@method("__rdiv__")
def _rdiv(self: Any, other: Any) -> Any:
    return true_divide(other, self)


@op(
    vjp=dict(input=lambda g: g, other=lambda g, input, other: -g * floor(input / other)),
    samples=lambda t: [(t(3, 4, low=1.1, high=1.9), t(4, low=0.3, high=0.34))],
    promote="arith",
    ref=lambda a, b: a - b * np.floor(a / b),
)
def remainder(xp, input, other):
    """The remainder with the sign of the divisor, as Python's %."""
    _check_divisor(xp, "remainder", input, other)
    return xp.remainder(input, other)


@op(
    vjp=dict(input=lambda g: g, other=lambda g, input, other: -g * trunc(input / other)),
    samples=lambda t: [(t(3, 4, low=1.1, high=1.9), t(4, low=0.3, high=0.34))],
    promote="arith",
    ref=lambda a, b: a - b * np.trunc(a / b),
)
def fmod(xp, input, other):
    """The remainder with the sign of the dividend, as C's fmod."""
    _check_divisor(xp, "fmod", input, other)
    return xp.fmod(input, other)


@op(promote="arith", samples=lambda t: [(t(6, high=40, dtype="int64"), t(6, high=40, dtype="int64"))], ref=np.gcd)
def gcd(xp, input, other):
    """The greatest common divisor of integers."""
    return xp.gcd(input, other)


@op(promote="arith", samples=lambda t: [(t(6, high=40, dtype="int64"), t(6, high=40, dtype="int64"))], ref=np.lcm)
def lcm(xp, input, other):
    """The least common multiple of integers."""
    return xp.lcm(input, other)


# -- one number -------------------------------------------------------------------------------------------------
def _signed(name: str, x: Any) -> None:
    if x.dtype.kind == "b":
        raise TypeError(f"{name} is not implemented for booleans; use bitwise_not or logical_not")


@op(vjp=dict(input=lambda g: -g), samples=lambda t: [(t(3, 4),)], ref=lambda x: 0 - x)
def neg(xp, input):
    """-input."""
    _signed("neg", input)
    return xp.negative(input)


@op(samples=lambda t: [(t(3, 4),)], ref=lambda x: x.copy(), vjp=dict(input=lambda g: g))
def positive(xp, input):
    """+input."""
    _signed("positive", input)
    return xp.positive(input)


@op(
    vjp=dict(input=lambda g, input: g * sgn(input)),
    samples=lambda t: [(t(3, 4, low=0.1),), (t(5, low=-1, high=-0.1),)],
    ref=lambda x: np.sqrt(x * x),
)
def abs(xp, input):
    """Absolute value (modulus of complex numbers); the gradient at 0 is 0."""
    return xp.abs(input)


@op(vjp=dict(input=lambda g: g * 0), samples=lambda t: [(t(3, 4, low=0.1),)], ref=lambda x: x / np.abs(x))
def sign(xp, input):
    """-1, 0 or 1. Errors: TypeError for complex numbers, which have `sgn`."""
    if input.dtype.kind == "c":
        raise TypeError("sign is not defined for complex tensors; use sgn")
    return input.copy() if input.dtype.kind == "b" else xp.sign(input)


@op(
    vjp=dict(input=lambda g, input, out: _sgn_vjp(g, input, out)), samples=lambda t: [(t(3, 4, low=0.1),)],
    ref=lambda x: x / np.abs(x),
)  # fmt: skip
def sgn(xp, input):
    """input / |input|, 0 at 0."""
    if input.dtype.kind == "b":
        return input.copy()
    if input.dtype.kind != "c":
        return xp.sign(input)
    size = xp.abs(input)
    return xp.where(size == 0, 0, input / xp.where(size == 0, 1, size)).astype(input.dtype)


def _sgn_vjp(g: Any, input: Any, out: Any) -> Any:
    if getattr(input, "array", input).dtype.kind != "c":
        return g * 0
    size = abs(input)
    zero = size == 0
    return where(zero, 0.0, (g - real(g * conj(out)) * out) / where(zero, 1.0, size))


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
    return xp.square(input.astype(np.int64) if input.dtype.kind == "b" else input)


@op(
    vjp=dict(input=lambda g, out, input: g * (sign(out) * sign(input)), other=lambda g: g * 0),
    samples=lambda t: [(t(3, 4, low=0.1), t(4, low=0.1)), (t(3, low=-1, high=-0.1), 1.0)],
    promote="float",
    ref=lambda a, b: np.abs(a) * np.sign(b),
)
def copysign(xp, input, other):
    """|input| with the sign of other."""
    return xp.copysign(input, other)


@op(
    samples=lambda t: [(t(3, 4), t(4)), (t(4, low=-2, dtype="int64"), t(4, dtype="int64"))],
    ref=lambda x, v: np.where(x == 0, v, x > 0),
)
def heaviside(xp, input, values):
    """0 for negative, 1 for positive numbers, `values` at 0; both must have one dtype."""
    if input.dtype != values.dtype or input.dtype.kind == "c":
        raise RuntimeError(f"heaviside needs two real tensors of one dtype, got {input.dtype} and {values.dtype}")
    out = xp.where(input == 0, values, (input > 0).astype(input.dtype))
    return xp.where(xp.isnan(input), input, out) if input.dtype.kind in "fV" else out


@op(
    vjp=dict(input=lambda g, input, other: where(input == other, 0.0, g), other=lambda g: g * 0),
    samples=lambda t: [(t(3, 4), t(4))],
    promote="arith",
    ref=np.nextafter,
)
def nextafter(xp, input, other):
    """The next representable number after input in the direction of other."""
    return xp.nextafter(input, other)


alias(div, "divide")
