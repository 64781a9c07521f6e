"""Functions of float32 numbers that LLVM turns into vector code: no branches, no tables, no calls of the C library.

Results that a float32 would
hold as a denormal number are 0. NaN goes through, and the limits at infinity hold.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .numba_setup import scalar

__all__ = ["erf", "exp", "fading", "log", "log1p", "ordered", "sigmoid", "unordered"]

f = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = f(1.4426950408889634), f(0.693145751953125), f(1.4286068203094172e-06)
_MAGIC = f(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer, which the low bits then hold
_ONE, _TWO, _HALF = f(1), f(2), f(0.5)
_INF, _ZERO = f(np.inf), f(0)
_EXP_HIGH, _EXP_LOW = f(88.7228), f(-86.98)
# exp(r) = 1 + r + r² (1/2 + r/6 + ...), |r| <= ln(2) / 2
_E2, _E3, _E4, _E5, _E6, _E7 = (f(1 / k) for k in (2, 6, 24, 120, 720, 5040))


@intrinsic
def as_float(typing: Any, bits: Any) -> Any:
    """The float32 with these 32 bits."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.FloatType()
    )


@intrinsic
def as_int(typing: Any, value: Any) -> Any:
    """The 32 bits of a float32."""
    return types.int32(types.float32), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.IntType(32)
    )


@scalar
def ordered(x):
    """An int32 in the order of floats (NaN at the ends): vector instructions find the largest, which NaN hinders."""
    bits = as_int(x)
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@scalar
def unordered(key):
    """The inverse of `ordered`."""
    return as_float(np.int32(key ^ ((key >> np.int32(31)) & np.int32(0x7FFFFFFF))))


@scalar
def _reduced(x):
    """(r, half of 2**n) with x = n ln(2) + r."""
    shifted = x * _LOG2E + _MAGIC
    n = shifted - _MAGIC
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    return r, as_float(np.int32((as_int(shifted) + np.int32(126)) << np.int32(23)))


@scalar
def _tail(r):
    """exp(r) - 1 - r."""
    p = _E7
    p = p * r + _E6
    p = p * r + _E5
    p = p * r + _E4
    p = p * r + _E3
    p = p * r + _E2
    return p * r * r


@scalar
def exp(x):
    """Relative error below 1.2e-7."""
    r, half = _reduced(x)
    y = (_tail(r) + r + _ONE) * half * _TWO
    y = _INF if x > _EXP_HIGH else y
    return _ZERO if x < _EXP_LOW else y


# exp(r) = 1 + r (c1 + c2 r + ...) for |r| <= ln(2) / 2, fitted for the smallest relative error (9e-8)
_C1, _C2, _C3, _C4, _C5 = map(f, (0.999999707, 0.499991495, 0.166676362, 0.0418979303, 0.00829031265))
_LN2 = f(0.6931471805599453)
_BIASED = f(12582912.0 + 127)  # as _MAGIC, and the low bits then hold the exponent as floats store it


@scalar
def fading(x):
    """exp(x) for x of at most 0, in few instructions; relative error below 3e-7 + 3e-9 |x|."""
    shifted = x * _LOG2E + _BIASED
    r = x - (shifted - _BIASED) * _LN2
    power = as_float(np.int32(as_int(shifted) << np.int32(23)))
    y = (((((_C5 * r + _C4) * r + _C3) * r + _C2) * r + _C1) * r + _ONE) * power
    return _ZERO if x < _EXP_LOW else y


# log(1 + u) = u - u²/2 + u³ (l0 + l1 u + ...) for 1 + u from sqrt(1/2) to sqrt(2), fitted likewise (3e-8)
_L0, _L1, _L2, _L3, _L4, _L5, _L6 = map(
    f, (0.333339108, -0.25001337, 0.199630623, -0.16577586, 0.149147871, -0.142674768, 0.0870036029)
)
_ROOT_HALF = np.int32(0x3F3504F3)  # the bits of sqrt(1/2)


@scalar
def log(x):
    """The logarithm of a normal positive number, or NaN of NaN; error below 1.5e-7 of the result or of ln(2)."""
    bits = as_int(x)
    n = np.int32((bits - _ROOT_HALF) >> np.int32(23))
    u = as_float(np.int32(bits - (n << np.int32(23)))) - _ONE
    p = ((((((_L6 * u + _L5) * u + _L4) * u + _L3) * u + _L2) * u + _L1) * u + _L0) * u
    y = f(n) * _LN2 + (u + (p - _HALF) * u * u)
    return y if x == x else x


@scalar
def sigmoid(x):
    """Relative error below 3e-7."""
    return _ONE / (_ONE + exp(-x))


_P = f(0.3275911)
_A1, _A2, _A3, _A4, _A5 = (f(a) for a in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))


@scalar
def erf(x, falling):
    """The error function for `falling` = exp(-x²); absolute error below 4e-7 (Abramowitz & Stegun 7.1.26)."""
    positive = -x if x < _ZERO else x
    t = _ONE / (_ONE + _P * positive)
    y = _ONE - ((((_A5 * t + _A4) * t + _A3) * t + _A2) * t + _A1) * t * falling
    return -y if x < _ZERO else y


_H1, _H2, _H3, _H4, _H5, _H6, _H7 = (f(1 / k) for k in range(3, 17, 2))


@scalar
def log1p(y):
    """log(1 + y) for 0 <= y <= 1, as 2 artanh(y / (2 + y)); relative error below 2e-7."""
    s = y / (_TWO + y)
    q = s * s
    p = _H7
    p = p * q + _H6
    p = p * q + _H5
    p = p * q + _H4
    p = p * q + _H3
    p = p * q + _H2
    p = p * q + _H1
    return _TWO * (s + s * q * p)
