"""Scaled dot-product attention without its matrix of weights in memory (after Dao et al. 2022): float32, all threads.

A task takes one head: for some queries at a time it computes their scores with all keys, which fit the processor's
cache, makes weights of them and multiplies these by the values. For the gradients the weights are computed again, from
the logarithms of their sums. What a causal mask forbids is not computed at all.
"""

import math

import numba
import numpy as np
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from ...ops._counter import threshold
from .numba_counter import bits, row_keys
from .numba_math import exp
from .numba_setup import accepts, elementwise, scalar
from .numba_tile import COLUMNS, ROWS, product

__all__ = ["attention", "attention_grad"]

f, u = np.float32, np.uint32
_INF, _ZERO, _ONE = f(np.inf), f(0), f(1)
_BLOCK = 96  # queries at a time: their scores stay in the cache
_SCORES = 1 << 15  # scores at a time
_FEW = 4  # as many queries or fewer: the keys are read as they lie
_TASKS = 16  # as many tasks at least, where there are few heads
_SMALL = 1 << 14  # less work than this is left to NumPy
_SERIAL = 1 << 18  # less work than this is done by one thread


@intrinsic
def _pointer(typing, address):
    """The pointer of an address."""
    return types.voidptr(types.int64), lambda context, builder, signature, args: builder.inttoptr(
        args[0], context.get_value_type(types.voidptr)
    )


@scalar
def _row(address, count):
    """`count` float32 numbers at an address."""
    return numba.carray(_pointer(address), (count,), np.float32)


@scalar
def _up(count, step):
    return (count + step - 1) // step * step


_inner = numba.njit(error_model="numpy", boundscheck=False, fastmath={"contract"})
_summing = numba.njit(error_model="numpy", boundscheck=False, fastmath={"contract", "reassoc"})
# NaN scores are not lost: they turn up in the sum of the weights.
_largest = numba.njit(error_model="numpy", boundscheck=False, fastmath={"nnan", "nsz", "reassoc"})


# -- copies -----------------------------------------------------------------------------------------------------------
@_inner
def _transposed(address, step, rows, columns, out):
    """(rows, columns) as panels of 16 rows, each with its columns one after the other, zeros after the last row."""
    for first in range(0, rows, COLUMNS):
        for r in range(COLUMNS):
            at = first * columns + r
            if first + r < rows:
                x = _row(address + (first + r) * step, columns)
                for c in range(columns):
                    out[at + c * COLUMNS] = x[c]
            else:
                for c in range(columns):
                    out[at + c * COLUMNS] = _ZERO


@_inner
def _panels(address, step, rows, columns, out):
    """(rows, columns) as panels of 16 columns, zeros after the last column."""
    for r in range(rows):
        x = _row(address + r * step, columns)
        for first in range(0, columns, COLUMNS):
            at = first * rows + r * COLUMNS
            if first + COLUMNS <= columns:
                for c in range(COLUMNS):
                    out[at + c] = x[first + c]
            else:
                for c in range(COLUMNS):
                    out[at + c] = x[first + c] if first + c < columns else _ZERO


@_inner
def _scaled(address, step, rows, columns, width, factor, out):
    """(rows, columns) * factor in rows of `width`, zeros after the last column and row."""
    for r in range(_up(rows, ROWS)):
        at = r * width
        if r < rows:
            x = _row(address + r * step, columns)
            for c in range(columns):
                out[at + c] = x[c] * factor
            for c in range(columns, width):
                out[at + c] = _ZERO
        else:
            for c in range(width):
                out[at + c] = _ZERO


@_inner
def _written(source, at, factor, columns, address):
    _copied(source, at, factor, _row(address, columns), 0, columns)


@_inner
def _copied(source, at, factor, out, place, count):
    source, out = source[at : at + count], out[place : place + count]
    for c in range(count):
        out[c] = source[c] * factor


# -- scores and weights -----------------------------------------------------------------------------------------------
@_largest
def _maximum(x, at, count):
    x, top = x[at : at + count], -_INF  # counting from 0 spares a test for negative positions
    for i in range(count):
        top = x[i] if x[i] > top else top
    return top


@_summing
def _exponentials(x, at, count, top):
    """exp(x - top) in place, and the sum."""
    x, total = x[at : at + count], _ZERO
    for i in range(count):
        weight = exp(x[i] - top)
        x[i] = weight
        total += weight
    return total


@_inner
def _masked(x, at, count, mask, mask_at, mask_step):
    x = x[at : at + count]
    if mask_step:
        mask = mask[mask_at : mask_at + count]
        for j in range(count):
            x[j] = mask[j] if mask[j] == -_INF else x[j] + mask[j]
    else:
        m = mask[mask_at]
        for j in range(count):
            x[j] = m if m == -_INF else x[j] + m


@_inner
def _dropped(x, at, count, first, second, limit):
    """Weights whose random bits are below the limit become 0 (see ops/_counter.py)."""
    x = x[at : at + count]
    for j in range(count):
        x[j] = x[j] if bits(first, second, j) >= limit else _ZERO


@_summing
def _dot(x, y, count):
    total = _ZERO
    for c in range(count):
        total += x[c] * y[c]
    return total


@_inner
def _blind(mask, at, step, count):
    """Whether a query may look nowhere."""
    for j in range(count):
        if mask[at + j * step] != -_INF:
            return False
    return True


@_inner
def _weights(scores, at, visible, width, masked, mask, mask_at, mask_step):
    """Unnormalised weights in place of scores; (1 / their sum, log of the sum of exp(scores))."""
    if masked:
        _masked(scores, at, visible, mask, mask_at, mask_step)
    scores[at + visible : at + width] = -_INF
    top = _maximum(scores, at, width)
    if top == -_INF and masked and _blind(mask, mask_at, mask_step, visible):
        scores[at : at + width] = _ZERO
        return _ZERO, _INF
    total = _exponentials(scores, at, width, top)
    return _ONE / total, top + f(math.log(total))


@_inner
def _changes(scores, changes, at, count, log, shift, dropping, one, two, limit, grown):
    """Weights in place of scores, and the gradients of the scores in place of those of the weights."""
    scores, changes = scores[at : at + count], changes[at : at + count]
    if dropping:
        for j in range(count):
            weight = exp(scores[j] - log)
            kept = grown if bits(one, two, j) >= limit else _ZERO
            scores[j] = weight * kept
            changes[j] = weight * (changes[j] * kept - shift)
    else:
        for j in range(count):
            weight = exp(scores[j] - log)
            scores[j] = weight
            changes[j] = weight * (changes[j] - shift)


# -- whole heads ------------------------------------------------------------------------------------------------------
@_inner
def _forward(task, sizes, places, steps, settings, mask, out, logs):
    batch, heads, length, count, depth, width, causal, masked, low, high, limit, parts = sizes
    dropping = limit > 0
    scale, grown = settings
    line = _up(count, COLUMNS) + COLUMNS  # of scores: no power of two
    block = max(ROWS, min(_BLOCK, _SCORES // line // ROWS * ROWS))
    wide = _up(width, COLUMNS)
    share = _up((length + parts - 1) // parts, ROWS)
    head, part = task // parts, task % parts
    b, h = head // heads, head % heads
    first, last = part * share, min(length, part * share + share)
    keys = np.empty(_up(count, COLUMNS) * depth, np.float32)
    values = np.empty(count * wide, np.float32)
    queries = np.empty(block * depth, np.float32)
    scores = np.empty(block * line, np.float32)
    sums = np.empty(block * wide, np.float32)
    factors = np.empty(block, np.float32)
    seen = min(count, last) if causal else count
    if first < last:
        _transposed(places[1] + b * steps[3] + h * steps[4], steps[5], seen, depth, keys)
        _panels(places[2] + b * steps[6] + h * steps[7], steps[8], seen, width, values)
    for start in range(first, last, block):
        rows = min(block, last - start)
        total = min(count, start + rows) if causal else count
        across = _up(total, COLUMNS)
        _scaled(places[0] + b * steps[0] + h * steps[1] + start * steps[2], steps[2], rows, depth, depth, scale,
                queries)  # fmt: skip
        product(queries, 0, depth, 1, keys, 0, depth * COLUMNS, COLUMNS, scores, 0, line, rows, across, depth, False)
        for r in range(rows):
            i, at = start + r, r * line
            visible = min(count, i + 1) if causal else count
            mask_at = b * steps[9] + h * steps[10] + i * steps[11]
            factors[r], logs[head * length + i] = _weights(
                scores, at, visible, across, masked, mask, mask_at, steps[12]
            )
            if dropping:
                one, two = row_keys(u(head * length + i), u(low), u(high))
                _dropped(scores, at, total, one, two, u(limit))
        product(scores, 0, line, 1, values, 0, seen * COLUMNS, COLUMNS, sums, 0, wide, rows, width, total, False)
        for r in range(rows):
            at = ((b * length + start + r) * heads + h) * width
            _copied(sums, r * wide, factors[r] * grown, out, at, width)

@_inner
def _forward_few(head, sizes, places, steps, settings, mask, out, logs):
    """The same for a few queries and no dropout: each key and value is read once, where it lies."""
    batch, heads, length, count, depth, width, causal, masked, low, high, limit, parts = sizes
    scale, grown = settings
    b, h = head // heads, head % heads
    scores = np.empty(count, np.float32)
    query = np.empty(depth, np.float32)
    sums = np.empty(width, np.float32)
    for i in range(length):
        visible = min(count, i + 1) if causal else count
        given = _row(places[0] + b * steps[0] + h * steps[1] + i * steps[2], depth)
        for c in range(depth):
            query[c] = given[c] * scale
        for j in range(visible):
            scores[j] = _dot(query, _row(places[1] + b * steps[3] + h * steps[4] + j * steps[5], depth), depth)
        mask_at = b * steps[9] + h * steps[10] + i * steps[11]
        factor, logs[head * length + i] = _weights(
            scores, 0, visible, visible, masked, mask, mask_at, steps[12]
        )
        for c in range(width):
            sums[c] = _ZERO
        for j in range(visible):
            value, weight = _row(places[2] + b * steps[6] + h * steps[7] + j * steps[8], width), scores[j]
            for c in range(width):
                sums[c] += weight * value[c]
        at = ((b * length + i) * heads + h) * width
        for c in range(width):
            out[at + c] = sums[c] * factor

@_inner
def _backward(head, sizes, places, steps, settings, mask, shifts, logs):
    """places: query, key, value, g, and the gradients of query, key and value."""
    batch, heads, length, count, depth, width, causal, masked, low, high, limit, parts = sizes
    dropping = limit > 0
    scale, grown = settings
    line = _up(count, COLUMNS) + COLUMNS
    block = max(ROWS, min(_BLOCK, _SCORES // line // ROWS * ROWS))
    wide, deep = _up(width, COLUMNS), _up(depth, COLUMNS)
    b, h = head // heads, head % heads
    columns = _up(count, COLUMNS)
    key_columns = np.empty(columns * depth, np.float32)
    value_columns = np.empty(columns * width, np.float32)
    keys = np.empty(count * deep, np.float32)
    queries = np.empty(block * deep, np.float32)
    slopes = np.empty(block * wide, np.float32)
    scores = np.empty(block * line, np.float32)
    changes = np.empty(block * line, np.float32)
    query_grad = np.empty(block * deep, np.float32)
    key_grad = np.zeros((columns + COLUMNS) * deep, np.float32)
    value_grad = np.zeros((columns + COLUMNS) * wide, np.float32)
    key, value = places[1] + b * steps[3] + h * steps[4], places[2] + b * steps[6] + h * steps[7]
    _transposed(key, steps[5], count, depth, key_columns)
    _transposed(value, steps[8], count, width, value_columns)
    _panels(key, steps[5], count, depth, keys)
    for start in range(0, length, block):
        rows = min(block, length - start)
        total = min(count, start + rows) if causal else count
        across = _up(total, COLUMNS)
        _scaled(places[0] + b * steps[0] + h * steps[1] + start * steps[2], steps[2], rows, depth, deep, scale,
                queries)  # fmt: skip
        _scaled(places[3] + b * steps[13] + h * steps[14] + start * steps[15], steps[15], rows, width, wide, _ONE,
                slopes)  # fmt: skip
        product(queries, 0, deep, 1, key_columns, 0, depth * COLUMNS, COLUMNS, scores, 0, line, rows, across, depth,
                False)  # fmt: skip
        product(slopes, 0, wide, 1, value_columns, 0, width * COLUMNS, COLUMNS, changes, 0, line, rows, across,
                width, False)  # fmt: skip
        for r in range(rows):
            i, at = start + r, r * line
            visible = min(count, i + 1) if causal else count
            if masked:
                mask_at = b * steps[9] + h * steps[10] + i * steps[11]
                _masked(scores, at, visible, mask, mask_at, steps[12])
            log, shift = logs[head * length + i], shifts[head * length + i]
            one, two = row_keys(u(head * length + i), u(low), u(high))
            _changes(scores, changes, at, visible, log, shift, dropping, one, two, u(limit), grown)
            scores[at + visible : at + across + COLUMNS] = _ZERO  # whole tiles read some columns more
            changes[at + visible : at + across + COLUMNS] = _ZERO
        product(changes, 0, line, 1, keys, 0, count * COLUMNS, COLUMNS, query_grad, 0, deep, rows, depth, total,
                False)  # fmt: skip
        product(changes, 0, 1, line, queries, 0, COLUMNS, deep, key_grad, 0, deep, total, depth, rows, True)
        product(scores, 0, 1, line, slopes, 0, COLUMNS, wide, value_grad, 0, wide, total, width, rows, True)
        for r in range(rows):
            at = places[4] + b * steps[16] + h * steps[17] + (start + r) * steps[18]
            _written(query_grad, r * deep, scale, depth, at)
    for j in range(count):
        _written(key_grad, j * deep, _ONE, depth, places[5] + b * steps[19] + h * steps[20] + j * steps[21])
        _written(value_grad, j * wide, _ONE, width,
                  places[6] + b * steps[22] + h * steps[23] + j * steps[24])  # fmt: skip

@elementwise
def _forward_heads(sizes, places, steps, settings, mask, out, logs):
    for task in prange(sizes[0] * sizes[1] * sizes[11]):
        _forward(np.int64(task), sizes, places, steps, settings, mask, out, logs)


@elementwise
def _forward_rows(sizes, places, steps, settings, mask, out, logs):
    for task in prange(sizes[0] * sizes[1]):
        _forward_few(np.int64(task), sizes, places, steps, settings, mask, out, logs)


@elementwise
def _backward_heads(sizes, places, steps, settings, mask, shifts, logs):
    for task in prange(sizes[0] * sizes[1]):
        _backward(np.int64(task), sizes, places, steps, settings, mask, shifts, logs)


# -- from arrays ------------------------------------------------------------------------------------------------------
def _address(array):
    return array.__array_interface__["data"][0]


def _heads(*arrays):
    """The arrays as (batch, heads, rows, columns) with dense rows; None where they are not such arrays."""
    lead = arrays[0].shape[:-2]
    if len(lead) not in (1, 2) or any(a.shape[:-2] != lead for a in arrays):
        return None
    if len(lead) == 1:
        arrays = tuple([a[:, None] for a in arrays])
    return [a if a.strides[-1] == 4 and a.size else np.ascontiguousarray(a) for a in arrays]


def _additive(mask, shape):
    """(a mask as numbers to add, its steps in elements in a mask of this shape), or None where it does not fit."""
    if mask is None:
        return np.zeros(1, np.float32), (0, 0, 0, 0), False
    if type(mask) is not np.ndarray or mask.ndim > 4 or mask.dtype not in (np.bool_, np.float32):
        return None
    if mask.dtype == np.bool_:
        mask = np.where(mask, _ZERO, -_INF)
    mask = np.ascontiguousarray(mask)
    sizes = (1,) * (4 - mask.ndim) + mask.shape
    if any(n not in (1, m) for n, m in zip(sizes, shape, strict=True)):
        return None
    steps, step = [0] * 4, 1
    for i in reversed(range(4)):
        steps[i] = step if sizes[i] > 1 else 0
        step *= sizes[i]
    return mask.reshape(-1), tuple(steps), True


def _plan(arrays, mask, is_causal, dropout_p, seed):
    """What the kernels take, without the scale; None where they do not take it."""
    if not accepts(*arrays) or min(a.size for a in arrays) == 0 or not 0 <= dropout_p < 1:
        return None
    if mask is not None and mask.ndim == 3 and arrays[0].ndim == 3:
        mask = mask[:, None]
    arrays = _heads(*arrays)
    if arrays is None:
        return None
    query, key, value = arrays[:3]
    batch, heads, length, depth = query.shape
    count, width = value.shape[2:]
    if key.shape[2:] != (count, depth) or batch * heads * length * count * depth < _SMALL:
        return None
    given = _additive(mask, (batch, heads, length, count))
    if given is None:
        return None
    numbers, mask_steps, masked = given
    parts = -(-length // _BLOCK) if batch * heads < _TASKS else 1
    limit = threshold(dropout_p) if dropout_p else 0
    sizes = (batch, heads, length, count, depth, width, int(is_causal), int(masked), seed & 0xFFFFFFFF, seed >> 32,
             limit, parts)  # fmt: skip
    steps = [s for a in arrays[:3] for s in a.strides[:3]] + list(mask_steps)
    return arrays, numbers, sizes, steps, f(1 / (1 - dropout_p))


def attention(query, key, value, mask=None, is_causal=False, scale=1.0, dropout_p=0.0, seed=0):
    """The output, in memory as (…, L, heads, E), and the logarithms of the sums of exp(scores)."""
    lead = query.shape[:-1]
    plan = _plan((query, key, value), mask, is_causal, dropout_p, seed)
    if plan is None:
        return NotImplemented
    arrays, mask, sizes, steps, grown = plan
    batch, heads, length, _, _, width = sizes[:6]
    out = np.empty((batch, length, heads, width), np.float32)
    logs = np.empty(lead, np.float32)
    code = _forward_rows if length <= _FEW and not dropout_p else _forward_heads
    code(sizes, tuple([_address(a) for a in arrays]), tuple(steps), (f(scale), grown), mask, out.reshape(-1),
         logs.reshape(-1))  # fmt: skip
    return out.transpose(0, 2, 1, 3).reshape(*lead, width), logs


def attention_grad(
    g, g_logs, query, key, value, out, logs, mask=None, is_causal=False, scale=1.0, dropout_p=0.0, seed=0
):
    """The gradients of `attention` for query, key and value."""
    if out.shape != g.shape or type(out) is not np.ndarray or type(logs) is not np.ndarray:
        return NotImplemented
    plan = _plan((query, key, value, g), mask, is_causal, dropout_p, seed)
    if plan is None or out.dtype != np.float32 or logs.dtype != np.float32:
        return NotImplemented
    arrays, mask, sizes, steps, grown = plan
    shifts = np.einsum("...ij,...ij->...i", g, out)
    if g_logs is not None:
        shifts -= g_logs
    grads = [np.empty_like(a) for a in arrays[:3]]
    steps += [s for a in arrays[3:] + grads for s in a.strides[:3]]
    places = tuple([_address(a) for a in [*arrays, *grads]])
    _backward_heads(sizes, places, tuple(steps), (f(scale), grown), mask, np.ascontiguousarray(shifts).reshape(-1),
                    np.ascontiguousarray(logs).reshape(-1))  # fmt: skip
    return tuple([a.reshape(b.shape) for a, b in zip(grads, (query, key, value), strict=True)])
