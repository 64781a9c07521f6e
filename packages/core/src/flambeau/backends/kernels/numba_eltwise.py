"""Activation functions and their gradients in one pass over memory: float32, all threads."""

import math

import numpy as np
from numba import prange

from ...ops._counter import ROW, threshold
from . import _WORTH, WIDE
from .numba_counter import bits, row_keys
from .numba_math import as_float, as_int, erf, exp, log1p
from .numba_math import sigmoid as logistic
from .numba_setup import BLOCK, accepts, elementwise, flat, scalar, serial

__all__ = [
    "_dropout", "gelu", "gelu_grad", "relu", "sigmoid", "silu", "silu_grad", "softplus", "softplus_curvature",
    "softplus_grad",
]  # fmt: skip

f, u = np.float32, np.uint32
_WORTH_RELU = _WORTH["relu"]  # elements
_ZERO, _HALF, _ONE = f(0), f(0.5), f(1)
_ROOT, _FLAT2, _CUBIC, _CUBIC3 = f(math.sqrt(0.5)), f(2 * math.sqrt(2 / math.pi)), f(0.044715), f(0.134145)
_DENSITY = f(1 / math.sqrt(2 * math.pi))


# -- of one number: compiled functions (flambeau.compile) put them into larger kernels ---------------------------------
@scalar
def one_gelu_erf(x):
    return _HALF * x * (_ONE + erf(x * _ROOT, exp(-_HALF * x * x)))


@scalar
def one_gelu_tanh(x):
    return x * logistic(_FLAT2 * (x + _CUBIC * x * x * x))  # (1 + tanh(u)) / 2 is the sigmoid of 2 u


@scalar
def one_gelu_erf_grad(g, x):
    falling = exp(-_HALF * x * x)
    return g * (_HALF * (_ONE + erf(x * _ROOT, falling)) + x * falling * _DENSITY)


@scalar
def one_gelu_tanh_grad(g, x):
    s = logistic(_FLAT2 * (x + _CUBIC * x * x * x))
    return g * (s + x * s * (_ONE - s) * (_FLAT2 * (_ONE + _CUBIC3 * x * x)))


@scalar
def one_silu(x):
    return x * logistic(x)


@scalar
def one_silu_grad(g, x):
    s = logistic(x)
    return g * (s * (_ONE + x * (_ONE - s)))


@scalar
def one_softplus(x, beta, inverse, threshold):
    v = x * beta
    soft = ((v if v > _ZERO else _ZERO) + log1p(exp(-abs(v)))) * inverse
    return x if v > threshold or v != v else soft


@scalar
def one_softplus_grad(g, x, beta, inverse, threshold):
    v = x * beta
    return g if v > threshold else g * logistic(v)


@scalar
def one_softplus_curvature(g, x, beta, inverse, threshold):
    v = x * beta
    s = logistic(v)
    keep = np.int32(0) if v > threshold else np.int32(-1)  # a branch would keep LLVM from using vectors
    return as_float(as_int(g * (s * (_ONE - s) * beta)) & keep)


# -- of vectors -------------------------------------------------------------------------------------------------------
@elementwise
def _gelu_erf(x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = one_gelu_erf(x[i])


@elementwise
def _gelu_tanh(x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = one_gelu_tanh(x[i])


@serial
def _gelu_erf_alone(x, out):
    for i in range(x.size):
        out[i] = one_gelu_erf(x[i])


@serial
def _gelu_tanh_alone(x, out):
    for i in range(x.size):
        out[i] = one_gelu_tanh(x[i])


@elementwise
def _gelu_erf_grad(g, x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = one_gelu_erf_grad(g[i], x[i])


@elementwise
def _gelu_tanh_grad(g, x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = one_gelu_tanh_grad(g[i], x[i])


@elementwise
def _relu(x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            v = x[i]
            out[i] = _ZERO if v <= _ZERO else v  # NaN stays


@elementwise
def _silu(x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = one_silu(x[i])


@elementwise
def _silu_grad(g, x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = one_silu_grad(g[i], x[i])


@elementwise
def _sigmoid(x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = logistic(x[i])


@elementwise
def _softplus(beta, inverse, threshold, x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = one_softplus(x[i], beta, inverse, threshold)


@elementwise
def _softplus_grad(beta, inverse, threshold, g, x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = one_softplus_grad(g[i], x[i], beta, inverse, threshold)


@elementwise
def _softplus_curvature(beta, inverse, threshold, g, x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(x.size, block * BLOCK + BLOCK)):
            out[i] = one_softplus_curvature(g[i], x[i], beta, inverse, threshold)


@elementwise
def _drop(low, high, limit, grown, x, out):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        first, second = row_keys(u(block), u(low), u(high))
        here, there = x[block * BLOCK : block * BLOCK + BLOCK], out[block * BLOCK : block * BLOCK + BLOCK]
        for i in range(here.size):
            there[i] = here[i] * (grown if bits(first, second, i) >= limit else _ZERO)


def _run(code, *arrays, settings=(), out=None):
    """A kernel on arrays of one shape; without `out`, the result lies in memory as the last input."""
    last = arrays[-1]
    if last.size < BLOCK or any(a.shape != last.shape for a in arrays) or not accepts(*arrays):
        return NotImplemented
    out = np.empty_like(last) if out is None else out
    vectors = flat(*arrays, out)
    if vectors is None:
        return NotImplemented
    code(*settings, *vectors)
    return out


def gelu(input: np.ndarray, approximate: str = "none") -> np.ndarray:
    """input * P(Z <= input), exact (to 4e-7) or by tanh."""
    if input.size < BLOCK and input.shape[-1:] >= (WIDE["gelu"],):
        code = {"none": _gelu_erf_alone, "tanh": _gelu_tanh_alone}.get(approximate)
        if code is None or not input.flags.c_contiguous or not accepts(input):
            return NotImplemented
        out = np.empty_like(input)
        code(input.reshape(-1), out.reshape(-1))
        return out
    code = {"none": _gelu_erf, "tanh": _gelu_tanh}.get(approximate)
    return NotImplemented if code is None else _run(code, input)


def gelu_grad(g: np.ndarray, input: np.ndarray, approximate: str = "none") -> np.ndarray:
    """The gradient of `gelu` with respect to its input."""
    code = {"none": _gelu_erf_grad, "tanh": _gelu_tanh_grad}.get(approximate)
    return NotImplemented if code is None else _run(code, g, input)


def relu(input: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """max(input, 0), into `out` (which may be the input) where that is given."""
    return NotImplemented if input.size < _WORTH_RELU else _run(_relu, input, out=out)


def silu(input: np.ndarray) -> np.ndarray:
    """input * sigmoid(input)."""
    return _run(_silu, input)


def silu_grad(g: np.ndarray, input: np.ndarray) -> np.ndarray:
    """The gradient of `silu` with respect to its input."""
    return _run(_silu_grad, g, input)


def sigmoid(input: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-input))."""
    return _run(_sigmoid, input)


def _soft(code, arrays, beta, threshold):
    if type(beta) not in (int, float) or type(threshold) not in (int, float) or beta == 0:
        return NotImplemented
    return _run(code, *arrays, settings=(f(beta), f(1 / beta), f(threshold)))


def softplus(input: np.ndarray, beta: float = 1.0, threshold: float = 20.0) -> np.ndarray:
    """log(1 + exp(beta * input)) / beta; the input itself above the threshold."""
    return _soft(_softplus, (input,), beta, threshold)


def softplus_grad(g: np.ndarray, input: np.ndarray, beta: float = 1.0, threshold: float = 20.0) -> np.ndarray:
    """The gradient of `softplus` with respect to its input."""
    return _soft(_softplus_grad, (g, input), beta, threshold)


def softplus_curvature(g: np.ndarray, input: np.ndarray, beta: float = 1.0, threshold: float = 20.0) -> np.ndarray:
    """`g` times the second derivative of `softplus`."""
    return _soft(_softplus_curvature, (g, input), beta, threshold)


def _dropout(input: np.ndarray, p: float, seed: int) -> np.ndarray:
    """Elements set to 0 with probability p, the others scaled by 1 / (1 - p)."""
    if BLOCK != ROW:
        return NotImplemented
    settings = (seed & 0xFFFFFFFF, seed >> 32, u(threshold(p)), f(1 / (1 - p)))
    return _run(_drop, np.ascontiguousarray(input), settings=settings)
