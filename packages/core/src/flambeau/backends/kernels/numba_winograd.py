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

from .numba_setup import elementwise, helper
from .numba_vector import add, fma, load, product4, product6, scale, store, sub, transpose, zero

__all__ = ["forward", "kernels", "weight_grad"]

f = np.float32
_A, _B = 0.625, 1.5
_A1, _B1, _A2, _B2, _A3, _B3 = f(_A), f(_B), f(_A**2), f(_B**2), f(_A**3), f(_B**3)
_AB, _SUM = f(_A**2 * _B**2), f(_A**2 + _B**2)
_AT_0, _AT_A, _AT_B = 1 / (_A**2 * _B**2), 1 / (2 * _A**2 * (_A**2 - _B**2)), 1 / (2 * _B**2 * (_B**2 - _A**2))
_G0, _GA, _GA1, _GA2 = f(_AT_0), f(_AT_A), f(_AT_A * _A), f(_AT_A * _A**2)
_GB, _GB1, _GB2 = f(_AT_B), f(_AT_B * _B), f(_AT_B * _B**2)


# -- transforms along one direction -----------------------------------------------------------------------------------
@helper
def _input(d0, d1, d2, d3, d4, d5):
    """B^T d"""
    e1, h1 = fma(d4, -_B2, d2), scale(_A1, fma(d3, -_B2, d1))
    e2, h2 = fma(d4, -_A2, d2), scale(_B1, fma(d3, -_A2, d1))
    first, last = fma(fma(d4, -_SUM, d2), _AB, d0), fma(fma(d5, -_SUM, d3), _AB, d1)
    return first, add(e1, h1), sub(e1, h1), add(e2, h2), sub(e2, h2), last


@helper
def _output(m0, m1, m2, m3, m4, m5):
    """A^T m"""
    s1, d1, s2, d2 = add(m1, m2), sub(m1, m2), add(m3, m4), sub(m3, m4)
    y3 = add(fma(scale(_A3, d1), _B3, d2), m5)
    return add(add(m0, s1), s2), fma(scale(_A1, d1), _B1, d2), fma(scale(_A2, s1), _B2, s2), y3


@helper
def _spread(g0, g1, g2, g3):
    """A g, the adjoint of `_output`"""
    e1, h1 = fma(g0, _A2, g2), fma(scale(_A1, g1), _A3, g3)
    e2, h2 = fma(g0, _B2, g2), fma(scale(_B1, g1), _B3, g3)
    return g0, add(e1, h1), sub(e1, h1), add(e2, h2), sub(e2, h2), g3


@helper
def _kernel(w0, w1, w2):
    """G w"""
    e1, h1 = fma(scale(_GA, w0), _GA2, w2), scale(_GA1, w1)
    e2, h2 = fma(scale(_GB, w0), _GB2, w2), scale(_GB1, w1)
    return scale(_G0, w0), add(e1, h1), sub(e1, h1), add(e2, h2), sub(e2, h2), w2


@helper
def _gather(m0, m1, m2, m3, m4, m5):
    """G^T m, the adjoint of `_kernel`"""
    s1, d1, s2, d2 = add(m1, m2), sub(m1, m2), add(m3, m4), sub(m3, m4)
    w0 = fma(fma(scale(_G0, m0), _GA, s1), _GB, s2)
    return w0, fma(scale(_GA1, d1), _GB1, d2), add(fma(scale(_GA2, s1), _GB2, s2), m5)


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
def _load6(source, at, step):
    return (
        load(source, at),
        load(source, at + step),
        load(source, at + 2 * step),
        load(source, at + 3 * step),
        load(source, at + 4 * step),
        load(source, at + 5 * step),
    )


@helper
def _store3(out, to, step, t):
    store(out, to, t[0])
    store(out, to + step, t[1])
    store(out, to + 2 * step, t[2])


@helper
def _store6(out, to, step, t):
    _store3(out, to, step, t)
    store(out, to + 3 * step, t[3])
    store(out, to + 4 * step, t[4])
    store(out, to + 5 * step, t[5])


# -- transforms of tiles --------------------------------------------------------------------------------------------
@helper
def _input_tile(buffer, place, tile, work, out, to, step):
    """B^T d B for one tile and eight channels; place i of the 36 goes to `out` at to + i * step."""
    at = tile * 36
    for j in range(6):
        t = _input(
            load(buffer, place[at + j]),
            load(buffer, place[at + 6 + j]),
            load(buffer, place[at + 12 + j]),
            load(buffer, place[at + 18 + j]),
            load(buffer, place[at + 24 + j]),
            load(buffer, place[at + 30 + j]),
        )
        _store6(work, j * 8, 48, t)
    for i in range(6):
        _store6(out, to + i * 6 * step, step, _input(*_load6(work, i * 48, 8)))


@helper
def _output_tile(m, at, step, bias, buffer, place, tile, work):
    """A^T m A plus bias for one tile and eight channels."""
    for j in range(6):
        t = _output(*_load6(m, at + j * step, 6 * step))
        _store3(work, j * 8, 48, t)
        store(work, (j + 18) * 8, t[3])
    for i in range(4):
        t, to = _output(*_load6(work, i * 48, 8)), tile * 16 + i * 4
        store(buffer, place[to], add(t[0], bias))
        store(buffer, place[to + 1], add(t[1], bias))
        store(buffer, place[to + 2], add(t[2], bias))
        store(buffer, place[to + 3], add(t[3], bias))


@helper
def _spread_tile(buffer, place, tile, work, out, to, step):
    """A g A^T for one tile of gradients and eight channels."""
    at = tile * 16
    for j in range(4):
        t = _spread(
            load(buffer, place[at + j]),
            load(buffer, place[at + 4 + j]),
            load(buffer, place[at + 8 + j]),
            load(buffer, place[at + 12 + j]),
        )
        _store6(work, j * 8, 32, t)
    for i in range(6):
        w = i * 32
        t = _spread(load(work, w), load(work, w + 8), load(work, w + 16), load(work, w + 24))
        _store6(out, to + i * 6 * step, step, t)


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


# -- the three passes -------------------------------------------------------------------------------------------------
@helper
def _pitch(length):
    """A distance of at least `length` between places that keeps them out of each other's way in the cache."""
    lines = (length + 15) // 16
    return (lines + 1 - lines % 2) * 16  # an odd number of cache lines


@helper
def _kernels_task(w, panel, start, outs, ins, out_step, in_step, flip, u, pitch):
    """Kernels of 16 outputs (a panel) and, from `start` on, 16 inputs."""
    taps, work = np.zeros(9 * 16, np.float32), np.empty(18 * 8, np.float32)
    for i in range(start, min(start + 16, ins)):
        for lane in range(min(16, outs - panel * 16)):
            at = (panel * 16 + lane) * out_step + i * in_step
            for tap in range(9):
                taps[(8 - tap if flip else tap) * 16 + lane] = w[at + tap]
        for half in range(0, 16, 8):
            for j in range(3):
                t = _kernel(load(taps, j * 16 + half), load(taps, (j + 3) * 16 + half), load(taps, (j + 6) * 16 + half))
                _store6(work, j * 8, 24, t)
            for r in range(6):
                t = _kernel(load(work, r * 24), load(work, r * 24 + 8), load(work, r * 24 + 16))
                _store6(u, r * 6 * pitch + (panel * ins + i) * 16 + half, pitch, t)


@elementwise
def kernels(w, outs, ins, out_step, in_step, flip):
    """G w G^T for all kernels as [36][outs / 16][ins][16]; kernel (o, i) lies at o * out_step + i * in_step in w."""
    panels = (outs + 15) // 16
    pitch = _pitch(panels * ins * 16)
    u = np.empty(36 * pitch, np.float32)
    for task in prange(panels * ((ins + 15) // 16)):
        _kernels_task(w, task % panels, task // panels * 16, outs, ins, out_step, in_step, flip, u, pitch)
    return u


@helper
def _transform_input(x, first, until, ins, th, tw, height, width, padding, last, v, offset, pitch):
    """B^T d B of the tiles in rows `first` to `until`, as v[36][tile][ins]."""
    tiles = (until - first) * tw
    places, pieces = np.empty(tiles * 36, np.int64), np.empty((until - first, 4), np.int64)
    count, used = _places(places, pieces, first, until, th, tw, height, width, 6, padding)
    pixels, work = np.empty(used * 8, np.float32), np.empty(36 * 8, np.float32)
    store(pixels, 0, zero())
    for channel in range(0, ins, 8):
        _fetch(x, pixels, pieces, count, channel, ins, height, width, last)
        for tile in range(tiles):
            _input_tile(pixels, places, tile, work, v, (offset + tile) * ins + channel, pitch)


@helper
def _forward_task(
    x, u, bias, out, ins, outs, height, width, out_height, out_width, padding, last, first, until, panel, last_panel
):
    th, tw, panels = (out_height + 3) // 4, (out_width + 3) // 4, (outs + 15) // 16
    tiles = (until - first) * tw
    padded = max(4, tiles + tiles % 2)  # the product takes an even number
    v_pitch, m_pitch, u_pitch = _pitch(padded * ins), _pitch(padded * 16), _pitch(panels * ins * 16)
    v, m = np.empty(36 * v_pitch, np.float32), np.empty(36 * m_pitch, np.float32)
    for place in range(36):
        for i in range(tiles * ins, padded * ins, 8):
            store(v, place * v_pitch + i, zero())
    _transform_input(x, first, until, ins, th, tw, height, width, padding, last, v, 0, v_pitch)
    places, pieces = np.empty(tiles * 16, np.int64), np.empty((until - first, 4), np.int64)
    count, used = _places(places, pieces, first, until, th, tw, out_height, out_width, 4, 0)
    pixels, work = np.empty(used * 8, np.float32), np.empty(24 * 8, np.float32)
    while panel < last_panel:
        for place in range(36):
            at = place * u_pitch + panel * ins * 16
            _multiply(v, place * v_pitch, ins, 1, u, at, m, place * m_pitch, 16, padded, ins, 0)
        for half in range(0, min(16, outs - panel * 16), 8):
            channel = panel * 16 + half
            shift = load(bias, channel) if bias.size else zero()
            for tile in range(tiles):
                _output_tile(m, tile * 16 + half, m_pitch, shift, pixels, places, tile, work)
            _deliver(pixels, out, pieces, count, channel, outs, out_height, out_width, last)
        panel += 1


@elementwise
def forward(x, u, bias, out, images, ins, outs, height, width, out_height, out_width, padding, last, rows, parts):
    """Convolution with transformed kernels `u`; a task takes `rows` rows of tiles and one of `parts` of the outputs.

    `ins` and `outs` are multiples of 8. `last`: channels are innermost in memory, in x and in out.
    """
    total, panels = images * ((out_height + 3) // 4), (outs + 15) // 16
    share = (panels + parts - 1) // parts
    for task in prange((total + rows - 1) // rows * parts):
        first, panel = task // parts * rows, task % parts * share
        _forward_task(
            x, u, bias, out, ins, outs, height, width, out_height, out_width, padding, last,
            first, min(first + rows, total), panel, min(panel + share, panels),
        )  # fmt: skip


@helper
def _spread_grad(g, first, until, outs, th, tw, height, width, last, s, offset, held, pitch):
    """A g A^T of the tiles in rows `first` to `until`, as s[36][outs / 16][tile][16]."""
    tiles = (until - first) * tw
    places, pieces = np.empty(tiles * 16, np.int64), np.empty((until - first, 4), np.int64)
    count, used = _places(places, pieces, first, until, th, tw, height, width, 4, 0)
    pixels, work = np.empty(used * 8, np.float32), np.empty(24 * 8, np.float32)
    store(pixels, 0, zero())
    for channel in range(0, outs, 8):
        _fetch(g, pixels, pieces, count, channel, outs, height, width, last)
        base = (channel // 16 * held + offset) * 16 + channel % 16
        for tile in range(tiles):
            _spread_tile(pixels, places, tile, work, s, base + tile * 16, pitch)


@helper
def _gather_task(total, panel, ins, outs, pitch, dw):
    """G^T m G of 16 outputs."""
    taps, work = np.empty(9 * 16, np.float32), np.empty(18 * 8, np.float32)
    for i in range(ins):
        for half in range(0, 16, 8):
            for j in range(6):
                t = _gather(*_load6(total, j * pitch + (panel * ins + i) * 16 + half, 6 * pitch))
                _store3(work, j * 8, 48, t)
            for r in range(3):
                _store3(taps, r * 48 + half, 16, _gather(*_load6(work, r * 48, 8)))
        for lane in range(min(16, outs - panel * 16)):
            for tap in range(9):
                dw[((panel * 16 + lane) * ins + i) * 9 + tap] = taps[tap * 16 + lane]


@elementwise
def weight_grad(x, g, dw, images, ins, outs, height, width, out_height, out_width, padding, x_last, g_last, rows, many):
    """Gradient of the kernels, as w[outs][ins][3][3]; `many` rows of tiles are held at a time, a task takes `rows`."""
    th, tw, panels = (out_height + 3) // 4, (out_width + 3) // 4, (outs + 15) // 16
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
            _spread_grad(g, first, until, outs, th, tw, out_height, out_width, g_last, s, at, held, g_pitch)
        for task in prange(36 * panels):
            place, panel = task // panels, task % panels
            b, c = place * g_pitch + panel * held * 16, place * pitch + panel * ins * 16
            _multiply(v, place * x_pitch, 1, ins, s, b, total, c, 16, ins, held, begin)
    for panel in prange(panels):
        _gather_task(total, panel, ins, outs, pitch, dw)
