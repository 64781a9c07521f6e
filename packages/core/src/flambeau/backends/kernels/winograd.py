"""Which convolutions go to Winograd's kernels, and how their work is divided; threads never change bits.

3x3 kernels with stride 1, without dilation and groups, padding 0 to 2, channels in eights. The gradient of the input is
the convolution of the output's gradient with the kernels turned around, padding 2 - p.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._arrays import compiled, dense, empty

__all__ = ["convolution", "input_grad", "weight_grad"]

_SIZE = 4  # of an output tile
_LEAST_CHANNELS = 16
_WORTH_NUMBA = 1 << 21  # pairs of an output and an input channel: smaller convolutions do not even import Numba
_CACHE = 100_000  # numbers that the transformed tiles of a task should have, about the size of a second level cache
_HELD = 2_000_000  # numbers of transformed tiles that the gradient of the kernels holds at a time
_KERNELS = 4_000_000  # numbers of transformed kernels above which making them once for all tasks costs too much memory
_FEW = 96  # tiles that every task transforms anew, each for its part of the outputs
_MANY_THREADS = 4  # with more, tasks that share one transform of few tiles are better
_NO_BIAS = np.empty(0, np.float32)


def _fits(geometry: Sequence, least: int) -> bool:
    """Whether Winograd is the faster way, given that it takes at least `least` tiles to pay for the kernels' transform.

    Measured one by one against oneDNN's direct kernels.
    """
    input_shape, weight_shape, stride, padding, dilation, groups = geometry
    if weight_shape[2:] != (3, 3) or groups != 1 or stride != (1, 1) or dilation != (1, 1):
        return False
    outs, ins = weight_shape[:2]
    if padding[0] != padding[1] or padding[0] > 2 or ins % 8 or outs % 8 or min(ins, outs) < _LEAST_CHANNELS:
        return False
    images, (height, width) = input_shape[0], (n + 2 * padding[0] - 2 for n in input_shape[2:])
    if images * height * width * ins * outs < _WORTH_NUMBA:
        return False
    tiles = images * -(-height // _SIZE) * -(-width // _SIZE)
    filled = images * height * width / (tiles * _SIZE**2)
    if filled > 0.37:
        return tiles >= least
    # 2x2 images: oneDNN skips the padding, its direct kernels are slow only where there are many channels.
    return filled >= 0.25 and tiles >= 32 and ins * outs >= 1 << 16


def convolution(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Sequence) -> Any:
    """Forward; None where another kernel is better."""
    if not _fits(geometry, 4):
        return None
    return _run(input, weight, bias, geometry[3][0], False)


def input_grad(g: np.ndarray, weight: np.ndarray, geometry: Sequence) -> Any:
    """Gradient with respect to the input; None where another kernel is better."""
    if not _fits(geometry, 4):
        return None
    return _run(g, weight, None, 2 - geometry[3][0], True)


def _run(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, padding: int, backward: bool) -> Any:
    code = compiled("numba_winograd")
    if code is None:
        return None
    input, last = dense(input)
    images, ins, height, width = input.shape
    outs = weight.shape[1 if backward else 0]
    out_height, out_width = height + 2 * padding - 2, width + 2 * padding - 2
    steps = (9, outs * 9) if backward else (ins * 9, 9)
    w = np.ascontiguousarray(weight).reshape(-1)
    out = empty((images, outs, out_height, out_width), last)
    bias = _NO_BIAS if bias is None else np.ascontiguousarray(bias)
    sizes = images, ins, outs, height, width, out_height, out_width, padding, last
    high, wide = -(-out_height // _SIZE), -(-out_width // _SIZE)
    threads = importlib.import_module(".numba_setup", __package__).threads()
    tiles, crowd = images * high * wide, threads > _MANY_THREADS
    if outs * 16 > tiles and tiles * ins * 36 < _HELD and (ins * outs * 36 > _KERNELS or (tiles <= _FEW and crowd)):
        rows = max(1, min(round(16 / wide), images * high))
        code.forward_small(_line(input, last), w, *steps, backward, bias, _line(out, last), *sizes, rows)
    else:
        u = code.kernels(w, outs, ins, *steps, backward)
        rows, parts = _division(images * high, wide, outs, ins, threads)
        code.forward(_line(input, last), u, bias, _line(out, last), *sizes, rows, parts)
    return out


def _division(total: int, wide: int, outs: int, ins: int, threads: int) -> tuple[int, int]:
    """Of `total` rows of tiles, how many a task takes, and in how many parts the outputs' channels are divided.

    Each output is computed in one order whatever the division, so this may look at the number of threads.
    """
    if total * wide <= _FEW:
        return total, max(1, min(threads, -(-outs // 32)))
    wanted = max(1, round(min(max(_CACHE // (36 * ins), 24), 96) / wide))

    def busy(rows: int) -> tuple[int, bool, int]:
        """Rows that the busiest thread takes; then, how far a task is from the best size for the cache."""
        tasks = -(-total // rows)
        return -(-tasks // threads) * rows, rows < wanted, abs(rows - wanted)

    rows = min(range(max(1, wanted // 2), min(2 * wanted + 1, total) + 1), key=busy)
    parts = 1
    while -(-total // rows) * parts < threads and outs >= 64 * parts:
        parts *= 2
    return rows, parts


def weight_grad(g: np.ndarray, input: np.ndarray, geometry: Sequence) -> Any:
    """Gradient with respect to the weight; None where another kernel is better."""
    if not _fits(geometry, 16):
        return None
    code = compiled("numba_winograd")
    if code is None:
        return None
    (g, g_last), (input, last) = dense(g), dense(input)
    (images, ins, height, width), (_, outs, out_height, out_width) = input.shape, g.shape
    out = np.empty((outs, ins, 3, 3), np.float32)
    high, wide = -(-out_height // _SIZE), -(-out_width // _SIZE)
    rows = max(1, min(round(16 / wide), images * high))
    many = max(1, _HELD // (36 * (ins + outs) * wide * rows)) * rows
    many = min(many, images * high)
    sizes = images, ins, outs, height, width, out_height, out_width, geometry[3][0]
    arrays = _line(input, last), _line(g, g_last), out.reshape(-1)
    code.weight_grad(*arrays, *sizes, last, g_last, rows, many)
    return out


def _line(array: np.ndarray, last: bool) -> np.ndarray:
    """A dense array's memory as a vector."""
    return (array.transpose(0, 2, 3, 1) if last else array).reshape(-1)
