"""The parameters of a TorchScript archive: its objects' attributes as a state dict. Its code is not looked at."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ..tensor import Tensor
from . import allowed
from .errors import refused
from .unpickle import Builder, Reader

__all__ = ["ScriptObject", "find", "set_state", "state_dict"]

_MAX_DEPTH = 100


class ScriptObject:
    """An object of a compiled class: nothing but its attributes."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


def _new(reader: Reader) -> ScriptObject:
    return ScriptObject()


def _listed(reader: Reader, values: Any) -> list[Any]:
    if type(values) is not list:
        raise TypeError("not a list")
    return values


def _restore_type(reader: Reader, value: Any, kind: Any) -> Any:
    return value


_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")


def find(module: str, name: str) -> Any:
    """What TorchScript's pickles name beside the usual; None for the rest."""
    if module == "__torch__" or module.startswith("__torch__."):
        return Builder("TorchScript object", _new)
    if module == "torch.jit._pickle":
        if name in _LISTS:
            return Builder(name, _listed)
        if name == "restore_type_tag":
            return Builder(name, _restore_type)
    return None


def set_state(reader: Reader, target: Any, state: Any) -> None:
    """Gives a `ScriptObject` its attributes; everything else as in other checkpoints."""
    if isinstance(target, ScriptObject):
        if type(state) is not dict or not all(type(key) is str for key in state):
            raise refused(reader.name, "a TorchScript object in it keeps its state in a form of its own")
        target.attributes = state
    else:
        allowed.set_state(reader, target, state)


def state_dict(result: Any, name: str) -> OrderedDict[str, Tensor]:
    """The tensors of a script module by dotted name: parameters, buffers and other tensor attributes."""
    if not isinstance(result, ScriptObject):
        raise refused(name, "it is a TorchScript archive without a module", "save the state_dict() instead")
    found: OrderedDict[str, Tensor] = OrderedDict()
    seen: set[int] = set()

    def collect(part: ScriptObject, prefix: str, depth: int) -> None:
        if depth > _MAX_DEPTH or id(part) in seen:
            raise refused(name, "its modules are shared or nested too deeply", "save the state_dict() instead")
        seen.add(id(part))
        for key, value in part.attributes.items():
            if isinstance(value, Tensor):
                found[prefix + key] = value
            elif isinstance(value, ScriptObject):
                collect(value, f"{prefix}{key}.", depth + 1)

    collect(result, "", 0)
    return found
