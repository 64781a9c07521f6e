"""What can be wrong with a plugin that loads: names that lead nowhere, and imports that are too heavy."""

from __future__ import annotations

from .errors import AmbiguousNameError, NotRegisteredError
from .manager import PluginManager, describe
from .registry import singular
from .spec import FAMILIES, Spec, resolve


def problems(manager: PluginManager) -> dict[str, list[str]]:
    """Problems of the loaded plugins by name, one line each. Imports everything that the specs name."""
    manager.load_everything()
    found: dict[str, list[str]] = {name: [] for name in manager.records}
    for name, record in manager.records.items():
        if record.heavy and record.status != "failed":
            found[name].append(f"loading it imports {', '.join(record.heavy)}: import inside functions instead")
    for family in FAMILIES:
        for entry in manager.entries(family):
            found[entry.plugin] += _of_spec(manager, family, entry.spec)
    return {name: lines for name, lines in found.items() if lines}


def _of_spec(manager: PluginManager, family: str, spec: Spec) -> list[str]:
    lines = []
    where = f"{singular(family)} {spec.key!r}"
    for field in spec._paths:
        path = getattr(spec, field)
        if path is None:
            continue
        try:
            resolve(path)
        except (Exception, SystemExit) as error:
            lines.append(f"{where}: {field} {path!r}: {describe(error)}")
    for field in spec._references:
        name = getattr(spec, field)
        if name is None:
            continue
        try:
            manager.get(f"{field}s", name)
        except (NotRegisteredError, AmbiguousNameError) as error:
            lines.append(f"{where}: {field}: {error}")
    return lines
