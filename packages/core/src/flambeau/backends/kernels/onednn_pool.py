"""Max and average pooling of rank 1 to 3 with oneDNN.

oneDNN says where each maximum was found as its position in the window (uint8), PyTorch as an int64 index into the
plane. The positions are kept beside the indices for as long as these live: the gradient wants them again.
"""

import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from . import _onednn as dnn
from ._arrays import accepts, dense, empty, layout

__all__ = ["avg_pool", "avg_pool_grad", "max_pool", "max_pool_grad"]

_MAX, _AVG_INCLUDE_PADDING, _AVG_EXCLUDE_PADDING = 0x1FF, 0x2FF, 0x3FF
_WINDOW_LIMIT = 255  # positions in larger windows do not fit the uint8 workspace

Ints = tuple[int, ...]

# id of an indices array -> (weak reference to it, positions in the window, whether these are channels last, geometry)
_positions_of: dict[int, tuple[weakref.ref, np.ndarray, bool, tuple]] = {}


def max_pool(
    input: np.ndarray,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Maxima of the windows of `input` (N, C, *spatial), and their int64 indices into the flattened spatial plane."""
    if not accepts(input) or max(dilation) > 1:
        return NotImplemented
    geometry = _geometry(input.shape, kernel_size, stride, padding, ceil_mode)
    if geometry is None:
        return NotImplemented
    input, last = dense(input)
    plan = dnn.cached(_forward, *geometry, _MAX, last)
    if plan is None or not _all_finite(input):
        return NotImplemented  # oneDNN's maximum passes over NaN and does not go below the smallest finite number
    out, positions = empty(geometry[1], last), empty(geometry[1], last, np.uint8)
    plan(input, out, positions)
    indices = _plane_indices(positions, *geometry)
    key = id(indices)
    reference = weakref.ref(indices, lambda _: _positions_of.pop(key, None))
    _positions_of[key] = reference, positions, last, geometry
    return out, indices


def max_pool_grad(g: np.ndarray, indices: np.ndarray, input_shape: Sequence[int]) -> np.ndarray:
    """Gradient of `max_pool` with respect to its input: each `g` goes where its maximum was found."""
    known = _positions_of.get(id(indices))
    if known is None or known[0]() is not indices or not accepts(g):
        return NotImplemented
    _, positions, last, geometry = known
    if tuple(input_shape) != geometry[0] or g.shape != geometry[1]:
        return NotImplemented
    g, g_last = dense(g)
    plan = dnn.cached(_backward, *geometry, _MAX, g_last, last)
    if plan is None:
        return NotImplemented
    out = empty(geometry[0], g_last)
    plan(g, positions, out)
    return out


def avg_pool(
    input: np.ndarray,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> np.ndarray:
    """Means of the windows of `input` (N, C, *spatial)."""
    if not accepts(input) or divisor is not None:
        return NotImplemented
    geometry = _geometry(input.shape, kernel_size, stride, padding, ceil_mode)
    if geometry is None or _overhangs(*geometry):
        return NotImplemented
    input, last = dense(input)
    plan = dnn.cached(_forward, *geometry, _AVG_INCLUDE_PADDING if count_include_pad else _AVG_EXCLUDE_PADDING, last)
    if plan is None:
        return NotImplemented
    out = empty(geometry[1], last)
    plan(input, out)
    return out


def avg_pool_grad(
    g: np.ndarray,
    input_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> np.ndarray:
    """Gradient of `avg_pool` with respect to its input."""
    if not accepts(g) or divisor is not None:
        return NotImplemented
    geometry = _geometry(input_shape, kernel_size, stride, padding, ceil_mode)
    if geometry is None or g.shape != geometry[1] or _overhangs(*geometry):
        return NotImplemented
    g, last = dense(g)
    kind = _AVG_INCLUDE_PADDING if count_include_pad else _AVG_EXCLUDE_PADDING
    plan = dnn.cached(_backward, *geometry, kind, last, last)
    if plan is None:
        return NotImplemented
    out = empty(geometry[0], last)
    plan(g, out)
    return out


def _plane_indices(
    positions: np.ndarray, input_shape: Ints, out_shape: Ints, kernel: Ints, stride: Ints, padding: Ints
) -> np.ndarray:
    """PyTorch's indices of maxima: int64 into the flattened spatial plane, from positions in the window."""
    sizes = input_shape[2:]
    in_window = np.zeros(kernel, np.int64)
    corner = np.zeros((1,) * len(sizes), np.int64)
    for axis in range(len(sizes)):
        step = prod(sizes[axis + 1 :])
        shape = [-1 if a == axis else 1 for a in range(len(sizes))]
        in_window += (np.arange(kernel[axis]) * step).reshape(shape)
        corner = corner + ((np.arange(out_shape[2 + axis]) * stride[axis] - padding[axis]) * step).reshape(shape)
    indices = in_window.ravel().take(positions)
    indices += corner
    return indices


def _all_finite(array: np.ndarray) -> bool:
    """False if a dense array holds NaN or infinity (or squares that overflow): one pass over memory."""
    flat = array.ravel(order="K")
    return bool(np.isfinite(np.dot(flat, flat)))


def _geometry(
    input_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
) -> tuple[Ints, Ints, Ints, Ints, Ints] | None:
    """Hashable (input shape, output shape, kernel, stride, padding), None where these kernels do not apply."""
    if not 3 <= len(input_shape) <= 5 or min(input_shape) < 1 or prod(kernel_size) > _WINDOW_LIMIT:
        return None
    if min(padding) < 0 or any(2 * p > k for p, k in zip(padding, kernel_size, strict=True)):
        return None
    out_shape = list(input_shape[:2])
    for n, k, s, p in zip(input_shape[2:], kernel_size, stride, padding, strict=True):
        span = n + 2 * p - k
        size = (-(-span // s) if ceil_mode else span // s) + 1
        if ceil_mode and (size - 1) * s >= n + p:
            size -= 1  # a window must start inside the input or its left padding
        out_shape.append(size)
    if min(out_shape) < 1:
        return None
    return tuple(input_shape), tuple(out_shape), tuple(kernel_size), tuple(stride), tuple(padding)


def _right_padding(input_shape: Ints, out_shape: Ints, kernel: Ints, stride: Ints, padding: Ints) -> Ints:
    """Padding behind each axis that makes the output as large as it is (less than nothing where input is left over)."""
    sizes = zip(input_shape[2:], out_shape[2:], kernel, stride, padding, strict=True)
    return tuple((o - 1) * s + k - n - p for n, o, k, s, p in sizes)


def _overhangs(*geometry: Ints) -> bool:
    """Whether windows reach past the padding: PyTorch does not count what lies there, oneDNN does."""
    return any(right > left for right, left in zip(_right_padding(*geometry), geometry[-1], strict=True))


def _describe(geometry: Sequence, kind: int, inner: Any) -> tuple[Any, tuple]:
    input_shape, out_shape, kernel, stride, padding = geometry
    shapes = inner(input_shape), inner(out_shape)
    right = dnn.dims(_right_padding(*geometry))
    rest = dnn.dims(stride), dnn.dims(kernel), dnn.dims([0] * len(kernel)), dnn.dims(padding), right
    make = dnn.lib.dnnl_pooling_forward_primitive_desc_create
    desc = dnn.primitive_desc(make, dnn.FORWARD_TRAINING, kind, *shapes, *rest, dnn.attributes())
    return _fast(desc), (*shapes, *rest)


def _fast(desc: Any) -> Any:
    if "jit" not in dnn.implementation(desc):
        raise dnn.Unsupported("no vectorised implementation")
    return desc


def _inner(last: bool) -> Any:
    """Layout inside the primitive: plain NCHW has no vectorised kernel, reordering to blocks is faster."""
    return (lambda shape: layout(shape, True)) if last else dnn.blocked


def _forward(*key: Any) -> dnn.Plan:
    *geometry, kind, last = key
    desc, _ = _describe(geometry, kind, _inner(last))
    outputs = [(dnn.DST, layout(geometry[1], last))]
    if kind == _MAX:
        outputs.append((dnn.WORKSPACE, layout(geometry[1], last, dnn.U8)))
    return dnn.Plan(desc, [(dnn.SRC, layout(geometry[0], last))], outputs)


def _backward(*key: Any) -> dnn.Plan:
    *geometry, kind, g_last, positions_last = key
    hint, arguments = _describe(geometry, kind, _inner(g_last))
    make = dnn.lib.dnnl_pooling_backward_primitive_desc_create
    desc = _fast(dnn.primitive_desc(make, kind, *arguments, hint, dnn.attributes()))
    inputs = [(dnn.DIFF_DST, layout(geometry[1], g_last))]
    if kind == _MAX:
        inputs.append((dnn.WORKSPACE, layout(geometry[1], positions_last, dnn.U8)))
    return dnn.Plan(desc, inputs, [(dnn.DIFF_SRC, layout(geometry[0], g_last))])
