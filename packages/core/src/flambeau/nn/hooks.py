"""Hooks of modules, and the module path that errors carry."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .module import Module


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


def add_hook(hooks: dict[int, Any], hook: Any, prepend: bool) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    if prepend:
        others = list(hooks.items())
        hooks.clear()
        hooks[handle.id] = hook
        hooks.update(others)
    else:
        hooks[handle.id] = hook
    return handle


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
