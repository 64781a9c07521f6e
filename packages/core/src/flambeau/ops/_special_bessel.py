"""Bessel and Airy functions in float64, written against `xp`: Chebyshev series near 0, modulus and phase far out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _special_tables as tables
from ._special_gamma import chebyshev

_TWO_OVER_PI = 2 / math.pi


def modified_i(xp: Any, x: Any, order: int) -> Any:
    """exp(-|x|) I(x) of order 0 or 1."""
    small, large = (tables.I0_SMALL, tables.I0_LARGE) if order == 0 else (tables.I1_SMALL, tables.I1_LARGE)
    y = xp.abs(x)
    near = xp.minimum(y, 8.0)
    inner = chebyshev(near / 4 - 1, small) * (near if order else 1.0)
    far = xp.maximum(y, 8.0)
    out = xp.where(y <= 8, inner, chebyshev(16 / far - 1, large) / xp.sqrt(far))
    return (xp.sign(x) * out if order else out) + xp.where(xp.isnan(x), x, 0.0)


def modified_i_unscaled(xp: Any, x: Any, order: int) -> Any:
    """I(x) of order 0 or 1."""
    y = xp.abs(x)
    half = xp.exp(y / 2)  # exp(y) itself overflows earlier than the product does
    out = modified_i(xp, xp.where(xp.isinf(x), 1.0, x), order) * half * half
    return xp.where(y == np.inf, (x if order else y), out)


def modified_k(xp: Any, x: Any, order: int, scaled: bool) -> Any:
    """K(x) of order 0 or 1, times exp(x) if `scaled`."""
    small, large = (tables.K0_SMALL, tables.K0_LARGE) if order == 0 else (tables.K1_SMALL, tables.K1_LARGE)
    near = xp.clip(x, 5e-324, 2.0)
    series = chebyshev(near * near / 2 - 1, small)
    log_part = xp.log(near / 2) * modified_i(xp, near, order) * xp.exp(near)
    inner = series - log_part if order == 0 else series / near + log_part
    far = xp.maximum(x, 2.0)
    outer = chebyshev(4 / far - 1, large) / xp.sqrt(far)
    out = xp.where(x <= 2, inner * (xp.exp(near) if scaled else 1.0), outer * (1.0 if scaled else xp.exp(-far)))
    return xp.where(x == 0, np.inf, xp.where(x < 0, np.nan, out)) + xp.where(xp.isnan(x), x, 0.0)


def bessel_j(xp: Any, x: Any, order: int) -> Any:
    """J(x) of order 0 or 1."""
    y = xp.abs(x)
    near = xp.minimum(y, 8.0)
    inner = chebyshev(near * near / 32 - 1, tables.J1_SMALL if order else tables.J0_SMALL) * (near if order else 1.0)
    p, q, c, s = _wave(xp, y, order)
    out = xp.where(y <= 8, inner, p * c - q * s)
    return (xp.sign(x) * out if order else out) + xp.where(xp.isnan(x), x, 0.0)


def bessel_y(xp: Any, x: Any, order: int) -> Any:
    """Y(x) of order 0 or 1; NaN left of 0."""
    near = xp.clip(x, 1e-308, 8.0)
    series = chebyshev(near * near / 32 - 1, tables.Y1_SMALL if order else tables.Y0_SMALL)
    product = xp.log(near) * bessel_j(xp, near, order)
    inner = series * near + _TWO_OVER_PI * (product - 1 / near) if order else series + _TWO_OVER_PI * product
    p, q, c, s = _wave(xp, x, order)
    out = xp.where(x <= 8, inner, p * s + q * c)
    return xp.where(x == 0, -np.inf, xp.where(x < 0, np.nan, out)) + xp.where(xp.isnan(x), x, 0.0)


def _wave(xp: Any, x: Any, order: int) -> tuple:
    """sqrt(2/(pi x)) P, sqrt(2/(pi x)) Q, and cosine and sine of x - (2 order + 1) pi / 4."""
    far = xp.where(x > 8, x, 8.0)
    t = 128 / (far * far) - 1
    size = xp.sqrt(_TWO_OVER_PI / far)
    p = chebyshev(t, tables.P1 if order else tables.P0) * size
    q = chebyshev(t, tables.Q1 if order else tables.Q0) * size * (8 / far)
    angle = xp.where(xp.isinf(far), 0.0, far)
    c, s = xp.cos(angle) * math.sqrt(0.5), xp.sin(angle) * math.sqrt(0.5)
    return (p, q, s - c, -s - c) if order else (p, q, c + s, s - c)


def spherical_j0(xp: Any, x: Any) -> Any:
    """sin(x) / x."""
    safe = xp.where((x == 0) | xp.isinf(x), 1.0, x)
    return xp.where(x == 0, 1.0, xp.where(xp.isinf(x), 0.0, xp.sin(safe) / safe))


def airy_ai(xp: Any, x: Any) -> Any:
    """Ai(x)."""
    middle = chebyshev((xp.clip(x, -4.0, 2.0) + 1) / 3, tables.AIRY_MIDDLE)
    right = xp.clip(x, 2.0, 120.0)
    zeta = 2 / 3 * right * xp.sqrt(right)
    bound = 2 / 3 * 2 * math.sqrt(2)
    tail = chebyshev(2 * bound / zeta - 1, tables.AIRY_TAIL) * xp.exp(-zeta)
    tail = tail / (2 * math.sqrt(math.pi) * xp.sqrt(xp.sqrt(right)))
    left = xp.maximum(-x, 4.0)
    zeta = 2 / 3 * left * xp.sqrt(left)
    t = 2 * (16 / 3 / zeta) ** 2 - 1
    p, q = chebyshev(t, tables.AIRY_P), chebyshev(t, tables.AIRY_Q) / zeta
    c, s = xp.cos(zeta) * math.sqrt(0.5), xp.sin(zeta) * math.sqrt(0.5)
    wave = ((c + s) * p + (s - c) * q) / (math.sqrt(math.pi) * xp.sqrt(xp.sqrt(left)))
    return xp.where(x < -4, wave, xp.where(x <= 2, middle, tail)) + xp.where(xp.isnan(x), x, 0.0)


def polynomial(xp: Any, x: Any, n: Any, first: Any, step: Any) -> Any:
    """p_n(x) of a three-term recurrence: p_0 = 1, p_1 = first(x), p_k = step(k, x, p_(k-1), p_(k-2)).

    `n` may be an array; degrees are truncated to integers, negative ones give 0.
    """
    x, n = xp.broadcast_arrays(x, n)
    n = xp.trunc(n)
    before, now = xp.ones_like(x), first(x) + x * 0
    out = xp.where(n == 0, 1.0, xp.where(n < 0, 0.0, now))
    top = int(n.max()) if n.size else 0
    for k in range(2, top + 1):
        before, now = now, step(k, x, now, before)
        out = xp.where(n == k, now, out)
    return out
