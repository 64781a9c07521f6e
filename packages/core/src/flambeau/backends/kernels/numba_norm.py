"""Layer, RMS and group normalisation and their gradients, and batch normalisation by given statistics.

Float32, all threads; each row or group is read from memory once and then again from the cache. Within 4e-6 of float64,
relative to the largest entry. Gradients of weights are added up over blocks of rows, then over the blocks: the blocks
depend on the shapes alone, so the number of threads does not change results.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import prange

from . import WIDE
from .numba_rows import rows, rows_at_once
from .numba_setup import BLOCK, accepts, helper, inlined_sum, reducing, serial

__all__ = [
    "batch_norm_eval", "fused_rms_norm", "group_norm_grad", "layer_norm_grad", "native_group_norm",
    "native_layer_norm", "rms_norm_grad",
]  # fmt: skip

f = np.float32
_ZERO, _ONE = f(0), f(1)
_WIDE = WIDE["native_layer_norm"]  # a row alone is worth a kernel, which does not need the other threads
_PART = 4096  # elements that are added up in single precision
_BLOCKS, _ROWS = 64, 8  # blocks that share a sum of the weights' gradients: at most 64, of at least 8 rows


@inlined_sum
def _mean(row):
    whole = 0.0
    for start in range(0, row.size, _PART):
        part = row[start : min(row.size, start + _PART)]
        total = _ZERO
        for j in range(part.size):
            total += part[j]
        whole += total
    return f(whole / row.size)


@inlined_sum
def _mean_square(row, centre):
    whole = 0.0
    for start in range(0, row.size, _PART):
        part = row[start : min(row.size, start + _PART)]
        total = _ZERO
        for j in range(part.size):
            total += (part[j] - centre) * (part[j] - centre)
        whole += total
    return whole / row.size


@helper
def _layer_row(row, weight, bias, eps, to, means, rstds, i, centred):
    mean = _mean(row) if centred else _ZERO
    rstd = f(1 / math.sqrt(_mean_square(row, mean) + eps))
    means[i] = mean
    rstds[i] = rstd
    for j in range(row.size):
        to[j] = (row[j] - mean) * rstd * weight[j] + bias[j]


@reducing
def _layer(x, weight, bias, eps, out, means, rstds, step, centred):
    for block in prange((x.shape[0] + step - 1) // step):
        for i in range(block * step, min(x.shape[0], block * step + step)):
            _layer_row(x[i], weight, bias, eps, out[i], means, rstds, i, centred)


@serial
def _layer_alone(x, weight, bias, eps, out, means, rstds, step, centred):
    for i in range(x.shape[0]):
        _layer_row(x[i], weight, bias, eps, out[i], means, rstds, i, centred)


@reducing
def _layer_grad(g, x, means, rstds, weight, out, dweight, dbias, step, centred):
    for block in prange(dweight.shape[0]):
        dw, db = dweight[block], dbias[block]
        for j in range(dw.size):
            dw[j] = _ZERO
            db[j] = _ZERO
        for i in range(block * step, min(x.shape[0], block * step + step)):
            row, slope, to = x[i], g[i], out[i]
            mean, rstd = means[i], rstds[i]
            even, along = _ZERO, _ZERO
            for j in range(row.size):
                hat = (row[j] - mean) * rstd
                h = slope[j] * weight[j]
                even += h
                along += h * hat
                to[j] = hat
            even = even / f(row.size) if centred else _ZERO
            along = along / f(row.size)
            for j in range(row.size):
                hat = to[j]
                dw[j] += slope[j] * hat
                db[j] += slope[j]
                to[j] = rstd * (slope[j] * weight[j] - even - hat * along)


@reducing
def _group(x, weight, bias, eps, out, means, rstds):
    tasks, channels, positions = x.shape
    groups = weight.size // channels
    for task in prange(tasks):
        whole = x[task].reshape(channels * positions)
        mean = _mean(whole)
        rstd = f(1 / math.sqrt(_mean_square(whole, mean) + eps))
        means[task] = mean
        rstds[task] = rstd
        for c in range(channels):
            row, to = x[task, c], out[task, c]
            scale, shift = rstd * weight[task % groups * channels + c], bias[task % groups * channels + c]
            for p in range(positions):
                to[p] = (row[p] - mean) * scale + shift


@reducing
def _group_grad(g, x, means, rstds, weight, out, dweight, dbias):
    tasks, channels, positions = x.shape
    groups = weight.size // channels
    for task in prange(tasks):
        mean, rstd = means[task], rstds[task]
        even, along = 0.0, 0.0
        for c in range(channels):
            row, slope = x[task, c], g[task, c]
            db, dw = _ZERO, _ZERO
            for p in range(positions):
                db += slope[p]
                dw += slope[p] * (row[p] - mean)
            dw = dw * rstd
            dbias[task, c] = db
            dweight[task, c] = dw
            even += db * weight[task % groups * channels + c]
            along += dw * weight[task % groups * channels + c]
        shift = f(even / (channels * positions)) * rstd
        slant = f(along / (channels * positions)) * rstd * rstd
        for c in range(channels):
            row, slope, to = x[task, c], g[task, c], out[task, c]
            scale = rstd * weight[task % groups * channels + c]
            for p in range(positions):
                to[p] = slope[p] * scale - shift - (row[p] - mean) * slant


@reducing
def _scale_planes(x, scale, shift, out, step):
    for block in prange((x.shape[0] + step - 1) // step):
        for i in range(block * step, min(x.shape[0], block * step + step)):
            row, to = x[i], out[i]
            a, b = scale[i % scale.size], shift[i % scale.size]
            for j in range(row.size):
                to[j] = row[j] * a + b


@reducing
def _scale_rows(x, scale, shift, out, step):
    for block in prange((x.shape[0] + step - 1) // step):
        for i in range(block * step, min(x.shape[0], block * step + step)):
            row, to = x[i], out[i]
            for j in range(row.size):
                to[j] = row[j] * scale[j] + shift[j]


def _vector(given: np.ndarray | None, size: int, value: float) -> np.ndarray:
    return np.full(size, value, np.float32) if given is None else np.ascontiguousarray(given).reshape(size)


def _takes(input: np.ndarray, *others: np.ndarray | None) -> bool:
    return input.size >= BLOCK and accepts(input, *[a for a in others if a is not None])


def _normalised(input: np.ndarray, shape: Sequence[int], weight: Any, bias: Any, eps: float, centred: bool) -> Any:
    lead = input.ndim - len(shape)
    given = [a for a in (weight, bias) if a is not None]
    small = input.size < BLOCK
    if lead < 1 or input.shape[lead:] != tuple(shape) or not input.size or (small and input.shape[-1] < _WIDE):
        return NotImplemented
    if not accepts(input, *given):
        return NotImplemented
    if any([a.shape != input.shape[lead:] for a in given]):
        return NotImplemented
    length = math.prod(shape)
    x, out = rows(input, length), np.empty(input.shape, np.float32)
    mean, rstd = (np.empty((*input.shape[:lead], *[1] * len(shape)), np.float32) for _ in range(2))
    vectors = _vector(weight, length, 1), _vector(bias, length, 0)
    code = _layer_alone if small else _layer
    code(x, *vectors, eps, rows(out, length), mean.reshape(-1), rstd.reshape(-1), rows_at_once(length), centred)
    return out, mean, rstd


def native_layer_norm(
    input: np.ndarray, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """(normalised over the last dimensions, mean, 1 / standard deviation)."""
    return _normalised(input, normalized_shape, weight, bias, eps, True)


def fused_rms_norm(input: np.ndarray, normalized_shape: Sequence[int], weight: Any = None, eps: float = 1e-5) -> Any:
    """(input over the root of its mean square, 1 / that root)."""
    done = _normalised(input, normalized_shape, weight, None, eps, False)
    return done if done is NotImplemented else (done[0], done[2])


def _row_grads(g: np.ndarray, input: np.ndarray, mean: Any, rstd: np.ndarray, weight: Any, k: int) -> Any:
    lead = input.ndim - k
    if lead < 1 or g.shape != input.shape or not _takes(input, g, mean, rstd, weight):
        return NotImplemented
    shape = input.shape[lead:]
    length = math.prod(shape)
    count = input.size // length
    if rstd.size != count or (weight is not None and weight.shape != shape):
        return NotImplemented
    step = max(_ROWS, -(-count // _BLOCKS))
    out, partial = np.empty(input.shape, np.float32), np.empty((2, -(-count // step), length), np.float32)
    centres = np.zeros(count, np.float32) if mean is None else _vector(mean, count, 0)
    arrays = rows(g, length), rows(input, length), centres, _vector(rstd, count, 1), _vector(weight, length, 1)
    _layer_grad(*arrays, rows(out, length), *partial, step, mean is not None)
    dweight, dbias = partial.sum(1).reshape(2, *shape)
    return out, dweight, dbias


def layer_norm_grad(
    g: np.ndarray, input: np.ndarray, mean_: np.ndarray, rstd: np.ndarray, weight: Any, k: int, need: Sequence[bool]
) -> Any:
    """The gradients of layer normalisation for input, weight and bias, all from one pass whatever `need` says."""
    return _row_grads(g, input, mean_, rstd, weight, k)


def rms_norm_grad(
    g: np.ndarray, input: np.ndarray, rstd: np.ndarray, weight: Any, k: int, need: Sequence[bool] = (True, True)
) -> Any:
    """The gradients of RMS normalisation for input and weight."""
    done = _row_grads(g, input, None, rstd, weight, k)
    return done if done is NotImplemented else done[:2]


def _grouped(array: np.ndarray, groups: int) -> np.ndarray:
    """(samples * groups, channels of a group, positions)."""
    n, channels = array.shape[:2]
    return np.ascontiguousarray(array).reshape(n * groups, channels // groups, -1)


def native_group_norm(
    input: np.ndarray, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """(normalised over groups of channels and all positions, mean (N, groups), 1 / standard deviation)."""
    if input.ndim < 3 or not _takes(input, weight, bias):
        return NotImplemented
    n, channels = input.shape[:2]
    out = np.empty(input.shape, np.float32)
    mean, rstd = np.empty((n, num_groups), np.float32), np.empty((n, num_groups), np.float32)
    vectors = _vector(weight, channels, 1), _vector(bias, channels, 0)
    _group(_grouped(input, num_groups), *vectors, eps, _grouped(out, num_groups), mean.reshape(-1), rstd.reshape(-1))
    return out, mean, rstd


def group_norm_grad(
    g: np.ndarray,
    input: np.ndarray,
    mean_: np.ndarray,
    rstd: np.ndarray,
    weight: Any,
    num_groups: int,
    need: Sequence[bool] = (True, True, True),
) -> Any:
    """The gradients of group normalisation for input, weight and bias, all from one pass whatever `need` says."""
    if input.ndim < 3 or g.shape != input.shape or not _takes(input, g, mean_, rstd, weight):
        return NotImplemented
    n, channels = input.shape[:2]
    out = np.empty(input.shape, np.float32)
    partial = np.empty((2, n * num_groups, channels // num_groups), np.float32)
    statistics = _vector(mean_, n * num_groups, 0), _vector(rstd, n * num_groups, 1)
    arrays = _grouped(g, num_groups), _grouped(input, num_groups), *statistics, _vector(weight, channels, 1)
    _group_grad(*arrays, _grouped(out, num_groups), *partial)
    dweight, dbias = partial.reshape(2, n, channels).sum(1)
    return out, dweight, dbias


def batch_norm_eval(
    input: np.ndarray, running_mean: np.ndarray, running_var: np.ndarray, weight: Any, bias: Any, eps: float
) -> Any:
    """Normalised by given statistics: one scale and one shift per channel, in one pass."""
    if input.ndim < 2 or not _takes(input, running_mean, running_var, weight, bias):
        return NotImplemented
    scale = 1 / np.sqrt(running_var + f(eps))
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    channels = input.shape[1]
    if scale.shape != (channels,) or shift.shape != (channels,):
        return NotImplemented
    out = np.empty_like(input)
    last = (0, *range(2, input.ndim), 1)
    if input.ndim > 2 and input.flags.c_contiguous:
        planes = input.reshape(len(input) * channels, -1)
        _scale_planes(planes, scale, shift, out.reshape(planes.shape), rows_at_once(planes.shape[1]))
    elif input.transpose(last).flags.c_contiguous:
        flat = input.transpose(last).reshape(-1, channels)
        _scale_rows(flat, scale, shift, out.transpose(last).reshape(-1, channels), rows_at_once(channels))
    else:
        return NotImplemented
    return out
