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

__all__ = ["erf", "exp", "log1p", "sigmoid"]

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


_L1, _L2, _L3, _L4, _L5, _L6, _L7 = (f(1 / k) for k in range(3, 17, 2))


@scalar
def log1p(y):
    """log(1 + y) for 0 <= y <= 1, as 2 artanh(y / (2 + y)); relative error below 2e-7."""
    s = y / (_TWO + y)
    q = s * s
    p = _L7
    p = p * q + _L6
    p = p * q + _L5
    p = p * q + _L4
    p = p * q + _L3
    p = p * q + _L2
    p = p * q + _L1
    return _TWO * (s + s * q * p)
