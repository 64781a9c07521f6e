"""Convolution of any rank, as three ops that are each other's gradients.

Shapes: input (N, C, *spatial), weight (O, C / groups, *kernel), output (N, O, *spatial'). The plain form lays the
windows out as columns and multiplies matrices; a fast kernel replaces it where one is registered.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._op import op
from .conv_columns import col2im, fold, im2col, unfold_windows
from .logic import conj
from .reduce import sum
from .shape import pad, permute, reshape, squeeze, unsqueeze

# The parts of this family, gathered here for the namespace.
__all__ = [
    "col2im", "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "convolution", "convolution_input_grad", "convolution_weight_grad", "fold", "im2col", "output_size",
    "unfold_windows",
]  # fmt: skip


def output_size(n: int, k: int, stride: int, padding: int, dilation: int) -> int:
    """Length of a convolution's output along one dimension."""
    return (n + 2 * padding - dilation * (k - 1) - 1) // stride + 1


def _padded(xp: Any, x: Any, padding: tuple) -> Any:
    if not any(padding):
        return x
    out = xp.zeros(x.shape[:2] + tuple(n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True)), x.dtype)
    out[(slice(None), slice(None), *[slice(p, p + n) for n, p in zip(x.shape[2:], padding, strict=True)])] = x
    return out


def _columns(xp: Any, x: Any, kernel: tuple, out: tuple, stride: tuple, padding: tuple, dilation: tuple) -> Any:
    """Windows of x as (N, C, prod(kernel), prod(out))."""
    x = _padded(xp, x, padding)
    n, c = x.shape[:2]
    if all(k == 1 for k in kernel) and all(s == 1 for s in stride):
        return x.reshape(n, c, 1, -1)
    steps = x.strides[2:]
    shape = (n, c, *kernel, *out)
    strides = (
        *x.strides[:2],
        *(s * d for s, d in zip(steps, dilation, strict=True)),
        *(s * t for s, t in zip(steps, stride, strict=True)),
    )
    windows = xp.lib.stride_tricks.as_strided(x, shape, strides)
    return windows.reshape(n, c, math.prod(kernel), math.prod(out))


def _check(input: Any, weight: Any, groups: int) -> None:
    if input.ndim != weight.ndim:
        raise RuntimeError(
            f"expected an input with {weight.ndim} dimensions (batch, channels, …) for weight "
            f"{list(weight.shape)}, but got shape {list(input.shape)}"
        )
    if input.shape[1] != weight.shape[1] * groups:
        raise RuntimeError(
            f"expected input {list(input.shape)} to have {weight.shape[1] * groups} channels, "
            f"but it has {input.shape[1]} (weight {list(weight.shape)}, groups={groups})"
        )


@op(
    promote="same",
    vjp={
        ("input", "weight", "bias"): lambda g, input, weight, stride, padding, dilation, groups, need: (
            convolution_input_grad(g, conj(weight), tuple(input.shape), stride, padding, dilation, groups)
            if need[0]
            else None,
            convolution_weight_grad(g, conj(input), tuple(weight.shape), stride, padding, dilation, groups)
            if need[1]
            else None,
            sum(g, (0, *range(2, g.ndim))) if need[2] else None,
        )
    },
    samples=lambda t: [
        (t(2, 3, 5, 6), t(4, 3, 3, 3), t(4), (1, 1), (1, 1), (1, 1), 1),
        (t(2, 4, 7, 6), t(4, 2, 3, 2), None, (2, 1), (0, 1), (2, 1), 2),
        (t(2, 3, 8), t(3, 1, 3), t(3), (2,), (1,), (1,), 3),
        (t(1, 2, 4, 4, 3), t(2, 2, 2, 2, 2), None, (1, 2, 1), (0, 1, 0), (1, 1, 1), 1),
        (t(2, 3, 4, 4), t(5, 3, 1, 1), t(5), (1, 1), (0, 0), (1, 1), 1),
    ],
    method=False,
)
def convolution(xp, input, weight, bias, stride, padding, dilation, groups):
    """Cross-correlation of `input` with `weight`; stride, padding, dilation are tuples, one entry per dimension."""
    _check(input, weight, groups)
    kernel = weight.shape[2:]
    out = tuple(map(output_size, input.shape[2:], kernel, stride, padding, dilation))
    if min(out) < 1:
        raise RuntimeError(
            f"the kernel {list(kernel)} (dilation {list(dilation)}) is larger than the padded input "
            f"{[n + 2 * p for n, p in zip(input.shape[2:], padding, strict=True)]}"
        )
    n, o = input.shape[0], weight.shape[0]
    columns = _columns(xp, input, kernel, out, stride, padding, dilation)
    columns = columns.reshape(n, groups, -1, columns.shape[-1])
    result = xp.matmul(weight.reshape(groups, o // groups, -1), columns).reshape(n, o, *out)
    if bias is not None:
        result += bias.reshape(-1, *[1] * len(out))
    return result.astype(input.dtype, copy=False)  # NumPy gives float32 for bfloat16


@op(
    vjp=dict(
        grad_output=lambda g, grad_output_shape, weight, stride, padding, dilation, groups: _crop(
            convolution(g, conj(weight), None, stride, padding, dilation, groups), grad_output_shape
        ),
        weight=lambda g, grad_output, weight_shape, stride, padding, dilation, groups: convolution_weight_grad(
            conj(grad_output), g, weight_shape, stride, padding, dilation, groups
        ),
    ),
    samples=lambda t: [
        (t(2, 4, 5, 6), t(4, 3, 3, 3), (2, 3, 5, 6), (1, 1), (1, 1), (1, 1), 1),
        (t(2, 4, 2, 7), t(4, 2, 3, 2), (2, 4, 7, 6), (2, 1), (0, 1), (2, 1), 2),
    ],
    method=False,
)
def convolution_input_grad(xp, grad_output, weight, input_shape, stride, padding, dilation, groups):
    """The gradient of `convolution` with respect to its input: also the transposed convolution."""
    n, o = grad_output.shape[:2]
    kernel = weight.shape[2:]
    out = grad_output.shape[2:]
    w = weight.reshape(groups, o // groups, -1)
    columns = xp.matmul(w.swapaxes(1, 2), grad_output.reshape(n, groups, o // groups, -1))
    columns = columns.reshape(n, input_shape[1], *kernel, *out)
    full = tuple(s + 2 * p for s, p in zip(input_shape[2:], padding, strict=True))
    result = xp.zeros((n, input_shape[1], *full), columns.dtype)
    for position in np.ndindex(*kernel):
        where = tuple(
            slice(i * d, i * d + s * (m - 1) + 1, s) for i, d, s, m in zip(position, dilation, stride, out, strict=True)
        )
        result[(slice(None), slice(None), *where)] += columns[(slice(None), slice(None), *position)]
    crop = tuple(slice(p, p + s) for s, p in zip(input_shape[2:], padding, strict=True))
    return xp.ascontiguousarray(result[(slice(None), slice(None), *crop)].astype(grad_output.dtype, copy=False))


@op(
    vjp=dict(
        grad_output=lambda g, input, stride, padding, dilation, groups: convolution(
            conj(input), g, None, stride, padding, dilation, groups
        ),
        input=lambda g, grad_output, input_shape, stride, padding, dilation, groups: convolution_input_grad(
            conj(grad_output), g, input_shape, stride, padding, dilation, groups
        ),
    ),
    samples=lambda t: [
        (t(2, 4, 5, 6), t(2, 3, 5, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
        (t(2, 4, 2, 7), t(2, 4, 7, 6), (4, 2, 3, 2), (2, 1), (0, 1), (2, 1), 2),
    ],
    method=False,
)
def convolution_weight_grad(xp, grad_output, input, weight_shape, stride, padding, dilation, groups):
    """The gradient of `convolution` with respect to its weight."""
    n, o = grad_output.shape[:2]
    columns = _columns(xp, input, weight_shape[2:], grad_output.shape[2:], stride, padding, dilation)
    columns = columns.reshape(n, groups, -1, columns.shape[-1])
    g = grad_output.reshape(n, groups, o // groups, -1)
    return xp.matmul(g, columns.swapaxes(2, 3)).sum(0).reshape(weight_shape)


def _crop(x: Any, shape: tuple) -> Any:
    """The first rows of each dimension: an output padding above the stride adds rows that no input made."""
    return x if tuple(x.shape) == tuple(shape) else x[tuple(slice(0, n) for n in shape)]


# -- PyTorch's functions ----------------------------------------------------------------------------------------
def _tuple(value: Any, rank: int, name: str) -> tuple:
    if isinstance(value, int):
        return (value,) * rank
    value = tuple(int(v) for v in value)
    if len(value) == 1:
        return value * rank
    if len(value) != rank:
        raise RuntimeError(f"{name} must be an int or {rank} ints, not {value}")
    return value


def _conv(rank: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    stride, dilation = _tuple(stride, rank, "stride"), _tuple(dilation, rank, "dilation")
    batched = input.ndim == rank + 2
    if not batched:
        if input.ndim != rank + 1:
            raise RuntimeError(
                f"conv{rank}d expects {rank + 1} (unbatched) or {rank + 2} (batched) dimensions, "
                f"but got an input of shape {list(input.shape)}"
            )
        input = unsqueeze(input, 0)
    if isinstance(padding, str):
        if padding == "valid":
            padding = (0,) * rank
        elif padding == "same":
            if any(s != 1 for s in stride):
                raise RuntimeError("padding='same' is not supported for strided convolutions")
            total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
            if any(t % 2 for t in total):
                input = pad(input, [w for t in reversed(total) for w in (0, t % 2)])
            padding = tuple(t // 2 for t in total)
        else:
            raise ValueError(f"padding {padding!r} is not known; use 'same', 'valid' or numbers")
    out = convolution(input, weight, bias, stride, _tuple(padding, rank, "padding"), dilation, groups)
    return out if batched else squeeze(out, 0)


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Convolution of (N, C, L) with (O, C / groups, k)."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Convolution of (N, C, H, W) with (O, C / groups, kh, kw)."""
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Convolution of (N, C, D, H, W) with (O, C / groups, kd, kh, kw)."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(rank, input, weight, bias, stride, padding, output_padding, groups, dilation):
    stride, padding = _tuple(stride, rank, "stride"), _tuple(padding, rank, "padding")
    dilation, extra = _tuple(dilation, rank, "dilation"), _tuple(output_padding, rank, "output_padding")
    batched = input.ndim == rank + 2
    if not batched:
        input = unsqueeze(input, 0)
    if input.ndim != rank + 2 or input.shape[1] != weight.shape[0]:
        raise RuntimeError(f"expected an input with {weight.shape[0]} channels, but got shape {list(input.shape)}")
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise RuntimeError("output padding must be smaller than either stride or dilation")
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(input.shape[2:], stride, padding, dilation, weight.shape[2:], extra, strict=True)
    )
    shape = (input.shape[0], weight.shape[1] * groups, *size)
    out = convolution_input_grad(input, weight, shape, stride, padding, dilation, groups)
    if bias is not None:
        out = out + reshape(bias, (1, -1, *[1] * rank))
    return out if batched else squeeze(out, 0)


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Transposed convolution of (N, C, L) with (C, O / groups, k)."""
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Transposed convolution of (N, C, H, W) with (C, O / groups, kh, kw)."""
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Transposed convolution of (N, C, D, H, W) with (C, O / groups, kd, kh, kw)."""
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_tbc(input: Any, weight: Any, bias: Any, pad: int = 0) -> Any:
    """Convolution of (T, N, C) with (k, C, O), time first: (T', N, O)."""
    if input.ndim != 3 or weight.ndim != 3:
        raise RuntimeError(f"conv_tbc expects 3-d input and weight, not {list(input.shape)} and {list(weight.shape)}")
    return permute(conv1d(permute(input, (1, 2, 0)), permute(weight, (2, 1, 0)), bias, padding=pad), (2, 0, 1))
