"""Exponentials, logarithms, powers and roots. Shapes broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _special
from ._op import op
from .elementwise_select import where
from .logic import cast, conj, isfinite, logical_and

__all__: list[str] = []  # every op is exported through the registry

_LN2, _LN10 = 0.6931471805599453, 2.302585092994046


@op(
    vjp=dict(input=lambda g, out: g * conj(out)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: np.expm1(x) + 1,
)  # fmt: skip
def exp(xp, input):
    """e ** input."""
    return xp.exp(input)


@op(
    vjp=dict(input=lambda g, out: g * (conj(out) * _LN2)), samples=lambda t: [(t(3, 4),)], promote="float",
    ref=lambda x: 2.0**x,
)  # fmt: skip
def exp2(xp, input):
    """2 ** input."""
    return xp.exp(input * _LN2) if input.dtype.kind == "c" else xp.exp2(input)


@op(
    vjp=dict(input=lambda g, out: g * (conj(out) + 1)), samples=lambda t: [(t(3, 4),)], promote="float",
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
    vjp=dict(input=lambda g, input: g / (conj(input) * _LN2)), promote="float",
    samples=lambda t: [(t(3, 4, low=0.2, high=3),)], ref=lambda x: np.log(x) / np.log(2.0),
)  # fmt: skip
def log2(xp, input):
    """Logarithm to base 2."""
    return xp.log2(input)


@op(
    vjp=dict(input=lambda g, input: g / (conj(input) * _LN10)), promote="float",
    samples=lambda t: [(t(3, 4, low=0.2, high=3),)], ref=lambda x: np.log(x) / np.log(10.0),
)  # fmt: skip
def log10(xp, input):
    """Logarithm to base 10."""
    return xp.log10(input)


@op(
    vjp=dict(input=lambda g, input: g / (conj(input) + 1)), samples=lambda t: [(t(3, 4, low=-0.5),)],
    promote="float", ref=lambda x: np.log(1 + x),
)  # fmt: skip
def log1p(xp, input):
    """log(1 + input), exact near 0."""
    return xp.log1p(input)


def _log_share(g: Any, out: Any, x: Any, base2: bool = False) -> Any:
    """The cotangent of one term of logaddexp; where both terms are infinite the difference is not a number."""
    known = isfinite(out)
    gap = conj(where(known, x, 0.0) - where(known, out, 0.0))
    return g * where(known, exp2(gap) if base2 else exp(gap), where(x == out, 0.5, 0.0))


@op(
    vjp=dict(
        input=lambda g, out, input: _log_share(g, out, input),
        other=lambda g, out, other: _log_share(g, out, other),
    ),
    samples=lambda t: [(t(3, 4), t(4)), (t(), t())],
    promote="float",
    ref=lambda a, b: np.log(np.exp(a) + np.exp(b)),
)
def logaddexp(xp, input, other):
    """log(exp(input) + exp(other)) without overflow."""
    if input.dtype.kind == "c":
        input, other = xp.broadcast_arrays(input, other)
        first = input.real >= other.real
        top, low = xp.where(first, input, other), xp.where(first, other, input)
        return top + xp.log1p(xp.exp(low - top))
    return xp.logaddexp(input, other)


@op(
    vjp=dict(
        input=lambda g, out, input: _log_share(g, out, input, True),
        other=lambda g, out, other: _log_share(g, out, other, True),
    ),
    samples=lambda t: [(t(3, 4), t(4))],
    promote="float",
    ref=lambda a, b: np.log2(2**a + 2**b),
)
def logaddexp2(xp, input, other):
    """log2(2**input + 2**other) without overflow."""
    return xp.logaddexp2(input, other)


@op(
    vjp=dict(input=lambda g, out: g / conj(out * 2)), samples=lambda t: [(t(3, 4, low=0.3, high=3),)],
    promote="float", ref=lambda x: x**0.5,
)  # fmt: skip
def sqrt(xp, input):
    """Square root."""
    return xp.sqrt(input)


@op(
    vjp=dict(input=lambda g, out: g * conj(out * out * out * -0.5)), promote="float",
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


@op(
    vjp=dict(input=lambda g, input: g * (exp(-input * input) * 1.1283791670955126)), promote="float",
    samples=lambda t: [(t(3, 4),), (t(6, low=-7, high=7),)], ref=_special.erf_reference,
)  # fmt: skip
def erf(xp, input):
    """The error function (Cody 1969, Math. Comp. 23: rational approximations)."""
    return _special.erf(xp, input)


# -- powers -----------------------------------------------------------------------------------------------------
def _integer_power(xp: Any, base: Any, exponent: Any) -> Any:
    """Integers to integer powers as PyTorch: negative powers of a tensor give 0, of 1 and -1 the inverse."""
    negative = exponent < 0
    out = xp.power(base, xp.where(negative, 0, exponent))
    odd = xp.where(exponent % 2 == 0, 1, -1)
    return xp.where(negative, xp.where(base == 1, 1, xp.where(base == -1, odd, 0)), out).astype(base.dtype)


def _base_vjp(g: Any, base: Any, exponent: Any) -> Any:
    if not hasattr(exponent, "dtype"):
        return g * 0 if exponent == 0 else g * conj(exponent * pow(base, exponent - 1))
    zero = exponent == 0
    return where(zero, 0.0, g * conj(exponent * pow(base, where(zero, 1.0, exponent) - 1)))


def _exponent_vjp(g: Any, out: Any, base: Any, exponent: Any) -> Any:
    """0 ** exponent does not change with the exponent where that is not negative."""
    flat = base == 0
    if getattr(getattr(exponent, "array", exponent), "dtype", np.dtype(float)).kind != "c":
        flat = logical_and(flat, exponent >= 0)
    return where(flat, 0.0, g * conj(out * log(where(flat, 1.0, base))))


@op(
    vjp=dict(
        input=lambda g, input, exponent: _base_vjp(g, input, exponent),
        exponent=lambda g, out, input, exponent: _exponent_vjp(g, out, input, exponent),
    ),
    samples=lambda t: [(t(3, 4, low=0.5, high=2), t(4)), (t(3), 3), (t(3), 2.0), (2.0, t(3))],
    promote="arith",
    ref=np.float_power,
)
def pow(xp, input, exponent):
    """input ** exponent. Errors: integers to a negative Python integer raise."""
    if exponent.__class__ in (int, float) and exponent == 2:
        return xp.multiply(input, input)
    kind = getattr(input, "dtype", None) or exponent.dtype
    if kind.kind == "b":
        return xp.logical_or(input, xp.logical_not(exponent))
    if kind.kind in "iu":
        if isinstance(exponent, np.generic | int) and exponent < 0:
            raise RuntimeError("integers to negative integer powers are not allowed; use floats")
        return _integer_power(xp, xp.asarray(input, kind), xp.asarray(exponent, kind))
    return xp.power(input, exponent)


def float_power(input: Any, exponent: Any) -> Any:
    """input ** exponent in float64 (complex128 for complex numbers)."""
    values = [getattr(v, "array", v) for v in (input, exponent)]
    is_complex = any(isinstance(v, complex) or getattr(getattr(v, "dtype", None), "kind", "f") == "c" for v in values)
    wide = np.dtype("c16" if is_complex else "f8")
    base, power = (cast(v, wide) if hasattr(v, "dtype") else wide.type(v).item() for v in (input, exponent))
    return pow(base, power)


def ldexp(input: Any, other: Any) -> Any:
    """input * 2 ** other."""
    kind = getattr(getattr(input, "array", None), "dtype", None)
    steps = getattr(getattr(other, "array", other), "dtype", None)
    if kind is not None and kind.kind in "fV" and steps is not None and steps.kind in "biu":
        other = cast(other, kind)
    return input * pow(2.0, other)


@op(
    vjp=dict(input=lambda g, out: None if g[0] is None else g[0] / exp2(cast(out[1], "like", g[0]))),
    samples=lambda t: [(t(3, 4),)],
    promote="float",
    ref=np.frexp,
)
def frexp(xp, input):
    """Mantissa in [0.5, 1) and int32 exponent with input = mantissa * 2 ** exponent."""
    mantissa, exponent = xp.frexp(input)
    return mantissa, exponent.astype(np.int32)


def _times_log(xp: Any, log: Any, input: Any, other: Any, harmless: int) -> Any:
    dtype = (input if hasattr(input, "dtype") else other).dtype
    input, other = xp.asarray(input, dtype), xp.asarray(other, dtype)
    out = input * log(xp.where(input == 0, other.dtype.type(harmless), other))
    return xp.where(xp.isnan(other), other, out)


@op(
    vjp=dict(
        input=lambda g, input, other: where(logical_and(input == 0, other <= 0), 0.0, g * log(other)),
        other=lambda g, input, other: g * (input / other),
    ),
    samples=lambda t: [(t(3, 4), t(4, low=0.3, high=2)), (t(3), 2.0), (1.5, t(3, low=0.3, high=2))],
    promote="float",
    ref=lambda a, b: a * np.log(b),
)
def xlogy(xp, input, other):
    """input * log(other), 0 where input is 0 (NaN where other is)."""
    return _times_log(xp, xp.log, input, other, 1)


@op(
    vjp=dict(
        input=lambda g, input, other: where(logical_and(input == 0, other <= -1), 0.0, g * log1p(other)),
        other=lambda g, input, other: g * (input / (other + 1)),
    ),
    samples=lambda t: [(t(3, 4), t(4, low=-0.5))],
    promote="float",
    ref=lambda a, b: a * np.log(1 + b),
    method=False,
)
def special_xlog1py(xp, input, other):
    """input * log(1 + other), 0 where input is 0 (NaN where other is)."""
    return _times_log(xp, xp.log1p, input, other, 0)
