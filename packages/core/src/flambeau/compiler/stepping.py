"""Optimizer steps of a replay: Adam on many small parameters as a few operations on one vector, with the same bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.engine import mark_modified
from ..optim import optimizer as hooks
from ..optim.adam import Adam, AdamW
from ..tensor import Tensor

_SMALL = 1 << 16  # elements of all parameters together: above, the calls cost little beside the work
_NAMES = ("exp_avg", "exp_avg_sq", "step")


class FlatAdam:
    """The update of `Adam` for parameters whose averages lie one behind the other in two vectors."""

    def __init__(self, optimizer: Any, params: Sequence[Tensor]):
        self.optimizer, self.params = optimizer, list(params)
        self._views: list[tuple[np.ndarray, ...]] = []  # of each parameter: its averages and its step counter

    @staticmethod
    def takes(optimizer: Any, params: Sequence[Tensor]) -> bool:
        """Whether the optimizer and its parameters are of the kind that this is for."""
        if type(optimizer) not in (Adam, AdamW) or len(params) < 2 or len(optimizer.param_groups) != 1:
            return False
        dtypes = {p.array.dtype for p in params}
        few = sum(p.array.size for p in params) <= _SMALL
        return few and dtypes in ({np.dtype(np.float32)}, {np.dtype(np.float64)})

    def step(self, gradients: Sequence[np.ndarray]) -> bool:
        """Does the step; False, with nothing done, where a setting or the state asks for the optimizer itself."""
        optimizer = self.optimizer
        if hooks._pre_hooks or hooks._post_hooks or optimizer._step_pre or optimizer._step_post:
            return False
        if len(optimizer.param_groups) != 1:
            return False
        group = optimizer.param_groups[0]
        if group["weight_decay"] or group["amsgrad"] or group["maximize"]:
            return False
        if not self._gathered():
            return False
        lr, eps = float(group["lr"]), group["eps"]
        beta1, beta2 = (float(beta) for beta in group["betas"])
        g, m, v, work = self._gradient, self._mean, self._square, self._work
        np.concatenate([a.reshape(-1) for a in gradients], out=g)
        self._steps += 1
        step = int(self._steps[0])
        scale = lr / (1 - beta1**step)
        correction = math.sqrt(1 - beta2**step)
        np.multiply(g, 1 - beta1, out=work)
        m *= beta1
        m += work
        np.multiply(g, g, out=work)
        work *= 1 - beta2
        v *= beta2
        v += work
        np.sqrt(v, out=work)
        work += eps * correction
        np.divide(m, work, out=work)
        work *= scale * correction
        for p, change in zip(self.params, self._changes, strict=True):
            array = p.array
            array -= change
            mark_modified(array)
        optimizer._step_called = True
        return True

    def _gathered(self) -> bool:
        """Whether the optimizer's state lies in the vectors; it is brought there if that can be done."""
        state = self.optimizer.state
        try:
            now = [[state[p][name].array for name in _NAMES] for p in self.params]
        except (KeyError, AttributeError):  # before the first step
            return False
        if self._views and all(
            a is b for found, views in zip(now, self._views, strict=True) for a, b in zip(found, views, strict=True)
        ):
            return True
        dtype = self.params[0].array.dtype
        counters = {(float(c), c.dtype) for _, _, c in now}
        alike = all(
            a.dtype == dtype and a.shape == p.array.shape and p.array.dtype == dtype
            for p, (*averages, _) in zip(self.params, now, strict=True)
            for a in averages
        )
        if not alike or len(counters) != 1:
            return False
        self._mean, self._square = (np.concatenate([found[k].reshape(-1) for found in now]) for k in (0, 1))
        self._steps = np.array([c for _, _, c in now])
        self._gradient, self._work = np.empty_like(self._mean), np.empty_like(self._mean)
        self._views, self._changes, start = [], [], 0
        for i, p in enumerate(self.params):
            piece, shape = slice(start, start + p.array.size), p.array.shape
            start += p.array.size
            self._changes.append(self._work[piece].reshape(shape))
            counter = self._steps[i : i + 1].reshape(())
            self._views.append((self._mean[piece].reshape(shape), self._square[piece].reshape(shape), counter))
            for name, view in zip(_NAMES, self._views[-1], strict=True):
                state[p][name].array = view
        return True
