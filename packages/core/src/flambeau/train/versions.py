"""What a checkpoint was made with: the versions of Flambeau, NumPy and the packages of the run's own objects."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["versions_of", "warn_of_other_versions"]


def versions_of(objects: Iterable[Any]) -> dict[str, str]:
    """Name -> version of Python, NumPy, Flambeau, CuPy if it is loaded, and the packages that `objects` come from.

    Args:
        objects: models (all their modules count), datasets, optimizers, callbacks.

    >>> sorted(versions_of([]))[:3]
    ['flambeau', 'numpy', 'python']
    """
    import numpy as np

    from .. import __version__

    found = {"flambeau": __version__, "numpy": np.__version__, "python": platform.python_version()}
    packages = set()
    for item in objects:
        for part in item.modules() if hasattr(item, "modules") else [item]:
            packages.add(type(part).__module__.partition(".")[0])
    if "cupy" in sys.modules:
        packages.add("cupy")
    for package in sorted(packages - {"flambeau", "numpy", "builtins", "__main__"} - set(sys.stdlib_module_names)):
        version = getattr(sys.modules.get(package), "__version__", None) or _installed(package)
        if version:
            found[package] = str(version)
    return found


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def warn_of_other_versions(saved: Mapping[str, str], now: Mapping[str, str], name: str) -> None:
    """One warning that names what differs: the run goes on, but perhaps not with the same bits."""
    differing = [
        f"{package} {version} (now {now.get(package, 'not installed')})"
        for package, version in saved.items()
        if now.get(package) != version
    ]
    if differing:
        text = f"{name} was saved with {', '.join(differing)}: the result may differ from that of an unbroken run"
        warnings.warn(text, stacklevel=3)
