"""Recurrent layers over all time steps in one call: float32.

The rows of the batch are independent: each thread takes some of them through all steps, so that threads meet only at
the end, and the results do not depend on their number. The recurrent product of a step runs on panels of the weights
that are made once a sequence; the gates follow in loops over rows that the product left in the cache.

Sums run in the order of the weights; sigmoid and tanh are exact to 3e-7 (relative).
"""

import functools
from typing import Any

import numba
import numpy as np
from numba import prange

from .numba_math import _reduced, _tail, sigmoid
from .numba_panel import COLUMNS, multiply, packed
from .numba_setup import accepts, elementwise, scalar, serial

__all__ = [
    "gru_sequence", "gru_sequence_grad", "lstm_sequence", "lstm_sequence_grad", "rnn_sequence", "rnn_sequence_grad"
]  # fmt: skip

f = np.float32
_ONE, _TWO, _HALF, _FAR, _ZERO = f(1), f(2), f(0.5), f(9.5), f(0)
_WORTH_CALL = 1 << 10  # numbers in the gates: NumPy does smaller sequences, whether Numba has been loaded or not
_WORTH_THREADS = 1 << 20  # multiply-adds of a sequence: fewer are done before the threads have started


@scalar
def _tanh(x):
    """Relative error below 3e-7: (exp(2x) - 1) / (exp(2x) + 1), with the numerator from the series of exp(x) - 1."""
    x = _FAR if x > _FAR else x
    x = -_FAR if x < -_FAR else x
    r, half = _reduced(x + x)
    power = half * _TWO
    y = (_tail(r) + r) * power + (power - _ONE)
    return y / (y + _TWO)


# -- LSTM -------------------------------------------------------------------------------------------------------------
@serial
def _lstm(first, last, starts, sizes, x, panels, product, h, c, gates, cells, output):
    """Rows first to last of the batch through all steps; h and c hold the states, product the recurrent part."""
    size = c.shape[1]
    for step in range(starts.size):
        rows = min(last, sizes[step]) - first
        if rows <= 0:
            continue
        multiply(h, first, panels, product, first, rows)
        for row in range(first, first + rows):
            at = starts[step] + row
            p, x_row, a, cell, c_row, h_row, out = (
                product[row], x[at], gates[at], cells[at], c[row], h[row], output[at]
            )  # fmt: skip
            for j in range(2 * size):
                a[j] = sigmoid(x_row[j] + p[j])
            for j in range(2 * size, 3 * size):
                a[j] = _tanh(x_row[j] + p[j])
            for j in range(3 * size, 4 * size):
                a[j] = sigmoid(x_row[j] + p[j])
            i_gate, f_gate, new, o_gate = a[:size], a[size : 2 * size], a[2 * size : 3 * size], a[3 * size :]
            for j in range(size):
                cell[j] = f_gate[j] * c_row[j] + i_gate[j] * new[j]
            for j in range(size):
                out[j] = o_gate[j] * _tanh(cell[j])
            for j in range(size):
                c_row[j] = cell[j]
            for j in range(size):
                h_row[j] = out[j]


@elementwise
def _lstm_threads(chunk, starts, sizes, x, panels, product, h, c, gates, cells, output):
    count = h.shape[0]
    for task in prange((count + chunk - 1) // chunk):
        first = task * chunk
        _lstm(first, min(count, first + chunk), starts, sizes, x, panels, product, h, c, gates, cells, output)


@serial
def _lstm_back(first, last, starts, sizes, g_output, gates, cells, cx, panels, dh, dc, d_gates):
    """The walk back; g_output may be empty. dh and dc hold the cotangents of the states."""
    size = cells.shape[1]
    for step in range(starts.size - 1, -1, -1):
        rows = min(last, sizes[step]) - first
        if rows <= 0:
            continue
        for row in range(first, first + rows):
            at = starts[step] + row
            a, cell, d, d_out, d_cell = gates[at], cells[at], d_gates[at], dh[row], dc[row]
            carried = step > 0 and row < sizes[step - 1]
            before = cells[starts[step - 1] + row] if carried else cx[row]
            if g_output.shape[0]:
                g = g_output[at]
                for j in range(size):
                    d_out[j] += g[j]
            i_gate, f_gate, new, o_gate = a[:size], a[size : 2 * size], a[2 * size : 3 * size], a[3 * size :]
            d_i, d_f, d_new, d_o = d[:size], d[size : 2 * size], d[2 * size : 3 * size], d[3 * size :]
            # Few arrays a loop: LLVM checks at run time that they do not overlap, and gives up on many.
            for j in range(size):
                t = _tanh(cell[j])
                du = d_out[j] * o_gate[j]
                d_o[j] = du * t * (_ONE - o_gate[j])
                d_cell[j] += du * (_ONE - t * t)
            for j in range(size):
                d_i[j] = d_cell[j] * new[j] * i_gate[j] * (_ONE - i_gate[j])
                d_new[j] = d_cell[j] * i_gate[j] * (_ONE - new[j] * new[j])
            for j in range(size):
                d_f[j] = d_cell[j] * before[j] * f_gate[j] * (_ONE - f_gate[j])
                d_cell[j] = d_cell[j] * f_gate[j]
        multiply(d_gates, starts[step] + first, panels, dh, first, rows)


@elementwise
def _lstm_back_threads(chunk, starts, sizes, g_output, gates, cells, cx, panels, dh, dc, d_gates):
    count = dh.shape[0]
    for task in prange((count + chunk - 1) // chunk):
        first = task * chunk
        _lstm_back(first, min(count, first + chunk), starts, sizes, g_output, gates, cells, cx, panels, dh, dc, d_gates)


def lstm_sequence(
    input: np.ndarray, hx: np.ndarray, cx: np.ndarray, w_hh: np.ndarray, w_hr: Any, batch_sizes: tuple, reverse: bool
) -> Any:
    """(output, last hidden, last cell, gates, cells) of the op of this name, without a projection."""
    size = hx.shape[1]
    if w_hr is not None or not _takes(batch_sizes, 4, size, [(input, 4 * size)], [hx, cx], w_hh):
        return NotImplemented
    starts, sizes = _steps(batch_sizes, reverse)
    panels = packed(w_hh.T)
    h, c = hx.copy(order="C"), cx.copy(order="C")
    gates = np.empty(input.shape, f)
    cells = np.empty((input.shape[0], cx.shape[1]), f)
    output = np.empty_like(cells)
    product = np.empty((hx.shape[0], panels.shape[0] * COLUMNS), f)
    arrays = starts, sizes, np.ascontiguousarray(input), panels, product, h, c, gates, cells, output
    _run(_lstm, _lstm_threads, input.shape[0] * w_hh.size, hx.shape[0], arrays)
    return output, h, c, gates, cells


def lstm_sequence_grad(
    g_output: Any, g_h: Any, g_c: Any, gates: np.ndarray, cells: np.ndarray, hx: np.ndarray, cx: np.ndarray,
    w_hh: np.ndarray, w_hr: Any, batch_sizes: tuple, reverse: bool,
) -> Any:  # fmt: skip
    """(cotangents of input, hx, cx) for the op of this name, without a projection."""
    size = hx.shape[1]
    rows = [(gates, 4 * size), (cells, size), (g_output, size)]
    if w_hr is not None or not _takes(batch_sizes, 4, size, rows, [hx, cx, g_h, g_c], w_hh):
        return NotImplemented
    starts, sizes = _steps(batch_sizes, reverse)
    panels = packed(w_hh)
    dh, dc = _start(g_h, hx.shape, panels), _start(g_c, cx.shape)
    d_gates = np.empty(gates.shape, f)
    arrays = (
        starts, sizes, _rows(g_output), np.ascontiguousarray(gates), np.ascontiguousarray(cells),
        np.ascontiguousarray(cx), panels, dh, dc, d_gates
    )  # fmt: skip
    _run(_lstm_back, _lstm_back_threads, gates.shape[0] * w_hh.size, hx.shape[0], arrays)
    return d_gates, dh[:, : hx.shape[1]], dc


# -- GRU --------------------------------------------------------------------------------------------------------------
@serial
def _gru(first, last, starts, sizes, x, bias, panels, product, h, gates, hidden, output):
    size = h.shape[1]
    for step in range(starts.size):
        rows = min(last, sizes[step]) - first
        if rows <= 0:
            continue
        multiply(h, first, panels, product, first, rows)
        for row in range(first, first + rows):
            at = starts[step] + row
            p, x_row, a, inner, h_row, out = product[row], x[at], gates[at], hidden[at], h[row], output[at]
            for j in range(3 * size):
                p[j] += bias[j]
            for j in range(2 * size):
                a[j] = sigmoid(x_row[j] + p[j])
            p_new, x_new, r_gate, z_gate, new = (
                p[2 * size :], x_row[2 * size :], a[:size], a[size : 2 * size], a[2 * size :]
            )  # fmt: skip
            for j in range(size):
                inner[j] = p_new[j]
            for j in range(size):
                new[j] = _tanh(x_new[j] + r_gate[j] * inner[j])
            for j in range(size):
                out[j] = (h_row[j] - new[j]) * z_gate[j] + new[j]
            for j in range(size):
                h_row[j] = out[j]


@elementwise
def _gru_threads(chunk, starts, sizes, x, bias, panels, product, h, gates, hidden, output):
    count = h.shape[0]
    for task in prange((count + chunk - 1) // chunk):
        first = task * chunk
        _gru(first, min(count, first + chunk), starts, sizes, x, bias, panels, product, h, gates, hidden, output)


@serial
def _gru_back(first, last, starts, sizes, g_output, gates, hidden, output, hx, panels, product, dh, d_input, d_inner):
    """The walk back; d_inner is the cotangent of the hidden product, product its part of dh."""
    size = hidden.shape[1]
    for step in range(starts.size - 1, -1, -1):
        rows = min(last, sizes[step]) - first
        if rows <= 0:
            continue
        for row in range(first, first + rows):
            at = starts[step] + row
            a, inner, d, e, d_out = gates[at], hidden[at], d_input[at], d_inner[at], dh[row]
            carried = step > 0 and row < sizes[step - 1]
            before = output[starts[step - 1] + row] if carried else hx[row]
            if g_output.shape[0]:
                g = g_output[at]
                for j in range(size):
                    d_out[j] += g[j]
            r_gate, z_gate, new = a[:size], a[size : 2 * size], a[2 * size :]
            d_r, d_z, d_new, e_new = d[:size], d[size : 2 * size], d[2 * size :], e[2 * size :]
            for j in range(size):
                d_z[j] = d_out[j] * (before[j] - new[j]) * z_gate[j] * (_ONE - z_gate[j])
            for j in range(size):
                kept = d_out[j] * z_gate[j]  # goes straight to the state before
                d_new[j] = (d_out[j] - kept) * (_ONE - new[j] * new[j])
                d_out[j] = kept
            for j in range(size):
                d_r[j] = d_new[j] * inner[j] * r_gate[j] * (_ONE - r_gate[j])
            for j in range(size):
                e_new[j] = d_new[j] * r_gate[j]
            for j in range(2 * size):
                e[j] = d[j]
        multiply(d_inner, starts[step] + first, panels, product, first, rows)
        for row in range(first, first + rows):
            d_out, p = dh[row], product[row]
            for j in range(size):
                d_out[j] += p[j]


@elementwise
def _gru_back_threads(chunk, starts, sizes, g_output, gates, hidden, output, hx, panels, product, dh, d_input, d_inner):
    count = dh.shape[0]
    for task in prange((count + chunk - 1) // chunk):
        first = task * chunk
        last = min(count, first + chunk)
        _gru_back(
            first, last, starts, sizes, g_output, gates, hidden, output, hx, panels, product, dh, d_input, d_inner
        )


def gru_sequence(
    input: np.ndarray, hx: np.ndarray, w_hh: np.ndarray, b_hh: Any, batch_sizes: tuple, reverse: bool
) -> Any:
    """(output, last hidden, gates, hidden part of n) of the op of this name."""
    size = hx.shape[1]
    if not _takes(batch_sizes, 3, size, [(input, 3 * size)], [hx], w_hh):
        return NotImplemented
    if b_hh is not None and (b_hh.shape != (3 * size,) or not accepts(b_hh, w_hh)):
        return NotImplemented
    starts, sizes = _steps(batch_sizes, reverse)
    panels = packed(w_hh.T)
    bias = np.zeros(w_hh.shape[0], f) if b_hh is None else np.ascontiguousarray(b_hh)
    h = hx.copy(order="C")
    gates = np.empty(input.shape, f)
    hidden = np.empty((input.shape[0], hx.shape[1]), f)
    output = np.empty_like(hidden)
    product = np.empty((hx.shape[0], panels.shape[0] * COLUMNS), f)
    arrays = starts, sizes, np.ascontiguousarray(input), bias, panels, product, h, gates, hidden, output
    _run(_gru, _gru_threads, input.shape[0] * w_hh.size, hx.shape[0], arrays)
    return output, h, gates, hidden


def gru_sequence_grad(
    g_output: Any, g_h: Any, gates: np.ndarray, hidden: np.ndarray, output: np.ndarray, hx: np.ndarray,
    w_hh: np.ndarray, batch_sizes: tuple, reverse: bool,
) -> Any:  # fmt: skip
    """(cotangents of input, of the hidden product, of hx) for the op of this name."""
    size = hx.shape[1]
    rows = [(gates, 3 * size), (hidden, size), (output, size), (g_output, size)]
    if not _takes(batch_sizes, 3, size, rows, [hx, g_h], w_hh):
        return NotImplemented
    starts, sizes = _steps(batch_sizes, reverse)
    panels = packed(w_hh)
    dh = _start(g_h, hx.shape)
    d_input, d_inner = np.empty(gates.shape, f), np.empty(gates.shape, f)
    product = np.empty((hx.shape[0], panels.shape[0] * COLUMNS), f)
    dense = [np.ascontiguousarray(a) for a in (gates, hidden, output, hx)]
    arrays = starts, sizes, _rows(g_output), *dense, panels, product, dh, d_input, d_inner
    _run(_gru_back, _gru_back_threads, gates.shape[0] * w_hh.size, hx.shape[0], arrays)
    return d_input, d_inner, dh


# -- Elman ------------------------------------------------------------------------------------------------------------
@serial
def _rnn(first, last, relu, starts, sizes, x, panels, product, h, output):
    size = h.shape[1]
    for step in range(starts.size):
        rows = min(last, sizes[step]) - first
        if rows <= 0:
            continue
        multiply(h, first, panels, product, first, rows)
        for row in range(first, first + rows):
            at = starts[step] + row
            p, x_row, h_row, out = product[row], x[at], h[row], output[at]
            if relu:
                for j in range(size):
                    y = x_row[j] + p[j]
                    out[j] = _ZERO if y < _ZERO else y
            else:
                for j in range(size):
                    out[j] = _tanh(x_row[j] + p[j])
            for j in range(size):
                h_row[j] = out[j]


@elementwise
def _rnn_threads(chunk, relu, starts, sizes, x, panels, product, h, output):
    count = h.shape[0]
    for task in prange((count + chunk - 1) // chunk):
        first = task * chunk
        _rnn(first, min(count, first + chunk), relu, starts, sizes, x, panels, product, h, output)


@serial
def _rnn_back(first, last, relu, starts, sizes, g_output, output, panels, dh, d_input):
    size = output.shape[1]
    for step in range(starts.size - 1, -1, -1):
        rows = min(last, sizes[step]) - first
        if rows <= 0:
            continue
        for row in range(first, first + rows):
            at = starts[step] + row
            y, d, d_out = output[at], d_input[at], dh[row]
            if g_output.shape[0]:
                g = g_output[at]
                for j in range(size):
                    d_out[j] += g[j]
            if relu:
                for j in range(size):
                    d[j] = d_out[j] * (_ONE if y[j] > _ZERO else _ZERO)
            else:
                for j in range(size):
                    d[j] = d_out[j] * (_ONE - y[j] * y[j])
        multiply(d_input, starts[step] + first, panels, dh, first, rows)


@elementwise
def _rnn_back_threads(chunk, relu, starts, sizes, g_output, output, panels, dh, d_input):
    count = dh.shape[0]
    for task in prange((count + chunk - 1) // chunk):
        first = task * chunk
        _rnn_back(first, min(count, first + chunk), relu, starts, sizes, g_output, output, panels, dh, d_input)


def rnn_sequence(
    input: np.ndarray, hx: np.ndarray, w_hh: np.ndarray, nonlinearity: str, batch_sizes: tuple, reverse: bool
) -> Any:
    """(output, last hidden) of the op of this name."""
    size = hx.shape[1]
    if not _takes(batch_sizes, 1, size, [(input, size)], [hx], w_hh):
        return NotImplemented
    starts, sizes = _steps(batch_sizes, reverse)
    panels = packed(w_hh.T)
    h = hx.copy(order="C")
    output = np.empty(input.shape, f)
    product = np.empty((hx.shape[0], panels.shape[0] * COLUMNS), f)
    arrays = nonlinearity == "relu", starts, sizes, np.ascontiguousarray(input), panels, product, h, output
    _run(_rnn, _rnn_threads, input.shape[0] * w_hh.size, hx.shape[0], arrays)
    return output, h


def rnn_sequence_grad(
    g_output: Any, g_h: Any, output: np.ndarray, hx: np.ndarray, w_hh: np.ndarray, nonlinearity: str,
    batch_sizes: tuple, reverse: bool,
) -> Any:  # fmt: skip
    """(cotangents of input, of hx) for the op of this name."""
    size = hx.shape[1]
    if not _takes(batch_sizes, 1, size, [(output, size), (g_output, size)], [hx, g_h], w_hh):
        return NotImplemented
    starts, sizes = _steps(batch_sizes, reverse)
    panels = packed(w_hh)
    dh = _start(g_h, hx.shape, panels)
    d_input = np.empty(output.shape, f)
    relu = nonlinearity == "relu"
    arrays = relu, starts, sizes, _rows(g_output), np.ascontiguousarray(output), panels, dh, d_input
    _run(_rnn_back, _rnn_back_threads, output.shape[0] * w_hh.size, hx.shape[0], arrays)
    return d_input, dh[:, : hx.shape[1]]


# -- what they share --------------------------------------------------------------------------------------------------
def _takes(batch_sizes: tuple, gates: int, size: int, rows: Any, states: Any, weight: np.ndarray) -> bool:
    """Whether the arrays are for the kernels: by dtype, size and shape. Those that are None are fine.

    `rows` are (array, numbers of a row) with a row for each row of the packed sequence, `states` have one for each
    sequence. What does not fit is left to the op, which says so.
    """
    if not batch_sizes or weight.shape != (gates * size, size) or gates * size * sum(batch_sizes) < _WORTH_CALL:
        return False
    total, batch = sum(batch_sizes), states[0].shape[0]
    if min(batch_sizes) < 1 or max(batch_sizes) != batch:
        return False
    rows = [(array, width) for array, width in rows if array is not None]
    states = [array for array in states if array is not None]
    if any(array.shape != (total, width) for array, width in rows) or any(a.shape != (batch, size) for a in states):
        return False
    return accepts(weight, *states, *[array for array, _ in rows])


@functools.lru_cache(maxsize=64)
def _steps(batch_sizes: tuple[int, ...], reverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """The first row and the number of rows of each step, in the order in which the steps are computed."""
    sizes = np.array(batch_sizes, np.int64)
    starts = np.cumsum(sizes) - sizes
    order = slice(None, None, -1 if reverse else 1)
    return np.ascontiguousarray(starts[order]), np.ascontiguousarray(sizes[order])


def _start(given: Any, shape: tuple[int, int], panels: np.ndarray | None = None) -> np.ndarray:
    """The cotangent of a last state, to change in place; as wide as the panels if they write into it."""
    width = shape[1] if panels is None else panels.shape[0] * COLUMNS
    start = np.zeros((shape[0], width), f)
    if given is not None:
        start[:, : shape[1]] = given
    return start


def _rows(given: Any) -> np.ndarray:
    return np.empty((0, 1), f) if given is None else np.ascontiguousarray(given)


def _run(alone: Any, threads: Any, work: int, rows: int, arrays: tuple) -> None:
    count = numba.get_num_threads() if work >= _WORTH_THREADS else 1
    chunk = -(-rows // count)
    if chunk > 2:
        chunk = -(-chunk // 4) * 4  # a tile has four rows
    if chunk >= rows:
        alone(0, rows, *arrays)
    else:
        threads(chunk, *arrays)
