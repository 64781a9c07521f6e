"""Comparison, logic and bits. Shapes broadcast."""

from __future__ import annotations

from typing import Any

from ._op import method, op
from .logic_complex import (  # noqa: F401 - part of this family
    cast,
    complex,
    conj,
    conj_physical,
    imag,
    is_conj,
    is_neg,
    real,
    resolve_conj,
    resolve_neg,
    view_as_complex,
    view_as_real,
)  # fmt: skip

__all__: list[str] = []  # every op is exported through the registry


def _declare_plain(name: str, doc: str, ufunc: str, second: bool, promote: str | None, accept: str = "") -> None:
    """Ops without a gradient that are one NumPy function; `accept` lists the dtype kinds that PyTorch takes."""

    def check(*arrays: Any) -> None:
        for a in arrays:
            kind = a.dtype.kind if hasattr(a, "dtype") else None
            if accept and kind is not None and kind not in accept:
                raise TypeError(f"{name} is not implemented for {a.dtype}")

    if second:

        def forward(xp, input, other):
            check(input, other)
            return getattr(xp, ufunc)(input, other)

        samples = lambda t: [(t(3, 4, low=-3, dtype="int64"), t(4, low=-3, dtype="int64"))]
    else:

        def forward(xp, input):
            check(input)
            return getattr(xp, ufunc)(input)

        samples = lambda t: [(t(3, 4, low=-3, dtype="int64"),)]
    forward.__name__ = name
    forward.__doc__ = doc
    globals()[name] = op(promote=promote, samples=samples)(forward)


for _name, _doc, _ufunc, _accept in (
    ("eq", "input == other.", "equal", ""),
    ("ne", "input != other.", "not_equal", ""),
    ("lt", "input < other.", "less", "biufV"),
    ("le", "input <= other.", "less_equal", "biufV"),
    ("gt", "input > other.", "greater", "biufV"),
    ("ge", "input >= other.", "greater_equal", "biufV"),
    ("bitwise_and", "Bits set in both (logical for booleans).", "bitwise_and", "biu"),
    ("bitwise_or", "Bits set in either.", "bitwise_or", "biu"),
    ("bitwise_xor", "Bits set in exactly one.", "bitwise_xor", "biu"),
):
    _declare_plain(_name, _doc, _ufunc, True, "arith", _accept)
for _name, _doc, _ufunc, _second, _accept in (
    ("logical_and", "True where both are non-zero.", "logical_and", True, ""),
    ("logical_or", "True where either is non-zero.", "logical_or", True, ""),
    ("logical_xor", "True where exactly one is non-zero.", "logical_xor", True, ""),
    ("logical_not", "True where zero.", "logical_not", False, ""),
    ("bitwise_not", "Bits flipped.", "invert", False, "biu"),
    ("isnan", "True where not a number.", "isnan", False, ""),
    ("isinf", "True where infinite.", "isinf", False, ""),
    ("isfinite", "True where neither infinite nor NaN.", "isfinite", False, ""),
):
    _declare_plain(_name, _doc, _ufunc, _second, None, _accept)


@op(samples=lambda t: [(t(5),)], ref=lambda x: x == -float("inf"))
def isneginf(xp, input):
    """True where -infinity."""
    return input == -float("inf")


@op(samples=lambda t: [(t(5),)], ref=lambda x: x == float("inf"))
def isposinf(xp, input):
    """True where +infinity."""
    return input == float("inf")


@op(samples=lambda t: [(t(5),)], ref=lambda x: x == x)
def isreal(xp, input):
    """True where the imaginary part is 0."""
    return input.imag == 0 if input.dtype.kind == "c" else xp.ones(input.shape, bool)


@op(samples=lambda t: [(t(5),)], ref=lambda x: x < 0)
def signbit(xp, input):
    """True where the sign bit is set: negative numbers and -0.0."""
    if input.dtype.kind == "c":
        raise TypeError(f"signbit is not implemented for {input.dtype}")
    return xp.signbit(input) if input.dtype.kind in "fV" else input < 0


def _shift(xp: Any, name: str, input: Any, other: Any) -> Any:
    """Shifts by less than 0 or by the width and more empty the number (PyTorch's definition)."""
    dtype = (input if hasattr(input, "dtype") else other).dtype
    if dtype.kind not in "iu":
        raise TypeError(f"bitwise_{name}_shift is not implemented for {dtype}")
    bits = dtype.itemsize * 8
    inside = xp.logical_and(other >= 0, other < bits)
    amount = xp.where(inside, other, 0).astype(dtype)
    if name == "left":
        return xp.where(inside, xp.left_shift(input, amount), 0).astype(dtype)
    return xp.right_shift(input, xp.where(inside, amount, bits - 1).astype(dtype)) * (
        1 if dtype.kind == "i" else inside.astype(dtype)
    )


@op(promote="arith", samples=lambda t: [(t(4, dtype="int64"), t(4, low=0, dtype="int64"))], ref=lambda a, b: a * 2**b)
def bitwise_left_shift(xp, input, other):
    """input * 2**other, on integers."""
    return _shift(xp, "left", input, other)


@op(promote="arith", samples=lambda t: [(t(4, dtype="int64"), t(4, low=0, dtype="int64"))], ref=lambda a, b: a // 2**b)
def bitwise_right_shift(xp, input, other):
    """input / 2**other rounded down, on integers."""
    return _shift(xp, "right", input, other)


@method("__lshift__")
def _lshift(self: Any, other: Any) -> Any:
    return bitwise_left_shift(self, other)


@method("__rlshift__")
def _rlshift(self: Any, other: Any) -> Any:
    return bitwise_left_shift(other, self)


@method("__rshift__")
def _rshift(self: Any, other: Any) -> Any:
    return bitwise_right_shift(self, other)


@method("__rrshift__")
def _rrshift(self: Any, other: Any) -> Any:
    return bitwise_right_shift(other, self)
