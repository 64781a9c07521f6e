"""Loading a state dict into a module: everything is checked first, then copied."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensor import Tensor, to_array

if TYPE_CHECKING:
    from .module import Module

_SHOWN = 20  # keys listed in an error before "and N more"


class IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What ``load_state_dict`` could not match."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()


def load_state_dict(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """See :meth:`Module.load_state_dict`."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a mapping from names to tensors, not {type(state_dict).__name__}")
    state = dict(state_dict)
    missing: list[str] = []
    unexpected: list[str] = []
    problems: list[str] = []
    for path, part in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for hook in list(part._load_state_dict_pre_hooks.values()):
            hook(part, state, prefix, {}, strict, missing, unexpected, problems)

    plan = []
    expected = set()
    for path, part in module.named_modules(remove_duplicate=False):
        for name, tensor in part._own_state():
            key = f"{path}.{name}" if path else name
            expected.add(key)
            if key not in state:
                if name not in part._optional_state:
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
            plan.append((part, name, tensor, value))
    unexpected += [key for key in state if key not in expected]

    if strict:
        problems = _key_problems(missing, unexpected) + problems
    if problems:
        details = "\n\t".join(problems)
        raise RuntimeError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{details}")
    for part, name, tensor, value in plan:
        if assign:
            _assign(part, name, tensor, value)
        else:
            copy_into(tensor, value)
    return IncompatibleKeys(missing, unexpected)


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
