"""Batching rules of products, convolutions and normalisations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import ops
from ..tensor import Tensor
from ._call import Call, each, unfold


def _matmul(call: Call) -> Any:
    a, b = call["input"], call["other"]
    ra, rb = call.rank("input"), call.rank("other")
    if ra == 0 or rb == 0:
        raise RuntimeError("matmul: both arguments need at least 1 dimension, but one is 0-d")
    if "other" not in call.batched and (rb <= 2 or ra == 1):
        if ra == 1 and rb > 2:  # (B, n) with (…, n, m): the batch as the rows of every product
            return ops.movedim(ops.matmul(a, b), -2, 0)
        return ops.matmul(a, b)
    if "input" not in call.batched and ra == 1:
        return ops.matmul(a, b) if rb > 1 else ops.matmul(b, a)
    if "input" not in call.batched and ra == 2 and rb == 1:
        return ops.matmul(b, ops.transpose(a, 0, 1))
    # Vectors become matrices, the others get as many dimensions in front as the larger has.
    rank = max(ra, rb, 2)
    a = _matrix(call, "input", ra, rank, -2)
    b = _matrix(call, "other", rb, rank, -1)
    out = ops.matmul(a, b)
    if ra == 1:
        out = ops.squeeze(out, -2)
    return ops.squeeze(out, -1) if rb == 1 else out


def _matrix(call: Call, name: str, rank: int, wanted: int, at: int) -> Tensor:
    if rank == 1:
        call[name] = ops.unsqueeze(call[name], at)
    return call.align(name, wanted)


def _linear(call: Call) -> Any:
    if call.batched == {"input"}:
        return call.run()
    x, bias = call["input"], call["bias"]
    if "weight" in call.batched:
        weight = call["weight"]  # (B, m, n), or (B, n) for a single output
        vector = call.rank("weight") == 1
        weight = ops.unsqueeze(weight, 1) if vector else weight
        lead = call.shape("input")[:-1]
        flat = ((call.size,) if "input" in call.batched else ()) + (-1, x.array.shape[-1])
        out = ops.matmul(ops.reshape(x, flat), ops.transpose(weight, 1, 2))
        out = ops.reshape(out, (call.size, *lead) if vector else (call.size, *lead, weight.array.shape[1]))
    else:
        out = ops.linear(x, call["weight"])
    if bias is None:
        return out
    rank = call.rank("input")
    if "bias" in call.batched:
        bias = ops.reshape(bias, (call.size, *[1] * (rank - call.rank("bias")), *call.shape("bias")))
    return out + bias


# -- convolution -------------------------------------------------------------------------------------------------
def _into_channels(t: Tensor) -> Tensor:
    """(B, N, C, …) as (N, B C, …): every sample is a group of channels."""
    size, n, c = t.array.shape[:3]
    return ops.reshape(ops.movedim(t, 0, 1), (n, size * c, *t.array.shape[3:]))


def _from_channels(t: Tensor, size: int) -> Tensor:
    n, c = t.array.shape[:2]
    return ops.movedim(ops.reshape(t, (n, size, c // size, *t.array.shape[2:])), 1, 0)


def _joined(t: Tensor) -> Tensor:
    """Dimensions 0 and 1 as one."""
    shape = t.array.shape
    return ops.reshape(t, (shape[0] * shape[1], *shape[2:]))


def _settings(call: Call) -> tuple:
    return call["stride"], call["padding"], call["dilation"]


def _convolution(call: Call) -> Any:
    weight, bias, size, groups = call["weight"], call["bias"], call.size, call["groups"]
    if "weight" not in call.batched and "input" in call.batched:
        out = unfold(ops.convolution(_joined(call["input"]), weight, None, *_settings(call), groups), size)
    elif "weight" not in call.batched:
        call.batch("input")
        return _convolution(call)
    elif "input" not in call.batched and groups == 1:
        out = ops.convolution(call["input"], _joined(weight), None, *_settings(call), 1)
        out = _from_channels(out, size)
    else:
        x = _into_channels(call.batch("input"))
        out = ops.convolution(x, _joined(weight), None, *_settings(call), groups * size)
        out = _from_channels(out, size)
    if bias is None:
        return out
    lead = (size,) if "bias" in call.batched else (1,)
    return out + ops.reshape(bias, (*lead, 1, -1, *[1] * (out.array.ndim - 3)))


def _input_grad(call: Call) -> Any:
    shape, size, groups = tuple(call["input_shape"]), call.size, call["groups"]
    g, weight = call.batch("grad_output"), call["weight"]
    if "weight" not in call.batched:
        folded = (size * shape[0], *shape[1:])
        return unfold(ops.convolution_input_grad(_joined(g), weight, folded, *_settings(call), groups), size)
    wide = (shape[0], size * shape[1], *shape[2:])
    out = ops.convolution_input_grad(_into_channels(g), _joined(weight), wide, *_settings(call), groups * size)
    return _from_channels(out, size)


def _weight_grad(call: Call) -> Any:
    shape, size, groups = tuple(call["weight_shape"]), call.size, call["groups"]
    g, x = _into_channels(call.batch("grad_output")), call["input"]
    wide = (size * shape[0], *shape[1:])
    if "input" not in call.batched and groups == 1:
        out = ops.convolution_weight_grad(g, x, wide, *_settings(call), 1)
    else:
        x = _into_channels(call.batch("input"))
        out = ops.convolution_weight_grad(g, x, wide, *_settings(call), groups * size)
    return unfold(out, size)


# -- normalisation -----------------------------------------------------------------------------------------------
def _layer_norm(call: Call) -> Any:
    """Layer and RMS normalisation: the weights of a sample stand at its last dimensions."""
    call.batch("input")
    return _scaled_apart(call, call.run, call.rank("input"), 0)


def _group_norm(call: Call) -> Any:
    """Samples of samples are samples; the weights stand at the channels."""
    rank, size = call.rank("input"), call.size
    call["input"] = _joined(call.batch("input"))
    return _scaled_apart(call, lambda: each(call.run(), lambda t: unfold(t, size)), rank, rank - 2)


def _scaled_apart(call: Call, run: Callable, rank: int, behind: int) -> Any:
    """`run()`; weights that differ between samples are applied to what it gives without any.

    Behind the dimensions of a weight come `behind` ones of an input of `rank` dimensions.
    """
    names = [n for n in ("weight", "bias") if n in call.op.params]
    if not call.batched & set(names):
        return run()
    given = {n: call[n] for n in names}
    for n in names:
        call[n] = None
    out, *statistics = run()
    for n, t in given.items():
        if t is not None:
            lead, shape = ((call.size,), t.array.shape[1:]) if n in call.batched else ((1,), t.array.shape)
            shape = (*lead, *[1] * (rank - len(shape) - behind), *shape, *[1] * behind)
            out = out * ops.reshape(t, shape) if n == "weight" else out + ops.reshape(t, shape)
    return (out, *statistics)


def _batch_norm_train(call: Call) -> Any:
    """Every sample has statistics of its own: its channels are channels of one wide batch."""
    size = call.size
    x = call.batch("input")
    call["input"] = _into_channels(x)
    for name in ("weight", "bias"):
        if call[name] is not None:
            call[name] = _joined(call.batch(name))
    out, mean, var = call.run()
    return (_from_channels(out, size), *each((mean, var), lambda t: unfold(t, size)))


def _class_cross_entropy(call: Call) -> Any:
    """Batches of batches are joined; single vectors become a batch."""
    size = call.size
    for name in ("input", "target"):
        call.batch(name)
    if call.rank("input") == 1:
        return call.run()
    for name in ("input", "target"):
        call[name] = _joined(call[name])
    return each(call.run(), lambda t: unfold(t, size))


RULES = {
    "matmul": _matmul,
    "linear": _linear,
    "convolution": _convolution,
    "convolution_input_grad": _input_grad,
    "convolution_weight_grad": _weight_grad,
    "native_layer_norm": _layer_norm,
    "fused_rms_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "class_cross_entropy": _class_cross_entropy,
    "batch_norm_train": _batch_norm_train,
}
