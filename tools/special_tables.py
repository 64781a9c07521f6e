"""Writes the Chebyshev tables of the special functions, computed from 40-digit values (needs mpmath).

usage: special_tables.py > packages/core/src/flambeau/ops/_special_tables.py
"""

from __future__ import annotations

from collections.abc import Callable

from mpmath import (
    airyai,
    airybi,
    besseli,
    besselj,
    besselk,
    bessely,
    cos,
    cospi,
    exp,
    fsum,
    log,
    loggamma,
    mp,
    mpf,
    pi,
    sin,
    sqrt,
)  # fmt: skip

mp.dps = 40


def fit(f: Callable, low: float, high: float, n: int = 64) -> list:
    """Chebyshev coefficients of f on [low, high], cut where they no longer matter in double precision."""
    low, high = mpf(low), mpf(high)
    values = [f((high - low) / 2 * cospi((mpf(k) + 0.5) / n) + (high + low) / 2) for k in range(n)]
    c = [2 * fsum(v * cospi(j * (mpf(k) + 0.5) / n) for k, v in enumerate(values)) / n for j in range(n)]
    c[0] /= 2
    limit = max(map(abs, c)) * mpf("2e-18")
    while abs(c[-1]) < limit:
        c.pop()
    return c


def hankel(order: int, part: int) -> Callable:
    """P (part 0) or 8 Q / x... of the modulus-phase form of J and Y (DLMF 10.17.3), as a function of (8 / x)²."""

    def f(s):
        x = 8 / sqrt(s)
        phase = x - (2 * order + 1) * pi / 4
        j, y, scale = besselj(order, x), bessely(order, x), sqrt(pi * x / 2)
        if part == 0:
            return scale * (j * cos(phase) + y * sin(phase))
        return scale * (y * cos(phase) - j * sin(phase)) * x / 8

    return f


def airy_wave(part: int) -> Callable:
    """P or zeta Q of the oscillating side (DLMF 9.7.9), as a function of 1 / zeta²."""

    def f(s):
        zeta = 1 / sqrt(s)
        z = (zeta * mpf(3) / 2) ** (mpf(2) / 3)
        a, b = (v * sqrt(pi) * z**0.25 for v in (airyai(-z), airybi(-z)))
        c, d = cos(zeta - pi / 4), sin(zeta - pi / 4)
        return c * a - d * b if part == 0 else (d * a + c * b) * zeta

    return f


def airy_tail(s):
    zeta = 1 / s
    x = (zeta * mpf(3) / 2) ** (mpf(2) / 3)
    return airyai(x) * exp(zeta) * 2 * sqrt(pi) * x**0.25


def root(f: Callable) -> Callable:
    return lambda s: f(sqrt(s))


ZETA = {x: mpf(2) / 3 * mpf(x) ** 1.5 for x in (2, 4)}
TABLES = {
    "LGAMMA": ("log Gamma(x) / ((x - 1) (x - 2)) on [1, 3]", lambda x: loggamma(x) / ((x - 1) * (x - 2)), 1, 3),
    "I0_SMALL": ("exp(-x) I0(x) on [0, 8]", lambda x: exp(-x) * besseli(0, x), 0, 8),
    "I1_SMALL": ("exp(-x) I1(x) / x on [0, 8]", lambda x: exp(-x) * besseli(1, x) / x, 0, 8),
    "I0_LARGE": ("sqrt(x) exp(-x) I0(x), in 8 / x", lambda s: sqrt(8 / s) * exp(-8 / s) * besseli(0, 8 / s), 0, 1),
    "I1_LARGE": ("sqrt(x) exp(-x) I1(x), in 8 / x", lambda s: sqrt(8 / s) * exp(-8 / s) * besseli(1, 8 / s), 0, 1),
    "K0_SMALL": ("K0(x) + log(x/2) I0(x), in x² on [0, 4]",
                 root(lambda x: besselk(0, x) + log(x / 2) * besseli(0, x)), 0, 4),
    "K1_SMALL": ("x (K1(x) - log(x/2) I1(x)), in x² on [0, 4]",
                 root(lambda x: x * (besselk(1, x) - log(x / 2) * besseli(1, x))), 0, 4),
    "K0_LARGE": ("sqrt(x) exp(x) K0(x), in 2 / x", lambda s: sqrt(2 / s) * exp(2 / s) * besselk(0, 2 / s), 0, 1),
    "K1_LARGE": ("sqrt(x) exp(x) K1(x), in 2 / x", lambda s: sqrt(2 / s) * exp(2 / s) * besselk(1, 2 / s), 0, 1),
    "J0_SMALL": ("J0(x), in x² on [0, 64]", root(lambda x: besselj(0, x)), 0, 64),
    "J1_SMALL": ("J1(x) / x, in x² on [0, 64]", root(lambda x: besselj(1, x) / x), 0, 64),
    "Y0_SMALL": ("Y0(x) - 2/pi log(x) J0(x), in x² on [0, 64]",
                 root(lambda x: bessely(0, x) - 2 / pi * log(x) * besselj(0, x)), 0, 64),
    "Y1_SMALL": ("(Y1(x) - 2/pi (log(x) J1(x) - 1/x)) / x, in x² on [0, 64]",
                 root(lambda x: (bessely(1, x) - 2 / pi * (log(x) * besselj(1, x) - 1 / x)) / x), 0, 64),
    "P0": ("P of order 0, in (8 / x)²", hankel(0, 0), 0, 1),
    "Q0": ("Q x / 8 of order 0, in (8 / x)²", hankel(0, 1), 0, 1),
    "P1": ("P of order 1, in (8 / x)²", hankel(1, 0), 0, 1),
    "Q1": ("Q x / 8 of order 1, in (8 / x)²", hankel(1, 1), 0, 1),
    "AIRY_MIDDLE": ("Ai(x) on [-4, 2]", airyai, -4, 2),
    "AIRY_TAIL": ("2 sqrt(pi) x^(1/4) exp(zeta) Ai(x), in 1 / zeta for x >= 2", airy_tail, 0, 1 / ZETA[2]),
    "AIRY_P": ("P of Ai(-x), in 1 / zeta² for x >= 4", airy_wave(0), 0, 1 / ZETA[4] ** 2),
    "AIRY_Q": ("Q zeta of Ai(-x), in 1 / zeta² for x >= 4", airy_wave(1), 0, 1 / ZETA[4] ** 2),
}  # fmt: skip


def main() -> None:
    print('"""Chebyshev coefficients of the special functions; written by tools/special_tables.py, not by hand."""\n')
    print("# ruff: noqa: E501\n# fmt: off")
    for name, (what, f, low, high) in TABLES.items():
        print(f"# {what}\n{name} = (")
        c = [repr(float(v)) for v in fit(f, low, high)]
        for i in range(0, len(c), 5):
            print("    " + ", ".join(c[i : i + 5]) + ",")
        print(")")


if __name__ == "__main__":
    main()
