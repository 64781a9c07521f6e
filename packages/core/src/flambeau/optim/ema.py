"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..nn.module import Module
from ..nn.parameter import Buffer
from ..nn.state import copy_into
from ..tensor import Tensor


class EMA(Module):
    """A copy of ``model`` whose weights follow it: ``w += (1 - decay) * (model's w - w)`` at each :meth:`update`.

    The first update copies. Floating-point buffers are averaged too (``use_buffers=False`` copies them), other
    buffers are copied. With ``warmup`` the decay is at most (1 + n) / (10 + n) after n updates. Calling it
    runs the averaged copy; the state dict has the keys of PyTorch's ``AveragedModel``.

    >>> from flambeau import nn
    >>> model = nn.Linear(2, 1)
    >>> ema = EMA(model, decay=0.99)
    >>> ema.update(model)
    >>> int(ema.n_averaged)
    1
    """

    def __init__(self, model: Module, decay: float = 0.999, use_buffers: bool = True, warmup: bool = False) -> None:
        super().__init__()
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay must lie in [0, 1], got {decay}")
        self.decay = decay
        self.use_buffers = use_buffers
        self.warmup = warmup
        self.n_averaged = Buffer(Tensor._wrap(np.zeros((), np.int64)))
        self.module = copy.deepcopy(model).requires_grad_(False).eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update(self, model: Module) -> None:
        """Move the averaged weights towards those of ``model``."""
        count = int(self.n_averaged)
        decay = min(self.decay, (1 + count) / (10 + count)) if self.warmup else self.decay
        pairs = [(a, b, True) for a, b in zip(self.module.parameters(), model.parameters(), strict=True)]
        pairs += [(a, b, self.use_buffers) for a, b in zip(self.module.buffers(), model.buffers(), strict=True)]
        for average, current, averaged in pairs:
            if count == 0 or not averaged or not average.dtype.is_floating_point:
                copy_into(average, current)
            else:
                average.array += (1 - decay) * (current.detach().to(average.device).array - average.array)
                average._bump_version()
        self.n_averaged.array += 1

    update_parameters = update
