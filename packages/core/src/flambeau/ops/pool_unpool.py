"""Placing pooled values back: the gradient of max pooling, and max unpooling. Input (N, C, *spatial)."""

from __future__ import annotations

import math
from typing import Any

from ._op import op
from .conv import _tuple
from .index import gather
from .shape import reshape, unsqueeze


def _pooled(rank: int, input: Any, function: Any) -> Any:
    """Runs `function` on a batched input, adding and removing the batch dimension where there is none."""
    if input.ndim == rank + 2:
        return function(input)
    if input.ndim != rank + 1:
        raise RuntimeError(f"expected {rank + 1} or {rank + 2} dimensions, but got shape {list(input.shape)}")
    out = function(unsqueeze(input, 0))
    return tuple(o[0] for o in out) if isinstance(out, tuple) else out[0]


def _flat_planes(xp: Any, indices: Any, shape: tuple) -> Any:
    """Positions within each plane (N, C, …) as positions in the whole array of `shape`, one after another."""
    planes, size = math.prod(shape[:2]), math.prod(shape[2:])
    return (indices.reshape(planes, math.prod(indices.shape[2:])) + (xp.arange(planes) * size)[:, None]).ravel()


@op(
    vjp=dict(g=lambda g, indices: _at(g, indices)),
    samples=lambda t: [(t(2, 3, 2, 2), t(2, 3, 2, 2, low=0, high=16, dtype="int64"), (2, 3, 4, 4))],
    method=False,
)
def max_pool_grad(xp, g, indices, input_shape):
    """`g` added at the flat plane positions `indices` into zeros of `input_shape`."""
    out = xp.zeros(math.prod(input_shape), g.dtype)
    xp.add.at(out, _flat_planes(xp, indices, tuple(input_shape)), g.reshape(-1))
    return out.reshape(input_shape)


def _at(g: Any, indices: Any) -> Any:
    flat = reshape(g, (*g.shape[:2], math.prod(g.shape[2:])))
    index = reshape(indices, (*indices.shape[:2], math.prod(indices.shape[2:])))
    return reshape(gather(flat, 2, index), tuple(indices.shape))


@op(
    vjp=dict(input=lambda g, indices: _at(g, indices)),
    samples=lambda t: [(t(1, 2, 1), t(1, 2, 1, low=0, high=4, dtype="int64"), (1, 2, 4))],
    method=False,
)
def max_unpool(xp, input, indices, output_shape):
    """`input` written at the flat plane positions `indices` into zeros of `output_shape`."""
    size = math.prod(output_shape[2:])
    if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= size):
        raise RuntimeError(
            f"max_unpool: the indices span {int(indices.min())} to {int(indices.max())}, "
            f"but a plane of size {list(output_shape[2:])} has {size} places"
        )
    out = xp.zeros(math.prod(output_shape), input.dtype)
    out[_flat_planes(xp, indices, tuple(output_shape))] = input.reshape(-1)
    return out.reshape(output_shape)


def _unpool(rank: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any) -> Any:
    kernel = _tuple(kernel_size, rank, "kernel_size")
    stride = kernel if stride is None else _tuple(stride, rank, "stride")
    padding = _tuple(padding, rank, "padding")
    if tuple(indices.shape) != tuple(input.shape):
        raise RuntimeError(f"max_unpool: indices {list(indices.shape)} must have the shape {list(input.shape)}")
    if getattr(indices, "array", indices).dtype.kind not in "iu":
        raise RuntimeError("max_unpool: indices must be int64, as max pooling with return_indices=True gives them")
    usual = [(n - 1) * s + k - 2 * p for n, s, k, p in zip(input.shape[-rank:], stride, kernel, padding, strict=True)]
    if output_size is not None:
        sizes = [int(n) for n in output_size]
        sizes = sizes[2:] if len(sizes) == rank + 2 else sizes
        if len(sizes) != rank:
            raise ValueError(f"output_size must have {rank} or {rank + 2} entries, not {len(output_size)}")
        for d, (n, want, s) in enumerate(zip(sizes, usual, stride, strict=True)):
            if not want - s < n < want + s:
                raise ValueError(
                    f"invalid output_size {sizes}: dimension {d} must be between {want - s} and {want + s}"
                )
        usual = sizes
    index = indices if input.ndim == rank + 2 else unsqueeze(indices, 0)
    return _pooled(rank, input, lambda x: max_unpool(x, index, (*x.shape[:2], *usual)))


def max_unpool1d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    """The partial inverse of max pooling over (N, C, L): zeros except at `indices`."""
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    """The partial inverse of max pooling over (N, C, H, W): zeros except at `indices`."""
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    """The partial inverse of max pooling over (N, C, D, H, W): zeros except at `indices`."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)
