"""Bessel and Airy functions, orthogonal polynomials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _special_bessel as bessel
from ._op import op
from .elementwise import sgn, where
from .special_gamma import _through64

__all__: list[str] = []  # every op is exported through the registry


@op(
    vjp=dict(input=lambda g, input: g * special_i1(input)), promote="float",
    samples=lambda t: [(t(3, 4, low=-3, high=3),), (t(4, low=8.5, high=12),)],
)  # fmt: skip
def i0(xp, input):
    """The modified Bessel function of the first kind of order 0."""
    return _through64(lambda x: bessel.modified_i_unscaled(xp, x, 0), input)


@op(
    vjp=dict(input=lambda g, input, out: g * (special_i1e(input) - sgn(input) * out)), promote="float", method=False,
    samples=lambda t: [(t(3, 4, low=0.1, high=3),), (t(4, low=-12, high=-8.5),)],
)  # fmt: skip
def special_i0e(xp, input):
    """exp(-|x|) I0(x)."""
    return _through64(lambda x: bessel.modified_i(xp, x, 0), input)


@op(
    vjp=dict(input=lambda g, input, out: g * (i0(input) - _over(out, input, 0.5))), promote="float", method=False,
    samples=lambda t: [(t(3, 4, low=0.1, high=3),), (t(4, low=-12, high=-8.5),)],
)  # fmt: skip
def special_i1(xp, input):
    """The modified Bessel function of the first kind of order 1."""
    return _through64(lambda x: bessel.modified_i_unscaled(xp, x, 1), input)


@op(
    vjp=dict(input=lambda g, input, out: g * (special_i0e(input) - sgn(input) * out - _over(out, input, 0.5))),
    promote="float", method=False, samples=lambda t: [(t(3, 4, low=0.1, high=3),), (t(4, low=-12, high=-8.5),)],
)  # fmt: skip
def special_i1e(xp, input):
    """exp(-|x|) I1(x)."""
    return _through64(lambda x: bessel.modified_i(xp, x, 1), input)


def _over(value: Any, x: Any, at_zero: float) -> Any:
    """value / x with its limit at 0."""
    zero = x == 0
    return where(zero, at_zero, value / where(zero, 1.0, x))


# PyTorch gives these no gradient.
def _declare(name: str, doc: str, function: Callable) -> None:
    def forward(xp, input):
        return _through64(lambda x: function(xp, x), input)

    forward.__name__, forward.__doc__ = name, doc
    samples = lambda t: [(t(3, 4, low=0.1, high=3),), (t(4, low=8.5, high=12),)]
    globals()[name] = op(promote="float", samples=samples, method=False)(forward)


for _name, _doc, _function in (
    ("special_airy_ai", "The Airy function Ai.", bessel.airy_ai),
    ("special_bessel_j0", "The Bessel function of the first kind of order 0.", lambda xp, x: bessel.bessel_j(xp, x, 0)),
    ("special_bessel_j1", "The Bessel function of the first kind of order 1.", lambda xp, x: bessel.bessel_j(xp, x, 1)),
    ("special_bessel_y0", "Bessel function of the second kind, order 0.", lambda xp, x: bessel.bessel_y(xp, x, 0)),
    ("special_bessel_y1", "Bessel function of the second kind, order 1.", lambda xp, x: bessel.bessel_y(xp, x, 1)),
    ("special_modified_bessel_i0", "The modified Bessel function I0.",
     lambda xp, x: bessel.modified_i_unscaled(xp, x, 0)),
    ("special_modified_bessel_i1", "The modified Bessel function I1.",
     lambda xp, x: bessel.modified_i_unscaled(xp, x, 1)),
    ("special_modified_bessel_k0", "Modified Bessel function K0.", lambda xp, x: bessel.modified_k(xp, x, 0, False)),
    ("special_modified_bessel_k1", "Modified Bessel function K1.", lambda xp, x: bessel.modified_k(xp, x, 1, False)),
    ("special_scaled_modified_bessel_k0", "exp(x) K0(x).", lambda xp, x: bessel.modified_k(xp, x, 0, True)),
    ("special_scaled_modified_bessel_k1", "exp(x) K1(x).", lambda xp, x: bessel.modified_k(xp, x, 1, True)),
    ("special_spherical_bessel_j0", "sin(x) / x.", bessel.spherical_j0),
):  # fmt: skip
    _declare(_name, _doc, _function)


# -- orthogonal polynomials (three-term recurrences, DLMF 18.9) ----------------------------------------------------
def _declare_polynomial(name: str, doc: str, first: Callable, step: Callable) -> None:
    def forward(xp, input, n):
        return _through64(lambda x, degree: bessel.polynomial(xp, x, degree, first, step), input, n)

    forward.__name__ = name
    forward.__doc__ = doc + " of degree n (truncated to an integer; 0 for negative n). Shapes broadcast; no gradient."
    samples = lambda t: [(t(3, 4), t(4, low=0, dtype="int64")), (t(3), 5)]
    globals()[name] = op(promote="float", samples=samples, method=False)(forward)


def _chebyshev_step(k: int, x: Any, p: Any, q: Any) -> Any:
    return 2 * x * p - q


def _shifted_step(k: int, x: Any, p: Any, q: Any) -> Any:
    return 2 * (2 * x - 1) * p - q


for _kind, _start in dict(
    t=lambda x: x, u=lambda x: 2 * x, v=lambda x: 2 * x - 1, w=lambda x: 2 * x + 1,
).items():  # fmt: skip
    _kind_doc = f"The Chebyshev polynomial of the {dict(t='first', u='second', v='third', w='fourth')[_kind]} kind"
    _declare_polynomial(f"special_chebyshev_polynomial_{_kind}", _kind_doc, _start, _chebyshev_step)
    _declare_polynomial(
        f"special_shifted_chebyshev_polynomial_{_kind}",
        _kind_doc + ", shifted to [0, 1],",
        lambda x, start=_start: start(2 * x - 1),
        _shifted_step,
    )
for _name, _doc, _first, _step in (
    ("hermite_polynomial_h", "The physicist's Hermite polynomial", lambda x: 2 * x,
     lambda k, x, p, q: 2 * x * p - 2 * (k - 1) * q),
    ("hermite_polynomial_he", "The probabilist's Hermite polynomial", lambda x: x,
     lambda k, x, p, q: x * p - (k - 1) * q),
    ("laguerre_polynomial_l", "The Laguerre polynomial", lambda x: 1 - x,
     lambda k, x, p, q: ((2 * k - 1 - x) * p - (k - 1) * q) / k),
    ("legendre_polynomial_p", "The Legendre polynomial", lambda x: x,
     lambda k, x, p, q: ((2 * k - 1) * x * p - (k - 1) * q) / k),
):  # fmt: skip
    _declare_polynomial("special_" + _name, _doc, _first, _step)
