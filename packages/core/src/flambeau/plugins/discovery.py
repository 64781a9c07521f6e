"""Finds plugins among the installed distributions, without importing them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "flambeau"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that could be loaded: what an entry point says, or why it says nothing readable."""

    name: str
    module: str
    distribution: str | None
    version: str | None
    load: Callable[[], object]


def installed_plugins() -> list[Candidate]:
    """Every entry point of the group ``flambeau``: the suite's own packages first, then by name."""
    found = [candidate for distribution in _distributions() for candidate in distribution]
    return sorted(found, key=lambda plugin: (not _is_own(plugin.distribution), plugin.name, plugin.distribution or ""))


def selected(name: str, distribution: str | None) -> str | None:
    """Why the environment keeps this plugin from being loaded, or None.

    ``FLAMBEAU_LOAD_PLUGINS`` lists the only ones to load, ``FLAMBEAU_DISABLE_PLUGINS`` those not to load (``*`` or
    ``all``: none). A plugin is named by its entry point or its distribution.
    """
    names = {canonical(name)} | ({canonical(distribution)} if distribution else set())
    if (only := os.environ.get("FLAMBEAU_LOAD_PLUGINS")) is not None and not names & split(only):
        return "not in FLAMBEAU_LOAD_PLUGINS"
    disabled = split(os.environ.get("FLAMBEAU_DISABLE_PLUGINS", ""))
    if disabled & {"*", "all"}:
        return "FLAMBEAU_DISABLE_PLUGINS turns all plugins off"
    return "named in FLAMBEAU_DISABLE_PLUGINS" if names & disabled else None


def split(text: str) -> set[str]:
    """The names in a comma-separated list.

    >>> sorted(split("vision, Flambeau_NLP,"))
    ['flambeau-nlp', 'vision']
    """
    return {canonical(part.strip()) for part in text.split(",") if part.strip()}


def canonical(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_own(distribution: str | None) -> bool:
    from .registry import KNOWN_DISTRIBUTIONS

    return distribution in KNOWN_DISTRIBUTIONS.values()


def _distributions() -> Iterator[list[Candidate]]:
    # importlib.metadata.entry_points() stops at the first unreadable distribution of the environment, whosoever it is,
    # and reads the metadata of all of them. Looking at entry_points.txt first is both faster and robust.
    from importlib.metadata import distributions

    seen: set[str] = set()
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt")
        except (OSError, UnicodeDecodeError):
            continue
        if not text or f"[{GROUP}]" not in text:
            continue
        name = version = None
        try:
            name, version = distribution.metadata["Name"], distribution.metadata["Version"]
            if name is not None and canonical(name) in seen:  # an earlier entry of sys.path hides this one
                continue
            entry_points = list(distribution.entry_points.select(group=GROUP))
        except Exception as error:
            where = name or str(getattr(distribution, "_path", "?"))
            yield [Candidate(os.path.basename(where), "", name, version, partial(_raise, error))]
            continue
        if name is not None:
            seen.add(canonical(name))
        yield [_candidate(entry_point, name, version) for entry_point in entry_points]


def _candidate(entry_point: EntryPoint, name: str | None, version: str | None) -> Candidate:
    return Candidate(entry_point.name, entry_point.value, name, version, entry_point.load)


def _raise(error: Exception) -> object:
    raise error
