"""Module: the base class of every layer and model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeVar

from .. import dtypes, ops
from ..autograd.modes import mode
from ..tensor import Tensor
from .hooks import (
    RemovableHandle,
    add_hook,
    call_with_hooks,
    global_backward,
    global_backward_pre,
    global_forward,
    global_forward_pre,
    note_module_path,
    register_module_buffer_registration_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
    registered,
)
from .parameter import Buffer, Parameter
from .state import IncompatibleKeys, load_from_state_dict, load_state_dict, save_to_state_dict, state_dict

__all__ = [
    "Module",
    "register_module_buffer_registration_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
    "register_module_module_registration_hook",
    "register_module_parameter_registration_hook",
]

M = TypeVar("M", bound="Module")
_STORES: dict[str, type] = {
    "_parameters": dict,
    "_buffers": dict,
    "_non_persistent_buffers_set": set,
    "_modules": dict,
    "_forward_hooks": dict,
    "_forward_pre_hooks": dict,
    "_backward_hooks": dict,
    "_backward_pre_hooks": dict,
    "_state_dict_hooks": dict,
    "_state_dict_pre_hooks": dict,
    "_load_state_dict_pre_hooks": dict,
    "_load_state_dict_post_hooks": dict,
}


class Module:
    """A part of a model: parameters, buffers, sub-modules and a ``forward``.

    Assigning a :class:`Parameter`, a :class:`Buffer` or a module to an attribute registers it under that name. An error
    raised inside ``forward`` carries a note with the path of the module that raised it.

    >>> from flambeau import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.body = nn.Linear(3, 2)
    ...
    ...     def forward(self, x):
    ...         return self.body(x).relu()
    >>> [name for name, _ in Net().named_parameters()]
    ['body.weight', 'body.bias']
    """

    dump_patches = False
    _version = 1
    training: bool
    _optional_state: frozenset[str] = frozenset()  # names that a state dict may lack
    _parameters: dict[str, Tensor | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]

    def __init__(self) -> None:
        self.__dict__.update(training=True, **{name: kind() for name, kind in _STORES.items()})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(); define it in the class")

    # -- calling -------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.anomaly is not None:
            with mode.anomaly.inside(self):
                return self._call(args, kwargs)
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            if (
                self._forward_pre_hooks
                or self._forward_hooks
                or self._backward_hooks
                or self._backward_pre_hooks
                or global_forward_pre
                or global_forward
                or global_backward
                or global_backward_pre
            ):
                return call_with_hooks(self, args, kwargs)
            return self.forward(*args, **kwargs)
        except Exception as error:
            note_module_path(error, self)
            raise

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before ``forward``; what it returns, if anything, replaces the arguments.

        ``with_kwargs``: ``hook(module, args, kwargs)``, which returns None or (args, kwargs).
        """
        return add_hook(self._forward_pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after ``forward``; what it returns, if anything, replaces the output.

        ``always_call``: also after an error in ``forward`` or in another hook (with the output so far, or None).
        """
        return add_hook(self._forward_hooks, (hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before the backward pass of the module; what it returns replaces
        ``grad_output``, a tuple with one entry per output."""
        return add_hook(self._backward_pre_hooks, (hook,), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when the gradients of the module's inputs are known; what
        it returns replaces ``grad_input``, a tuple with one entry per positional argument (None for those that get
        no gradient)."""
        return add_hook(self._backward_hooks, (hook,), prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        raise NotImplementedError("register_backward_hook is deprecated in PyTorch; use register_full_backward_hook")

    def register_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before the module's entries go into a state dict."""
        return add_hook(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after the entries of the module and those below it
        went into a state dict; the hook may change it."""
        return add_hook(self._state_dict_hooks, (hook, False))

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        return add_hook(self._state_dict_hooks, (hook, True))

    def register_load_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)``
        on a copy of the state dict before it is matched: the place to rename the keys of old checkpoints."""
        return add_hook(self._load_state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., None], with_module: bool = False
    ) -> RemovableHandle:
        return self.register_load_state_dict_pre_hook(hook if with_module else lambda module, *args: hook(*args))

    def register_load_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after loading; the hook may take keys out of the two lists."""
        return add_hook(self._load_state_dict_post_hooks, hook)

    # -- registration --------------------------------------------------------------------------------------------

    def register_parameter(self, name: str, param: Tensor | None) -> None:
        """Add a parameter; ``None`` reserves the name for one that is absent (a layer without bias)."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"parameter '{name}' must be a nn.Parameter or None, not {type(param).__name__}")
        if param is not None and param._edge is not None:
            raise ValueError(f"parameter '{name}' must be a leaf: a Parameter of the result of an operation is not one")
        self._reserve(name, self._parameters)
        self._parameters[name] = registered("parameter", self, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not trained; ``persistent=False`` keeps it out of ``state_dict()``."""
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"buffer '{name}' must be a Tensor or None, not {type(tensor).__name__}")
        self._reserve(name, self._buffers)
        self._buffers[name] = registered("buffer", self, name, tensor)
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a sub-module under ``name``."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"sub-module '{name}' must be a nn.Module or None, not {type(module).__name__}")
        self._reserve(name, self._modules)
        self._modules[name] = registered("module", self, name, module)

    register_module = add_module

    def _reserve(self, name: str, store: dict[str, Any]) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning '{name}'")
        if not isinstance(name, str) or "." in name or not name:
            raise KeyError(f"a name in a module must be a non-empty string without '.', got {name!r}")
        if name not in store and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists in {type(self).__name__}")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Parameter, Module, Buffer)):
            if "_parameters" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning '{name}'")
            self._forget(name, type(value))
            if isinstance(value, Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, Module):
                self.add_module(name, value)
            else:
                self.register_buffer(name, value, value.persistent)
            return
        own = self.__dict__
        if name in own.get("_parameters", ()):
            if value is not None:
                raise TypeError(f"cannot assign {type(value).__name__} as parameter '{name}' (nn.Parameter or None)")
            own["_parameters"][name] = None
        elif name in own.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"cannot assign {type(value).__name__} as buffer '{name}' (Tensor or None)")
            own["_buffers"][name] = value
        elif name in own.get("_modules", ()):
            if value is not None:
                raise TypeError(f"cannot assign {type(value).__name__} as child module '{name}' (nn.Module or None)")
            own["_modules"][name] = None
        else:
            object.__setattr__(self, name, value)

    def _forget(self, name: str, kind: type) -> None:
        """Make room for a registered value; a name that is already in the right store keeps its position there."""
        own = self.__dict__
        own.pop(name, None)
        for store, stored in (("_parameters", Parameter), ("_buffers", Buffer), ("_modules", Module)):
            if not issubclass(kind, stored):
                own[store].pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        try:  # every pass of every layer comes here for its weights
            return own["_parameters"][name]
        except KeyError:
            pass
        for store in ("_modules", "_buffers"):
            if store in own and name in own[store]:
                return own[store][name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        for store in (self._parameters, self._buffers, self._modules):
            if name in store:
                del store[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a copied or unpickled module; stores that its version did not have yet are empty."""
        self.__dict__.update({name: kind() for name, kind in _STORES.items() if name not in state} | state)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    # -- walking -------------------------------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their dotted paths; a shared module comes once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def _named_members(
        self, store: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, tensor in getattr(module, store).items():
                if tensor is None or id(tensor) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(tensor))
                yield f"{path}.{name}" if path else name, tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All parameters with their dotted paths; a shared one comes once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        return (tensor for _, tensor in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (tensor for _, tensor in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; AttributeError names the part that is missing."""
        module: Module = self
        for part in target.split(".") if target else ():
            found = module._modules.get(part)
            if found is None:
                raise AttributeError(f"{type(module).__name__} has no sub-module '{part}' (looking for '{target}')")
            module = found
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts a module at a dotted path; with ``strict`` there must be one already.

        Raises:
            ValueError: the path is empty. AttributeError: a part of it is missing.
        """
        if not target:
            raise ValueError("cannot set the sub-module without a target name")
        if not isinstance(module, Module):
            raise ValueError(f"set_submodule: expected a Module, got {type(module).__name__}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and name not in parent._modules:
            raise AttributeError(f"{type(parent).__name__} has no sub-module '{name}' (looking for '{target}')")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Tensor:
        return self._get_member("_parameters", target)

    def get_buffer(self, target: str) -> Tensor:
        return self._get_member("_buffers", target)

    def _get_member(self, store: str, target: str) -> Tensor:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        tensor = getattr(module, store).get(name)
        if tensor is None:
            raise AttributeError(f"{type(module).__name__} has no {store[1:-1]} '{name}' (looking for '{target}')")
        return tensor

    # -- changing all at once ------------------------------------------------------------------------------------

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` on every module, children first."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self: M, mode: bool = True) -> M:
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            clear_grad(parameter, set_to_none)

    def _apply(self: M, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> M:
        """Replace the memory of every parameter, gradient and buffer by that of ``fn(tensor)``."""
        seen: set[int] = set()
        for module in self.modules() if recurse else (self,):
            for tensor in chain(module._parameters.values(), module._buffers.values()):
                if tensor is None or id(tensor) in seen:
                    continue
                seen.add(id(tensor))
                tensor.array = fn(tensor.detach()).array
                if tensor.grad is not None:
                    tensor.grad = fn(tensor.grad.detach())
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Move to a device and/or a floating-point dtype.

        Takes ``to(device)``, ``to(dtype)``, ``to(device, dtype)``, ``to(tensor)``, or keyword arguments.
        Parameters stay the same objects, so optimizers keep working. Integer buffers keep their dtype.
        """
        device, dtype = parse_to(*args, **kwargs)
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(f"nn.Module.to only accepts floating point or complex dtypes, got {dtype}")

        def move(tensor: Tensor) -> Tensor:
            wanted = tensor.dtype.is_floating_point or tensor.dtype.is_complex
            return tensor.to(device=device, dtype=dtype if wanted else None)

        return self._apply(move)

    def to_empty(self: M, *, device: Any, recurse: bool = True) -> M:
        """Move to a device without the values."""
        return self._apply(lambda tensor: ops.empty_like(tensor, device=device), recurse)

    def _cast(self: M, dtype: Any) -> M:
        return self._apply(lambda tensor: tensor.to(dtype) if tensor.dtype.is_floating_point else tensor)

    def float(self: M) -> M:
        return self._cast(dtypes.float32)

    def double(self: M) -> M:
        return self._cast(dtypes.float64)

    def half(self: M) -> M:
        return self._cast(dtypes.float16)

    def bfloat16(self: M) -> M:
        return self._cast(dtypes.bfloat16)

    def type(self: M, dst_type: Any) -> M:
        return self._apply(lambda tensor: tensor.to(dst_type))

    def cpu(self: M) -> M:
        return self.to("cpu")

    def cuda(self: M, device: int | None = None) -> M:
        return self.to("cuda" if device is None else f"cuda:{device}")

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Parameters and persistent buffers by dotted path, sharing memory with the module.

        ``keep_vars=True`` returns the parameters themselves instead of detached tensors.
        """
        return state_dict(self, destination, prefix, keep_vars)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """The module's own entries, without those below it; a subclass may add to them."""
        save_to_state_dict(self, destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Matches the module's own entries; a subclass may rename keys before it calls this."""
        load_from_state_dict(
            self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def get_extra_state(self) -> Any:
        """What goes into the state dict under ``_extra_state`` besides tensors, for subclasses that define it."""
        raise RuntimeError(f"{type(self).__name__} defines no get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Takes what :meth:`get_extra_state` gave; called by :meth:`load_state_dict`."""
        raise RuntimeError(f"{type(self).__name__} defines no set_extra_state()")

    def _own_state(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._parameters.items():
            if tensor is not None:
                yield name, tensor
        for name, tensor in self._buffers.items():
            if tensor is not None and name not in self._non_persistent_buffers_set:
                yield name, tensor

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy ``state_dict`` into this module; nothing is changed when anything does not fit.

        ``strict=False`` allows missing and unexpected keys (they are returned), not wrong sizes. ``assign=True`` takes
        the given tensors, with their dtypes, instead of copying into the present ones.

        Raises:
            RuntimeError: one message that lists all missing and unexpected keys and all wrong sizes.
        """
        return load_state_dict(self, state_dict, strict, assign)

    # -- showing -------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What a layer shows between its parentheses."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {indent(repr(module))}" for name, module in self._modules.items()]
        if len(lines) == 1 and not children:
            return f"{self._get_name()}({extra})"
        if not lines and not children:
            return f"{self._get_name()}()"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines + children) + "\n)"


def indent(text: str) -> str:
    """Indent all lines but the first by two spaces."""
    return text.replace("\n", "\n  ")


def clear_grad(parameter: Tensor, set_to_none: bool) -> None:
    """Forget a gradient, or fill it with zeros in place."""
    if set_to_none or parameter.grad is None:
        parameter.grad = None
    else:
        parameter.grad = parameter.grad.detach()
        parameter.grad.array[...] = 0


def parse_to(*args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False) -> tuple[Any, Any]:
    """The (device, dtype) that the arguments of a ``to()`` call ask for."""
    for value in args:
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, dtypes.dtype):
            dtype = value
        elif not isinstance(value, bool) and value is not None:
            device = value
    return device, dtype
