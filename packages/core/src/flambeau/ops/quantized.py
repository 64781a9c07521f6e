"""Linear layers whose weights are stored as 8- or 4-bit integers, and the way back to floats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import op
from .matmul import matmul


def _rows(x: Any) -> Any:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _linear(xp: Any, input: Any, weight: Any, bias: Any) -> Any:
    out = xp.matmul(_rows(input), weight.T)
    if bias is not None:
        out += bias
    return out.astype(input.dtype, copy=False).reshape(input.shape[:-1] + weight.shape[:1])


def _check(input: Any, scale: Any, features: int, groups: tuple[int, ...]) -> None:
    if input.shape[-1:] != (features,):
        raise RuntimeError(f"the last dimension of the input is {input.shape[-1]}, but the layer takes {features}")
    if tuple(scale.shape) != groups:
        raise RuntimeError(f"the scales have shape {tuple(scale.shape)}, but these weights need {groups}")


@op(method=False, samples=lambda t: [(_bytes(t, 5, 4), t(5))])
def dequantize_int8(xp, weight, scale):
    """The floats that int8 weights (out, in) with one scale for each row, (out,), stand for."""
    return weight.astype(scale.dtype) * scale[:, None]


@op(method=False, samples=lambda t: [(_nibbles(t, 3, 4), t(3, 2), 7, 4)])
def dequantize_int4(xp, weight, scale, features, group=64):
    """The floats (out, features) that 4-bit weights stand for.

    weight is uint8 (out, ceil(features / 2)): element 2 i in the low half of byte i, 2 i + 1 in the high half, each
    plus 8. scale is (out, ceil(features / group)): one for `group` elements of a row.
    """
    values = xp.stack([weight & 15, weight >> 4], -1).reshape(weight.shape[0], -1)[:, :features]
    return (values.astype(scale.dtype) - 8) * xp.repeat(scale, group, 1)[:, :features]


@op(
    vjp=dict(input=lambda g, weight, scale: matmul(g, dequantize_int8(weight, scale)), bias=lambda g: g),
    samples=lambda t: [(t(3, 4), _bytes(t, 5, 4), t(5), t(5)), (t(2, 3, 4), _bytes(t, 2, 4), t(2))],
    method=False,
)  # fmt: skip
def linear_int8(xp, input, weight, scale, bias=None):
    """input @ (weight * scale[:, None]).T + bias: input (…, in), weight int8 (out, in), scale and bias (out,)."""
    _check(input, scale, weight.shape[1], (weight.shape[0],))
    return _linear(xp, input, dequantize_int8(weight, scale), bias)


@op(
    vjp=dict(
        input=lambda g, weight, scale, input_shape, group: matmul(
            g, dequantize_int4(weight, scale, input_shape[-1], group)
        ),
        bias=lambda g: g,
    ),
    samples=lambda t: [
        (t(3, 6), _nibbles(t, 5, 3), t(5, 2), t(5), 4),
        (t(2, 3, 7), _nibbles(t, 2, 4), t(2, 1)),
    ],
    method=False,
)
def linear_int4(xp, input, weight, scale, bias=None, group=64):
    """input @ dequantize_int4(weight, scale, in, group).T + bias: input (…, in), weight uint8 (out, ceil(in / 2))."""
    features = 2 * weight.shape[1] - (input.shape[-1] % 2)
    _check(input, scale, features, (weight.shape[0], -(-features // group)))
    return _linear(xp, input, dequantize_int4(weight, scale, features, group), bias)


def _bytes(t: Any, *shape: int) -> Any:
    return t(*shape, low=-127, high=128, dtype="int8")


def _nibbles(t: Any, *shape: int) -> Any:
    return t(*shape, low=0, high=256, dtype="int64").astype(np.uint8)
