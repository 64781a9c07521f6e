"""The gamma function's family and the error function's, with gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes
from . import _special
from . import _special_gamma as gamma
from ._op import method, op
from .elementwise import exp, log

__all__: list[str] = []  # every op is exported through the registry

_SQRT_PI = math.sqrt(math.pi)


def _through64(function: Callable, *inputs: Any) -> Any:
    """Runs a float64 function on inputs of any floating dtype; what overflows in a branch not taken is no warning."""
    dtype = dtypes.result_numpy(inputs)
    if dtypes.category(dtype) < dtypes.FLOAT:
        dtype = dtypes.get_default_dtype().numpy
    if dtype.kind == "c":
        raise TypeError(f"special functions of complex numbers are not available, got {dtype}")
    with np.errstate(all="ignore"):
        wide = [v.astype(np.float64, copy=False) if hasattr(v, "dtype") else np.float64(v) for v in inputs]
        return function(*wide).astype(dtype, copy=False)


# -- gamma ------------------------------------------------------------------------------------------------------
@op(
    vjp=dict(input=lambda g, input: g * digamma(input)), promote="float", ref=np.vectorize(math.lgamma),
    samples=lambda t: [(t(3, 4, low=0.3, high=5),), (t(4, low=-0.9, high=-0.1),), (t(3, low=11, high=40),)],
)  # fmt: skip
def lgamma(xp, input):
    """The logarithm of |Gamma(x)|."""
    return _through64(lambda x: gamma.lgamma(xp, x), input)


@op(
    vjp=dict(input=lambda g, input: g * polygamma(1, input)), promote="float",
    samples=lambda t: [(t(3, 4, low=0.3, high=5),), (t(4, low=-0.8, high=-0.2),)],
)  # fmt: skip
def digamma(xp, input):
    """The derivative of lgamma."""
    return _through64(lambda x: gamma.digamma(xp, x), input)


@op(
    vjp=dict(input=lambda g, n, input: g * polygamma(n + 1, input)), promote="float", method=False,
    samples=lambda t: [(0, t(3, low=0.5, high=4)), (2, t(3, 4, low=0.5, high=4))],
)  # fmt: skip
def polygamma(xp, n, input):
    """The n-th derivative of digamma, n >= 0 an integer."""
    if n < 0 or n != int(n):
        raise RuntimeError(f"polygamma(n, x) needs an integer n >= 0, not {n!r}")
    return _through64(lambda x: gamma.polygamma(xp, int(n), x), input)


@method("polygamma")
def _polygamma(self: Any, n: int) -> Any:
    return polygamma(n, self)


@method()
def mvlgamma(input: Any, p: int) -> Any:
    """log of the multivariate gamma function of dimension p (sum of lgamma(x - j/2), j < p, plus a constant)."""
    total = lgamma(input)
    for j in range(1, p):
        total = total + lgamma(input - j / 2)
    return total + p * (p - 1) / 4 * math.log(math.pi)


@op(
    vjp=dict(other=lambda g, input, other: g * (-input * special_zeta(input + 1, other))),
    samples=lambda t: [(t(3, 4, low=1.5, high=4), t(4, low=0.5, high=4)), (2.0, t(3, low=0.5, high=4))], method=False,
)  # fmt: skip
def special_zeta(xp, input, other):
    """Hurwitz's zeta function: the sum over k of (other + k) ** -input. Only `other` has a gradient."""
    return _through64(lambda s, q: gamma.zeta(xp, s, q), input, other)


@op(
    vjp=dict(other=lambda g, input, other: g * exp((input - 1) * log(other) - other - lgamma(input))),
    samples=lambda t: [(t(3, 4, low=0.3, high=4), t(4, low=0.3, high=6))],
)  # fmt: skip
def igamma(xp, input, other):
    """The regularised lower incomplete gamma function P(input, other). Only `other` has a gradient."""
    return _through64(lambda a, x: gamma.gammainc(xp, a, x, False), input, other)


@op(
    vjp=dict(other=lambda g, input, other: -g * exp((input - 1) * log(other) - other - lgamma(input))),
    samples=lambda t: [(t(3, 4, low=0.3, high=4), t(4, low=0.3, high=6))],
)  # fmt: skip
def igammac(xp, input, other):
    """The regularised upper incomplete gamma function Q(input, other). Only `other` has a gradient."""
    return _through64(lambda a, x: gamma.gammainc(xp, a, x, True), input, other)


# -- error function ---------------------------------------------------------------------------------------------
@op(
    vjp=dict(input=lambda g, input: g * (exp(-input * input) * (-2 / _SQRT_PI))), promote="float",
    samples=lambda t: [(t(3, 4),), (t(5, low=-6, high=9),)], ref=np.vectorize(math.erfc),
)  # fmt: skip
def erfc(xp, input):
    """1 - erf(x), exact where it is tiny."""
    return _through64(lambda x: _special.erfc(xp, x), input)


@op(
    vjp=dict(input=lambda g, out: g * (exp(out * out) * (_SQRT_PI / 2))), promote="float",
    samples=lambda t: [(t(3, 4, low=-0.9, high=0.9),)],
)  # fmt: skip
def erfinv(xp, input):
    """The inverse of erf on (-1, 1)."""
    return _through64(lambda x: _special.erfinv(xp, x), input)


@op(
    vjp=dict(input=lambda g, input, out: g * (2 * input * out - 2 / _SQRT_PI)), promote="float", method=False,
    samples=lambda t: [(t(3, 4, low=-2, high=2),), (t(4, low=4.5, high=9),)],
)  # fmt: skip
def special_erfcx(xp, input):
    """exp(x²) erfc(x)."""
    return _through64(lambda x: _special.erfcx(xp, x), input)


@op(
    vjp=dict(input=lambda g, input: g * (exp(input * input * -0.5) * (1 / math.sqrt(2 * math.pi)))), promote="float",
    samples=lambda t: [(t(3, 4, low=-3, high=3),)], method=False,
    ref=np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2))),
)  # fmt: skip
def special_ndtr(xp, input):
    """P(Z <= x) for a standard normal Z."""
    return _through64(lambda x: 0.5 * _special.erfc(xp, x * -math.sqrt(0.5)), input)


@op(
    vjp=dict(input=lambda g, out: g * (exp(out * out * 0.5) * math.sqrt(2 * math.pi))), promote="float", method=False,
    samples=lambda t: [(t(3, 4, low=0.05, high=0.95),)],
)  # fmt: skip
def special_ndtri(xp, input):
    """The x with P(Z <= x) = input for a standard normal Z."""
    return _through64(lambda p: _special.ndtri(xp, p), input)


@op(
    vjp=dict(input=lambda g, input: g * (math.sqrt(2 / math.pi) / special_erfcx(input * -math.sqrt(0.5)))),
    samples=lambda t: [(t(3, 4, low=-6, high=3),)], promote="float", method=False,
)  # fmt: skip
def special_log_ndtr(xp, input):
    """log P(Z <= x) for a standard normal Z, without underflow."""
    return _through64(lambda x: _special.log_ndtr(xp, x), input)


@op(
    vjp=dict(input=lambda g, input: g * (-1 - log(input))), samples=lambda t: [(t(3, 4, low=0.1, high=2),)],
    promote="float", ref=lambda x: -x * np.log(x), method=False,
)  # fmt: skip
def special_entr(xp, input):
    """-x log(x); 0 at 0 and -infinity for negative numbers."""
    out = -input * xp.log(xp.where(input > 0, input, 1))
    return xp.where(input < 0, -np.inf, xp.where(xp.isnan(input), input, out)).astype(input.dtype)
