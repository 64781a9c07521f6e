"""The gamma function's family in float64, written against `xp`: Stirling and Euler-Maclaurin series, fractions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._special_tables import LGAMMA

# B_2k / (2k): the asymptotic series of digamma; with another factor, those of lgamma and zeta (DLMF 5.11, 25.11).
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
_MAX_STEPS = 100_000


def chebyshev(t: Any, coefficients: tuple) -> Any:
    """Clenshaw's sum of a Chebyshev series at t in [-1, 1]."""
    b1 = b2 = t * 0
    double = 2 * t
    for c in coefficients[:0:-1]:
        b1, b2 = c + double * b1 - b2, b1
    return coefficients[0] + t * b1 - b2


def _stirling(xp: Any, x: Any) -> Any:
    """log Gamma(x) - ((x - 1/2) log x - x + log(2 pi) / 2), for x >= 8."""
    inverse = 1 / x
    square = inverse * inverse
    total: Any = 0.0
    for k in range(len(_BERNOULLI), 0, -1):
        total = total * square + _BERNOULLI[k - 1] / (2 * k * (2 * k - 1))
    return total * inverse


def lgamma(xp: Any, x: Any) -> Any:
    """log |Gamma(x)|."""
    negative = x <= 0
    y = xp.where(negative, 1 - x, x)
    z = xp.clip(y, 0.0, 10.0)
    below = z < 1
    product = xp.ones_like(z)
    shifted = xp.where(below, z + 1, z)
    for _ in range(7):  # down to [1, 3]
        high = shifted > 3
        shifted = xp.where(high, shifted - 1, shifted)
        product = xp.where(high, product * shifted, product)
    small = (shifted - 1) * (shifted - 2) * chebyshev(shifted - 2, LGAMMA)
    small = small + xp.log(xp.where(below, 1 / xp.where(below, z, 1.0), product))
    big = xp.maximum(y, 10.0)
    large = xp.where(xp.isinf(big), np.inf, (big - 0.5) * (xp.log(big) - 1) + 0.41893853320467274 + _stirling(xp, big))
    out = xp.where(y < 10, small, large)
    sine = xp.abs(xp.sin(math.pi * (x - xp.round(xp.where(xp.isinf(x), 0.0, x)))))
    out = xp.where(negative, 1.1447298858494002 - xp.log(sine) - out, out)
    return xp.where(xp.isinf(x), np.inf, out)


def digamma(xp: Any, x: Any) -> Any:
    """The derivative of log Gamma."""
    negative = x < 0
    y = xp.where(negative, 1 - x, x)
    total = xp.zeros_like(y)
    for _ in range(10):
        low = y < 10
        total = xp.where(low, total - 1 / y, total)
        y = xp.where(low, y + 1, y)
    square = 1 / (y * y)
    series: Any = 0.0
    for k in range(len(_BERNOULLI), 0, -1):
        series = (series + _BERNOULLI[k - 1] / (2 * k)) * square
    out = total + xp.log(y) - 0.5 / y - series
    fraction = x - xp.round(x)
    tangent = xp.tan(math.pi * fraction)
    out = xp.where(negative, xp.where(fraction == 0, np.nan, out - math.pi / tangent), out)
    return xp.where(x == 0, xp.copysign(np.inf, -x), xp.where(x == np.inf, x, out))


def zeta(xp: Any, s: Any, q: Any) -> Any:
    """Hurwitz's zeta function, sum of (q + k)^-s; left of 0 only for integers s, where the powers are real."""
    s, q = xp.broadcast_arrays(s, q)
    whole = xp.floor(q) == q
    unknown = xp.isnan(s) | xp.isnan(q)
    bad = unknown | (s < 1) | ((q < 0) & ~whole & (xp.floor(s) != s))
    pole = ~bad & ((s == 1) | ((q <= 0) & whole))
    s = xp.where(bad | pole, 2.0, s)
    y = xp.where(bad | pole | ~xp.isfinite(q), 1.0, q)
    total = _zeta_right(xp, s, xp.where(y < 0, y - xp.floor(y), y))
    left = y < 0
    if bool(left.any()):  # the negative terms are (-1)^s (u + k)^-s, u the distance to the next integer, u + k <= -q
        sign = xp.where(xp.floor(s / 2) * 2 == s, 1.0, -1.0)
        first, beyond = xp.where(left, xp.ceil(y) - y, 1.0), xp.where(left, 1 - y, 1.0)
        negative = _zeta_right(xp, s, first) - _zeta_right(xp, s, beyond)
        total = xp.where(left, total + sign * negative, total)
    total = xp.where(q == np.inf, 0.0, total)
    return xp.where(pole, np.inf, xp.where(bad, np.nan, total))


def _zeta_right(xp: Any, s: Any, y: Any) -> Any:
    """The sum for s > 1 and y > 0, by Euler and Maclaurin (DLMF 25.11.7)."""
    total = xp.zeros_like(y)
    enough = 12 + s / 2
    power = y**-s
    for _ in range(_MAX_STEPS):  # until the series below holds, or until no further term counts
        low = (y < enough) & ((y < 1) | (power > total * 1e-17))
        if not bool(low.any()):
            break
        total = xp.where(low, total + power, total)
        y = xp.where(low, y + 1, y)
        power = y**-s
    tail = power * (y / (s - 1) + 0.5)
    term = power * s / y
    factorial = 1.0
    for k, b in enumerate(_BERNOULLI, 1):
        factorial *= (2 * k - 1) * (2 * k)
        tail = tail + term * (b / factorial)
        term = term * (s + 2 * k - 1) * (s + 2 * k) / (y * y)
    return total + xp.where(y >= enough, tail, 0.0)


def polygamma(xp: Any, n: int, x: Any) -> Any:
    """The n-th derivative of digamma."""
    if n == 0:
        return digamma(xp, x)
    return (-1.0) ** (n + 1) * math.gamma(n + 1) * zeta(xp, xp.asarray(n + 1.0), x)


def _log_ratio_gap(xp: Any, t: Any) -> Any:
    """log(1 + t) - t without cancellation near 0."""
    near = xp.where(xp.abs(t) < 0.3, t, 0.0)
    u = near / (2 + near)  # log(1 + t) = 2 artanh(u)
    square = u * u
    series: Any = 0.0
    for k in range(12, 0, -1):
        series = (series + 2 / (2 * k + 1)) * square
    inner = u * series - near * u  # 2u - t = -t u
    return xp.where(xp.abs(t) < 0.3, inner, xp.log1p(t) - t)


def _prefactor(xp: Any, a: Any, x: Any) -> Any:
    """x^a exp(-x) / Gamma(a + 1), exact also for large a near x."""
    big = xp.maximum(a, 10.0)
    large = big * _log_ratio_gap(xp, (x - big) / big) - 0.5 * xp.log(2 * math.pi * big) - _stirling(xp, big)
    small_a = xp.minimum(a, 10.0)
    small = small_a * xp.log(x) - x - lgamma(xp, small_a + 1)
    return xp.exp(xp.where(a > 10, large, small))


def gammainc(xp: Any, a: Any, x: Any, upper: bool) -> Any:
    """P(a, x), or Q(a, x) if `upper`: the power series left of a + 1, Legendre's continued fraction right of it."""
    a, x = xp.broadcast_arrays(a, x)
    proper = (a > 0) & (x > 0) & xp.isfinite(a) & xp.isfinite(x)
    a0, x0 = xp.where(proper, a, 1.0), xp.where(proper, x, 1.0)
    left = (x0 < a0 + 1) & ((x0 > 0.5) | (x0 < a0) | (not upper) | (a0 > 0.5))
    front = _prefactor(xp, a0, x0)
    term = total = xp.ones_like(a0)
    xs = xp.where(x0 < a0 + 1.5, x0, 0.0)
    for n in range(1, _MAX_STEPS):
        term = term * xs / (a0 + n)
        total = total + term
        if not bool((term > total * 2e-17).any()):
            break
    lower = front * total
    # Q for small x and a, where 1 - P would lose digits: 1 - x^a / Gamma(1 + a) + the alternating rest.
    xq = xp.where(left, 0.5, x0)
    aq = xp.where(left, 0.5, a0)
    rest = xp.zeros_like(a0)
    sign_term = -xp.where(xq <= 1.5, xq, 1.0)
    for n in range(1, 40):
        rest = rest + sign_term / (aq + n)
        sign_term = -sign_term * xp.where(xq <= 1.5, xq, 1.0) / (n + 1)
    log_power = aq * xp.log(xq)
    near = -xp.expm1(log_power - lgamma(xp, 1 + aq)) - xp.exp(log_power - lgamma(xp, 1 + aq)) * aq * rest
    # Lentz's method for the continued fraction.
    xc, ac = xp.where(x0 >= xp.maximum(a0 + 1, 1.0), x0, xp.maximum(a0 + 1, 1.0) + 1), a0
    b = xc + 1 - ac
    c = xp.full_like(b, 1e300)
    d = 1 / b
    h = d
    for n in range(1, _MAX_STEPS):
        an = -n * (n - ac)
        b = b + 2
        d = 1 / _nonzero(xp, an * d + b)
        c = _nonzero(xp, b + an / c)
        delta = c * d
        h = h * delta
        if not bool((xp.abs(delta - 1) > 5e-16).any()):
            break
    fraction = front * a0 * h
    above = xp.where(x0 >= xp.maximum(a0 + 1, 1.0), fraction, xp.where(left, 1 - lower, near))
    out = above if upper else xp.where(x0 < a0 + 1, lower, 1 - fraction)
    end = xp.where((x == np.inf) | ((a == 0) & (x > 0)), 1.0, 0.0)  # of P
    end = xp.where((a == np.inf) & (x == np.inf), np.nan, end)
    out = xp.where(proper, out, 1 - end if upper else end)
    return xp.where((a < 0) | (x < 0) | ((a == 0) & (x == 0)) | xp.isnan(a) | xp.isnan(x), np.nan, out)


def _nonzero(xp: Any, value: Any) -> Any:
    return xp.where(xp.abs(value) < 1e-300, 1e-300, value)
