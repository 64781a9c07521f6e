"""State dicts: making one, and loading one: everything is checked first, then copied."""

from __future__ import annotations

import functools
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensor import Tensor, to_array

if TYPE_CHECKING:
    from .module import Module

_EXTRA = "_extra_state"
_PLAN = "_plan"
_SHOWN = 20  # keys listed in an error before "and N more"


class IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What ``load_state_dict`` could not match."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()


def _has_extra_state(module: Module) -> bool:
    from .module import Module

    return type(module).get_extra_state is not Module.get_extra_state


# -- saving -----------------------------------------------------------------------------------------------------------
def state_dict(module: Module, destination: dict[str, Any] | None, prefix: str, keep_vars: bool) -> dict[str, Any]:
    """See :meth:`Module.state_dict`."""
    if destination is None:
        destination = OrderedDict()
        destination._metadata = OrderedDict()  # type: ignore[attr-defined]
    metadata = dict(version=module._version)
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = metadata
    for hook in list(module._state_dict_pre_hooks.values()):
        hook(module, prefix, keep_vars)
    module._save_to_state_dict(destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
    for hook, may_replace in list(module._state_dict_hooks.values()):
        changed = hook(module, destination, prefix, metadata)
        if changed is not None:
            if not may_replace:
                raise RuntimeError("state_dict post-hook must return None; change the state dict in place")
            destination = changed
    return destination  # type: ignore[return-value]


def save_to_state_dict(module: Module, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
    """See :meth:`Module._save_to_state_dict`."""
    for name, tensor in module._own_state():
        destination[prefix + name] = tensor if keep_vars else tensor.detach()
    if _has_extra_state(module):
        destination[prefix + _EXTRA] = module.get_extra_state()


# -- loading ----------------------------------------------------------------------------------------------------------
def load_state_dict(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """See :meth:`Module.load_state_dict`."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a mapping from names to tensors, not {type(state_dict).__name__}")
    metadata = getattr(state_dict, "_metadata", {})
    missing: list[str] = []
    unexpected: list[str] = []
    problems: list[str] = []
    plan: list[Callable[[], None]] = []  # what is to be copied where, once everything is known to fit

    def match(part: Module, state: dict[str, Any], prefix: str) -> None:
        local = dict(metadata.get(prefix[:-1], {})) | {_PLAN: plan, "assign_to_params_buffers": assign}
        part._load_from_state_dict(state, prefix, local, True, missing, unexpected, problems)
        for name, child in part._modules.items():
            if child is not None:
                below = f"{prefix}{name}."
                match(child, {k: v for k, v in state.items() if k.startswith(below)}, below)

    match(module, dict(state_dict), "")
    keys = IncompatibleKeys(missing, unexpected)
    hooked = [part for part in module.modules() if part._load_state_dict_post_hooks]
    if hooked:
        # The hooks look at loaded weights, and may still excuse keys: all that can be copied is copied first.
        _run(plan)
        for part in reversed(hooked):
            for hook in list(part._load_state_dict_post_hooks.values()):
                if hook(part, keys) is not None:
                    raise RuntimeError("hooks of load_state_dict must return None; change incompatible_keys in place")
    if strict:
        problems = _key_problems(missing, unexpected) + problems
    if problems:
        details = "\n\t".join(problems)
        raise RuntimeError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{details}")
    if not hooked:
        _run(plan)
    return keys


def _run(plan: list[Callable[[], None]]) -> None:
    for step in plan:
        step()


def load_from_state_dict(
    module: Module,
    state: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    problems: list[str],
) -> None:
    """See :meth:`Module._load_from_state_dict`: notes what is to be copied; nothing is changed yet."""
    for hook in list(module._load_state_dict_pre_hooks.values()):
        hook(module, state, prefix, local_metadata, strict, missing, unexpected, problems)
    own = dict(module._own_state())
    assign = local_metadata.get("assign_to_params_buffers", False)
    collected = local_metadata.get(_PLAN)
    plan = [] if collected is None else collected
    for name, tensor in own.items():
        key = prefix + name
        if key not in state:
            if strict and name not in module._optional_state:
                missing.append(key)
            continue
        value = state[key] if isinstance(state[key], Tensor) else from_foreign(state[key])
        if value.ndim == 1 and value.shape[0] == 1 and tensor.ndim == 0:
            value = value[0]  # very old checkpoints hold scalars as vectors
        if tuple(value.shape) != tuple(tensor.shape):
            problems.append(
                f"size mismatch for {key}: copying a param with shape {tuple(value.shape)} from checkpoint, "
                f"the shape in current model is {tuple(tensor.shape)}."
            )
            continue
        if assign:
            plan.append(functools.partial(_assign, module, name, tensor, value))
        else:
            plan.append(functools.partial(copy_into, tensor, value))
    extra = _has_extra_state(module)
    if extra and prefix + _EXTRA in state:
        plan.append(functools.partial(module.set_extra_state, state[prefix + _EXTRA]))
    elif extra and strict:
        missing.append(prefix + _EXTRA)
    if strict:
        for key in state:
            if not key.startswith(prefix):
                continue
            head, dot, _ = key[len(prefix) :].partition(".")
            known = module._modules.get(head) is not None if dot else head in own or (extra and head == _EXTRA)
            if not known:
                unexpected.append(key)
    if collected is None:  # called by hand, not by load_state_dict: nobody copies later
        _run(plan)


def _key_problems(missing: list[str], unexpected: list[str]) -> list[str]:
    problems = []
    for label, keys in (("Missing", missing), ("Unexpected", unexpected)):
        if keys:
            shown = ", ".join(f'"{key}"' for key in keys[:_SHOWN])
            rest = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            problems.append(f"{label} key(s) in state_dict: {shown}{rest}. ")
    if missing and unexpected:
        wanted = set(missing)
        for key in unexpected[:1]:
            prefix, _, rest = key.partition(".")
            while rest and rest not in wanted:
                head, _, rest = rest.partition(".")
                prefix = f"{prefix}.{head}"
            if rest:
                problems.append(f"The keys of the state_dict start with '{prefix}.': remove this prefix from them.")
    return problems


def _assign(part: Module, name: str, old: Tensor, value: Tensor) -> None:
    from .parameter import Parameter

    value = value.detach()
    if name in part._parameters:
        part._parameters[name] = value if isinstance(value, Parameter) else Parameter(value, old.requires_grad)
    else:
        part._buffers[name] = value


def copy_into(tensor: Tensor, value: Tensor) -> None:
    """Copy ``value`` into the memory of ``tensor``, casting and moving between devices as needed."""
    source = value.detach().to(device=tensor.device, dtype=tensor.dtype).array
    tensor.array[...] = source
    tensor._bump_version()


def from_foreign(value: Any) -> Tensor:
    """A tensor on the memory of another library's array or tensor."""
    if hasattr(value, "__array__") and not hasattr(value, "__cuda_array_interface__"):
        value = np.asarray(value)
    return Tensor._wrap(to_array(value, None, None, copy=False))
