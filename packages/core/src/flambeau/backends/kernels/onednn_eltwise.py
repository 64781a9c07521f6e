"""Elementwise kernels with oneDNN, where one pass with all threads beats NumPy's several with one."""

import numpy as np

from . import _onednn as dnn
from ._arrays import accepts

__all__ = ["relu_grad"]

_RELU_FROM_OUTPUT = 0x100  # dnnl_eltwise_relu_use_dst_for_bwd
_WORTH_A_CALL = 1 << 14  # elements: below, NumPy is done before a plan has started


def relu_grad(g: np.ndarray, out: np.ndarray) -> np.ndarray:
    """`g` where `out`, the output of relu, is positive and 0 elsewhere (NaN there, where `g` is not finite)."""
    if out.size < _WORTH_A_CALL or g.shape != out.shape or not accepts(g, out):
        return NotImplemented
    if out.flags.c_contiguous:
        g = np.ascontiguousarray(g)  # what comes from a mean is one number for many elements: a copy is soon made
    elif not _same_dense(g, out):
        return NotImplemented
    plan = dnn.cached(_relu_grad, out.size)
    if plan is None:
        return NotImplemented
    result = np.empty_like(out)
    plan(g, out, result)
    return result


def _same_dense(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether both arrays lie in memory without gaps and in the same order of elements."""
    if a.flags.c_contiguous and b.flags.c_contiguous:
        return True
    if a.strides != b.strides:
        return False
    order = sorted(range(a.ndim), key=a.strides.__getitem__, reverse=True)
    return a.transpose(order).flags.c_contiguous


def _relu_grad(size: int) -> dnn.Plan:
    line = dnn.descriptor((size,), (1,))
    args = line, line, 0.0, 0.0
    make = dnn.lib.dnnl_eltwise_forward_primitive_desc_create
    hint = dnn.primitive_desc(make, dnn.FORWARD_TRAINING, _RELU_FROM_OUTPUT, *args, dnn.attributes())
    make = dnn.lib.dnnl_eltwise_backward_primitive_desc_create
    desc = dnn.primitive_desc(make, _RELU_FROM_OUTPUT, line, *args, hint, dnn.attributes())
    return dnn.Plan(desc, [(dnn.DIFF_DST, line), (dnn.DST, line)], [(dnn.DIFF_SRC, line)])
