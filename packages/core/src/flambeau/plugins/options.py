"""Options by name: unknown keys give one clear line."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import UsageError
from .registry import did_you_mean, near


def option_defaults(target: Callable[..., Any]) -> dict[str, Any] | None:
    """The options of a dataclass or a callable with their defaults (``...`` for those that must be given).

    None when it takes ``**kwargs``, so that nothing can be said.
    """
    if dataclasses.is_dataclass(target):
        return {field.name: _field_default(field) for field in dataclasses.fields(target) if field.init}
    parameters = inspect.signature(target).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {
        parameter.name: ... if parameter.default is parameter.empty else parameter.default
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def check_keys(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises `UsageError` for a key of `given` that is not in `known`.

    >>> check_keys(["widht"], ["width", "depth"], "model 'lab/net'")
    Traceback (most recent call last):
    ...
    flambeau.errors.UsageError: model 'lab/net' has no option 'widht'
    """
    known = list(known)
    for key in given:
        if key not in known:
            hint = did_you_mean(near(key, known))
            options = f"its options are {', '.join(sorted(known))}" if known else "it has no options"
            raise UsageError(f"{what} has no option {key!r}", hint or options)


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return ... if field.default_factory is dataclasses.MISSING else field.default_factory()
