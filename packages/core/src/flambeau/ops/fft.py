"""Discrete Fourier transforms: three ops (complex, real to complex, complex to real), and PyTorch's functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..tensor import Tensor, to_array
from ._op import normalize_dim, op
from .fft_short import istft, stft  # noqa: F401 - part of this family
from .logic import cast, real
from .shape import cat, narrow, pad_constant, roll

__all__: list[str] = []  # every function is exported by its family


# -- the three transforms, scaled by a given factor ---------------------------------------------------------------
def _check(x: Any) -> Any:
    if x.dtype.kind not in "fc" or x.dtype.itemsize == 2:
        raise TypeError(f"Fourier transforms need float32, float64 or complex numbers, not {x.dtype}")
    return x


@op(
    vjp=dict(input=lambda g, dim, scale, forward: _fft_c2c(g, dim, scale, not forward)),
    samples=lambda t: [(t(3, 4) + 1j * t(3, 4), (1,), 1.0, True), (t(3, 4), (0, 1), 0.5, False)],
    promote="float",
    ref=lambda x, dim, scale, forward: (
        scale * (np.fft.fftn(x, axes=dim) if forward else np.conj(np.fft.fftn(np.conj(x), axes=dim)))
    ),
    method=False,
)
def _fft_c2c(xp, input, dim, scale, forward):
    """The transform with exp(-2 pi i j k / n) (`forward`) or exp(+…), unnormalised, times `scale`."""
    transform = xp.fft.fftn if forward else xp.fft.ifftn
    out = transform(_check(input), axes=dim, norm="backward" if forward else "forward")
    return out if scale == 1 else out * scale


@op(
    vjp=dict(input=lambda g, input_shape, dim, scale, forward: _r2c_vjp(g, input_shape[dim], dim, scale, forward)),
    samples=lambda t: [(t(3, 5), 1, 0.5, True), (t(4, 2), 0, 1.0, False)],
    promote="float",
    ref=lambda x, dim, scale, forward: (
        (np.fft.rfft(x, axis=dim) if forward else np.conj(np.fft.rfft(x, axis=dim))) * scale
    ),
    method=False,
)
def _fft_r2c(xp, input, dim, scale, forward):
    """The first n // 2 + 1 entries of the transform of real numbers; the rest are their conjugates."""
    if input.dtype.kind == "c":
        raise RuntimeError(f"expected real numbers, got {input.dtype}")
    out = xp.fft.rfft(_check(input), axis=dim)
    out = out if forward else xp.conj(out)
    return out if scale == 1 else out * scale


@op(
    vjp=dict(input=lambda g, n, dim, scale, forward: _c2r_vjp(g, n, dim, scale, forward)),
    samples=lambda t: [(t(3, 3) + 1j * t(3, 3), 5, 1, 0.5, True), (t(3, 3) + 1j * t(3, 3), 4, 0, 1.0, False)],
    promote="float",
    ref=lambda z, n, dim, scale, forward: np.fft.irfft(np.conj(z) if forward else z, n, dim) * n * scale,
    method=False,
)
def _fft_c2r(xp, input, n, dim, scale, forward):
    """The n real numbers whose transform starts with the n // 2 + 1 entries given."""
    out = xp.fft.irfft(xp.conj(_check(input)) if forward else _check(input), n, axis=dim, norm="forward")
    return out if scale == 1 else out * scale


def _r2c_vjp(g: Any, n: int, dim: int, scale: float, forward: bool) -> Any:
    return real(_fft_c2c(_resized(g, dim, n), (dim,), scale, not forward))


def _c2r_vjp(g: Any, n: int, dim: int, scale: float, forward: bool) -> Any:
    """Entries that stand for themselves and their conjugate count twice."""
    half = _fft_r2c(g, dim, scale, not forward)
    m = half.shape[dim]
    twice = n - m
    parts = [narrow(half, dim, 0, 1), narrow(half, dim, 1, twice) * 2, narrow(half, dim, 1 + twice, m - 1 - twice)]
    return cat(parts, dim)


# -- arguments ----------------------------------------------------------------------------------------------------
def _resized(x: Any, dim: int, n: int) -> Any:
    """Cut, or padded with zeros, to size n."""
    size = x.shape[dim]
    if n < 1:
        raise RuntimeError(f"the number of data points must be at least 1, not {n}")
    if n < size:
        return narrow(x, dim, 0, n)
    return x if n == size else pad_constant(x, [(0, n - size if d == dim else 0) for d in range(x.ndim)])


def _scale(norm: str | None, forward: bool, n: int) -> float:
    if norm not in (None, "backward", "forward", "ortho"):
        raise RuntimeError(f"norm must be 'backward', 'forward' or 'ortho', not {norm!r}")
    if norm == "ortho":
        return 1 / math.sqrt(n)
    return 1 / n if (norm == "forward") == forward else 1.0


def _is_complex(x: Any) -> bool:
    return getattr(x, "array", x).dtype.kind == "c"


def _as_complex(x: Any) -> Any:
    kind = getattr(x, "array", x).dtype
    if kind.kind == "c":
        return x
    if kind.kind not in "f":
        kind = dtypes.get_default_dtype().numpy
    return cast(x, np.result_type(kind, np.complex64))


def _dims(x: Any, s: Sequence[int] | int | None, dim: Any, half: bool = False) -> tuple[tuple, list[int]]:
    """The dims to transform and their sizes; the last one doubles when half a spectrum comes in (`half`)."""
    s = [s] if isinstance(s, int) else s
    dim = [dim] if isinstance(dim, int) else dim
    if s is not None and dim is not None and len(s) != len(dim):
        raise RuntimeError(f"when given, dim and s must have the same length, got {len(dim)} and {len(s)}")
    if dim is not None:
        dims = normalize_dim(tuple(dim), x.ndim)
    elif s is not None and len(s) > x.ndim:
        raise RuntimeError(f"got s with {len(s)} values for a tensor with {x.ndim} dimensions")
    else:
        dims = tuple(range(x.ndim - (x.ndim if s is None else len(s)), x.ndim))
    sizes = [x.shape[d] if s is None or s[i] == -1 else int(s[i]) for i, d in enumerate(dims)]
    if half and dims and (s is None or s[-1] == -1):
        sizes[-1] = 2 * (x.shape[dims[-1]] - 1)
    return dims, sizes


def _c2c(x: Any, dims: tuple, sizes: Sequence[int], norm: str | None, forward: bool) -> Any:
    for d, n in zip(dims, sizes, strict=True):
        x = _resized(x, d, n)
    return _fft_c2c(x, dims, _scale(norm, forward, math.prod(sizes)), forward) if dims else _as_complex(x)


def _r2c(x: Any, dims: tuple, sizes: Sequence[int], norm: str | None, forward: bool) -> Any:
    if _is_complex(x):
        raise RuntimeError("expected a real tensor, got a complex one")
    if not dims:
        raise RuntimeError("at least one dimension must be transformed")
    for d, n in zip(dims, sizes, strict=True):
        x = _resized(x, d, n)
    x = _fft_r2c(x, dims[-1], _scale(norm, forward, sizes[-1]), forward)
    return _fft_c2c(x, dims[:-1], _scale(norm, forward, math.prod(sizes[:-1])), forward) if dims[1:] else x


def _c2r(x: Any, dims: tuple, sizes: Sequence[int], norm: str | None, forward: bool) -> Any:
    if not dims:
        raise RuntimeError("at least one dimension must be transformed")
    if sizes[-1] < 1:
        raise RuntimeError(f"the number of data points must be at least 1, not {sizes[-1]}")
    for d, n in zip(dims, [*sizes[:-1], sizes[-1] // 2 + 1], strict=True):
        x = _resized(x, d, n)
    if dims[1:]:
        x = _fft_c2c(x, dims[:-1], _scale(norm, forward, math.prod(sizes[:-1])), forward)
    return _fft_c2r(_as_complex(x), sizes[-1], dims[-1], _scale(norm, forward, sizes[-1]), forward)


# -- one dimension --------------------------------------------------------------------------------------------------
def fft_fft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The discrete Fourier transform along one dimension, cut or zero-padded to n.

    norm: "backward" (no scaling), "ortho" (1/sqrt(n)) or "forward" (1/n).
    """
    return _c2c(input, *_dims(input, None if n is None else [n], [dim]), norm, True)


def fft_ifft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The inverse of `fft`."""
    return _c2c(input, *_dims(input, None if n is None else [n], [dim]), norm, False)


def fft_rfft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The first n // 2 + 1 entries of `fft` of real numbers."""
    return _r2c(input, *_dims(input, None if n is None else [n], [dim]), norm, True)


def fft_irfft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The inverse of `rfft`; n is the number of real outputs, 2 (m - 1) for m entries by default."""
    return _c2r(input, *_dims(input, None if n is None else [n], [dim], True), norm, False)


def fft_hfft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The real transform of a signal given by the half of it that its Hermitian symmetry leaves free."""
    return _c2r(input, *_dims(input, None if n is None else [n], [dim], True), norm, True)


def fft_ihfft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The inverse of `hfft`."""
    return _r2c(input, *_dims(input, None if n is None else [n], [dim]), norm, False)


# -- several dimensions ---------------------------------------------------------------------------------------------
def fft_fftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """`fft` over several dimensions: `dim`, or the last len(s), or all."""
    return _c2c(input, *_dims(input, s, dim), norm, True)


def fft_ifftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `fftn`."""
    return _c2c(input, *_dims(input, s, dim), norm, False)


def fft_rfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """`fftn` of real numbers; the last dimension keeps its first n // 2 + 1 entries."""
    return _r2c(input, *_dims(input, s, dim), norm, True)


def fft_irfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `rfftn`."""
    return _c2r(input, *_dims(input, s, dim, True), norm, False)


def fft_hfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The real transform of a Hermitian-symmetric signal over several dimensions."""
    return _c2r(input, *_dims(input, s, dim, True), norm, True)


def fft_ihfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `hfftn`."""
    return _r2c(input, *_dims(input, s, dim), norm, False)


def fft_fft2(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Any:
    """`fftn` over the last two dimensions."""
    return fft_fftn(input, s, dim, norm)


def fft_ifft2(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Any:
    """`ifftn` over the last two dimensions."""
    return fft_ifftn(input, s, dim, norm)


def fft_rfft2(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Any:
    """`rfftn` over the last two dimensions."""
    return fft_rfftn(input, s, dim, norm)


def fft_irfft2(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Any:
    """`irfftn` over the last two dimensions."""
    return fft_irfftn(input, s, dim, norm)


def fft_hfft2(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Any:
    """`hfftn` over the last two dimensions."""
    return fft_hfftn(input, s, dim, norm)


def fft_ihfft2(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Any:
    """`ihfftn` over the last two dimensions."""
    return fft_ihfftn(input, s, dim, norm)


# -- order of the entries -------------------------------------------------------------------------------------------
def fft_fftshift(input: Any, dim: Any = None) -> Any:
    """Moves frequency 0 to the middle."""
    dims = _dims(input, None, dim)[0]
    return roll(input, [input.shape[d] // 2 for d in dims], list(dims)) if dims else input


def fft_ifftshift(input: Any, dim: Any = None) -> Any:
    """Undoes `fftshift`."""
    dims = _dims(input, None, dim)[0]
    return roll(input, [-(input.shape[d] // 2) for d in dims], list(dims)) if dims else input


def _frequencies(values: np.ndarray, n: int, d: float, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    kind = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    out = Tensor._wrap(to_array((values * (1.0 / (n * d))).astype(kind.numpy), None, device, copy=False))
    return out.requires_grad_() if requires_grad else out


def fft_fftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of the n entries of `fft`, for samples d apart."""
    values = np.concatenate([np.arange((n + 1) // 2), np.arange(-(n // 2), 0)])
    return _frequencies(values, n, d, dtype, device, requires_grad)


def fft_rfftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of the n // 2 + 1 entries of `rfft`, for samples d apart."""
    return _frequencies(np.arange(n // 2 + 1), n, d, dtype, device, requires_grad)
