"""Batch normalisation whose statistics are those of the batches of all ranks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backends
from ..autograd.function import Function, once_differentiable
from ..tensor import Tensor
from . import group

__all__ = ["sync_batch_norm", "weightless"]


class _Weightless:
    """Within it this rank computes along, but its samples count for nothing (it has no batch when others have)."""

    active = False

    def __enter__(self) -> None:
        self.active = True

    def __exit__(self, *error: Any) -> None:
        self.active = False


weightless = _Weightless()


class _SyncBatchNorm(Function):
    @staticmethod
    def forward(ctx: Any, input: Any, weight: Any, bias: Any, eps: float, found: dict[str, Any]) -> Any:
        backend, x = group.current(), input.array
        xp = backends.of(x).xp
        axes, shape = (0, *range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
        dtype = np.float32 if x.dtype.itemsize == 2 else x.dtype
        channels = x.shape[1]
        own = 0 if weightless.active else math.prod(x.shape) // max(1, channels)
        mean = x.mean(axes, dtype=dtype) if own else xp.zeros(channels, dtype)
        squares = xp.square(x - mean.reshape(shape)).sum(axes, dtype=dtype) if own else xp.zeros(channels, dtype)
        rows = backend.all_gather(xp.concatenate([xp.full(1, own, dtype), mean, squares]).astype(dtype))
        # Means and sums of squares of parts give those of the whole (Chan et al. 1979), in the order of the ranks.
        counts = rows[:, 0].astype(np.float64)
        total = float(counts.sum())
        if total < 2:
            raise ValueError(f"expected more than 1 value per channel when training, got {int(total)} over all ranks")
        means, spreads = rows[:, 1 : channels + 1], rows[:, channels + 1 :]
        share = (counts / total)[:, None].astype(dtype)
        mean = (means * share).sum(0)
        var = (spreads / dtype_of(total, dtype) + share * xp.square(means - mean)).sum(0)
        rstd = 1 / xp.sqrt(var + dtype_of(eps, dtype))
        hat = (x - mean.reshape(shape)) * rstd.reshape(shape)
        out = hat
        if weight is not None:
            out = out * weight.array.reshape(shape)
        if bias is not None:
            out = out + bias.array.reshape(shape)
        found.update(mean=mean, var=var, total=total)
        ctx.hat, ctx.rstd, ctx.total, ctx.axes, ctx.shape = hat, rstd, total, axes, shape
        ctx.scale = None if weight is None else weight.array
        ctx.weightless = weightless.active
        return Tensor._wrap(out.astype(x.dtype, copy=False))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Any) -> Any:
        backend, gradient = group.current(), g.array
        xp = backends.of(gradient).xp
        dbias = gradient.sum(ctx.axes, dtype=ctx.rstd.dtype)
        dweight = (gradient * ctx.hat).sum(ctx.axes, dtype=ctx.rstd.dtype)
        if ctx.weightless:
            dbias, dweight = dbias * 0, dweight * 0
        sums = xp.concatenate([dbias, dweight])
        backend.start_sum(sums).wait()
        n = len(dbias)
        total = ctx.total
        dx = gradient - (sums[:n].reshape(ctx.shape) + ctx.hat * sums[n:].reshape(ctx.shape)) / dtype_of(
            total, sums.dtype
        )
        factor = ctx.rstd if ctx.scale is None else ctx.rstd * ctx.scale
        dx = dx * factor.reshape(ctx.shape)
        if ctx.weightless:
            dx = dx * 0
        needs = ctx.needs_input_grad
        return (
            Tensor._wrap(dx.astype(gradient.dtype, copy=False)),
            Tensor._wrap(dweight) if needs[1] else None,
            Tensor._wrap(dbias) if needs[2] else None,
            None,
            None,
        )


def dtype_of(number: float, dtype: Any) -> Any:
    """A scalar of that dtype, so that no float64 creeps in."""
    return np.dtype(dtype).type(number)


def sync_batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, momentum: float, eps: float
) -> Any:
    """Training-mode batch normalisation over all ranks of (N, C, ...); updates the running statistics in place.

    All ranks must call it. The gradient is exact (that of the whole batch); it has no second derivative.
    """
    found: dict[str, Any] = {}
    out = _SyncBatchNorm.apply(input, weight, bias, eps, found)
    if running_mean is not None:
        unbiased = found["var"] * (found["total"] / (found["total"] - 1))
        for running, new in ((running_mean, found["mean"]), (running_var, unbiased)):
            running.array *= 1 - momentum
            running.array += (new * momentum).astype(running.array.dtype)
            running._bump_version()
    return out
