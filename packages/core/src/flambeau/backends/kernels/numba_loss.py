"""Cross-entropy of class indices: float32, all threads, without an array of log-probabilities.

The forward pass reads the inputs and keeps two numbers for each target, the backward pass reads them once more and
writes the gradient. Classes may be the last dimension, or come before positions (N, C, …). Within 4e-6 of float64,
relative to the largest entry.
"""

import math
from typing import Any

import numpy as np
from numba import prange

from .numba_math import fading
from .numba_math import log as logarithm
from .numba_rows import largest, rows_at_once, sum_of_exponentials
from .numba_setup import BLOCK, accepts, inlined_sum, reducing

__all__ = ["class_cross_entropy", "class_cross_entropy_grad"]

f = np.float32
_ZERO, _ONE = f(0), f(1)
_POSITIONS = 512  # that one task works on


@inlined_sum
def _sum_below(row, shift):
    total = _ZERO
    for j in range(row.size):
        total += row[j] - shift
    return total


@reducing
def _rows(x, target, ignore, smoothing, losses, counts, tops, logs, step):
    for block in prange((x.shape[0] + step - 1) // step):
        for i in range(block * step, min(x.shape[0], block * step + step)):
            row = x[i]
            top = largest(row)
            log = f(math.log(sum_of_exponentials(row, top)))
            tops[i] = top
            logs[i] = log
            if target[i] == ignore:
                losses[i] = _ZERO
                counts[i] = False
                continue
            loss = log - (row[target[i]] - top)
            if smoothing > _ZERO:
                loss = loss * (_ONE - smoothing) + (log - _sum_below(row, top) / f(row.size)) * smoothing
            losses[i] = loss
            counts[i] = True


@reducing
def _rows_grad(g, x, target, ignore, smoothing, tops, logs, out, step):
    for block in prange((x.shape[0] + step - 1) // step):
        for i in range(block * step, min(x.shape[0], block * step + step)):
            row, to = x[i], out[i]
            if target[i] == ignore:
                for j in range(row.size):
                    to[j] = _ZERO
                continue
            slope, top, log, even = g[i], tops[i], logs[i], smoothing / f(row.size)
            if even == _ZERO:
                for j in range(row.size):
                    to[j] = fading((row[j] - top) - log) * slope
            else:
                for j in range(row.size):
                    to[j] = (fading((row[j] - top) - log) - even) * slope
            to[target[i]] -= slope * (_ONE - smoothing)


@reducing
def _planes(x, target, ignore, smoothing, losses, counts, tops, logs):
    samples, classes, positions = x.shape
    blocks = (positions + _POSITIONS - 1) // _POSITIONS
    for task in prange(samples * blocks):
        n, start = task // blocks, task % blocks * _POSITIONS
        stop = min(positions, start + _POSITIONS)
        top, log, loss, count = tops[n, start:stop], logs[n, start:stop], losses[n, start:stop], counts[n, start:stop]
        wanted = target[n, start:stop]
        first = x[n, 0, start:stop]
        for p in range(top.size):
            top[p] = first[p]
            log[p] = _ZERO
            loss[p] = _ZERO
        for c in range(1, classes):
            row = x[n, c, start:stop]
            for p in range(top.size):
                top[p] = row[p] if row[p] > top[p] else top[p]
        for c in range(classes):
            row = x[n, c, start:stop]
            for p in range(top.size):
                log[p] += fading(row[p] - top[p])
        if smoothing > _ZERO:
            for c in range(classes):
                row = x[n, c, start:stop]
                for p in range(top.size):
                    loss[p] += row[p] - top[p]
        for p in range(top.size):
            log[p] = logarithm(log[p])
        for p in range(top.size):
            if wanted[p] == ignore:
                loss[p] = _ZERO
                count[p] = False
            else:
                picked = log[p] - (x[n, wanted[p], start + p] - top[p])
                if smoothing > _ZERO:
                    picked = picked * (_ONE - smoothing) + (log[p] - loss[p] / f(classes)) * smoothing
                loss[p] = picked
                count[p] = True


@reducing
def _planes_grad(g, x, target, ignore, smoothing, tops, logs, out):
    samples, classes, positions = x.shape
    blocks = (positions + _POSITIONS - 1) // _POSITIONS
    even = smoothing / f(classes)
    for task in prange(samples * blocks):
        n, start = task // blocks, task % blocks * _POSITIONS
        stop = min(positions, start + _POSITIONS)
        top, log, slope, wanted = tops[n, start:stop], logs[n, start:stop], g[n, start:stop], target[n, start:stop]
        for c in range(classes):
            row, to = x[n, c, start:stop], out[n, c, start:stop]
            for p in range(top.size):
                hit = _ONE - smoothing if wanted[p] == c else _ZERO
                value = (fading((row[p] - top[p]) - log[p]) - (even + hit)) * slope[p]
                to[p] = _ZERO if wanted[p] == ignore else value


def _indices(input: np.ndarray, target: np.ndarray, ignore: int) -> np.ndarray | None:
    """The targets as int64 in C order; None where kernels do not take the case, or where an index is of no class."""
    if input.size < BLOCK or input.ndim < 2 or not accepts(input) or target.dtype.kind not in "iu":
        return None
    if target.shape != (input.shape[0], *input.shape[2:]):
        return None
    if target.min() < 0 or target.max() >= input.shape[1]:
        wrong = (target < 0) | (target >= input.shape[1])
        if (wrong & (target != ignore)).any():
            return None
    return np.ascontiguousarray(target, np.int64)


def _ordered(input: np.ndarray) -> np.ndarray:
    """(rows, classes) for classes in the last dimension, else (N, C, positions)."""
    n, classes = input.shape[:2]
    if input.size == n * classes:
        return np.ascontiguousarray(input).reshape(n, classes)
    last = input.transpose(0, *range(2, input.ndim), 1)
    if last.flags.c_contiguous:
        return last.reshape(-1, classes)
    return np.ascontiguousarray(input).reshape(n, classes, -1)


def class_cross_entropy(input: np.ndarray, target: np.ndarray, ignore_index: int = -100, smoothing: float = 0.0) -> Any:
    """(losses, counts, largest input, logarithm of the sum of exponentials below it) of class indices."""
    wanted = _indices(input, target, ignore_index)
    if wanted is None:
        return NotImplemented
    x = _ordered(input)
    kept = (input.shape[0], 1, *input.shape[2:])
    losses, counts = np.empty(target.shape, np.float32), np.empty(target.shape, np.bool_)
    top, log = np.empty(kept, np.float32), np.empty(kept, np.float32)
    outputs = losses, counts, top, log
    if x.ndim == 2:
        vectors = [a.reshape(-1) for a in outputs]
        _rows(x, wanted.reshape(-1), int(ignore_index), f(smoothing), *vectors, rows_at_once(x.shape[1]))
    else:
        _planes(
            x, wanted.reshape(len(x), -1), int(ignore_index), f(smoothing), *[a.reshape(len(x), -1) for a in outputs]
        )
    return outputs


def class_cross_entropy_grad(
    g: np.ndarray,
    input: np.ndarray,
    target: np.ndarray,
    top: np.ndarray,
    log: np.ndarray,
    ignore_index: int = -100,
    smoothing: float = 0.0,
) -> Any:
    """The gradient of the losses with respect to the input, which lies in memory as the input does."""
    wanted = _indices(input, target, ignore_index)
    if wanted is None or g.shape != target.shape or not accepts(g, top, log):
        return NotImplemented
    x = _ordered(input)
    out: Any = np.empty(x.shape, np.float32)
    settings = int(ignore_index), f(smoothing)
    vectors = [np.ascontiguousarray(a).reshape(wanted.shape) for a in (g, top, log)]
    if x.ndim == 2:
        slope, *kept = [a.reshape(-1) for a in vectors]
        _rows_grad(slope, x, wanted.reshape(-1), *settings, *kept, out, rows_at_once(x.shape[1]))
    else:
        planes, *saved = [a.reshape(len(x), -1) for a in vectors]
        _planes_grad(planes, x, wanted.reshape(len(x), -1), *settings, *saved, out)
    if x.ndim == 3 or input.ndim == 2:
        return out.reshape(input.shape)
    moved = out.reshape(input.shape[0], *input.shape[2:], input.shape[1])
    return moved.transpose(0, input.ndim - 1, *range(1, input.ndim - 1))
