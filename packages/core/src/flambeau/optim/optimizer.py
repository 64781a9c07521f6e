"""Optimizer: parameter groups, state, hooks, and the loop over parameters."""

from __future__ import annotations

import copy
import functools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..autograd.engine import mark_modified
from ..autograd.modes import enable_grad, mode
from ..nn.hooks import RemovableHandle, add_hook
from ..nn.module import clear_grad
from ..nn.state import from_foreign
from ..tensor import Tensor
from .together import Tables
from .updates import check_switches, plain, unplain

required = object()  # as a default in custom optimizers: every group must give the setting
_pre_hooks: dict[int, Any] = {}
_post_hooks: dict[int, Any] = {}
_HOOKS = ("_step_pre", "_step_post", "_state_pre", "_state_post", "_load_pre", "_load_post")
_COUNTERS = ("step", "mu_product")  # another dtype would change the steps that follow


class Optimizer:
    """Base class. A subclass gives ``_initial_state`` and ``_rule``, or, as in PyTorch, its own ``step``.

    State dicts have PyTorch's layout and can be exchanged with it. ``foreach``, ``fused`` and ``capturable``, which
    choose an implementation there, are accepted by the optimizers that have them in PyTorch and change nothing.
    Complex parameters are updated as pairs of real numbers, 16-bit ones in float32 and then rounded.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, not a single Tensor;"
                " write [tensor]"
            )
        check_switches(defaults)
        self.defaults = defaults
        self.state: dict[Any, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._set_up()
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def _set_up(self) -> None:
        """What is neither settings nor state."""
        self._step_called = False  # schedules warn when they are stepped first
        self._stepping = False
        self._tables = Tables()
        for name in _HOOKS:
            setattr(self, name, {})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.step)  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_up()
        self.__dict__.update(state)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; settings that are not given are the defaults.

        ``params`` holds tensors or (name, tensor) pairs.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group).__name__}")
        group = dict(param_group)
        group["params"], names = _unpacked(group["params"])
        if names:
            group["param_names"] = names
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            group.setdefault(name, default)
        own = {id(param) for param in group["params"]}
        if len(own) < len(group["params"]):
            message = "optimizer contains a parameter group with duplicate parameters; each is updated several times"
            warnings.warn(message, UserWarning, stacklevel=3)
        for other in self.param_groups:
            if ("param_names" in group) != ("param_names" in other):
                kind = "with names" if "param_names" in group else "without names"
                raise ValueError(
                    "all optimizer param groups should be with/without names. "
                    f"cannot add param group {kind} to the optimizer"
                )
            if any(id(param) in own for param in other["params"]):
                raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(group)

    # -- one step ------------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; ``closure`` recomputes the loss first, which is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            update = self._rule(group)
            maximize = group.get("maximize", False)
            params = [param for param in group["params"] if param.grad is not None]
            together = getattr(update, "together", None)
            if together is not None and params and self._tables.update(index, params, self, group, together):
                for param in params:
                    mark_modified(param.array)
                continue
            for param in params:
                array, grad = param.array, param.grad.array
                if grad.shape != array.shape:
                    shapes = f"{tuple(grad.shape)}, the parameter {tuple(array.shape)}"
                    raise RuntimeError(f"{type(self).__name__}.step: a gradient has the shape {shapes}")
                if maximize:
                    grad = -grad
                state = self.state[param]
                if array.dtype.kind == "f" and array.dtype.itemsize > 2:
                    if not state:
                        state.update(self._initial_state(array, group))
                    update(array, grad, state)
                else:
                    self._update_converted(update, array, grad, state, group)
                mark_modified(array)
        return loss

    def _update_converted(
        self, update: Callable[..., None], array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        work = plain(array)
        if not state:
            made = self._initial_state(work, group)
            state.update({name: Tensor._wrap(unplain(value.array, array)) for name, value in made.items()})
        # The counters are shared, so that they advance in the state itself.
        converted = {
            n: v if n in _COUNTERS else Tensor._wrap(plain(v.array)) for n, v in state.items() if v is not None
        }
        update(work, plain(grad), converted)
        for name, value in converted.items():
            if name not in state or state[name] is None:
                state[name] = Tensor._wrap(unplain(value.array, array))
            elif array.dtype.kind != "c" and name not in _COUNTERS and value.array is not state[name].array:
                state[name].array[...] = value.array
        if array.dtype.kind != "c":
            array[...] = work

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter (an array) before its first update, as tensors."""
        return {}

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        """The function of (parameter array, gradient array, state) that does one update of this group in place.

        It must not change the gradient. The group's settings are read once a step, not once a parameter. An attribute
        ``together`` of the function names the compiled kernel that does the same for all parameters at once.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither step() nor _rule()")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or with ``set_to_none=False`` fill them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    clear_grad(param, set_to_none)

    # -- hooks ---------------------------------------------------------------------------------------------------

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """``hook(optimizer, args, kwargs)`` runs before each step; it may return new (args, kwargs)."""
        return add_hook(self._step_pre, hook, False)  # type: ignore[attr-defined]

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """``hook(optimizer, args, kwargs)`` runs after each step."""
        return add_hook(self._step_post, hook, False)  # type: ignore[attr-defined]

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """``hook(optimizer)`` runs before :meth:`state_dict`."""
        return add_hook(self._state_pre, hook, prepend)  # type: ignore[attr-defined]

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """``hook(optimizer, state_dict)`` may change the state dict, or return another one."""
        return add_hook(self._state_post, hook, prepend)  # type: ignore[attr-defined]

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """``hook(optimizer, state_dict)`` gets a shallow copy of what is to be loaded; it may return another one."""
        return add_hook(self._load_pre, hook, prepend)  # type: ignore[attr-defined]

    def register_load_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """``hook(optimizer)`` runs after :meth:`load_state_dict`."""
        return add_hook(self._load_post, hook, prepend)  # type: ignore[attr-defined]

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {position: {name: value}}, "param_groups": [{settings, "params": [position]}]}``."""
        for hook in list(self._state_pre.values()):  # type: ignore[attr-defined]
            hook(self)
        position: dict[int, int] = {}
        for i, param in enumerate(self._params()):
            position.setdefault(id(param), i)
        result = {
            "state": {
                position[id(param)] if isinstance(param, Tensor) else param: dict(state)
                for param, state in self.state.items()
                if state
            },
            "param_groups": [
                {
                    **{name: value for name, value in group.items() if name != "params"},
                    "params": [position[id(param)] for param in group["params"]],
                }
                for group in self.param_groups
            ],
        }
        for hook in list(self._state_post.values()):  # type: ignore[attr-defined]
            changed = hook(self, result)
            result = result if changed is None else changed
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over settings and state; the state is copied and cast to the dtype and device of its parameter.

        Raises:
            ValueError: the groups do not have the same numbers of parameters; nothing is changed then.
        """
        state_dict = dict(state_dict)
        for hook in list(self._load_pre.values()):  # type: ignore[attr-defined]
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        saved = state_dict["param_groups"]
        if [len(group["params"]) for group in saved] != [len(group["params"]) for group in self.param_groups]:
            raise ValueError(
                "loaded state dict has other parameter groups than the optimizer: "
                f"{[len(group['params']) for group in saved]} parameters by group "
                f"against {[len(group['params']) for group in self.param_groups]}"
            )
        positions = [i for group in saved for i in group["params"]]
        params = dict(zip(positions, self._params(), strict=True))
        state: dict[Any, dict[str, Any]] = defaultdict(dict)
        for i, entries in state_dict["state"].items():
            if i in params:
                param = params[i]
                state[param] = {name: _state_value(name, value, param) for name, value in entries.items()}
            else:  # of no parameter: an optimizer's own
                state[i] = entries
        groups = []
        for group, loaded in zip(self.param_groups, saved, strict=True):
            settings = {name: _setting(value) for name, value in loaded.items() if name != "params"}
            groups.append({**group, **settings, "params": group["params"]})
        self.param_groups[:] = groups
        self.state = state
        for hook in list(self._load_post.values()):  # type: ignore[attr-defined]
            hook(self)

    def _params(self) -> Iterator[Tensor]:
        return (param for group in self.param_groups for param in group["params"])

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def _unpacked(params: Any) -> tuple[list[Tensor], list[str]]:
    """The tensors of a group, checked, and their names (none when they come without)."""
    if isinstance(params, set):
        raise TypeError("optimizer parameters need an order, but sets have none; pass a list")
    params = [params] if isinstance(params, Tensor) else list(params)
    names = [param[0] for param in params if isinstance(param, tuple)]
    if names and len(names) < len(params):
        raise ValueError("all optimizer params should be with/without names. Some param names are missing")
    tensors = [param[1] if isinstance(param, tuple) else param for param in params]
    for param in tensors:
        if not isinstance(param, Tensor):
            raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(param).__name__}")
        if not param.is_leaf:
            raise ValueError("can't optimize a non-leaf Tensor; make it a parameter, or detach() it")
    return tensors, names


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array__")


def _setting(value: Any) -> Any:
    """A copy of a group's setting; learning rates may be tensors, of this library or another."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    return from_foreign(value).clone() if hasattr(value, "__array__") else copy.deepcopy(value)


def _state_value(name: str, value: Any, param: Tensor) -> Any:
    if isinstance(value, dict):
        return {key: _state_value(key, item, param) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_state_value("", item, param) for item in value)
    if not _is_tensor(value):
        return copy.deepcopy(value)
    tensor = (value.detach() if isinstance(value, Tensor) else from_foreign(value)).clone()
    if name in _COUNTERS:
        return tensor
    if param.dtype.is_floating_point and tensor.dtype.is_floating_point:
        return tensor.to(device=param.device, dtype=param.dtype)
    return tensor.to(device=param.device)


# -- hooks of all optimizers -----------------------------------------------------------------------------------------


def _with_hooks(step: Callable) -> Callable:
    """``step`` between its hooks; a step that calls its base class's runs them once."""

    @functools.wraps(step)
    def run(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self._stepping:
            return step(self, *args, **kwargs)
        if mode.intercept is not None and hasattr(mode.intercept, "optimizer_step"):
            return mode.intercept.optimizer_step(self, args, kwargs)
        self._step_called = True
        for hook in (*_pre_hooks.values(), *self._step_pre.values()):  # type: ignore[attr-defined]
            changed = hook(self, args, kwargs)
            if changed is not None:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise RuntimeError(f"a step pre-hook must return None or (args, kwargs), but got {changed!r}")
                args, kwargs = changed
        self._stepping = True
        try:
            result = step(self, *args, **kwargs)
        finally:
            self._stepping = False
        for hook in (*self._step_post.values(), *_post_hooks.values()):  # type: ignore[attr-defined]
            hook(self, args, kwargs)
        return result

    return run


Optimizer.step = _with_hooks(Optimizer.step)  # type: ignore[method-assign]


def register_optimizer_step_pre_hook(hook: Callable) -> RemovableHandle:
    """``hook(optimizer, args, kwargs)`` runs before each step of every optimizer."""
    return add_hook(_pre_hooks, hook, False)


def register_optimizer_step_post_hook(hook: Callable) -> RemovableHandle:
    """``hook(optimizer, args, kwargs)`` runs after each step of every optimizer."""
    return add_hook(_post_hooks, hook, False)
