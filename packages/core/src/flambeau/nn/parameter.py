"""Parameters and buffers: tensors that a module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..tensor import Tensor


class Parameter(Tensor):
    """A tensor that is trained: assigning one to a :class:`Module` attribute registers it.

    It shares memory with ``data`` and requires a gradient unless told otherwise.

    >>> import flambeau
    >>> Parameter(flambeau.zeros(2, 3)).requires_grad
    True
    """

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        self.array = _memory(self, data)
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(Tensor):
    """A tensor that belongs to a module's state but is not trained; assigning one registers it.

    ``persistent=False`` keeps it out of ``state_dict()``.
    """

    persistent = True

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        self.array = _memory(self, data)
        self.persistent = persistent


def _memory(owner: Tensor, data: Tensor | None) -> Any:
    if data is None:
        return ops.empty(0).array
    if not isinstance(data, Tensor):
        kind = type(owner).__name__
        raise TypeError(f"{kind} data must be a Tensor, not {type(data).__name__}; use flambeau.tensor(data)")
    return data.array


def new_parameter(*shape: int, device: Any = None, dtype: Any = None) -> Parameter:
    """An uninitialised parameter; a layer's ``reset_parameters`` fills it."""
    return Parameter(ops.empty(*shape, dtype=dtype, device=device))
