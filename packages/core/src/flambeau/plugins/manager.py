"""Loads plugins, each in isolation: one that is broken is reported in one line and left out."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pluggy

from ..errors import EXIT_MISSING
from . import hookspecs
from .discovery import Candidate, canonical, installed_plugins, selected
from .errors import NotRegisteredError, PluginError, PluginWarning, SpecError
from .registry import (
    BUILT_IN_COMMANDS,
    KNOWN_DISTRIBUTIONS,
    Entry,
    Registry,
    did_you_mean,
    missing_package,
    near,
    singular,
)
from .spec import API_VERSION, FAMILIES, Spec

HEAVY_MODULES = ("numpy", "cupy", "PIL", "scipy", "matplotlib", "torch")
"""Modules that loading a plugin must not import."""

_HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("flambeau_"))


@dataclass(slots=True)
class PluginRecord:
    """What is known of one plugin: shown by ``flambeau plugins``.

    Attributes:
        status: ``"ok"``, ``"warning"`` (loaded, with doubts), ``"failed"`` (left out) or ``"disabled"``.
        load_ms: milliseconds spent importing it and in its hooks so far.
        heavy: modules of `HEAVY_MODULES` that it imported.
    """

    name: str
    module: str
    distribution: str | None = None
    version: str | None = None
    status: str = "ok"
    api: int | None = None
    load_ms: float = 0.0
    heavy: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def label(self) -> str:
        """``plugin 'name' (distribution version)``."""
        source = " ".join(part for part in (self.distribution, self.version) if part)
        return f"plugin {self.name!r}" + (f" ({source})" if source else "")

    def to_dict(self) -> dict[str, Any]:
        """The record as a JSON-ready dict."""
        return asdict(self)


class PluginManager:
    """The plugins of one process. ``flambeau.plugins.manager()`` is the one that everything uses.

    Nothing is loaded until it is needed: the first look-up imports the plugin modules, and each family of specs is
    asked for when that family is first looked at.

    Args:
        discover: whether to load installed plugins (entry points of the group ``flambeau``).
        report: called with one line for every problem; the default issues a `PluginWarning`.
    """

    def __init__(self, discover: bool = True, report: Callable[[str], None] | None = None) -> None:
        self.registry = Registry()
        self.records: dict[str, PluginRecord] = {}
        self.report = report or _warn
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._pending: list[Candidate] | None = None if discover else []
        self._asked: set[tuple[str, str]] = set()

    # loading

    def load(self) -> None:
        """Imports and registers every installed plugin that the environment does not switch off; once."""
        if self._pending is None:
            self._pending = installed_plugins()
        while self._pending:
            self._load(self._pending.pop(0))

    def load_everything(self) -> None:
        """Also asks every plugin for every family of specs."""
        self.load()
        for family in FAMILIES:
            self._collect(family)

    def register(self, plugin: object, name: str, distribution: str | None = None) -> None:
        """Adds a plugin by hand: a module or object with hook implementations.

        Raises:
            PluginError: the name is taken.
        """
        if name in self.records:
            raise PluginError(f"a plugin named {name!r} is already registered", plugin=name)
        self._load(Candidate(name, getattr(plugin, "__name__", ""), distribution, None, lambda: plugin))

    def _load(self, candidate: Candidate) -> None:
        record = PluginRecord(candidate.name, candidate.module, candidate.distribution, candidate.version)
        if record.name in self.records:
            record.name = f"{candidate.name} of {candidate.distribution}"
            self.records[record.name] = record
            other = self.records[candidate.name].label()
            self._fail(record, SpecError(f"the name {candidate.name!r} is already taken by {other}"))
            return
        self.records[record.name] = record
        if reason := selected(candidate.name, candidate.distribution):
            record.status = "disabled"
            record.problems.append(reason)
            return
        with self._isolated(record, f"cannot import {candidate.module}"):
            plugin = candidate.load()
            record.api = _check_api(plugin)
            _check_hooks(self._pluggy, plugin)
            self._pluggy.register(plugin, record.name)

    def _collect(self, family: str) -> None:
        """Asks every plugin that has not been asked yet for its specs of this family."""
        self.load()
        hook = f"flambeau_register_{family}"
        for name, record in list(self.records.items()):
            if record.status not in ("ok", "warning") or (name, family) in self._asked:
                continue
            self._asked.add((name, family))
            specs: list[Spec] | None = None
            with self._isolated(record, f"{hook} failed"):
                specs = [_checked(spec, family, record) for specs in self._call(name, hook) for spec in specs]
            if specs is None:
                continue
            self._evict_squatters(family, record, specs)
            clashes: list[str] = []
            with self._isolated(record, f"{hook} failed"):
                clashes = self.registry.add(family, name, specs)
            for clash in clashes:
                self._doubt(record, clash)

    def _evict_squatters(self, family: str, record: PluginRecord, specs: list[Spec]) -> None:
        """A plugin called like a namespace has the first right to it, whichever of the two was loaded first."""
        taken = self.registry.entries(family)
        for spec in specs:
            holder = taken[spec.key].plugin if spec.key in taken else record.name
            if holder != record.name and canonical(record.name) == spec.namespace != canonical(holder):
                problem = f"{singular(family)} {spec.key!r} belongs to plugin {record.name!r}"
                self._fail(self.records[holder], SpecError(problem))

    def _call(self, name: str, hook: str, **arguments: Any) -> Any:
        """Calls one hook of one plugin: its list of results, or its result when the hook is firstresult."""
        plugin = self._pluggy.get_plugin(name)
        others = [other for other in self._pluggy.get_plugins() if other is not plugin]
        if plugin is None or all(caller.name != hook for caller in self._pluggy.get_hookcallers(plugin) or ()):
            return []
        return self._pluggy.subset_hook_caller(hook, others)(**arguments)

    @contextlib.contextmanager
    def _isolated(self, record: PluginRecord, doing: str) -> Iterator[None]:
        """Times what a plugin does and turns whatever goes wrong in it into a report."""
        before = {name for name in HEAVY_MODULES if name in sys.modules}
        start = time.perf_counter()
        try:
            # What a plugin prints must not end up in the results of a command.
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except SpecError as error:
            self._fail(record, error)
        except (Exception, SystemExit) as error:
            self._fail(record, error, doing)
        finally:
            record.load_ms = round(record.load_ms + 1000 * (time.perf_counter() - start), 3)
            record.heavy += [name for name in HEAVY_MODULES if name in sys.modules and name not in before]

    def _fail(self, record: PluginRecord, error: BaseException, doing: str = "") -> None:
        record.status = "failed"
        record.problems.append(f"{doing}: {describe(error)}" if doing else one_line(str(error)))
        self.registry.drop(record.name)
        if self._pluggy.has_plugin(record.name):
            self._pluggy.unregister(name=record.name)
        self._tell(f"{record.label()} left out: {record.problems[-1]}", record, error)

    def _doubt(self, record: PluginRecord, problem: str) -> None:
        record.status = "warning"
        record.problems.append(problem)
        self._tell(f"{record.label()}: {problem}", record, None)

    def _tell(self, line: str, record: PluginRecord, error: BaseException | None) -> None:
        if os.environ.get("FLAMBEAU_PLUGIN_STRICT", "") not in ("", "0"):
            mend = "mend it, or unset FLAMBEAU_PLUGIN_STRICT to go on without it"
            raise PluginError(line, mend, plugin=record.name) from error
        self.report(line)

    # look-up

    def specs(self, family: str) -> list[Spec]:
        """All specs of a family (``"models"``, ``"trainers"`` …), sorted by id."""
        return [entry.spec for entry in self.entries(family)]

    def entries(self, family: str) -> list[Entry]:
        """The same, each with the plugin that it came from."""
        if family not in FAMILIES:
            raise ValueError(f"unknown family {family!r}: one of {', '.join(FAMILIES)}")
        self._collect(family)
        return list(self.registry.entries(family).values())

    def get(self, family: str, name: str) -> Any:
        """The spec with this id or short name.

        Raises:
            NotRegisteredError: there is none; the mend suggests near misses, or the package to install.
            AmbiguousNameError: the short name stands for several ids.
        """
        self.entries(family)
        if entry := self.registry.find(family, name):
            return entry.spec
        error = self.registry.not_registered(family, name)
        namespace, slash, _ = name.partition("/")
        if not slash or any(entry.spec.namespace == namespace for entry in self.entries(family)):
            raise error
        raise self._without_namespace(namespace, error, family, name)

    def owner(self, family: str, name: str) -> PluginRecord:
        """The record of the plugin that registered a name."""
        self.get(family, name)
        entry = self.registry.find(family, name)
        assert entry is not None
        return self.records[entry.plugin]

    def missing(self, name: str, distribution: str | None = None) -> NotRegisteredError:
        """Why a model that a checkpoint names is not there, and what to install."""
        self._collect("models")
        namespace = name.partition("/")[0]
        distribution = distribution or KNOWN_DISTRIBUTIONS.get(namespace)
        if any(_provides(record, namespace, distribution) for record in self.records.values()):
            error = self.registry.not_registered("models", name)
            return self._without_namespace(namespace, error, "models", name, distribution)
        if distribution:
            return missing_package(name, distribution)
        return self._without_namespace(namespace, self.registry.not_registered("models", name), "models", name)

    def _without_namespace(
        self, namespace: str, error: NotRegisteredError, family: str, name: str, distribution: str | None = None
    ) -> NotRegisteredError:
        """Explains an unknown id whose namespace has no entries: its plugin is broken, off, or not installed."""
        distribution = distribution or KNOWN_DISTRIBUTIONS.get(namespace)
        for record in self.records.values():
            if not _provides(record, namespace, distribution):
                continue
            if record.status == "failed":
                cause = f"{singular(family)} {name!r} is missing because {record.label()} was left out"
                return NotRegisteredError(cause, record.problems[-1], EXIT_MISSING)
            if record.status == "disabled":
                cause = f"{singular(family)} {name!r} is missing because {record.label()} is switched off"
                return NotRegisteredError(cause, record.problems[-1], EXIT_MISSING)
            return error
        if distribution:
            return missing_package(name, distribution)
        if not namespace or near(namespace, (suggestion.partition("/")[0] for suggestion in error.suggestions)):
            return error
        return NotRegisteredError(
            f"{singular(family)} {name!r} is not registered: no installed plugin provides {namespace!r}",
            f"install the package that provides {namespace!r} (`flambeau plugins` lists those installed)",
            EXIT_MISSING,
        )

    def resolve_weights(self, uri: str, cache_dir: str) -> str | None:
        """The first answer of the plugins to ``flambeau_resolve_weights``; one that raises is left out."""
        self.load()
        for implementation in reversed(self._pluggy.hook.flambeau_resolve_weights.get_hookimpls()):
            record = self.records[implementation.plugin_name]
            with self._isolated(record, "flambeau_resolve_weights failed"):
                found = self._call(record.name, "flambeau_resolve_weights", uri=uri, cache_dir=cache_dir)
                if found:
                    return str(found)
        return None

    def counts(self, name: str) -> dict[str, int]:
        """How many specs of each family a plugin registered (of the families looked at so far)."""
        return {family: self.registry.count(family, name) for family in FAMILIES}


def describe(error: BaseException) -> str:
    """An exception in one line.

    >>> describe(ImportError("no module\\nnamed x"))
    'ImportError: no module named x'
    """
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    text = one_line(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def one_line(text: str, limit: int = 300) -> str:
    """`text` with its line breaks as spaces, cut at `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _warn(line: str) -> None:
    warnings.warn(line, PluginWarning, stacklevel=2)


def _provides(record: PluginRecord, namespace: str, distribution: str | None) -> bool:
    if distribution and record.distribution and canonical(record.distribution) == canonical(distribution):
        return True
    return canonical(record.name) == canonical(namespace)


def _check_api(plugin: object) -> int:
    version = getattr(plugin, "FLAMBEAU_API", API_VERSION)
    if isinstance(version, bool) or not isinstance(version, int):
        raise SpecError(f"FLAMBEAU_API must be a whole number, not {version!r}")
    if version != API_VERSION:
        mend = "upgrade the plugin" if version < API_VERSION else "upgrade flambeau-core"
        raise SpecError(f"it is written for plugin API {version}, this flambeau has {API_VERSION}: {mend}")
    return version


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    """Refuses hook functions that would never be called: an unknown name, or no ``@hookimpl``."""
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        hook = (options["specname"] if options else None) or name
        if options is not None and hook not in _HOOKS:
            hint = did_you_mean(near(hook, _HOOKS)[:1])
            raise SpecError(f"there is no hook {hook!r}" + (f": {hint}" if hint else ""))
        if options is None and name in _HOOKS and callable(getattr(plugin, name, None)):
            raise SpecError(f"{name} is not marked: put @flambeau.plugins.hookimpl above it")


def _checked(spec: object, family: str, record: PluginRecord) -> Spec:
    kind = FAMILIES[family]
    if not isinstance(spec, kind):
        raise SpecError(f"flambeau_register_{family} gave {one_line(repr(spec), 80)}, not a {kind.__name__}")
    if family == "commands" and spec.key in BUILT_IN_COMMANDS:
        raise SpecError(f"the command {spec.key!r} is built in: choose another name")
    owner = KNOWN_DISTRIBUTIONS.get(spec.namespace) if family != "commands" else None
    if owner and record.distribution and canonical(record.distribution) != owner:
        raise SpecError(f"{singular(family)} {spec.key!r}: the namespace {spec.namespace!r} belongs to {owner}")
    return spec  # type: ignore[return-value]
