"""`DistributedDataParallel`: a module whose gradients are those of all processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from .module import Module

__all__ = ["DistributedDataParallel"]


class DistributedDataParallel(Module):
    """Wraps a module that all ranks train: its weights begin as rank 0's, and backward averages the gradients.

    The average of the ranks' gradients is the gradient of the mean loss when all ranks have batches of one size, as in
    PyTorch; ``flambeau.train.fit`` with ``parallel=`` is exact for any sizes. Gradients travel in buckets while
    backward still runs; ``backward()`` returns when all are there. All ranks must call forward and backward alike.
    Parameters that backward does not reach count as zero where another rank reaches them, else their gradient stays
    None. The state dict's keys begin with ``module.``, as in PyTorch.

    Args:
        module: the same on all ranks.
        broadcast_buffers: give all ranks the buffers of rank 0 before each forward in training.
        bucket_cap_mb: MiB of gradients that travel together.
        find_unused_parameters, gradient_as_bucket_view, static_graph: accepted; they change nothing.

    Raises:
        FlambeauError: there is no process group.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Any = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        process_group: Any = None,
        bucket_cap_mb: float = 25,
        find_unused_parameters: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
    ) -> None:
        super().__init__()
        from ..distributed.buckets import GradientBuckets
        from ..distributed.group import _need
        from ..distributed.parallel import broadcast_tensors

        backend = _need(process_group)
        params = [p for p in module.parameters() if p.requires_grad]
        if not params:
            raise RuntimeError("DistributedDataParallel: no parameter of the module requires a gradient")
        self.module = module
        self.broadcast_buffers = broadcast_buffers
        self.require_backward_grad_sync = True
        broadcast_tensors(backend, (*module.parameters(), *module.buffers()))
        self._backend, self._broadcast = backend, broadcast_tensors
        self._buckets = GradientBuckets(backend, params, bucket_cap_mb)
        self._buckets.on_first = self._at_first_gradient

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        from ..autograd.modes import is_grad_enabled

        if self.training and self.broadcast_buffers and self.require_backward_grad_sync:
            self._broadcast(self._backend, self.module.buffers())
        self._buckets.armed = self.require_backward_grad_sync and is_grad_enabled()
        return self.module(*inputs, **kwargs)

    def _at_first_gradient(self) -> None:
        from ..autograd.engine import queue_callback

        size = self._backend.size
        queue_callback(lambda: self._buckets.finish(np.zeros(0), lambda sums: 1 / size))

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within it backward adds up gradients of this rank only; the first one after it averages the sums.

        As in PyTorch, forward must be within it too.
        """
        previous, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = previous
