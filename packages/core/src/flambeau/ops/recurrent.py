"""Recurrences over a whole sequence as one op per layer and direction: LSTM, GRU and Elman's network.

The rows of all time steps lie one after the other, as in a packed sequence: `batch_sizes` says how many rows each
step has (the longest sequences first). `input` is already multiplied by the input weights and holds the biases.

The gates that a formula needs are outputs of the op, so that a second derivative flows through them as through any
output. The formulas walk back through time with operators: on arrays at array speed, on tensors recording themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..tensor import Tensor
from ._op import op
from .elementwise import tanh
from .logic import cast
from .matmul import matmul
from .reduce import sum
from .shape import cat, transpose


def _steps(batch_sizes: Sequence[int], reverse: bool) -> list[tuple[int, int]]:
    """(first row, end row) of each time step, in the order in which they are computed."""
    ends = list(accumulate(batch_sizes))
    steps = [(end - size, end) for end, size in zip(ends, batch_sizes, strict=True)]
    return steps[::-1] if reverse else steps


def _before(initial: Any, values: Any, batch_sizes: Sequence[int], reverse: bool) -> Any:
    """For each row the state that its step started from: that of the step before, or the initial one."""
    n = batch_sizes[0]
    if batch_sizes[-1] == n:  # sequences of one length: the states, moved by one step
        return cat([values[n:], initial] if reverse else [initial, values[: values.shape[0] - n]], 0)
    parts = []
    last = None
    for start, end in _steps(batch_sizes, reverse):
        n = end - start
        carried = 0 if last is None else min(n, last[1] - last[0])
        part = [values[last[0] : last[0] + carried]] if last else []
        if carried < n or last is None:
            part.append(initial[carried:n])
        parts.append(part)
        last = (start, end)
    return cat([piece for part in (parts[::-1] if reverse else parts) for piece in part], 0)


class _Back:
    """What the walks back through time share: the steps, and how their rows are joined."""

    def __init__(self, batch_sizes: Sequence[int], reverse: bool):
        self.reverse = reverse
        self.steps = _steps(batch_sizes, reverse)[::-1]
        self.rows: list[Any] = []  # one cotangent per step, in the order of the walk

    def joined(self, rows: list[Any]) -> Any:
        return cat(rows if self.reverse else rows[::-1], 0)


def _put(carried: Any, new: Any) -> Any:
    """`carried` with its first rows replaced: sequences that are not in this step keep what they carry."""
    n = new.shape[0]
    return new if carried.shape[0] == n else cat([new, carried[n:]], 0)


def _add(a: Any, b: Any, start: int, end: int) -> Any:
    return a if b is None else a + b[start:end]


def _zeros(x: Any) -> Any:
    """Zeros like `x`, an array or a tensor, whatever it holds."""
    return cast(x < x, x.dtype)


def _wide(*values: Any) -> list[Any]:
    """Half precision as float32: sums over time are carried in it."""
    narrow = [v is not None and v.dtype.itemsize == 2 for v in values]
    return [cast(v, np.dtype(np.float32)) if n else v for v, n in zip(values, narrow, strict=True)]


def _working(xp: Any, *values: Any) -> tuple:
    """The dtype of the results, and the arrays in the dtype that the forward pass computes in."""
    dtype = values[0].dtype
    if dtype.itemsize > 2:
        return dtype, *values
    return dtype, *(v if v is None else v.astype(xp.float32) for v in values)


# -- LSTM -------------------------------------------------------------------------------------------------------------
@op(
    vjp={
        ("input", "hx", "cx", "w_hh", "w_hr"): lambda g, out, hx, cx, w_hh, w_hr, batch_sizes, reverse, need: _lstm_vjp(
            g, out, hx, cx, w_hh, w_hr, batch_sizes, reverse
        )
    },
    samples=lambda t: [
        (t(6, 8), t(2, 2), t(2, 2), t(8, 2), None, (2, 2, 2), False),
        (t(5, 8), t(3, 2), t(3, 2), t(8, 2), None, (3, 1, 1), True),
        (t(5, 8), t(3, 1), t(3, 2), t(8, 1), t(1, 2), (3, 1, 1), False),
    ],
    promote="arith",
    method=False,
)
def lstm_sequence(xp, input, hx, cx, w_hh, w_hr, batch_sizes, reverse):
    """(output, last hidden, last cell, activated gates i f g o, cells); Hochreiter & Schmidhuber 1997.

    input (rows, 4H), hx (N, P), cx (N, H), w_hh (4H, P), w_hr (P, H) or None (then P = H).
    """
    dtype, input, h, c, w_hh, w_hr = _working(xp, input, hx, cx, w_hh, w_hr)
    rows, size = input.shape[0], w_hh.shape[0] // 4
    # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: one call of tanh serves all four gates.
    scale = xp.full(4 * size, 0.5, input.dtype)
    scale[2 * size : 3 * size] = 1
    shift = 1 - scale
    weight = xp.ascontiguousarray((w_hh * scale[:, None]).T)
    project = None if w_hr is None else xp.ascontiguousarray(w_hr.T)
    h, c = h.copy(), c.copy()
    gates = xp.empty((rows, 4 * size), input.dtype)
    cells = xp.empty((rows, size), input.dtype)
    output = xp.empty((rows, h.shape[1]), input.dtype)
    product = xp.empty((h.shape[0], 4 * size), input.dtype)
    scratch = xp.empty((h.shape[0], size), input.dtype)
    for start, end in _steps(batch_sizes, reverse):
        n = end - start
        a, cell, out, temp = gates[start:end], cells[start:end], output[start:end], scratch[:n]
        xp.multiply(input[start:end], scale, out=a)
        xp.matmul(h[:n], weight, out=product[:n])
        a += product[:n]
        xp.tanh(a, out=a)
        a *= scale
        a += shift
        xp.multiply(a[:, size : 2 * size], c[:n], out=cell)
        xp.multiply(a[:, :size], a[:, 2 * size : 3 * size], out=temp)
        cell += temp
        xp.tanh(cell, out=temp)
        temp *= a[:, 3 * size :]
        if project is None:
            out[...] = temp
        else:
            xp.matmul(temp, project, out=out)
        h[:n] = out
        c[:n] = cell
    return tuple([part.astype(dtype, copy=False) for part in (output, h, c, gates, cells)])


def _lstm_vjp(g, out, hx, cx, w_hh, w_hr, batch_sizes, reverse):
    g_output, g_h, g_c, g_gates, g_cells = _wide(*g)
    output, _, _, gates, cells, hx, cx, w_hh, w_hr = _wide(*out, hx, cx, w_hh, w_hr)
    if g_gates is None and g_cells is None and not isinstance(gates, Tensor):
        d_input, dh, dc, *outputs = lstm_sequence_grad(
            g_output, g_h, g_c, gates, cells, hx, cx, w_hh, w_hr, batch_sizes, reverse
        )
    else:
        d_input, dh, dc, *outputs = _lstm_walk(
            (g_output, g_h, g_c, g_gates, g_cells), gates, cells, hx, cx, w_hh, w_hr, batch_sizes, reverse
        )
    d_hh = matmul(transpose(d_input, 0, 1), _before(hx, output, batch_sizes, reverse))
    d_hr = None
    if outputs:
        d_hr = matmul(transpose(outputs[0], 0, 1), gates[:, 3 * cells.shape[1] :] * tanh(cells))
    return d_input, dh, dc, d_hh, d_hr


def _start(given: Any, xp: Any, shape: tuple, dtype: Any) -> Any:
    """The cotangent of a last state to change in place: a copy, or zeros."""
    return xp.zeros(shape, dtype) if given is None else given.astype(dtype)


@op(
    samples=lambda t: [
        (t(6, 2), t(2, 2), t(2, 2), t(6, 8), t(6, 2), t(2, 2), t(2, 2), t(8, 2), None, (2, 2, 2), False),
        (t(5, 1), t(3, 1), t(3, 2), t(5, 8), t(5, 2), t(3, 1), t(3, 2), t(8, 1), t(1, 2), (3, 1, 1), True),
    ],
    method=False,
)
def lstm_sequence_grad(xp, g_output, g_h, g_c, gates, cells, hx, cx, w_hh, w_hr, batch_sizes, reverse):
    """Cotangents of input, hx and cx, with a projection those of its results as well: the walk back through time.

    g_output, g_h and g_c (cotangents of output, last hidden and last cell) may be None.
    """
    before = _before(cx, cells, batch_sizes, reverse)
    steps = _steps(batch_sizes, reverse)[::-1]
    dtype, size = gates.dtype, cells.shape[1]
    dh, dc = _start(g_h, xp, hx.shape, dtype), _start(g_c, xp, (hx.shape[0], size), dtype)
    d_gates = xp.empty_like(gates)
    outputs = None if w_hr is None else xp.empty((gates.shape[0], hx.shape[1]), dtype)
    scratch = xp.empty_like(dc)
    i, f, c, o = (slice(k * size, (k + 1) * size) for k in range(4))
    for start, end in steps:
        a, d = gates[start:end], d_gates[start:end]
        d_out, d_cell, t = dh[: end - start], dc[: end - start], scratch[: end - start]
        if g_output is not None:
            d_out += g_output[start:end]
        du = d_out
        if w_hr is not None:
            outputs[start:end] = d_out
            du = xp.matmul(d_out, w_hr)
        # Views with names: an in-place operation on a slice would copy it onto itself once more.
        d_i, d_f, d_c, d_o = d[:, i], d[:, f], d[:, c], d[:, o]
        a_o = a[:, o]
        xp.tanh(cells[start:end], out=t)
        xp.multiply(a, a, out=d)
        xp.subtract(a, d, out=d)  # the slope of the sigmoids
        xp.multiply(a[:, c], a[:, c], out=d_c)
        xp.subtract(1, d_c, out=d_c)  # that of tanh
        d_o *= t
        d_o *= du
        t *= t
        xp.subtract(1, t, out=t)
        t *= a_o
        t *= du
        d_cell += t
        d_i *= a[:, c]
        d_i *= d_cell
        d_f *= before[start:end]
        d_f *= d_cell
        d_c *= a[:, i]
        d_c *= d_cell
        d_cell *= a[:, f]
        xp.matmul(d, w_hh, out=dh[: end - start])
    return (d_gates, dh, dc) if outputs is None else (d_gates, dh, dc, outputs)


def _lstm_walk(g, gates, cells, hx, cx, w_hh, w_hr, batch_sizes, reverse):
    """The same with operators, so that tensors record it."""
    g_output, g_h, g_c, g_gates, g_cells = g
    before = _before(cx, cells, batch_sizes, reverse)
    size = cells.shape[1]
    back = _Back(batch_sizes, reverse)
    squashed = tanh(cells)
    dh = _zeros(hx) if g_h is None else g_h
    dc = _zeros(cx) if g_c is None else g_c
    outputs = []  # cotangents of the projected output, for w_hr
    for start, end in back.steps:
        n = end - start
        a, t = gates[start:end], squashed[start:end]
        i, f, c, o = a[:, :size], a[:, size : 2 * size], a[:, 2 * size : 3 * size], a[:, 3 * size :]
        d = _add(dh[:n], g_output, start, end)
        if w_hr is not None:
            outputs.append(d)
            d = matmul(d, w_hr)
        du = d * o
        d_cell = _add(dc[:n] + du - du * t * t, g_cells, start, end)
        d_in, d_forget, d_new, d_out = d_cell * c, d_cell * before[start:end], d_cell * i, d * t
        if g_gates is not None:
            e = g_gates[start:end]
            d_in, d_forget = d_in + e[:, :size], d_forget + e[:, size : 2 * size]
            d_new, d_out = d_new + e[:, 2 * size : 3 * size], d_out + e[:, 3 * size :]
        d_gates = cat([d_in * i * (1 - i), d_forget * f * (1 - f), d_new * (1 - c * c), d_out * o * (1 - o)], 1)
        back.rows.append(d_gates)
        dh = _put(dh, matmul(d_gates, w_hh))
        dc = _put(dc, d_cell * f)
    results = back.joined(back.rows), dh, dc
    return (*results, back.joined(outputs)) if outputs else results


# -- GRU --------------------------------------------------------------------------------------------------------------
@op(
    vjp={
        ("input", "hx", "w_hh", "b_hh"): lambda g, out, hx, w_hh, batch_sizes, reverse, need: _gru_vjp(
            g, out, hx, w_hh, batch_sizes, reverse
        )
    },
    samples=lambda t: [
        (t(6, 6), t(2, 2), t(6, 2), t(6), (2, 2, 2), False),
        (t(5, 6), t(3, 2), t(6, 2), None, (3, 1, 1), True),
    ],
    promote="arith",
    method=False,
)
def gru_sequence(xp, input, hx, w_hh, b_hh, batch_sizes, reverse):
    """(output, last hidden, activated gates r z n, hidden part of n before its gate); Cho et al. 2014.

    input (rows, 3H), hx (N, H), w_hh (3H, H), b_hh (3H,) or None.
    """
    dtype, input, h, w_hh, b_hh = _working(xp, input, hx, w_hh, b_hh)
    rows, size = input.shape[0], w_hh.shape[0] // 3
    # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2
    scale = xp.full(3 * size, 0.5, input.dtype)
    scale[2 * size :] = 1
    weight = xp.ascontiguousarray((w_hh * scale[:, None]).T)
    bias = None if b_hh is None else b_hh * scale
    h = h.copy()
    gates = xp.empty((rows, 3 * size), input.dtype)
    hidden = xp.empty((rows, size), input.dtype)
    output = xp.empty((rows, size), input.dtype)
    product = xp.empty((h.shape[0], 3 * size), input.dtype)
    for start, end in _steps(batch_sizes, reverse):
        n = end - start
        a, inner, out, p = gates[start:end], hidden[start:end], output[start:end], product[:n]
        xp.multiply(input[start:end], scale, out=a)
        xp.matmul(h[:n], weight, out=p)
        if bias is not None:
            p += bias
        sigmoids, new = a[:, : 2 * size], a[:, 2 * size :]
        sigmoids += p[:, : 2 * size]
        xp.tanh(sigmoids, out=sigmoids)
        sigmoids *= 0.5
        sigmoids += 0.5
        inner[...] = p[:, 2 * size :]
        new += a[:, :size] * inner
        xp.tanh(new, out=new)
        xp.subtract(h[:n], new, out=out)
        out *= a[:, size : 2 * size]
        out += new
        h[:n] = out
    return tuple([part.astype(dtype, copy=False) for part in (output, h, gates, hidden)])


def _gru_vjp(g, out, hx, w_hh, batch_sizes, reverse):
    g_output, g_h, g_gates, g_hidden = _wide(*g)
    output, _, gates, hidden, hx, w_hh = _wide(*out, hx, w_hh)
    before = _before(hx, output, batch_sizes, reverse)
    if g_gates is None and g_hidden is None and not isinstance(gates, Tensor):
        d_input, d_inner, dh = gru_sequence_grad(g_output, g_h, gates, hidden, output, hx, w_hh, batch_sizes, reverse)
    else:
        d_input, d_inner, dh = _gru_walk(
            (g_output, g_h, g_gates, g_hidden), gates, hidden, before, hx, w_hh, batch_sizes, reverse
        )
    return d_input, dh, matmul(transpose(d_inner, 0, 1), before), sum(d_inner, 0)


@op(
    samples=lambda t: [
        (t(6, 2), t(2, 2), t(6, 6), t(6, 2), t(6, 2), t(2, 2), t(6, 2), (2, 2, 2), False),
        (t(5, 2), t(3, 2), t(5, 6), t(5, 2), t(5, 2), t(3, 2), t(6, 2), (3, 1, 1), True),
    ],
    method=False,
)
def gru_sequence_grad(xp, g_output, g_h, gates, hidden, output, hx, w_hh, batch_sizes, reverse):
    """Cotangents of input, of the hidden product and of hx: the walk back through time.

    g_output and g_h (cotangents of output and last hidden) may be None.
    """
    before = _before(hx, output, batch_sizes, reverse)
    steps = _steps(batch_sizes, reverse)[::-1]
    dtype, size = gates.dtype, hidden.shape[1]
    dh = _start(g_h, xp, hx.shape, dtype)
    d_input, d_inner = xp.empty_like(gates), xp.empty_like(gates)
    scratch = xp.empty_like(dh)
    product = xp.empty_like(dh)
    r, z, c = (slice(k * size, (k + 1) * size) for k in range(3))
    for start, end in steps:
        a, d, e = gates[start:end], d_input[start:end], d_inner[start:end]
        d_out, t, p = dh[: end - start], scratch[: end - start], product[: end - start]
        if g_output is not None:
            d_out += g_output[start:end]
        d_r, d_z, d_c = d[:, r], d[:, z], d[:, c]
        a_z, a_c = a[:, z], a[:, c]
        xp.multiply(a, a, out=d)
        xp.subtract(a, d, out=d)  # the slope of the sigmoids
        xp.multiply(a_c, a_c, out=d_c)
        xp.subtract(1, d_c, out=d_c)  # that of tanh
        xp.subtract(before[start:end], a_c, out=t)
        t *= d_out
        d_z *= t
        xp.multiply(d_out, a_z, out=t)  # what goes straight to the state before
        d_out -= t
        d_c *= d_out
        d_r *= hidden[start:end]
        d_r *= d_c
        e[:, : 2 * size] = d[:, : 2 * size]
        xp.multiply(d_c, a[:, r], out=e[:, c])
        xp.matmul(e, w_hh, out=p)
        xp.add(p, t, out=d_out)
    return d_input, d_inner, dh


def _gru_walk(g, gates, hidden, before, hx, w_hh, batch_sizes, reverse):
    """The same with operators, so that tensors record it."""
    g_output, g_h, g_gates, g_hidden = g
    size = hidden.shape[1]
    back = _Back(batch_sizes, reverse)
    dh = _zeros(hx) if g_h is None else g_h
    inner = []  # cotangents of the hidden product
    for start, end in back.steps:
        n = end - start
        a = gates[start:end]
        r, z, c = a[:, :size], a[:, size : 2 * size], a[:, 2 * size :]
        d = _add(dh[:n], g_output, start, end)
        kept = d * z
        d_z, d_c = d * (before[start:end] - c), d - kept
        if g_gates is not None:
            e = g_gates[start:end]
            d_z, d_c = d_z + e[:, size : 2 * size], d_c + e[:, 2 * size :]
        d_c = d_c * (1 - c * c)
        d_r = d_c * hidden[start:end]
        if g_gates is not None:
            d_r = d_r + e[:, :size]
        d_r, d_z = d_r * r * (1 - r), d_z * z * (1 - z)
        d_hidden = _add(d_c * r, g_hidden, start, end)
        back.rows.append(cat([d_r, d_z, d_c], 1))
        inner.append(cat([d_r, d_z, d_hidden], 1))
        dh = _put(dh, kept + matmul(inner[-1], w_hh))
    return back.joined(back.rows), back.joined(inner), dh


# -- Elman ------------------------------------------------------------------------------------------------------------
@op(
    vjp={
        ("input", "hx", "w_hh"): lambda g, out, hx, w_hh, nonlinearity, batch_sizes, reverse, need: _rnn_vjp(
            g, out, hx, w_hh, nonlinearity, batch_sizes, reverse
        )
    },
    samples=lambda t: [
        (t(6, 3), t(2, 3), t(3, 3), "tanh", (2, 2, 2), False),
        (t(5, 2, low=0.5), t(3, 2, low=0.1), t(2, 2, low=0.1), "relu", (3, 1, 1), True),
    ],
    promote="arith",
    method=False,
)
def rnn_sequence(xp, input, hx, w_hh, nonlinearity, batch_sizes, reverse):
    """(output, last hidden) of h = tanh(input + h @ w_hh.T), or relu; Elman 1990. input (rows, H), hx (N, H)."""
    dtype, input, h, w_hh = _working(xp, input, hx, w_hh)
    weight = xp.ascontiguousarray(w_hh.T)
    h = h.copy()
    output = xp.empty_like(input)
    for start, end in _steps(batch_sizes, reverse):
        n = end - start
        out = output[start:end]
        xp.matmul(h[:n], weight, out=out)
        out += input[start:end]
        if nonlinearity == "tanh":
            xp.tanh(out, out=out)
        else:
            xp.maximum(out, 0, out=out)
        h[:n] = out
    return output.astype(dtype, copy=False), h.astype(dtype, copy=False)


def _rnn_vjp(g, out, hx, w_hh, nonlinearity, batch_sizes, reverse):
    g_output, g_h = _wide(*g)
    output, _, hx, w_hh = _wide(*out, hx, w_hh)
    walk = _rnn_walk if isinstance(output, Tensor) else rnn_sequence_grad
    d_input, dh = walk(g_output, g_h, output, hx, w_hh, nonlinearity, batch_sizes, reverse)
    return d_input, dh, matmul(transpose(d_input, 0, 1), _before(hx, output, batch_sizes, reverse))


@op(
    samples=lambda t: [
        (t(6, 2), t(2, 2), t(6, 2), t(2, 2), t(2, 2), "tanh", (2, 2, 2), False),
        (t(5, 2), t(3, 2), t(5, 2), t(3, 2), t(2, 2), "relu", (3, 1, 1), True),
    ],
    method=False,
)
def rnn_sequence_grad(xp, g_output, g_h, output, hx, w_hh, nonlinearity, batch_sizes, reverse):
    """Cotangents of input and hx: the walk back through time. g_output and g_h may be None."""
    dh = _start(g_h, xp, hx.shape, output.dtype)
    d_input = xp.empty_like(output)
    for start, end in _steps(batch_sizes, reverse)[::-1]:
        y, d, d_out = output[start:end], d_input[start:end], dh[: end - start]
        if g_output is not None:
            d_out += g_output[start:end]
        if nonlinearity == "tanh":
            xp.multiply(y, y, out=d)
            xp.subtract(1, d, out=d)
            d *= d_out
        else:
            xp.multiply(d_out, y > 0, out=d)
        xp.matmul(d, w_hh, out=d_out)
    return d_input, dh


def _rnn_walk(g_output, g_h, output, hx, w_hh, nonlinearity, batch_sizes, reverse):
    """The same with operators, so that tensors record it."""
    back = _Back(batch_sizes, reverse)
    dh = _zeros(hx) if g_h is None else g_h
    for start, end in back.steps:
        y = output[start:end]
        d = _add(dh[: end - start], g_output, start, end)
        d = d * (1 - y * y) if nonlinearity == "tanh" else d * (y > 0)
        back.rows.append(d)
        dh = _put(dh, matmul(d, w_hh))
    return back.joined(back.rows), dh
