"""Winograd's convolution F(4x4, 3x3): 36 products for 16 outputs of a 3x3 convolution, in place of 144.

Lavin and Gray 2016, "Fast algorithms for convolutional neural networks". A tile of 6x6 inputs d, a kernel w and the
4x4 outputs y are tied by y = A^T [(G w G^T) * (B^T d B)] A, with the sum over channels inside the brackets: for each of
the 36 places a matrix product. The points of the interpolation are 0, +-5/8, +-3/2 and infinity, which round better
than the usual 0, +-1, +-2. Rounding errors are about five times those of a direct sum.

A task takes some rows of tiles through all stages, so that what it makes stays in the cache. Within a task eight
channels lie side by side: the transforms work on vectors of channels, whatever the size of the image.
"""

import numpy as np
from numba import prange

from .numba_lanes import (
    Code,
    load,
    product4,
    product6,
    store,
    tile_from_places,
    tile_strided,
    tile_to_places,
    transpose,
    zero,
)  # fmt: skip
from .numba_setup import elementwise, helper

__all__ = ["forward", "forward_small", "kernels", "weight_grad"]

_A, _B = 0.625, 1.5
_INPUTS = 64  # whose transformed kernels a task of `forward_small` holds at a time
_PRODUCT, _SUM = _A**2 * _B**2, _A**2 + _B**2
_G0, _GA, _GB = 1 / _PRODUCT, 1 / (2 * _A**2 * (_A**2 - _B**2)), 1 / (2 * _B**2 * (_B**2 - _A**2))


# -- transforms along one direction -----------------------------------------------------------------------------------
def _input(v: Code, d: list) -> list:
    """B^T d"""
    e1, h1 = v.fma(d[4], -(_B**2), d[2]), v.scale(_A, v.fma(d[3], -(_B**2), d[1]))
    e2, h2 = v.fma(d[4], -(_A**2), d[2]), v.scale(_B, v.fma(d[3], -(_A**2), d[1]))
    first = v.fma(v.fma(d[4], -_SUM, d[2]), _PRODUCT, d[0])
    last = v.fma(v.fma(d[5], -_SUM, d[3]), _PRODUCT, d[1])
    return [first, v.add(e1, h1), v.sub(e1, h1), v.add(e2, h2), v.sub(e2, h2), last]


def _output(v: Code, m: list) -> list:
    """A^T m"""
    s1, d1, s2, d2 = v.add(m[1], m[2]), v.sub(m[1], m[2]), v.add(m[3], m[4]), v.sub(m[3], m[4])
    return [
        v.add(v.add(m[0], s1), s2),
        v.fma(v.scale(_A, d1), _B, d2),
        v.fma(v.scale(_A**2, s1), _B**2, s2),
        v.add(v.fma(v.scale(_A**3, d1), _B**3, d2), m[5]),
    ]


def _spread(v: Code, g: list) -> list:
    """A g, the adjoint of `_output`"""
    e1, h1 = v.fma(g[0], _A**2, g[2]), v.fma(v.scale(_A, g[1]), _A**3, g[3])
    e2, h2 = v.fma(g[0], _B**2, g[2]), v.fma(v.scale(_B, g[1]), _B**3, g[3])
    return [g[0], v.add(e1, h1), v.sub(e1, h1), v.add(e2, h2), v.sub(e2, h2), g[3]]


def _kernel(v: Code, w: list) -> list:
    """G w"""
    e1, h1 = v.fma(v.scale(_GA, w[0]), _GA * _A**2, w[2]), v.scale(_GA * _A, w[1])
    e2, h2 = v.fma(v.scale(_GB, w[0]), _GB * _B**2, w[2]), v.scale(_GB * _B, w[1])
    return [v.scale(_G0, w[0]), v.add(e1, h1), v.sub(e1, h1), v.add(e2, h2), v.sub(e2, h2), w[2]]


def _gather(v: Code, m: list) -> list:
    """G^T m, the adjoint of `_kernel`"""
    s1, d1, s2, d2 = v.add(m[1], m[2]), v.sub(m[1], m[2]), v.add(m[3], m[4]), v.sub(m[3], m[4])
    return [
        v.fma(v.fma(v.scale(_G0, m[0]), _GA, s1), _GB, s2),
        v.fma(v.scale(_GA * _A, d1), _GB * _B, d2),
        v.add(v.fma(v.scale(_GA * _A**2, s1), _GB * _B**2, s2), m[5]),
    ]


_input_tile, _spread_tile = tile_from_places(_input, 6), tile_from_places(_spread, 4)
_output_tile = tile_to_places(_output, 6)
_kernel_tile, _gather_tile = tile_strided(_kernel, 3), tile_strided(_gather, 6)


@helper
def _pitch(length):
    """A distance of at least `length` between places that keeps them out of each other's way in the cache."""
    lines = (length + 15) // 16
    return (lines + 1 - lines % 2) * 16  # an odd number of cache lines


# -- places: where the pixels of tiles lie in a task's buffers ------------------------------------------------------
@helper
def _places(place, rows, first, last, th, tw, height, width, size, shift):
    """Offsets in a buffer [pixel][8] of the pixels of each tile, `size` x `size`, and the pieces of images it holds.

    A tile begins `shift` pixels before a multiple of 4. Pixels outside of the image lie at offset 0. `rows` gets
    (image, first row, rows, offset) for each piece; their number is returned, and the number of pixels.
    """
    pieces, used, tile = 0, 1, 0
    row = first
    while row < last:
        image, ty = row // th, row % th
        count = min(th - ty, last - row)
        top = max(ty * 4 - shift, 0)
        bottom = min((ty + count - 1) * 4 - shift + size, height)
        rows[pieces, 0], rows[pieces, 1], rows[pieces, 2], rows[pieces, 3] = image, top, max(bottom - top, 0), used
        for r in range(count):
            for tx in range(tw):
                for i in range(size):
                    y = (ty + r) * 4 - shift + i
                    for j in range(size):
                        x = tx * 4 - shift + j
                        inside = 0 <= y < height and 0 <= x < width
                        place[tile] = (used + (y - top) * width + x) * 8 if inside else 0
                        tile += 1
        used += max(bottom - top, 0) * width
        pieces += 1
        row += count
    return pieces, used


@helper
def _fetch(x, buffer, rows, pieces, channel, channels, height, width, last):
    """Eight channels of the pieces of images into the buffer [pixel][8]."""
    for piece in range(pieces):
        image, top, count, base = rows[piece, 0], rows[piece, 1], rows[piece, 2] * width, rows[piece, 3]
        if last:
            start = (image * height + top) * width * channels + channel
            for p in range(count):
                store(buffer, (base + p) * 8, load(x, start + p * channels))
        else:
            step = height * width
            start = (image * channels + channel) * step + top * width
            whole = count - count % 8
            for p in range(0, whole, 8):
                transpose(x, start + p, step, buffer, (base + p) * 8, 8)
            for p in range(whole, count):
                for c in range(8):
                    buffer[(base + p) * 8 + c] = x[start + p + c * step]


@helper
def _deliver(buffer, x, rows, pieces, channel, channels, height, width, last):
    """The buffer [pixel][8] into eight channels of the pieces of images."""
    for piece in range(pieces):
        image, top, count, base = rows[piece, 0], rows[piece, 1], rows[piece, 2] * width, rows[piece, 3]
        if last:
            start = (image * height + top) * width * channels + channel
            for p in range(count):
                store(x, start + p * channels, load(buffer, (base + p) * 8))
        else:
            step = height * width
            start = (image * channels + channel) * step + top * width
            whole = count - count % 8
            for p in range(0, whole, 8):
                transpose(buffer, (base + p) * 8, 8, x, start + p, step)
            for p in range(whole, count):
                for c in range(8):
                    x[start + p + c * step] = buffer[(base + p) * 8 + c]


@helper
def _multiply(a, a0, a_row, a_k, b, b0, c, c0, c_row, rows, k, more):
    """c (+)= a b for an even number of rows, at least 4, and 16 columns."""
    fours = (6 - rows % 6) // 2 if rows % 6 else 0  # 6 n + 4: one, 6 n + 2: two
    row = 0
    while row < rows - 4 * fours:
        product6(a, a0 + row * a_row, a_row, a_k, b, b0, c, c0 + row * c_row, c_row, k, more)
        row += 6
    while row < rows:
        product4(a, a0 + row * a_row, a_row, a_k, b, b0, c, c0 + row * c_row, c_row, k, more)
        row += 4


# -- the stages -------------------------------------------------------------------------------------------------------
@helper
def _transform_kernels(w, panel, start, count, outs, out_step, in_step, flip, u, to, pitch):
    """G w G^T of 16 outputs (a panel) and `count` inputs from `start` on, as [36][count][16] at `to` in u."""
    taps = np.zeros(9 * 16, np.float32)
    lanes = min(16, outs - panel * 16)
    for i in range(start, start + count):
        at = panel * 16 * out_step + i * in_step
        for half in range(0, lanes, 8):
            transpose(w, at + half * out_step, out_step, taps, half, 16)
        for lane in range(lanes):
            taps[128 + lane] = w[at + lane * out_step + 8]
        for half in range(0, 16, 8):
            first, step = (128 + half, -16) if flip else (half, 16)
            _kernel_tile(taps, first, step, u, to + half, pitch)
        to += 16


@helper
def _transform_input(x, first, until, ins, th, tw, height, width, padding, last, v, offset, pitch):
    """B^T d B of the tiles in rows `first` to `until`, as v[36][tile][ins]."""
    tiles = (until - first) * tw
    places, pieces = np.empty(tiles * 36, np.int64), np.empty((until - first, 4), np.int64)
    count, used = _places(places, pieces, first, until, th, tw, height, width, 6, padding)
    pixels = np.empty(used * 8, np.float32)
    store(pixels, 0, zero())
    for channel in range(0, ins, 8):
        _fetch(x, pixels, pieces, count, channel, ins, height, width, last)
        for tile in range(tiles):
            _input_tile(pixels, places, tile * 36, v, (offset + tile) * ins + channel, pitch)


@helper
def _clear(v, begin, end, pitch):
    """Zeros for the tiles that only round their number up."""
    for place in range(36):
        for i in range(begin, end, 8):
            store(v, place * pitch + i, zero())


@helper
def _transform_output(m, pitch, bias, out, panel, first, until, outs, th, tw, height, width, last, pieces, places):
    """A^T m A plus bias of 16 outputs (a panel)."""
    tiles = (until - first) * tw
    count, used = _places(places, pieces, first, until, th, tw, height, width, 4, 0)
    pixels = np.empty(used * 8, np.float32)
    for half in range(0, min(16, outs - panel * 16), 8):
        channel = panel * 16 + half
        shift = load(bias, channel) if bias.size else zero()
        for tile in range(tiles):
            _output_tile(m, tile * 16 + half, pitch, shift, pixels, places, tile * 16)
        _deliver(pixels, out, pieces, count, channel, outs, height, width, last)


@helper
def _rows_task(x, u, bias, out, ins, outs, height, width, high, wide, padding, last, first, until, panel, last_panel):
    th, tw, panels = (high + 3) // 4, (wide + 3) // 4, (outs + 15) // 16
    tiles = (until - first) * tw
    padded = max(4, tiles + tiles % 2)  # the product takes an even number
    v_pitch, m_pitch, u_pitch = _pitch(padded * ins), _pitch(padded * 16), _pitch(panels * ins * 16)
    v, m = np.empty(36 * v_pitch, np.float32), np.empty(36 * m_pitch, np.float32)
    _clear(v, tiles * ins, padded * ins, v_pitch)
    _transform_input(x, first, until, ins, th, tw, height, width, padding, last, v, 0, v_pitch)
    places, pieces = np.empty(tiles * 16, np.int64), np.empty((until - first, 4), np.int64)
    while panel < last_panel:
        for place in range(36):
            at = place * u_pitch + panel * ins * 16
            _multiply(v, place * v_pitch, ins, 1, u, at, m, place * m_pitch, 16, padded, ins, 0)
        _transform_output(m, m_pitch, bias, out, panel, first, until, outs, th, tw, high, wide, last, pieces, places)
        panel += 1


@helper
def _panel_task(
    v, v_pitch, w, out_step, in_step, flip, bias, out, panel, ins, outs, high, wide, last, first, until, padded
):
    th, tw = (high + 3) // 4, (wide + 3) // 4
    m_pitch, u_pitch = _pitch(padded * 16), _pitch(_INPUTS * 16)
    m, u = np.empty(36 * m_pitch, np.float32), np.empty(36 * u_pitch, np.float32)
    for start in range(0, ins, _INPUTS):
        count = min(_INPUTS, ins - start)
        _transform_kernels(w, panel, start, count, outs, out_step, in_step, flip, u, 0, u_pitch)
        for place in range(36):
            at = place * v_pitch + start
            _multiply(v, at, ins, 1, u, place * u_pitch, m, place * m_pitch, 16, padded, count, start)
    places, pieces = np.empty((until - first) * tw * 16, np.int64), np.empty((until - first, 4), np.int64)
    _transform_output(m, m_pitch, bias, out, panel, first, until, outs, th, tw, high, wide, last, pieces, places)


# -- the passes -------------------------------------------------------------------------------------------------------
@elementwise
def kernels(w, outs, ins, out_step, in_step, flip):
    """G w G^T for all kernels as [36][outs / 16][ins][16]; kernel (o, i) lies at o * out_step + i * in_step in w."""
    panels = (outs + 15) // 16
    pitch = _pitch(panels * ins * 16)
    u = np.empty(36 * pitch, np.float32)
    for panel in prange(panels):
        _transform_kernels(w, panel, 0, ins, outs, out_step, in_step, flip, u, panel * ins * 16, pitch)
    return u


@elementwise
def forward(x, u, bias, out, images, ins, outs, height, width, high, wide, padding, last, rows, parts):
    """Convolution with transformed kernels `u`; a task takes `rows` rows of tiles and one of `parts` of the outputs.

    `ins` and `outs` are multiples of 8; high and wide are the output's height and width. `last`: channels are innermost
    in memory, in x and in out.
    """
    total, panels = images * ((high + 3) // 4), (outs + 15) // 16
    share = (panels + parts - 1) // parts
    for task in prange((total + rows - 1) // rows * parts):
        first, panel = task // parts * rows, task % parts * share
        _rows_task(
            x, u, bias, out, ins, outs, height, width, high, wide, padding, last,
            first, min(first + rows, total), panel, min(panel + share, panels),
        )  # fmt: skip


@elementwise
def forward_small(
    x, w, out_step, in_step, flip, bias, out, images, ins, outs, height, width, high, wide, padding, last, rows
):
    """The same for few tiles and many channels: a task transforms the kernels of 16 outputs and meets all tiles."""
    th, tw = (high + 3) // 4, (wide + 3) // 4
    total = images * th
    padded = max(4, total * tw + total * tw % 2)
    pitch = _pitch(padded * ins)
    v = np.empty(36 * pitch, np.float32)
    for task in prange((total + rows - 1) // rows + 1):
        first = task * rows
        if first < total:
            until = min(first + rows, total)
            _transform_input(x, first, until, ins, th, tw, height, width, padding, last, v, first * tw, pitch)
        else:
            _clear(v, total * tw * ins, padded * ins, pitch)
    for panel in prange((outs + 15) // 16):
        _panel_task(
            v, pitch, w, out_step, in_step, flip, bias, out, panel, ins, outs, high, wide, last, 0, total, padded
        )


@helper
def _spread_grad(g, first, until, outs, th, tw, height, width, last, s, offset, held, pitch):
    """A g A^T of the tiles in rows `first` to `until`, as s[36][outs / 16][tile][16]."""
    tiles = (until - first) * tw
    places, pieces = np.empty(tiles * 16, np.int64), np.empty((until - first, 4), np.int64)
    count, used = _places(places, pieces, first, until, th, tw, height, width, 4, 0)
    pixels = np.empty(used * 8, np.float32)
    store(pixels, 0, zero())
    for channel in range(0, outs, 8):
        _fetch(g, pixels, pieces, count, channel, outs, height, width, last)
        base = (channel // 16 * held + offset) * 16 + channel % 16
        for tile in range(tiles):
            _spread_tile(pixels, places, tile * 16, s, base + tile * 16, pitch)


@helper
def _gather_task(total, panel, ins, outs, pitch, dw):
    """G^T m G of 16 outputs."""
    taps = np.empty(9 * 16, np.float32)
    for i in range(ins):
        for half in range(0, 16, 8):
            _gather_tile(total, (panel * ins + i) * 16 + half, pitch, taps, half, 16)
        for lane in range(min(16, outs - panel * 16)):
            for tap in range(9):
                dw[((panel * 16 + lane) * ins + i) * 9 + tap] = taps[tap * 16 + lane]


@elementwise
def weight_grad(x, g, dw, images, ins, outs, height, width, high, wide, padding, x_last, g_last, rows, many):
    """Gradient of the kernels, as w[outs][ins][3][3]; `many` rows of tiles are held at a time, a task takes `rows`."""
    th, tw, panels = (high + 3) // 4, (wide + 3) // 4, (outs + 15) // 16
    pitch, x_pitch, g_pitch = _pitch(panels * ins * 16), _pitch(many * tw * ins), _pitch(panels * many * tw * 16)
    total = np.empty(36 * pitch, np.float32)
    v, s = np.empty(36 * x_pitch, np.float32), np.empty(36 * g_pitch, np.float32)
    for begin in range(0, images * th, many):
        end = min(begin + many, images * th)
        held = (end - begin) * tw
        for task in prange((end - begin + rows - 1) // rows):
            first = begin + task * rows
            until = min(first + rows, end)
            at = task * rows * tw
            _transform_input(x, first, until, ins, th, tw, height, width, padding, x_last, v, at, x_pitch)
            _spread_grad(g, first, until, outs, th, tw, high, wide, g_last, s, at, held, g_pitch)
        for task in prange(36 * panels):
            place, panel = task // panels, task % panels
            b, c = place * g_pitch + panel * held * 16, place * pitch + panel * ins * 16
            _multiply(v, place * x_pitch, 1, ins, s, b, total, c, 16, ins, held, begin)
    for panel in prange(panels):
        _gather_task(total, panel, ins, outs, pitch, dw)
