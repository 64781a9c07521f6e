"""Errors of the plugin system."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import EXIT_MISSING, EXIT_USAGE, FlambeauError

__all__ = ["AmbiguousNameError", "NotRegisteredError", "PluginError", "PluginWarning", "SpecError"]


class PluginWarning(UserWarning):
    """A plugin was left out, or says something doubtful; the text names it."""


class PluginError(FlambeauError):
    """A plugin is broken. Raised instead of reported when ``FLAMBEAU_PLUGIN_STRICT=1``.

    Args:
        plugin: the culprit's entry-point name.
    """

    def __init__(self, message: str, mend: str = "", exit_code: int | None = None, plugin: str = "") -> None:
        super().__init__(message, mend, exit_code)
        self.plugin = plugin

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.cause, self.mend, self.exit_code, self.plugin)


class SpecError(FlambeauError, ValueError):
    """A spec was built with a wrong value."""


class NotRegisteredError(FlambeauError, LookupError):
    """No plugin registered that name.

    Attributes:
        suggestions: near misses.
    """

    exit_code = EXIT_USAGE

    def __init__(
        self, message: str, mend: str = "", exit_code: int | None = None, suggestions: Sequence[str] = ()
    ) -> None:
        super().__init__(message, mend, exit_code)
        self.suggestions = tuple(suggestions)

    @property
    def missing_package(self) -> bool:
        """Whether installing a package mends it."""
        return self.exit_code == EXIT_MISSING

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.cause, self.mend, self.exit_code, self.suggestions)


class AmbiguousNameError(FlambeauError, LookupError):
    """A short name stands for several ids.

    Attributes:
        candidates: the ids.
    """

    exit_code = EXIT_USAGE

    def __init__(
        self, message: str, mend: str = "", exit_code: int | None = None, candidates: Sequence[str] = ()
    ) -> None:
        super().__init__(message, mend, exit_code)
        self.candidates = tuple(candidates)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.cause, self.mend, self.exit_code, self.candidates)
