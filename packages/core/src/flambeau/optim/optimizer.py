"""Optimizer: parameter groups, state, and the loop over parameters."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .. import backends
from ..autograd.modes import enable_grad
from ..nn.module import clear_grad
from ..nn.state import from_foreign
from ..tensor import Tensor

_BLOCK = 1 << 15  # elements: the arrays of one block stay in the cache between the passes of an update


class Optimizer:
    """Base class. A subclass gives ``_initial_state`` and ``_update``; both see raw arrays of one parameter.

    State dicts have PyTorch's layout and can be exchanged with it.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if defaults.get("differentiable"):
            raise NotImplementedError("differentiable=True is not supported")
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of Tensors or dicts, not a single Tensor; write [tensor]")
        self.defaults = defaults
        self.state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._step_called = False  # schedules warn when they are stepped first
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; settings that are not given are the defaults.

        ``params`` holds tensors or (name, tensor) pairs. Unknown settings raise ValueError.
        """
        group = dict(param_group)
        params = group["params"]
        if isinstance(params, set):
            raise TypeError("optimizer parameters need an order, but sets have none; pass a list")
        params = [params] if isinstance(params, Tensor) else list(params)
        if params and all(isinstance(param, tuple) for param in params):
            group["param_names"] = [name for name, _ in params]
            params = [param for _, param in params]
        known = {id(param) for other in self.param_groups for param in other["params"]}
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor; make it a parameter, or detach() it")
            if id(param) in known:
                raise ValueError("some parameters appear twice, or in more than one parameter group")
            known.add(id(param))
        group["params"] = params
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        self.param_groups.append(group)

    # -- one step ------------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; ``closure`` recomputes the loss first, which is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self._step_called = True
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state.update(self._initial_state(param.array, group))
                grad = param.grad.array
                if group.get("maximize"):
                    grad = -grad
                self._update(param.array, grad, state, group)
                param._bump_version()
        return loss

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter before its first update, as tensors."""
        return {}

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change ``param`` and the arrays in ``state`` in place. ``grad`` must not be changed."""
        raise NotImplementedError(f"{type(self).__name__} has no _update()")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or with ``set_to_none=False`` fill them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                clear_grad(param, set_to_none)

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {position: {name: value}}, "param_groups": [{settings, "params": [position]}]}``."""
        position = {id(param): i for i, param in enumerate(self._params())}
        return {
            "state": {position[id(param)]: dict(state) for param, state in self.state.items() if state},
            "param_groups": [
                {
                    **{name: value for name, value in group.items() if name != "params"},
                    "params": [position[id(param)] for param in group["params"]],
                }
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over settings and state; the state is copied and cast to the dtype and device of its parameter.

        Raises:
            ValueError: the groups do not have the same numbers of parameters; nothing is changed then.
        """
        saved = state_dict["param_groups"]
        if [len(group["params"]) for group in saved] != [len(group["params"]) for group in self.param_groups]:
            raise ValueError(
                "loaded state dict has other parameter groups than the optimizer: "
                f"{[len(group['params']) for group in saved]} parameters by group "
                f"against {[len(group['params']) for group in self.param_groups]}"
            )
        positions = [i for group in saved for i in group["params"]]
        params = dict(zip(positions, self._params(), strict=True))
        state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        for i, entries in state_dict["state"].items():
            param = params[i]
            state[param] = {name: _state_value(name, value, param) for name, value in entries.items()}
        for group, loaded in zip(self.param_groups, saved, strict=True):
            group.update({name: copy.deepcopy(value) for name, value in loaded.items() if name != "params"})
        self.state = state

    def _params(self) -> Iterator[Tensor]:
        return (param for group in self.param_groups for param in group["params"])

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def _state_value(name: str, value: Any, param: Tensor) -> Any:
    if not isinstance(value, Tensor) and not hasattr(value, "__array__"):
        return copy.deepcopy(value)
    tensor = (value.detach() if isinstance(value, Tensor) else from_foreign(value)).clone()
    if name in ("step", "mu_product"):  # counters: another dtype would change the next steps
        return tensor
    if param.dtype.is_floating_point and tensor.dtype.is_floating_point:
        return tensor.to(device=param.device, dtype=param.dtype)
    return tensor.to(device=param.device)


# -- pieces of updates ---------------------------------------------------------------------------------------------


def new_step() -> Tensor:
    """The step counter of a parameter, as PyTorch keeps it."""
    return Tensor._wrap(np.zeros((), np.float32))


def zeros_like(param: Any) -> Tensor:
    """A state tensor of zeros for a parameter's array."""
    return Tensor._wrap(backends.of(param).xp.zeros_like(param))


def advance(state: dict[str, Any]) -> int:
    """Count one step; returns the number of this step, from 1."""
    state["step"].array += 1
    return int(state["step"].array)


def check_range(**values: float) -> None:
    """ValueError for a negative setting."""
    for name, value in values.items():
        if value < 0.0:
            raise ValueError(f"invalid {name}: {value}; it must not be negative")


def check_betas(betas: Iterable[float]) -> None:
    """ValueError for decay rates outside of [0, 1)."""
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"invalid beta parameter at index {i}: {beta}; it must lie in [0, 1)")


def decayed(grad: Any, param: Any, weight_decay: float) -> Any:
    """The gradient of the loss with the L2 penalty ``weight_decay / 2 * |param|^2``."""
    return grad + weight_decay * param if weight_decay else grad


def blocks(*arrays: Any) -> Iterator[tuple[Any, ...]]:
    """The arrays in pieces that fit the cache, as flat views; as they are where that would not help.

    An update passes over its arrays several times: piece by piece that costs one trip to memory.
    """
    first = arrays[0]
    if first.size <= _BLOCK or not all(isinstance(a, np.ndarray) and a.flags.c_contiguous for a in arrays):
        yield arrays
        return
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, first.size, _BLOCK):
        yield tuple(a[start : start + _BLOCK] for a in flat)
