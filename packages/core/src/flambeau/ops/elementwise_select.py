"""Rounding, bounds and the larger or smaller of two. Shapes broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import op
from .logic import cast, isfinite, isnan, logical_and, logical_or

__all__: list[str] = []  # every op is exported through the registry


@op(
    vjp=dict(
        input=lambda g, condition: where(condition, g, 0.0),
        other=lambda g, condition: where(condition, 0.0, g),
    ),
    samples=lambda t: [(t(3, 4, dtype="bool"), t(3, 4), t(4)), (t(3, dtype="bool"), t(3), 0.0)],
    promote="arith",
    ref=lambda c, a, b: np.choose(c, [b, a]),
    method=False,
)
def where(xp, condition, input, other):
    """`input` where the condition holds, `other` elsewhere. Errors: RuntimeError for a condition that is not bool."""
    kind = getattr(condition, "dtype", None)
    if kind is not None and kind.kind != "b" and kind != np.uint8:
        raise RuntimeError(f"where needs a bool condition, not {kind}; compare it first, or use .bool()")
    return xp.where(condition, input, other)


# -- rounding ---------------------------------------------------------------------------------------------------
def _rounded(name: str, xp: Any, x: Any) -> Any:
    if x.dtype.kind in "fV":
        return getattr(xp, name)(x)
    if x.dtype.kind in "cb":
        raise TypeError(f"{name} is not implemented for {x.dtype}")
    return x.copy()


@op(vjp=dict(input=lambda g: g * 0), samples=lambda t: [(t(3, 4, low=0.1, high=0.9),)], ref=np.floor)
def floor(xp, input):
    """The largest integer below or at."""
    return _rounded("floor", xp, input)


@op(vjp=dict(input=lambda g: g * 0), samples=lambda t: [(t(3, 4, low=0.1, high=0.9),)], ref=np.ceil)
def ceil(xp, input):
    """The smallest integer above or at."""
    return _rounded("ceil", xp, input)


@op(vjp=dict(input=lambda g: g * 0), samples=lambda t: [(t(3, 4, low=0.1, high=0.4),)], ref=np.trunc)
def trunc(xp, input):
    """The integer part."""
    return _rounded("trunc", xp, input)


@op(vjp=dict(input=lambda g: g), samples=lambda t: [(t(3, 4, low=1.1, high=1.4),)], ref=lambda x: np.modf(x)[0])
def frac(xp, input):
    """The part behind the point, with the sign of the number."""
    if input.dtype.kind not in "fV":
        raise TypeError(f"frac is not implemented for {input.dtype}")
    return input - xp.trunc(input)


@op(
    vjp=dict(input=lambda g: g * 0), ref=np.round,
    samples=lambda t: [(t(3, 4, low=0.1, high=0.4),), (t(3, low=10.1, high=10.4), -1)],
)  # fmt: skip
def round(xp, input, decimals=0):
    """The nearest integer, halves to even; `decimals` digits are kept."""
    if input.dtype.kind in "cb":
        raise TypeError(f"round is not implemented for {input.dtype}")
    if decimals == 0 or input.dtype.kind in "iu":
        return _rounded("rint", xp, input)
    if decimals > 0:
        return xp.rint(input * 10**decimals) / 10**decimals
    return xp.rint(input / 10**-decimals) * 10**-decimals


def _ordered(name: str, x: Any) -> None:
    if hasattr(x, "dtype") and x.dtype.kind == "c":
        raise TypeError(f"{name} is not defined for complex numbers, which have no order")


# -- bounds -----------------------------------------------------------------------------------------------------
@op(
    vjp=dict(
        input=lambda g, input, min, max: where(_inside(input, min, max), g, 0.0),
        min=lambda g, input, min, max: where(_below(input, min, max), g, 0.0),
        max=lambda g, input, min, max: where(_above(input, min, max), g, 0.0),
    ),
    samples=lambda t: [
        (t(3, 4), -0.5, 0.5),
        (t(3, 4), None, 0.5),
        (t(3, 4), -0.2),
        (t(3, 4), t(4, low=-0.9, high=-0.5)),
        (t(3, 4), t(3, 1, low=-0.9, high=-0.5), t(4, low=0.2, high=0.6)),
    ],
    promote="arith",
    ref=lambda x, min=None, max=None: np.clip(x, min, max),
)
def clamp(xp, input, min=None, max=None):
    """Limits to [min, max]; either may be None, a number or a tensor. ValueError when both are None."""
    if min is None and max is None:
        raise ValueError("at least one of min and max must be given")
    _ordered("clamp", input)
    out = input if min is None else xp.maximum(input, min)
    return out if max is None else xp.minimum(out, max)


def _inside(input: Any, min: Any, max: Any) -> Any:
    keep = None if min is None else input >= min
    if max is not None:
        keep = (input <= max) if keep is None else logical_and(keep, input <= max)
    return keep


def _below(input: Any, min: Any, max: Any) -> Any:
    """Where `min` decides: the input is below it, and `max` does not overrule it."""
    return input < min if max is None else logical_and(input < min, min < max)


def _above(input: Any, min: Any, max: Any) -> Any:
    return input > max if min is None else logical_or(input > max, max < min)


def _share(a: Any, b: Any, g: Any) -> Any:
    """1 where a > b, 0.5 where equal, 0 where smaller, in the dtype of g; 1 for NaN."""
    return 1 - (cast(a < b, "like", g) + cast(a <= b, "like", g)) * 0.5


@op(
    vjp=dict(
        input=lambda g, input, other: g * _share(input, other, g),
        other=lambda g, input, other: g * _share(other, input, g),
    ),
    samples=lambda t: [(t(3, 4), t(4))],
    promote="arith",
    ref=lambda a, b: np.where(a > b, a, b),
)
def maximum(xp, input, other):
    """The larger of two, elementwise; equal elements share the gradient."""
    _ordered("maximum", input)
    return xp.maximum(input, other)


@op(
    vjp=dict(
        input=lambda g, input, other: g * _share(-input, -other, g),
        other=lambda g, input, other: g * _share(-other, -input, g),
    ),
    samples=lambda t: [(t(3, 4), t(4))],
    promote="arith",
    ref=lambda a, b: np.where(a < b, a, b),
)
def minimum(xp, input, other):
    """The smaller of two, elementwise; equal elements share the gradient."""
    _ordered("minimum", input)
    return xp.minimum(input, other)


@op(
    vjp=dict(
        input=lambda g, input, other: where(logical_or(input >= other, isnan(other)), g, 0.0),
        other=lambda g, input, other: where(logical_or(input >= other, isnan(other)), 0.0, g),
    ),
    samples=lambda t: [(t(3, 4), t(4))],
    promote="arith",
    ref=lambda a, b: np.where(a > b, a, b),
)
def fmax(xp, input, other):
    """The larger of two; NaN counts as missing."""
    _ordered("fmax", input)
    return xp.fmax(input, other)


@op(
    vjp=dict(
        input=lambda g, input, other: where(logical_or(input <= other, isnan(other)), g, 0.0),
        other=lambda g, input, other: where(logical_or(input <= other, isnan(other)), 0.0, g),
    ),
    samples=lambda t: [(t(3, 4), t(4))],
    promote="arith",
    ref=lambda a, b: np.where(a < b, a, b),
)
def fmin(xp, input, other):
    """The smaller of two; NaN counts as missing."""
    _ordered("fmin", input)
    return xp.fmin(input, other)


@op(
    vjp=dict(input=lambda g, input: where(isfinite(input), g, 0.0)),
    samples=lambda t: [(t(3, 4),), (t(3), {"nan": 1.0, "posinf": 2.0})],
    ref=lambda x, nan=0.0, posinf=None, neginf=None: np.where(np.isfinite(x), x, nan),
)
def nan_to_num(xp, input, nan=0.0, posinf=None, neginf=None):
    """NaN becomes `nan`; infinities become `posinf` and `neginf`, or the dtype's largest and smallest number."""
    if input.dtype.kind not in "fcV":
        return input.copy()
    return xp.nan_to_num(input, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)
