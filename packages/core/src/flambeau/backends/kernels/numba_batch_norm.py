"""Batch normalisation in training, forward and backward, of float32 images that lie in memory as (N, C, *spatial).

A task takes some channels through all passes: what it reads again lies in the cache, and the sums do not depend on the
number of threads. Sums run over at most `_PART` numbers in single precision, then in double precision. Small planes
are added up image by image over whole blocks of channels, as their rows alone are too short for vector registers.
"""

import math

import numpy as np
from numba import prange

from .numba_setup import inlined_sum, reducing

__all__ = ["backward", "forward"]

f = np.float32
_ZERO, _ONE = f(0), f(1)
_PART = 4096  # elements that are added up in single precision
_SHORT = 32  # positions of a plane below which channels are worked on in blocks
_BLOCK = 256  # elements of such a block, in one image
_IMAGES = 64  # of which a column of a block is added up in single precision


@inlined_sum
def _sum(row):
    total = _ZERO
    for j in range(row.size):
        total += row[j]
    return total


@inlined_sum
def _sum_of_squares(row, centre):
    total = _ZERO
    for j in range(row.size):
        total += (row[j] - centre) * (row[j] - centre)
    return total


@inlined_sum
def _sum_of_products(slope, row, centre):
    total = _ZERO
    for j in range(row.size):
        total += slope[j] * (row[j] - centre)
    return total


@reducing
def _forward_planes(x, weight, bias, eps, out, means, variances):
    images, channels, size = x.shape
    count = images * size
    for c in prange(channels):
        whole = 0.0
        for n in range(images):
            row = x[n, c]
            for start in range(0, size, _PART):
                whole += _sum(row[start : min(size, start + _PART)])
        mean = f(whole / count)
        whole = 0.0
        for n in range(images):
            row = x[n, c]
            for start in range(0, size, _PART):
                whole += _sum_of_squares(row[start : min(size, start + _PART)], mean)
        means[c], variances[c] = mean, f(whole / count)
        scale, shift = f(1 / math.sqrt(whole / count + eps)) * weight[c], bias[c]
        for n in range(images):
            row, to = x[n, c], out[n, c]
            for j in range(size):
                to[j] = (row[j] - mean) * scale + shift


@reducing
def _backward_planes(g, x, means, variances, weight, eps, out, dweight, dbias):
    images, channels, size = x.shape
    count = images * size
    for c in prange(channels):
        mean, rstd = means[c], f(1 / math.sqrt(variances[c] + eps))
        even, along = 0.0, 0.0
        for n in range(images):
            row, slope = x[n, c], g[n, c]
            for start in range(0, size, _PART):
                stop = min(size, start + _PART)
                even += _sum(slope[start:stop])
                along += _sum_of_products(slope[start:stop], row[start:stop], mean)
        dbias[c], dweight[c] = f(even), f(along * rstd)
        scale = rstd * weight[c]
        level, slant = f(even / count), f(along / count * rstd * rstd)
        for n in range(images):
            row, slope, to = x[n, c], g[n, c], out[n, c]
            for j in range(size):
                to[j] = scale * (slope[j] - level - (row[j] - mean) * slant)


@reducing
def _forward_blocks(x, weight, bias, eps, out, means, variances, size, step):
    """x and out are (images, channels * size); a task takes `step` channels."""
    images, channels = x.shape[0], weight.size
    count = images * size
    for task in prange((channels + step - 1) // step):
        begin, end = task * step, min(channels, task * step + step)
        width = (end - begin) * size
        first, last = begin * size, end * size
        part, centre, scale = np.empty(width, f), np.empty(width, f), np.empty(width, f)
        shift, total = np.empty(width, f), np.empty(width, np.float64)
        for way in range(2):  # the mean, then the variance
            for j in range(width):
                total[j] = 0.0
                if way == 0:
                    centre[j] = _ZERO
            for start in range(0, images, _IMAGES):
                for j in range(width):
                    part[j] = _ZERO
                for n in range(start, min(images, start + _IMAGES)):
                    row = x[n, first:last]
                    if way == 0:
                        for j in range(width):
                            part[j] += row[j]
                    else:
                        for j in range(width):
                            part[j] += (row[j] - centre[j]) * (row[j] - centre[j])
                for j in range(width):
                    total[j] += part[j]
            for c in range(begin, end):
                whole = 0.0
                for j in range((c - begin) * size, (c - begin + 1) * size):
                    whole += total[j]
                if way == 0:
                    means[c] = f(whole / count)
                else:
                    variances[c] = f(whole / count)
                for j in range((c - begin) * size, (c - begin + 1) * size):
                    if way == 0:
                        centre[j] = means[c]
                    else:
                        scale[j], shift[j] = f(1 / math.sqrt(whole / count + eps)) * weight[c], bias[c]
        for n in range(images):
            row, to = x[n, first:last], out[n, first:last]
            for j in range(width):
                to[j] = (row[j] - centre[j]) * scale[j] + shift[j]


@reducing
def _backward_blocks(g, x, means, variances, weight, eps, out, dweight, dbias, size, step):
    images, channels = x.shape[0], weight.size
    count = images * size
    for task in prange((channels + step - 1) // step):
        begin, end = task * step, min(channels, task * step + step)
        width = (end - begin) * size
        first, last = begin * size, end * size
        centre, scale = np.empty(width, f), np.empty(width, f)
        evens, alongs = np.zeros(width, np.float64), np.zeros(width, np.float64)
        level, slant = np.empty(width, f), np.empty(width, f)
        for c in range(begin, end):
            for j in range((c - begin) * size, (c - begin + 1) * size):
                centre[j] = means[c]
        for start in range(0, images, _IMAGES):
            for j in range(width):
                level[j] = _ZERO
                slant[j] = _ZERO
            for n in range(start, min(images, start + _IMAGES)):
                row, slope = x[n, first:last], g[n, first:last]
                for j in range(width):
                    level[j] += slope[j]
                    slant[j] += slope[j] * (row[j] - centre[j])
            for j in range(width):
                evens[j] += level[j]
                alongs[j] += slant[j]
        for c in range(begin, end):
            rstd = f(1 / math.sqrt(variances[c] + eps))
            even, along = 0.0, 0.0
            for j in range((c - begin) * size, (c - begin + 1) * size):
                even += evens[j]
                along += alongs[j]
            dbias[c], dweight[c] = f(even), f(along * rstd)
            for j in range((c - begin) * size, (c - begin + 1) * size):
                scale[j] = rstd * weight[c]
                level[j], slant[j] = f(even / count), f(along / count * rstd * rstd)
        for n in range(images):
            row, slope, to = x[n, first:last], g[n, first:last], out[n, first:last]
            for j in range(width):
                to[j] = scale[j] * (slope[j] - level[j] - (row[j] - centre[j]) * slant[j])


def forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(normalised, mean, biased variance) of a C-ordered array (N, C, *spatial)."""
    images, channels = x.shape[:2]
    size = x.size // (images * channels)
    out, mean, var = np.empty(x.shape, f), np.empty(channels, f), np.empty(channels, f)
    if size < _SHORT:
        flat = images, channels * size
        step = max(1, _BLOCK // size)
        _forward_blocks(x.reshape(flat), weight, bias, eps, out.reshape(flat), mean, var, size, step)
    else:
        planes = images, channels, size
        _forward_planes(x.reshape(planes), weight, bias, eps, out.reshape(planes), mean, var)
    return out, mean, var


def backward(
    g: np.ndarray, x: np.ndarray, mean: np.ndarray, var: np.ndarray, weight: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients for input, weight and bias; g and x are C-ordered."""
    images, channels = x.shape[:2]
    size = x.size // (images * channels)
    out, dweight, dbias = np.empty(x.shape, f), np.empty(channels, f), np.empty(channels, f)
    if size < _SHORT:
        flat = images, channels * size
        arrays = g.reshape(flat), x.reshape(flat), mean, var, weight, eps, out.reshape(flat), dweight, dbias
        _backward_blocks(*arrays, size, max(1, _BLOCK // size))
    else:
        planes = images, channels, size
        arrays = g.reshape(planes), x.reshape(planes), mean, var, weight, eps, out.reshape(planes), dweight, dbias
        _backward_planes(*arrays)
    return out, dweight, dbias
