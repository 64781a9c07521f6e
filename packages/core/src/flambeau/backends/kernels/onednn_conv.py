"""Convolution of rank 1 to 3 with oneDNN: forward, gradient of the input (= transposed convolution) and of the weight.

Arrays are float32 (N, C, *spatial). The result lies in memory as the array that it derives from: C-ordered by default,
channels last when that one is. oneDNN's kernels want blocks of channels; the reorders at the border cost 5 to 15 % of
a 3x3 convolution, which `_layout` avoids where a plain layout is faster. That choice depends on shapes alone: a choice
by measurement could differ between runs, and with it the last bits of the results.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from . import _onednn as dnn
from . import winograd
from ._arrays import accepts, dense, empty, layout

__all__ = ["convolution", "convolution_input_grad", "convolution_weight_grad"]

_DIRECT = 1  # dnnl_convolution_direct

Ints = tuple[int, ...]


def convolution(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> np.ndarray:
    """Cross-correlation of `input` (N, C, *spatial) with `weight` (O, C/groups, *kernel), plus `bias` (O,) or None."""
    if not accepts(input, weight) or (bias is not None and not accepts(bias)):
        return NotImplemented
    geometry = _geometry(input.shape, weight.shape, stride, padding, dilation, groups)
    if geometry is None:
        return NotImplemented
    fast = winograd.convolution(input, weight, bias, geometry)
    if fast is not None:
        return fast
    input, last = dense(input)
    plan = dnn.cached(_forward, *geometry, bias is not None, last)
    if plan is None:
        return NotImplemented
    out = empty(_out_shape(*geometry), last)
    weight = np.ascontiguousarray(weight)
    if bias is None:
        plan(input, weight, out)
    else:
        plan(input, weight, np.ascontiguousarray(bias), out)
    return out


def convolution_input_grad(
    grad_output: np.ndarray,
    weight: np.ndarray,
    input_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> np.ndarray:
    """Gradient of `convolution` with respect to its input, for the cotangent of its output."""
    if not accepts(grad_output, weight):
        return NotImplemented
    geometry = _geometry(input_shape, weight.shape, stride, padding, dilation, groups)
    if geometry is None or grad_output.shape != _out_shape(*geometry):
        return NotImplemented
    fast = winograd.input_grad(grad_output, weight, geometry)
    if fast is not None:
        return fast
    g, last = dense(grad_output)
    plan = dnn.cached(_input_grad, *geometry, last)
    if plan is None:
        return NotImplemented
    out = empty(geometry[0], last)
    plan(g, np.ascontiguousarray(weight), out)
    return out


def convolution_weight_grad(
    grad_output: np.ndarray,
    input: np.ndarray,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> np.ndarray:
    """Gradient of `convolution` with respect to its weight, for the cotangent of its output."""
    if not accepts(grad_output, input):
        return NotImplemented
    geometry = _geometry(input.shape, weight_shape, stride, padding, dilation, groups)
    if geometry is None or grad_output.shape != _out_shape(*geometry):
        return NotImplemented
    fast = winograd.weight_grad(grad_output, input, geometry)
    if fast is not None:
        return fast
    g, g_last = dense(grad_output)
    input, input_last = dense(input)
    plan = dnn.cached(_weight_grad, *geometry, g_last, input_last)
    if plan is None:
        return NotImplemented
    out = np.empty(geometry[1], np.float32)
    plan(g, input, out)
    return out


def _geometry(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[Ints, Ints, Ints, Ints, Ints, int] | None:
    """The hashable description of a convolution, None where these kernels do not apply."""
    geometry = tuple(input_shape), tuple(weight_shape), tuple(stride), tuple(padding), tuple(dilation), groups
    input_shape, weight_shape, *_ = geometry
    if not 3 <= len(input_shape) <= 5 or len(weight_shape) != len(input_shape) or min(padding) < 0:
        return None
    if weight_shape[1] * groups != input_shape[1] or weight_shape[0] % groups:
        return None
    if min(input_shape) < 1 or min(weight_shape) < 1 or min(_out_shape(*geometry)) < 1:
        return None
    return geometry


def _out_shape(input_shape: Ints, weight_shape: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Ints:
    sizes = zip(input_shape[2:], weight_shape[2:], stride, padding, dilation, strict=True)
    spatial = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)
    return (input_shape[0], weight_shape[0], *spatial)


def _layout(pass_: str, geometry: Sequence, last: bool) -> Any:
    """Descriptor maker for the activations inside the primitive: plain, channels last, or oneDNN's own choice."""
    _, weight_shape, stride, padding, dilation, groups = geometry
    pointwise = prod(weight_shape[2:]) == 1
    if last:  # fast without reorders, but for the gradient of full kernels
        blocked = pass_ == "weight" and groups == 1 and not pointwise
        return dnn.descriptor if blocked else lambda shape: layout(shape, True)
    if pointwise and prod(stride) == 1 and not any(padding) and groups == 1:
        return layout  # one matrix product per image, no reorder
    if pass_ == "forward" and max(dilation) > 1 and groups == 1 and weight_shape[1] > 4:
        return lambda shape: layout(shape, True)  # no direct blocked kernel for dilated AVX2 convolution
    return dnn.descriptor


def _parts(geometry: Sequence, pass_: str, last: bool) -> tuple[Any, Any, Any, tuple]:
    """Descriptors for creation of input, weight and output, and the trailing arguments stride ... padding."""
    input_shape, _, stride, padding, dilation, _ = geometry
    make = _layout(pass_, geometry, last)
    padding = dnn.dims(padding)
    spatial = dnn.dims(stride), dnn.dims([d - 1 for d in dilation]), padding, padding
    return make(input_shape), dnn.descriptor(_grouped(geometry)), make(_out_shape(*geometry)), spatial


def _grouped(geometry: Sequence) -> Ints:
    """Shape of the weight as oneDNN sees it: a leading axis of groups where there are several."""
    _, (outs, *rest), *_, groups = geometry
    return (groups, outs // groups, *rest) if groups > 1 else (outs, *rest)


def _weight(geometry: Sequence) -> Any:
    shape = _grouped(geometry)
    return dnn.descriptor(shape, dnn.dense_strides(shape))


def _forward_desc(geometry: Sequence, pass_: str, last: bool, bias: Any = dnn.NULL) -> tuple[Any, tuple, tuple]:
    source, weight, target, spatial = _parts(geometry, pass_, last)
    desc = dnn.primitive_desc(
        dnn.lib.dnnl_convolution_forward_primitive_desc_create,
        *(dnn.FORWARD_TRAINING, _DIRECT, source, weight, bias, target, *spatial, dnn.attributes()),
    )
    return desc, (source, weight, target), spatial


def _fast(desc: Any) -> Any:
    """The descriptor, unless oneDNN has only its reference loops for it: NumPy is faster than those."""
    if dnn.implementation(desc).startswith("ref"):
        raise dnn.Unsupported("reference implementation only")
    return desc


def _forward(*key: Any) -> dnn.Plan:
    *geometry, has_bias, last = key
    bias = dnn.descriptor((geometry[1][0],), (1,)) if has_bias else dnn.NULL
    desc, _, _ = _forward_desc(geometry, "forward", last, bias)
    inputs = [(dnn.SRC, layout(geometry[0], last)), (dnn.WEIGHTS, _weight(geometry))]
    if has_bias:
        inputs.append((dnn.BIAS, bias))
    return dnn.Plan(_fast(desc), inputs, [(dnn.DST, layout(_out_shape(*geometry), last))])


def _input_grad(*key: Any) -> dnn.Plan:
    *geometry, last = key
    hint, (source, weight, target), spatial = _forward_desc(geometry, "input", last)
    desc = dnn.primitive_desc(
        dnn.lib.dnnl_convolution_backward_data_primitive_desc_create,
        *(_DIRECT, source, weight, target, *spatial, hint, dnn.attributes()),
    )
    inputs = [(dnn.DIFF_DST, layout(_out_shape(*geometry), last)), (dnn.WEIGHTS, _weight(geometry))]
    return dnn.Plan(_fast(desc), inputs, [(dnn.DIFF_SRC, layout(geometry[0], last))])


def _weight_grad(*key: Any) -> dnn.Plan:
    *geometry, g_last, input_last = key
    hint, (source, weight, target), spatial = _forward_desc(geometry, "weight", g_last and input_last)
    desc = dnn.primitive_desc(
        dnn.lib.dnnl_convolution_backward_weights_primitive_desc_create,
        *(_DIRECT, source, weight, dnn.NULL, target, *spatial, hint, dnn.attributes()),
    )
    inputs = [(dnn.DIFF_DST, layout(_out_shape(*geometry), g_last)), (dnn.SRC, layout(geometry[0], input_last))]
    return dnn.Plan(_fast(desc), inputs, [(dnn.DIFF_WEIGHTS, _weight(geometry))])
