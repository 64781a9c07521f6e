"""Element types and the parts of complex numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import stored
from ._op import method, op

__all__: list[str] = []  # every op is exported through the registry


@op(vjp=dict(input=lambda g: g), samples=lambda t: [(t(3, 4), "float32")], method=False)
def cast(xp, input, dtype, like=None):
    """The values in another dtype (a NumPy dtype, or "like" for the dtype of `like`)."""
    if isinstance(dtype, str) and dtype == "like":
        dtype = like.dtype
    dtype = np.dtype(getattr(dtype, "numpy", dtype))
    if input.dtype.kind == "c" and dtype.kind not in "cb":
        input = input.real  # PyTorch drops the imaginary part too
    return stored(input, dtype) if dtype.itemsize == 1 and dtype.kind == "V" else input.astype(dtype)


@op(vjp=dict(input=lambda g: conj(g)), samples=lambda t: [(t(3, 4),)], ref=np.conj)
def conj_physical(xp, input):
    """The complex conjugate, computed."""
    return xp.conj(input) if input.dtype.kind == "c" else input.copy()


def conj(input: Any) -> Any:
    """The complex conjugate; a real number is handed back as it is (formulas call this on every product)."""
    dtype = getattr(getattr(input, "array", input), "dtype", None)
    if dtype is None:
        return input.conjugate()
    return conj_physical(input) if dtype.kind == "c" else input


@method()
def resolve_conj(input: Any) -> Any:
    """The tensor itself: conjugates are always computed at once, never as a lazy flag."""
    return input


@method()
def resolve_neg(input: Any) -> Any:
    """The tensor itself: negations are always computed at once."""
    return input


@method()
def is_conj(input: Any) -> bool:
    """Whether a lazy conjugate is pending: never."""
    return False


@method()
def is_neg(input: Any) -> bool:
    """Whether a lazy negation is pending: never."""
    return False


@op(vjp=dict(input=lambda g: g), samples=lambda t: [(t(3, 4),)], ref=np.real, method=False, view=True)
def real(xp, input):
    """The real part."""
    return input.real


@op(vjp=dict(input=lambda g: g * 1j), method=False, view=True)
def imag(xp, input):
    """The imaginary part. Errors: RuntimeError for real numbers."""
    if input.dtype.kind != "c":
        raise RuntimeError("imag is not defined for real tensors")
    return input.imag


@op(
    vjp=dict(input=lambda g: view_as_complex(g)),
    samples=lambda t: [(t(3, 2) + 1j * t(3, 2),)],
    ref=lambda z: np.stack([z.real, z.imag], -1),
    method=False,
    view=True,
)
def view_as_real(xp, input):
    """Complex numbers as pairs: shape (…) becomes (…, 2) with real and imaginary part last."""
    if input.dtype.kind != "c":
        raise RuntimeError("view_as_real is only supported for complex tensors")
    part = np.dtype(f"f{input.dtype.itemsize // 2}")
    return xp.ascontiguousarray(input).view(part).reshape((*input.shape, 2))


@op(
    vjp=dict(input=lambda g: view_as_real(g)),
    samples=lambda t: [(t(3, 2),), (t(2),)],
    ref=lambda x: x[..., 0] + 1j * x[..., 1],
    method=False,
    view=True,
)
def view_as_complex(xp, input):
    """Pairs in the last dimension, which must have size 2, as complex numbers."""
    if input.ndim == 0 or input.shape[-1] != 2:
        raise RuntimeError(f"the last dimension must have size 2, got shape {list(input.shape)}")
    if input.dtype not in (np.dtype("f4"), np.dtype("f8")):
        raise RuntimeError(f"view_as_complex needs float32 or float64, not {input.dtype}")
    whole = np.dtype(f"c{input.dtype.itemsize * 2}")
    return xp.ascontiguousarray(input).view(whole).reshape(input.shape[:-1])


@op(
    vjp=dict(real=lambda g: real(g), imag=lambda g: imag(g)),
    samples=lambda t: [(t(3, 4), t(4))],
    ref=lambda a, b: a + 1j * b,
    method=False,
)
def complex(xp, real, imag):
    """real + i * imag, from two tensors of one floating dtype."""
    if real.dtype != imag.dtype or real.dtype.kind != "f" or real.dtype.itemsize < 4:
        raise RuntimeError(f"expected both inputs to be float32 or float64, but got {real.dtype} and {imag.dtype}")
    shape = np.broadcast_shapes(real.shape, imag.shape)
    out = xp.empty(shape, np.dtype(f"c{real.dtype.itemsize * 2}"))
    out.real, out.imag = real, imag
    return out
