"""Comparison, logic, bits; dtypes and the parts of complex numbers. Shapes broadcast."""

from __future__ import annotations

from ._op import op

__all__: list[str] = []  # every op is exported through the registry


# -- comparison, logic, bits ------------------------------------------------------------------------------------
def _declare_plain(name: str, doc: str, ufunc: str, second: bool, promote: str | None, low: float = -3) -> None:
    """Ops without a gradient that are one NumPy function."""
    if second:

        def forward(xp, input, other):
            return getattr(xp, ufunc)(input, other)

        samples = lambda t: [(t(3, 4, low=low, dtype="int64"), t(4, low=low, dtype="int64"))]
    else:

        def forward(xp, input):
            return getattr(xp, ufunc)(input)

        samples = lambda t: [(t(3, 4, low=low, dtype="int64"),)]
    forward.__name__ = name
    forward.__doc__ = doc
    globals()[name] = op(promote=promote, samples=samples)(forward)


for _name, _doc, _ufunc, _second in (
    ("eq", "input == other.", "equal", True),
    ("ne", "input != other.", "not_equal", True),
    ("lt", "input < other.", "less", True),
    ("le", "input <= other.", "less_equal", True),
    ("gt", "input > other.", "greater", True),
    ("ge", "input >= other.", "greater_equal", True),
    ("bitwise_and", "Bits set in both (logical for booleans).", "bitwise_and", True),
    ("bitwise_or", "Bits set in either.", "bitwise_or", True),
    ("bitwise_xor", "Bits set in exactly one.", "bitwise_xor", True),
):
    _declare_plain(_name, _doc, _ufunc, _second, "arith")
for _name, _doc, _ufunc, _second in (
    ("logical_and", "True where both are non-zero.", "logical_and", True),
    ("logical_or", "True where either is non-zero.", "logical_or", True),
    ("logical_xor", "True where exactly one is non-zero.", "logical_xor", True),
    ("logical_not", "True where zero.", "logical_not", False),
    ("bitwise_not", "Bits flipped.", "invert", False),
    ("isnan", "True where not a number.", "isnan", False),
    ("isinf", "True where infinite.", "isinf", False),
    ("isfinite", "True where neither infinite nor NaN.", "isfinite", False),
):
    _declare_plain(_name, _doc, _ufunc, _second, None)


# -- dtype and complex parts ------------------------------------------------------------------------------------
@op(vjp=dict(input=lambda g: g), samples=lambda t: [(t(3, 4), "float32")], method=False)
def cast(xp, input, dtype, like=None):
    """The values in another dtype (a NumPy dtype, or "like" for the dtype of `like`)."""
    if isinstance(dtype, str) and dtype == "like":
        dtype = like.dtype
    return input.astype(getattr(dtype, "numpy", dtype))


@op(vjp=dict(input=lambda g: conj(g)), samples=lambda t: [(t(3, 4),)], method=False)
def conj_physical(xp, input):
    """The complex conjugate, computed."""
    return xp.conj(input)


def conj(input):
    """The complex conjugate; a real number is handed back as it is (formulas call this on every product)."""
    dtype = getattr(getattr(input, "array", input), "dtype", None)
    if dtype is None:
        return input.conjugate()
    return conj_physical(input) if dtype.kind == "c" else input


@op(vjp=dict(input=lambda g: g), samples=lambda t: [(t(3, 4),)], method=False, view=True)
def real(xp, input):
    """The real part."""
    return input.real


@op(vjp=dict(input=lambda g: g * 1j), method=False, view=True)
def imag(xp, input):
    """The imaginary part. Errors: RuntimeError for real numbers."""
    if input.dtype.kind != "c":
        raise RuntimeError("imag is not defined for real tensors")
    return input.imag
