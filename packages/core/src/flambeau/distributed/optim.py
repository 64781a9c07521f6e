"""ZeRO stage 1: each rank keeps the optimizer's state of its share of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..optim.optimizer import Optimizer
from ..tensor import Tensor
from . import group as groups

__all__ = ["ZeroRedundancyOptimizer"]


class ZeroRedundancyOptimizer(Optimizer):
    """An optimizer whose state is divided among the ranks (Rajbhandari et al. 2020, stage 1).

    Each parameter belongs to one rank, which updates it and gives the others the result; the largest go first to the
    rank that has least. Gradients must be reduced before (`DistributedDataParallel`, or ``fit``). The weights are
    those of the plain optimizer bit for bit, for rules that treat every parameter by itself (all but LBFGS).

    Args:
        params: parameters or groups, the same on all ranks.
        optimizer_class: such as ``flambeau.optim.AdamW``; `defaults` are its settings.

    ``state_dict()`` is collective: it gathers the whole state on all ranks, in the layout of the plain optimizer, so it
    loads into any number of ranks and into the plain optimizer. `shard_state` has only what this rank keeps.
    """

    def __init__(self, params: Iterable[Any], optimizer_class: type[Optimizer], **defaults: Any) -> None:
        backend = groups._need()
        self._backend = backend
        super().__init__(params, defaults)
        self._owner = _owners([p for g in self.param_groups for p in g["params"]], backend.size)
        shares = [
            {**g, "params": [p for p in g["params"] if self._owner[id(p)] == backend.rank]} for g in self.param_groups
        ]
        self._kept = [i for i, share in enumerate(shares) if share["params"]]
        self.optim: Any = None
        if self._kept:
            self.optim = optimizer_class([shares[i] for i in self._kept], **defaults)
        # Settings that the class fills in, e.g. betas, are shown in all groups, on ranks without a share too.
        example = optimizer_class([Tensor._wrap(np.zeros(1, np.float32)).requires_grad_()], **defaults)
        for g in self.param_groups:
            for name, value in example.param_groups[0].items():
                g.setdefault(name, value)
        self.defaults = example.defaults

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates this rank's share, then all ranks get all parameters."""
        loss = closure() if closure is not None else None
        if self.optim is not None:
            for own, i in zip(self.optim.param_groups, self._kept, strict=True):
                own.update({n: v for n, v in self.param_groups[i].items() if n not in ("params", "param_names")})
            self.optim.step()
        self._share()
        return loss

    def _share(self) -> None:
        """Each rank broadcasts its parameters that have a gradient, in one flat array for each dtype."""
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        for rank in range(self._backend.size):
            mine = [p for p in params if self._owner[id(p)] == rank]
            for dtype in dict.fromkeys(p.array.dtype for p in mine):
                self._broadcast([p for p in mine if p.array.dtype == dtype], rank)

    def _broadcast(self, params: list[Tensor], rank: int) -> None:
        from .. import backends

        xp = backends.of(params[0].array).xp
        flat = xp.concatenate([p.array.reshape(-1) for p in params])
        self._backend.broadcast(flat, rank)
        if rank != self._backend.rank:
            at = 0
            for p in params:
                p.array[...] = flat[at : at + p.array.size].reshape(p.array.shape)
                p._bump_version()
                at += p.array.size

    def shard_state(self) -> dict[int, dict[str, Any]]:
        """What this rank keeps: position of a parameter -> its state."""
        if self.optim is None:
            return {}
        positions = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        return {positions[id(p)]: dict(state) for p, state in self.optim.state.items() if state}

    def groups_state(self) -> list[dict[str, Any]]:
        """The settings of the groups, as in a state dict."""
        return super().state_dict()["param_groups"]

    def state_dict(self) -> dict[str, Any]:
        """The state of the plain optimizer; all ranks must call it."""
        shards = self._backend.gather_objects(_to_arrays(self.shard_state()))
        merged: dict[int, Any] = {}
        for shard in shards:
            merged.update(_to_tensors(shard))
        return {"state": dict(sorted(merged.items())), "param_groups": self.groups_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a whole state (of this or of the plain optimizer) and keeps this rank's share."""
        params = [p for g in self.param_groups for p in g["params"]]
        mine = {
            i: s
            for i, s in state_dict["state"].items()
            if i < len(params) and self._owner[id(params[i])] == self._backend.rank
        }
        super().load_state_dict({**state_dict, "state": mine})
        if self.optim is not None:
            self.optim.state.clear()
            self.optim.state.update(self.state)
        self.state.clear()

    def consolidate_state_dict(self, to: int = 0) -> None:
        """For PyTorch's callers: `state_dict` gathers by itself."""


def _owners(params: list[Tensor], size: int) -> dict[int, int]:
    load = [0] * size
    owner = {}
    for p in sorted(params, key=lambda p: -p.array.nbytes):
        rank = load.index(min(load))
        owner[id(p)] = rank
        load[rank] += p.array.nbytes
    return owner


def _to_arrays(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Array(value.detach().cpu().array)
    if isinstance(value, dict):
        return {k: _to_arrays(v) for k, v in value.items()}
    return [_to_arrays(v) for v in value] if isinstance(value, list) else value


def _to_tensors(value: Any) -> Any:
    if isinstance(value, _Array):
        return Tensor._wrap(value.array)
    if isinstance(value, dict):
        return {k: _to_tensors(v) for k, v in value.items()}
    return [_to_tensors(v) for v in value] if isinstance(value, list) else value


class _Array:
    """A tensor on its way to another rank."""

    def __init__(self, array: Any) -> None:
        self.array = array
