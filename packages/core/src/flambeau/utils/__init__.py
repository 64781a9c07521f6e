"""PyTorch's ``torch.utils``: `data`, `checkpoint` and `flop_counter`, and `summary`; loaded on first use."""

from __future__ import annotations

import importlib
from typing import Any

_SUBMODULES = ("checkpoint", "data", "flop_counter", "summary")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'flambeau.utils' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(_SUBMODULES)
