"""Linear layers with integer weights: read once from memory as they are, never written out as floats.

The activations become 16-bit integers, each 64 of a row with a scale of their own, so that products are exact integers
and only this rounding counts: at most 1.6e-5 of the largest of the 64. Sums over blocks are float32.
"""

import sys

import numpy as np
from numba import prange

from .numba_dot import BLOCK, dot_int4, dot_int8
from .numba_setup import accepts, elementwise, rows_of_task, scalar

__all__ = ["linear_int4", "linear_int8"]

_FEWEST = 1 << 14  # weights: smaller layers are not worth the threads
_VECTORS = 16  # rows of the input that pass by while some rows of the weights stay in the cache

_f, _long = np.float32, np.int64
_MAGNITUDE, _INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
_SHIFT = _f(3 << 22)  # added to a small float and taken off again it rounds to an integer, the nearest
_INT8, _UINT8 = np.dtype(np.int8), np.dtype(np.uint8)
_int8_4, _int8_1 = dot_int8(4), dot_int8(1)
_int4_4, _int4_1 = dot_int4(4, False), dot_int4(1, False)
_int4_halves_4, _int4_halves_1 = dot_int4(4, True), dot_int4(1, True)


@scalar
def _scale_of(bits, m, b):
    """The largest number of block b of row m over 32767; infinite or NaN if one of them is."""
    largest = np.int32(0)
    for j in range(b * BLOCK, b * BLOCK + BLOCK):
        largest = max(largest, bits[m, j] & _MAGNITUDE)  # without their sign floats are in the order of their bits
    return np.int32(largest).view(_f) / _f(32767) if largest < _INFINITE else _f(np.inf)


@elementwise
def _linear_int8(w, scale, x, bits, bias, biased, rows, out):
    (n, k), count = w.shape, x.shape[0]
    blocks = k // BLOCK
    q, scales = np.empty((count, blocks * BLOCK), np.int16), np.empty((count, blocks), _f)
    for m in range(count):
        for b in range(blocks):
            s = _scale_of(bits, m, b)
            if s == _f(np.inf):
                return False
            scales[m, b] = s
            inverse = _f(1) / s if s > _f(1e-30) else _f(0)
            for j in range(b * BLOCK, b * BLOCK + BLOCK):
                q[m, j] = np.int16((x[m, j] * inverse + _SHIFT) - _SHIFT)
    for task in prange((n + rows - 1) // rows):
        first, last = task * rows, min(n, task * rows + rows)
        far = (last - first) // 4
        for start in range(0, count, _VECTORS):
            end = min(count, start + _VECTORS)
            for r in range(first, first + far):
                for m in range(start, end):
                    at, block = _long(m * blocks * BLOCK), _long(m * blocks)
                    sums = _int8_4(w, _long(r * k), _long(far * k), q, at, scales, block, _long(blocks))
                    for i in range(4):
                        out[m, r + i * far] = sums[i]
            for r in range(first + 4 * far, last):
                for m in range(start, end):
                    at, block = _long(m * blocks * BLOCK), _long(m * blocks)
                    out[m, r] = _int8_1(w, _long(r * k), _long(0), q, at, scales, block, _long(blocks))[0]
        for m in range(count):
            for r in range(first, last):
                s = out[m, r]
                for j in range(blocks * BLOCK, k):
                    s += _f(w[r, j]) * x[m, j]
                out[m, r] = s * scale[r] + bias[r] if biased else s * scale[r]
    return True


@elementwise
def _linear_int4(w, scale, shift, x, bits, bias, biased, rows, out):
    (n, width), (count, k), groups = w.shape, x.shape, scale.shape[1]
    blocks = k // BLOCK
    q, scales = np.empty((count, blocks * BLOCK), np.int16), np.empty((count, blocks), _f)
    zeros = np.empty((count, blocks, 8), np.int32)
    for m in range(count):
        for b in range(blocks):
            s = _scale_of(bits, m, b)
            if s == _f(np.inf):
                return False
            scales[m, b] = s
            inverse = _f(1) / s if s > _f(1e-30) else _f(0)
            zeros[m, b] = 0
            for part in range(4):
                for lane in range(16):
                    value = (x[m, b * BLOCK + 4 * lane + part] * inverse + _SHIFT) - _SHIFT
                    q[m, b * BLOCK + 16 * part + lane] = np.int16(value)
                    zeros[m, b, lane // 2] -= np.int32(8) * np.int32(value)
    for task in prange((n + rows - 1) // rows):
        first, last = task * rows, min(n, task * rows + rows)
        far = (last - first) // 4
        for start in range(0, count, _VECTORS):
            end = min(count, start + _VECTORS)
            for r in range(first, first + far):
                a, g = _long(r * width), _long(r * groups)
                up, over = _long(far * width), _long(far * groups)
                for m in range(start, end):
                    at, block = _long(m * blocks * BLOCK), _long(m * blocks)
                    if shift < 0:
                        sums = _int4_halves_4(
                            w, a, up, scale, g, over, _long(0), q, at, zeros, scales, block, _long(blocks)
                        )
                    else:
                        sums = _int4_4(
                            w, a, up, scale, g, over, _long(shift), q, at, zeros, scales, block, _long(blocks)
                        )
                    for i in range(4):
                        out[m, r + i * far] = sums[i]
            for r in range(first + 4 * far, last):
                a, g, none = _long(r * width), _long(r * groups), _long(0)
                for m in range(start, end):
                    at, block = _long(m * blocks * BLOCK), _long(m * blocks)
                    if shift < 0:
                        out[m, r] = _int4_halves_1(
                            w, a, none, scale, g, none, none, q, at, zeros, scales, block, _long(blocks)
                        )[0]
                    else:
                        out[m, r] = _int4_1(
                            w, a, none, scale, g, none, _long(shift), q, at, zeros, scales, block, _long(blocks)
                        )[0]
        for m in range(count):
            for r in range(first, last):
                s = out[m, r]
                for j in range(blocks * BLOCK, k):
                    nibble = (_long(w[r, j // 2]) >> (j % 2 * 4)) & 15
                    s += _f(nibble - 8) * scale[r, j >> (shift + 6)] * x[m, j]
                out[m, r] = s + bias[r] if biased else s
    return True


def _run(code, input, weight, scale, bias, *options):
    k = input.shape[-1]
    given = (input, scale) if bias is None else (input, scale, bias)
    if not accepts(*given) or not all([a.flags.c_contiguous for a in (weight, *given)]) or k < BLOCK or not input.size:
        return NotImplemented
    vectors = input.reshape(-1, k)
    out = np.empty((len(vectors), len(weight)), np.float32)
    if not code(
        weight, scale, *options, vectors, vectors.view(np.int32), scale.reshape(-1) if bias is None else bias,
        bias is not None, rows_of_task(len(weight)), out,
    ):  # fmt: skip
        return NotImplemented  # a NaN or an infinity, which the NumPy form sends where it belongs
    return out.reshape(input.shape[:-1] + weight.shape[:1])


def linear_int8(input: np.ndarray, weight: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """(input @ weight.T) * scale + bias, the weights int8."""
    if weight.size < _FEWEST or weight.dtype != _INT8 or input.shape[-1:] != weight.shape[1:]:
        return NotImplemented
    return _run(_linear_int8, input, weight, scale, bias)


def linear_int4(
    input: np.ndarray, weight: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None, group: int = 64
) -> np.ndarray:
    """input @ dequantize_int4(weight, scale).T + bias; the group a power of two from 32 on."""
    if weight.size < _FEWEST // 2 or weight.dtype != _UINT8 or weight.shape[1:] != ((input.shape[-1] + 1) // 2,):
        return NotImplemented
    if group < 32 or group & (group - 1) or sys.byteorder != "little":
        return NotImplemented
    return _run(_linear_int4, input, weight, scale, bias, group.bit_length() - 7)
