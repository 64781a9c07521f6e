"""Specs by id and by short name, with near misses and install hints for names that are not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import EXIT_MISSING
from .errors import AmbiguousNameError, NotRegisteredError, SpecError
from .spec import FAMILIES, Spec

KNOWN_DISTRIBUTIONS = {name: f"flambeau-{name}" for name in ("vision", "nlp", "rl", "science", "generative")}
"""Namespaces of the suite's own packages; nobody else may register in them."""

BUILT_IN_COMMANDS = frozenset(
    (
        "models",
        "datasets",
        "tasks",
        "trainers",
        "train",
        "tune",
        "evaluate",
        "predict",
        "summary",
        "export",
        "quantize",
        "explain",
        "bench",
    )
    + ("plugins", "doctor", "completion")
)
"""Commands that a plugin cannot register."""


def singular(family: str) -> str:
    """``"models"`` -> ``"model"``."""
    return family.removesuffix("s")


def near(name: str, known: Iterable[str]) -> list[str]:
    """At most three of `known` that `name` may have been meant to be, best first.

    >>> near("modles", ["models", "tasks"])
    ['models']
    """
    by_folded = {candidate.casefold(): candidate for candidate in known}
    return [by_folded[match] for match in difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)]


def did_you_mean(names: Iterable[str]) -> str:
    """``"did you mean 'a' or 'b'?"``, or nothing."""
    quoted = [repr(name) for name in names]
    return f"did you mean {' or '.join(quoted)}?" if quoted else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered spec and the plugin that it came from."""

    spec: Spec
    plugin: str


class Registry:
    """Every registered spec, by family. Ids are unique in a family; short names need not be."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {family: {} for family in FAMILIES}
        self._short: dict[str, dict[str, list[str]]] = {family: {} for family in FAMILIES}

    def add(self, family: str, plugin: str, specs: list[Spec]) -> list[str]:
        """Registers all of `specs`, or none.

        Returns:
            One line for each alias that is already another plugin's: registered, but it finds nothing any more.

        Raises:
            SpecError: an id is already registered.
        """
        entries = self._entries[family]
        seen: set[str] = set()
        for spec in specs:
            if spec.key in entries or spec.key in seen:
                owner = f"plugin {entries[spec.key].plugin!r}" if spec.key in entries else "this plugin itself"
                raise SpecError(f"{singular(family)} {spec.key!r} is already registered by {owner}")
            seen.add(spec.key)
        clashes = []
        for spec in specs:
            for alias in getattr(spec, "aliases", ()):
                for other in self._short[family].get(alias, ()):
                    if entries[other].plugin != plugin and alias in getattr(entries[other].spec, "aliases", ()):
                        clashes.append(
                            f"alias {alias!r} of {singular(family)} {spec.key!r} clashes with {other!r} of plugin "
                            f"{entries[other].plugin!r}: {alias!r} is ambiguous, use full ids"
                        )
        for spec in specs:
            entries[spec.key] = Entry(spec, plugin)
            for short in _short_names(spec):
                self._short[family].setdefault(short, []).append(spec.key)
        return clashes

    def drop(self, plugin: str) -> None:
        """Forgets all that `plugin` registered."""
        for family, entries in self._entries.items():
            for key in [key for key, entry in entries.items() if entry.plugin == plugin]:
                for short in _short_names(entries.pop(key).spec):
                    self._short[family][short].remove(key)

    def entries(self, family: str) -> Mapping[str, Entry]:
        """The family's entries by id, sorted by id."""
        return dict(sorted(self._entries[family].items()))

    def count(self, family: str, plugin: str) -> int:
        """How many specs of the family `plugin` registered."""
        return sum(entry.plugin == plugin for entry in self._entries[family].values())

    def find(self, family: str, name: str) -> Entry | None:
        """The entry whose id or short name is `name`, or None.

        Raises:
            AmbiguousNameError: `name` is short for several ids.
        """
        if name in self._entries[family]:
            return self._entries[family][name]
        candidates = sorted(self._short[family].get(name, ()))
        if len(candidates) > 1:
            raise AmbiguousNameError(
                f"{singular(family)} {name!r} is ambiguous: {', '.join(candidates)}",
                "use one of the full ids",
                candidates=candidates,
            )
        return self._entries[family][candidates[0]] if candidates else None

    def not_registered(self, family: str, name: str) -> NotRegisteredError:
        """The error for a name that `find` does not know, with near misses."""
        suggestions = self._near_misses(family, name)
        mend = did_you_mean(suggestions) or f"`flambeau {family} list` shows what is there"
        return NotRegisteredError(f"{singular(family)} {name!r} is not registered", mend, suggestions=suggestions)

    def _near_misses(self, family: str, name: str) -> list[str]:
        known = self._entries[family]
        namespace, slash, last = name.rpartition("/")
        siblings = {key.partition("/")[2]: key for key in known if slash and key.startswith(f"{namespace}/")}
        if siblings:  # compared without the part that they share, which would make them all alike
            return [siblings[match] for match in near(last, siblings)]
        short = {alias: keys for alias, keys in self._short[family].items() if keys}
        found = near(name, known) or [key for match in near(last, short) for key in short[match]]
        return list(dict.fromkeys(found))[:3]


def install_hint(distribution: str) -> str:
    """The command line that installs a distribution.

    >>> install_hint("flambeau-vision")
    'pip install flambeau-vision'
    """
    return f"pip install {distribution}"


def missing_package(name: str, distribution: str) -> NotRegisteredError:
    """The error for an id whose package is not installed."""
    return NotRegisteredError(
        f"{name!r} comes from the package {distribution}, which is not installed",
        install_hint(distribution),
        EXIT_MISSING,
    )


def _short_names(spec: Spec) -> set[str]:
    if spec._family == "commands":
        return set()
    return {spec.short_name, *getattr(spec, "aliases", ())}
