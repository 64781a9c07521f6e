"""Special functions that array libraries lack, as rational approximations written against `xp`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969), 631-637.
_A = (3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02, 3.20937758913846947e03,
      1.85777706184603153e-1)  # fmt: skip
_B = (2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03, 2.84423683343917062e03)
_C = (5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e01, 2.98635138197400131e02,
      8.81952221241769090e02, 1.71204761263407058e03, 2.05107837782607147e03, 1.23033935479799725e03,
      2.15311535474403846e-8)  # fmt: skip
_D = (1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02, 1.62138957456669019e03,
      3.29079923573345963e03, 4.36261909014324716e03, 3.43936767414372164e03, 1.23033935480374942e03)  # fmt: skip
_P = (3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1, 1.60837851487422766e-2,
      6.58749161529837803e-4, 1.63153871373020978e-2)  # fmt: skip
_Q = (2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1, 6.05183413124413191e-2,
      2.33520497626869185e-3)  # fmt: skip


def _ratio(x: Any, top: tuple, bottom: tuple) -> Any:
    """Cody's Horner scheme: the last coefficient of `top` leads, `bottom` is monic."""
    num = top[-1] * x
    den = x
    for a, b in zip(top[:-2], bottom[:-1], strict=False):
        num = (num + a) * x
        den = (den + b) * x
    return (num + top[len(bottom) - 1]) / (den + bottom[-1])


def erf(xp: Any, x: Any) -> Any:
    """The error function, to the last digits of float64 (float32 and lower are computed in float32)."""
    half = x.dtype.kind == "V" or x.dtype.itemsize == 2
    x32 = x.astype(np.float32) if half else x
    y = xp.abs(x32)
    square = y * y
    small = x32 * _ratio(square, _A, _B)
    y_mid = xp.clip(y, 0.46875, 4.0)
    mid = 1 - xp.exp(-y_mid * y_mid) * _ratio(y_mid, _C, _D)
    y_big = xp.clip(y, 4.0, 30.0)
    inverse = 1 / (y_big * y_big)
    tail = (0.5641895835477563 - inverse * _ratio(inverse, _P, _Q)) / y_big
    big = 1 - xp.exp(-y_big * y_big) * tail
    out = xp.where(y <= 0.46875, small, xp.sign(x32) * xp.where(y <= 4.0, mid, big))
    out = xp.where(xp.isnan(x32), x32, out).astype(x.dtype)
    return out


def _wide(x: Any) -> Any:
    """float64: the functions below are computed there and cast back by the op."""
    return x.astype(np.float64, copy=False)


def erfcx(xp: Any, x: Any) -> Any:
    """exp(x²) erfc(x) in float64."""
    y = xp.abs(x)
    small = 1 - xp.minimum(y, 0.5) * _ratio(xp.minimum(y, 0.5) ** 2, _A, _B)
    small = small * xp.exp(xp.minimum(y, 0.5) ** 2)
    y_big = xp.maximum(y, 4.0)
    inverse = 1 / (y_big * y_big)
    tail = (0.5641895835477563 - inverse * _ratio(inverse, _P, _Q)) / y_big
    out = xp.where(y <= 0.46875, small, xp.where(y <= 4.0, _ratio(xp.clip(y, 0.46875, 4.0), _C, _D), tail))
    return xp.where(x < 0, 2 * xp.exp(xp.minimum(y, 30.0) ** 2) - out, xp.where(xp.isnan(x), x, out)) + xp.where(
        x < -30, np.inf, 0.0
    )


def _exp_minus_square(xp: Any, y: Any) -> Any:
    """exp(-y²) for y >= 0 without the error that rounding y² brings (Cody's split)."""
    head = xp.trunc(xp.minimum(y, 40.0) * 16) / 16
    rest = (xp.minimum(y, 40.0) - head) * (xp.minimum(y, 40.0) + head)
    return xp.exp(-head * head) * xp.exp(-rest)


def erfc(xp: Any, x: Any) -> Any:
    """1 - erf(x) in float64, to the last digits also where it is tiny."""
    y = xp.abs(x)
    small = 1 - x * _ratio(xp.minimum(y, 0.5) ** 2, _A, _B)
    tail = _exp_minus_square(xp, y) * erfcx(xp, y)
    return xp.where(y <= 0.46875, small, xp.where(x < 0, 2 - tail, tail))


def erfc_inverse(xp: Any, p: Any) -> Any:
    """y with erfc(y) = p for 0 <= p <= 1: Newton's method on log erfc, which is concave."""
    q = xp.clip(p, 5e-324, 1.0)
    log_q = xp.log(q)
    far = xp.sqrt(xp.maximum(-log_q, 1.0))
    far = xp.sqrt(xp.maximum(-log_q - xp.log(far * 1.7724538509055159), 0.01))
    y = xp.where(q > 0.3, 0.886226925452758 * (1 - q), far)
    for _ in range(6):
        scaled = erfcx(xp, y)
        y = y + (xp.log(scaled) - y * y - log_q) * scaled * 0.8862269254527580
    return xp.where(p == 0, np.inf, xp.where((p < 0) | (p > 1), np.nan, y)) + p * 0


def erfinv(xp: Any, x: Any) -> Any:
    """The inverse of erf in float64: Halley's method on erf in the middle, on erfc in the tails."""
    a = xp.abs(x)
    inner = xp.clip(a, 0, 0.6)
    s = inner * inner
    y = 0.886226925452758 * inner * (1 + s * (0.2617993877991494 + s * 0.14393173084921979))
    for _ in range(3):
        step = (erf(xp, y) - inner) * 0.8862269254527580 * xp.exp(y * y)
        y = y - step / (1 + y * step)
    return xp.sign(x) * xp.where(a <= 0.5, y, erfc_inverse(xp, 1 - a))


def ndtri(xp: Any, p: Any) -> Any:
    """The quantile of the standard normal distribution in float64."""
    tail = xp.sqrt(2.0) * erfc_inverse(xp, 2 * xp.minimum(p, 1 - p))
    middle = xp.sqrt(2.0) * erfinv(xp, xp.clip(2 * p - 1, -0.6, 0.6))
    return xp.where(xp.abs(p - 0.5) < 0.25, middle, xp.where(p < 0.5, -tail, tail))


def log_ndtr(xp: Any, x: Any) -> Any:
    """log P(Z <= x) for a standard normal Z, in float64."""
    z = x * 0.7071067811865476
    left = xp.log(erfcx(xp, -xp.minimum(z, 0.0)) / 2) - z * z
    return xp.where(x < -1, left, xp.log1p(-erfc(xp, xp.maximum(z, -1.0)) / 2))


def erf_reference(x: Any) -> Any:
    """Python's own math.erf, element by element."""
    return np.vectorize(math.erf)(x)
