"""Batch normalisation in training, forward and backward: with Numba for plain NCHW, else with oneDNN.

oneDNN's kernels for plain NCHW do not use vector instructions well; in blocks of channels they are several times
faster, which pays for the reorders. Where no blocked kernel exists the op's NumPy form is as fast: `NotImplemented`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _onednn as dnn
from ._arrays import accepts, compiled, dense, empty, layout

__all__ = ["batch_norm_grad", "batch_norm_train"]

_SCALE_AND_SHIFT = 2 | 4  # dnnl_use_scale, dnnl_use_shift
_WORTH_NUMBA = 1 << 16  # elements: smaller arrays do not even import Numba


def batch_norm_train(
    input: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalises each channel of `input` (N, C, *spatial) over the batch; (output, mean, biased variance)."""
    if not 3 <= input.ndim <= 5:
        return NotImplemented
    channels = input.shape[1]
    weight = np.ones(channels, np.float32) if weight is None else weight
    bias = np.zeros(channels, np.float32) if bias is None else bias
    if not accepts(input, weight, bias):
        return NotImplemented
    code = compiled("numba_batch_norm") if input.size >= _WORTH_NUMBA and input.flags.c_contiguous else None
    if code is not None:
        return code.forward(input, np.ascontiguousarray(weight), np.ascontiguousarray(bias), float(eps))
    input, last = dense(input)
    plan = dnn.cached(_forward, input.shape, float(eps), last)
    if plan is None:
        return NotImplemented
    out, mean, var = empty(input.shape, last), np.empty(channels, np.float32), np.empty(channels, np.float32)
    plan(input, np.ascontiguousarray(weight), np.ascontiguousarray(bias), out, mean, var)
    return out, mean, var


def batch_norm_grad(
    g: np.ndarray,
    input: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    weight: np.ndarray | None,
    eps: float,
    need: Sequence[bool] = (True, True, True),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `batch_norm_train` with respect to input, weight and bias, for the cotangent `g` of the output.

    All three come out of one pass over memory, whatever `need` says.
    """
    if not 3 <= input.ndim <= 5 or g.shape != input.shape:
        return NotImplemented
    channels = input.shape[1]
    weight = np.ones(channels, np.float32) if weight is None else weight
    if not accepts(g, input, mean, var, weight):
        return NotImplemented
    vectors = [np.ascontiguousarray(v).reshape(channels) for v in (mean, var, weight)]
    code = compiled("numba_batch_norm") if input.size >= _WORTH_NUMBA and input.flags.c_contiguous else None
    if code is not None:
        return code.backward(np.ascontiguousarray(g), input, *vectors, float(eps))
    g, g_last = dense(g)
    input, last = dense(input)
    plan = dnn.cached(_backward, input.shape, float(eps), g_last, last)
    if plan is None:
        return NotImplemented
    dx, dweight, dbias = empty(input.shape, last), np.empty(channels, np.float32), np.empty(channels, np.float32)
    plan(g, input, *vectors, dx, dweight, dbias)
    return dx, dweight, dbias


def _desc(shape: tuple[int, ...], eps: float, inner: Any) -> Any:
    make = dnn.lib.dnnl_batch_normalization_forward_primitive_desc_create
    args = dnn.FORWARD_TRAINING, inner, inner, eps, _SCALE_AND_SHIFT, dnn.attributes()
    return _fast(dnn.primitive_desc(make, *args))


def _fast(desc: Any) -> Any:
    if "jit" not in dnn.implementation(desc):
        raise dnn.Unsupported("no vectorised implementation")
    return desc


def _forward(shape: tuple[int, ...], eps: float, last: bool) -> dnn.Plan:
    vector, outer = dnn.descriptor((shape[1],), (1,)), layout(shape, last)
    inputs = [(dnn.SRC, outer), (dnn.SCALE, vector), (dnn.SHIFT, vector)]
    outputs = [(dnn.DST, outer), (dnn.MEAN, vector), (dnn.VARIANCE, vector)]
    return dnn.Plan(_desc(shape, eps, dnn.blocked(shape)), inputs, outputs)


def _backward(shape: tuple[int, ...], eps: float, g_last: bool, last: bool) -> dnn.Plan:
    vector, outer, outer_g = dnn.descriptor((shape[1],), (1,)), layout(shape, last), layout(shape, g_last)
    # Three reorders cost more than the blocked kernel gains over the one for channels last.
    inner = outer if last and g_last and shape[1] % 8 == 0 else dnn.blocked(shape)
    make = dnn.lib.dnnl_batch_normalization_backward_primitive_desc_create
    hint = _desc(shape, eps, inner)
    args = dnn.BACKWARD, inner, inner, inner, eps, _SCALE_AND_SHIFT, hint, dnn.attributes()
    desc = _fast(dnn.primitive_desc(make, *args))
    inputs = [(dnn.DIFF_DST, outer_g), (dnn.SRC, outer)]
    inputs += [(dnn.MEAN, vector), (dnn.VARIANCE, vector), (dnn.SCALE, vector)]
    return dnn.Plan(desc, inputs, [(dnn.DIFF_SRC, outer), (dnn.DIFF_SCALE, vector), (dnn.DIFF_SHIFT, vector)])
