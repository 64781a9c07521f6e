"""One element in, one element out: selection and blending here, the rest by subject in the parts of this family."""

from __future__ import annotations

from typing import Any

from ._op import alias, method, op
from .elementwise_arith import (  # noqa: F401 - parts of this family
    abs,
    add,
    copysign,
    div,
    div_rounded,
    floor_divide,
    fmod,
    gcd,
    heaviside,
    lcm,
    mul,
    neg,
    nextafter,
    positive,
    reciprocal,
    remainder,
    rsub,
    sgn,
    sign,
    square,
    sub,
    true_divide,
)  # fmt: skip
from .elementwise_exp import (  # noqa: F401
    erf,
    exp,
    exp2,
    expm1,
    float_power,
    frexp,
    hypot,
    ldexp,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logaddexp2,
    pow,
    rsqrt,
    special_xlog1py,
    sqrt,
    xlogy,
)  # fmt: skip
from .elementwise_select import ceil, clamp, floor, fmax, fmin, frac, maximum, minimum, nan_to_num, round, trunc  # noqa: F401
from .elementwise_select import where as _where
from .elementwise_trig import (  # noqa: F401
    acos,
    acosh,
    angle,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cos,
    cosh,
    deg2rad,
    polar,
    rad2deg,
    sin,
    sinc,
    sinh,
    tan,
    tanh,
)  # fmt: skip
from .logic import conj

__all__: list[str] = []  # every op is exported through the registry


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds, `other` elsewhere; with a condition alone, its indices by dimension.

    >>> import flambeau
    >>> flambeau.where(flambeau.tensor([True, False]), 1, 0)
    tensor([1, 0])
    """
    if input is not None and other is not None:
        return _where(condition, input, other)
    if input is not None or other is not None:
        raise TypeError("where() takes a condition alone, or a condition with both input and other")
    from .index import nonzero  # index is written with this module

    return nonzero(condition, as_tuple=True)


@method()
def clamp_min(input: Any, min: Any) -> Any:
    """Limits from below; `min` is a number or a tensor."""
    return clamp(input, min)


@method()
def clamp_max(input: Any, max: Any) -> Any:
    """Limits from above; `max` is a number or a tensor."""
    return clamp(input, None, max)


@op(
    vjp=dict(
        input=lambda g, weight: g * conj(1 - weight),
        end=lambda g, weight: g * conj(weight),
        weight=lambda g, input, end: g * conj(end - input),
    ),
    samples=lambda t: [(t(3, 4), t(3, 4), 0.3), (t(3, 4), t(3, 4), t(4)), (t(3), t(3), 0.7)],
    promote="arith",
    ref=lambda a, b, w: a * (1 - w) + b * w,
)
def lerp(xp, input, end, weight):
    """input + weight * (end - input)."""
    return input + weight * (end - input)


@op(
    vjp=dict(
        input=lambda g: g,
        tensor1=lambda g, tensor2, value: g * conj(tensor2 * value),
        tensor2=lambda g, tensor1, value: g * conj(tensor1 * value),
    ),
    samples=lambda t: [(t(3, 4), t(4), t(3, 1), {"value": 0.5})],
    promote="arith",
    ref=lambda x, a, b, value=1: x + value * a * b,
)
def addcmul(xp, input, tensor1, tensor2, value=1):
    """input + value * tensor1 * tensor2."""
    return input + value * tensor1 * tensor2


@op(
    vjp=dict(
        input=lambda g: g,
        tensor1=lambda g, tensor2, value: g * conj(value / tensor2),
        tensor2=lambda g, tensor1, tensor2, value: -g * conj(tensor1 * value / (tensor2 * tensor2)),
    ),
    samples=lambda t: [(t(3, 4), t(4), t(3, 1, low=0.5, high=2), {"value": 0.5})],
    promote="arith",
    ref=lambda x, a, b, value=1: x + value * a / b,
)
def addcdiv(xp, input, tensor1, tensor2, value=1):
    """input + value * tensor1 / tensor2. Errors: RuntimeError for integers, whose quotient is none."""
    if input.dtype.kind in "iub":
        raise RuntimeError("addcdiv needs floating-point or complex tensors; convert the integers first")
    return input + value * tensor1 / tensor2


for _function in (ldexp, float_power):
    method()(_function)
alias(acosh, "arccosh")
alias(asinh, "arcsinh")
alias(atanh, "arctanh")
