"""Tools for testing: comparisons, gradient checks, and what a plugin must do.

Names are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "OpCase": "cases",
    "assert_close": "compare",
    "gradcheck": "gradients",
    "gradgradcheck": "gradients",
    "op_cases": "cases",
    "ModelConformance": "conformance",
    "PluginConformance": "conformance",
    "TrainerConformance": "conformance",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
