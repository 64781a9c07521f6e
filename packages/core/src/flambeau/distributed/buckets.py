"""Flat buckets of gradients, summed over the ranks while backward still runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import backends
from ..autograd import engine
from ..tensor import Tensor

__all__ = ["GradientBuckets"]


class _Bucket:
    def __init__(self, params: list[Tensor], xp: Any) -> None:
        self.params = params
        self.flat = xp.empty(sum(p.array.size for p in params), params[0].array.dtype)
        self.slices, at = [], 0
        for p in params:
            self.slices.append(slice(at, at + p.array.size))
            at += p.array.size
        self.waiting = len(params)
        self.work: Any = None


class GradientBuckets:
    """Sums the gradients of `params` over the ranks.

    The parameters are packed from the last to the first, which is about the order in which backward reaches them. As
    soon as all gradients of a bucket are final its sum begins (buckets in a fixed order, the same on all ranks), and
    goes on while backward computes the others.

    Args:
        cap_mb: size of a bucket in MiB; a larger parameter has one of its own.
        wire: type of what travels, such as bfloat16's, for float32 gradients; they are added in float32.
    """

    def __init__(self, backend: Any, params: Sequence[Tensor], cap_mb: float = 25, wire: Any = None) -> None:
        if not cap_mb > 0:
            raise ValueError(f"bucket_cap_mb must be positive, not {cap_mb}")
        self.backend, self.wire = backend, wire
        self.params = list(params)
        self.buckets = _pack(self.params, cap_mb * 2**20)
        self._place = {id(p): (b, s) for b in self.buckets for p, s in zip(b.params, b.slices, strict=True)}
        self.ready_ids: set[int] = set()
        self._next = 0  # the first bucket whose sum has not begun
        self._handles = [p.register_post_accumulate_grad_hook(self._on_gradient) for p in self.params]
        engine.early_hooks += 1
        self.armed = False
        self.on_first: Any = None  # called when the first gradient of a backward arrives

    def close(self) -> None:
        """Takes the hooks away."""
        if self._handles:
            engine.early_hooks -= 1
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _on_gradient(self, param: Tensor) -> None:
        if not self.armed or id(param) in self.ready_ids:
            return
        if not self.ready_ids and self.on_first is not None:
            self.on_first()
        self._fill(param)
        self._launch()
        for bucket in self.buckets[: self._next]:
            bucket.work.advance()  # MPI makes progress when it is asked only

    def _fill(self, param: Tensor) -> None:
        bucket, part = self._place[id(param)]
        bucket.flat[part] = 0 if param.grad is None else param.grad.array.reshape(-1)
        self.ready_ids.add(id(param))
        bucket.waiting -= 1

    def _launch(self) -> None:
        while self._next < len(self.buckets) and not self.buckets[self._next].waiting:
            bucket = self.buckets[self._next]
            wire = self.wire if bucket.flat.dtype == np.float32 else None
            bucket.work = self.backend.start_sum(bucket.flat, wire, "buckets")
            self._next += 1

    def finish(self, extra: np.ndarray, scale: Any) -> np.ndarray:
        """Sums what has not been summed yet, waits, and writes the sums times ``scale(extra)`` into ``.grad``.

        Args:
            extra: float64 numbers to sum along (such as a loss and a count).
            scale: function of their sums that gives the factor.

        A parameter that has no gradient on any rank keeps none. Returns the sums of `extra`.
        """
        numbers = np.concatenate([np.asarray(extra, np.float64), [p.grad is not None for p in self.params]])
        for param in self.params:
            if id(param) not in self.ready_ids:
                self._fill(param)
        self._launch()
        work = _sum_numbers(self.backend, numbers)
        for bucket in self.buckets:
            bucket.work.wait()
        numbers = work()
        sums, used = numbers[: len(extra)], numbers[len(extra) :]
        factor = scale(sums)
        for param, any_used in zip(self.params, used, strict=True):
            if any_used:
                bucket, part = self._place[id(param)]
                total = bucket.flat[part].reshape(param.array.shape)
                # Not in place: the gradient may share its memory with another's.
                param.grad = Tensor._wrap(total * total.dtype.type(factor))
        for bucket in self.buckets:
            bucket.waiting, bucket.work = len(bucket.params), None
        self.ready_ids.clear()
        self._next = 0
        self.armed = False
        return sums


def _sum_numbers(backend: Any, numbers: np.ndarray) -> Any:
    """Begins to sum a few numbers; returns the function that waits for the result (on the host)."""
    xp = np if backend.name == "mpi" else backend.cupy
    held = xp.asarray(numbers)
    work = backend.start_sum(held, None, "buckets")

    def result() -> np.ndarray:
        work.wait()
        return held if xp is np else held.get()

    return result


def _pack(params: Sequence[Tensor], cap: float) -> list[_Bucket]:
    """Buckets of one dtype each, by the order of their last parameter, backwards."""
    buckets: list[_Bucket] = []
    open_: dict[Any, list[Tensor]] = {}
    sizes: dict[Any, int] = {}

    def close(dtype: Any) -> None:
        group = open_.pop(dtype)
        buckets.append(_Bucket(group, backends.of(group[0].array).xp))
        sizes[dtype] = 0

    for param in reversed(params):
        dtype = param.array.dtype
        if open_.get(dtype) and sizes[dtype] + param.array.nbytes > cap:
            close(dtype)
        open_.setdefault(dtype, []).append(param)
        sizes[dtype] = sizes.get(dtype, 0) + param.array.nbytes
    for dtype in list(open_):
        close(dtype)
    return buckets
