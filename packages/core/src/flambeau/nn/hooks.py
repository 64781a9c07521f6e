"""Hooks of modules, and the module path that errors carry."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..autograd.modes import mode
from ..ops._op import op
from ..ops.create import zeros_like
from ..tensor import Tensor, as_array

if TYPE_CHECKING:
    from .module import Module

Hooks = dict[int, tuple]


class RemovableHandle:
    """Returned by ``register_*_hook``; :meth:`remove` takes the hook away. Usable in a ``with`` statement."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Any]) -> None:
        self.id = next(self._ids)
        self._hooks = hooks

    def remove(self) -> None:
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()


def add_hook(hooks: dict[int, Any], hook: Any, prepend: bool = False) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    if prepend:
        others = list(hooks.items())
        hooks.clear()
        hooks[handle.id] = hook
        hooks.update(others)
    else:
        hooks[handle.id] = hook
    return handle


# -- hooks of all modules ---------------------------------------------------------------------------------------------
# They run before a module's own. Entries are those of the modules: (hook, with_kwargs), (hook, with_kwargs,
# always_call), (hook,).
global_forward_pre: Hooks = {}
global_forward: Hooks = {}
global_backward_pre: Hooks = {}
global_backward: Hooks = {}
global_registration: dict[str, Hooks] = {"buffer": {}, "module": {}, "parameter": {}}


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, args)`` before the forward pass of every module."""
    return add_hook(global_forward_pre, (hook, False))


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call ``hook(module, args, output)`` after the forward pass of every module."""
    return add_hook(global_forward, (hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_output)`` before the backward pass of every module."""
    return add_hook(global_backward_pre, (hook,))


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_input, grad_output)`` after the backward pass of every module."""
    return add_hook(global_backward, (hook,))


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, name, buffer)`` when a module gets a buffer; what it returns replaces the buffer."""
    return add_hook(global_registration["buffer"], (hook,))


def register_module_module_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, name, submodule)`` when a module gets a sub-module; what it returns replaces it."""
    return add_hook(global_registration["module"], (hook,))


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, name, parameter)`` when a module gets a parameter; what it returns replaces it."""
    return add_hook(global_registration["parameter"], (hook,))


def registered(kind: str, module: Module, name: str, value: Any) -> Any:
    """The value that the registration hooks leave."""
    for (hook,) in list(global_registration[kind].values()):
        changed = hook(module, name, value)
        value = value if changed is None else changed
    return value


# -- calling ----------------------------------------------------------------------------------------------------------
def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``module.forward`` with all hooks around it."""
    called: set[int] = set()
    output = None
    try:
        for hook, with_kwargs in [*global_forward_pre.values(), *module._forward_pre_hooks.values()]:
            if with_kwargs:
                changed = hook(module, args, kwargs)
                if changed is not None:
                    if not (isinstance(changed, tuple) and len(changed) == 2):
                        raise RuntimeError(
                            "a forward pre-hook with kwargs must return None or a tuple of (new_args, new_kwargs), "
                            f"got {type(changed).__name__}"
                        )
                    args, kwargs = changed
            else:
                changed = hook(module, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        boundary = None
        pre = [hook for (hook,) in [*global_backward_pre.values(), *module._backward_pre_hooks.values()]]
        post = [hook for (hook,) in [*global_backward.values(), *module._backward_hooks.values()]]
        if pre or post:
            boundary = _Boundary(module, pre, post)
            args = boundary.around_inputs(args)
        output = module.forward(*args, **kwargs)
        for key, (hook, with_kwargs, _) in [*global_forward.items(), *module._forward_hooks.items()]:
            called.add(key)
            changed = hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)
            if changed is not None:
                output = changed
        return output if boundary is None else boundary.around_outputs(output)
    except Exception:
        # Hooks that asked for it run after a failure too; their own failures must not hide the first one.
        for key, (hook, with_kwargs, always) in [*global_forward.items(), *module._forward_hooks.items()]:
            if always and key not in called:
                try:
                    changed = hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)
                    output = output if changed is None else changed
                except Exception as error:
                    warnings.warn(f"forward hook with always_call=True raised as well: {error}", stacklevel=2)
        raise


@op(
    vjp=dict(tensors=lambda g, arrived: arrived(g)),
    samples=lambda t: [([t(3), t(2, 2)], list)],
    method=False,
)
def module_boundary(xp, tensors, arrived):
    """The tensors themselves, as one node: ``arrived(cotangents)`` sees them together and gives those that go on."""
    return tuple(tensors)


class _Boundary:
    """The backward hooks of one call of a module: one node around its inputs, one around its outputs."""

    def __init__(self, module: Module, pre: list[Callable[..., Any]], post: list[Callable[..., Any]]) -> None:
        self.module = module
        self.pre = pre
        self.post = post
        self.inputs: list[int] = []  # positions of the arguments that get a gradient
        self.outputs: list[int] = []
        self.n_outputs = 0
        self.args: tuple[Any, ...] = ()
        self.grad_output: tuple | None = None

    def around_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.args = args
        self.inputs, passed = _through(args, self._inputs_arrived)
        return passed

    def around_outputs(self, output: Any) -> Any:
        if not isinstance(output, Tensor | tuple):
            warnings.warn(
                "backward hooks need a forward() that returns a tensor or a tuple of tensors; those of "
                f"{type(self.module).__name__} are not called",
                stacklevel=4,
            )
            return output
        values = output if isinstance(output, tuple) else (output,)
        self.n_outputs = len(values)
        self.outputs, values = _through(values, self._outputs_arrived)
        if not isinstance(output, tuple):
            return values[0]
        return type(output)(*values) if hasattr(output, "_fields") else values

    def _outputs_arrived(self, g: Sequence[Any]) -> list[Any]:
        recording, grads = _wrapped(g)
        full = _spread(grads, self.outputs, self.n_outputs)
        for hook in self.pre:
            changed = hook(self.module, full)
            if changed is not None:
                full = _same_length(changed, full, "grad_output")
        self.grad_output = full
        if not self.inputs:  # nothing will arrive at the inputs: the hooks are due now
            for hook in self.post:
                changed = hook(self.module, (None,) * len(self.args), full)
                if changed is not None and not (isinstance(changed, tuple) and all(c is None for c in changed)):
                    raise RuntimeError(
                        "a backward hook of a module where no input requires a gradient should always return None "
                        "or None for all gradients"
                    )
            self.grad_output = None
        return _unwrapped([full[k] for k in self.outputs], recording)

    def _inputs_arrived(self, g: Sequence[Any]) -> list[Any]:
        if self.grad_output is None:
            return list(g)
        recording, grads = _wrapped(g)
        full = _spread(grads, self.inputs, len(self.args))
        # As in PyTorch, tensors that get no gradient have one of zeros here.
        full = tuple(
            zeros_like(a) if g is None and isinstance(a, Tensor) else g for a, g in zip(self.args, full, strict=True)
        )
        for hook in self.post:
            changed = hook(self.module, full, self.grad_output)
            if changed is not None:
                full = _same_length(changed, full, "grad_input")
        self.grad_output = None
        return _unwrapped([full[k] for k in self.inputs], recording)


def _through(values: tuple[Any, ...], arrived: Callable[[Sequence[Any]], list[Any]]) -> tuple[list[int], tuple]:
    """The values with those that get a gradient sent through one node, and their positions."""
    chosen = [k for k, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad]
    if not chosen or not mode.grad:
        return [], values
    passed = list(values)
    for k, tensor in zip(chosen, module_boundary([values[k] for k in chosen], arrived), strict=True):
        passed[k] = tensor
    return chosen, tuple(passed)


def _wrapped(g: Sequence[Any]) -> tuple[bool, list[Any]]:
    """Whether the backward pass is recorded, and the cotangents as Tensors."""
    recording = any(isinstance(x, Tensor) for x in g)
    return recording, [x if x is None or recording else Tensor._wrap(as_array(x)) for x in g]


def _unwrapped(grads: Sequence[Any], recording: bool) -> list[Any]:
    return [g if g is None or recording else g.array for g in grads]


def _spread(grads: Sequence[Any], positions: Sequence[int], count: int) -> tuple:
    full: list[Any] = [None] * count
    for k, g in zip(positions, grads, strict=True):
        full[k] = g
    return tuple(full)


def _same_length(changed: Any, full: tuple, what: str) -> tuple:
    changed = changed if isinstance(changed, tuple) else (changed,)
    if len(changed) != len(full):
        raise RuntimeError(
            f"a backward hook returned an invalid number of {what}: got {len(changed)}, but expected {len(full)}"
        )
    return changed


# -- errors -----------------------------------------------------------------------------------------------------------
def note_module_path(error: Exception, module: Module) -> None:
    """Keep one note on ``error`` with the path of the failing module, longer at each module the error passes."""
    failing = error.__dict__.get("_module_path")
    if failing is None:
        path, kind = "", type(module).__name__
        notes = error.__dict__.setdefault("__notes__", [])
        position = len(notes)
        notes.append("")
    else:
        child, path, kind, position = failing
        name = next((name for name, candidate in module.named_modules() if candidate is child), None)
        if not name:
            return
        path = f"{name}.{path}" if path else name
    error.__dict__["_module_path"] = (module, path, kind, position)
    where = f"{type(module).__name__}.{path} ({kind})" if path else kind
    error.__dict__["__notes__"][position] = f"in {where}"
