"""Modules without their initialisation."""

from __future__ import annotations

from typing import Any

from .. import init
from ..module import Module


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """``module_cls(*args, **kwargs)`` without drawing its initial weights, for weights that are loaded anyway.

    Only initialisation through :mod:`flambeau.nn.init` is left out; the values are arbitrary.

    Raises:
        RuntimeError: ``module_cls`` is no module class.
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"skip_init: expected a Module class, got {module_cls}")
    with init.skipped():
        return module_cls(*args, **kwargs)
