"""Options by name: unknown keys and wrong types give one clear line."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..errors import UsageError
from .registry import did_you_mean, near

T = TypeVar("T")


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


def parse_options(target: type[T], options: Mapping[str, Any], what: str = "the trainer") -> T:
    """An instance of the dataclass `target` from options that came from a command line.

    Raises:
        UsageError: an unknown key, a missing one, or a value of another type than the field's.

    >>> @dataclasses.dataclass
    ... class Recipe:
    ...     lr: float = 0.1
    >>> parse_options(Recipe, {"lr": 1})
    Recipe(lr=1.0)
    """
    fields = {field.name: field for field in dataclasses.fields(target) if field.init}  # type: ignore[arg-type]
    check_keys(options, fields, what)
    hints = typing.get_type_hints(target)
    values = {key: _convert(key, value, hints.get(key, Any), what) for key, value in options.items()}
    for name, field in fields.items():
        if name not in values and _field_default(field) is ...:
            raise UsageError(f"{what} needs the option {name!r}", f"add --set {name}=VALUE")
    return target(**values)


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return ... if field.default_factory is dataclasses.MISSING else field.default_factory()


def _convert(key: str, value: Any, hint: Any, what: str) -> Any:
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for choice in choices:
        if (choice in (None, type(None)) and value is None) or choice is Any:
            return value
        if choice is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if choice in (bool, str) and isinstance(value, choice):
            return value
        if choice is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        origin = typing.get_origin(choice) or choice
        if origin in (tuple, list) and isinstance(value, list | tuple):
            return origin(value)
        if origin is dict and isinstance(value, dict):
            return value
        if origin is typing.Literal and value in typing.get_args(choice):
            return value
        if isinstance(origin, type) and origin not in (bool, int, float, str, tuple, list, dict, type(None)):
            return value
    wanted = str(hint) if typing.get_origin(hint) else getattr(hint, "__name__", str(hint))
    raise UsageError(
        f"option {key!r} of {what} must be {wanted}, not {value!r}", f"pass --set {key}=VALUE of that type"
    )
