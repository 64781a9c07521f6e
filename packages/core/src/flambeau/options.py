"""Options as dataclasses: texts from a command line or a TOML file become typed fields, unknown keys are refused."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from .errors import FlambeauError, UsageError

__all__ = ["describe_options", "from_options", "merge_settings", "read_settings", "to_plain"]

D = TypeVar("D")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NONE = ("none", "null", "")


def from_options(cls: type[D], options: Mapping[str, Any], what: str = "") -> D:
    """Builds the dataclass `cls` from `options`, converting texts to the types of the fields.

    Understood: bool, int, float, str, Path, enums, Literal, ``X | None``, list/tuple of those (``"1,2,3"``), dict
    (JSON), and nested dataclasses (``"a.b"`` or a mapping).

    Args:
        what: whose options they are, for messages: "the tabular task".

    Raises:
        UsageError: an unknown key (with a suggestion), a missing one, or a value that does not fit.

    >>> @dataclasses.dataclass
    ... class Options:
    ...     epochs: int = 10
    ...     lr: float = 1e-3
    >>> from_options(Options, {"lr": "3e-4"})
    Options(epochs=10, lr=0.0003)
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in options.items():
        name, dot, rest = str(key).replace("-", "_").partition(".")
        if name not in fields or (dot and not dataclasses.is_dataclass(hints[name])):
            cause = f"{what} has no option {key!r}" if what else f"unknown option {key!r}"
            raise UsageError(cause, _suggest(str(key), cls))
        if dot:
            nested.setdefault(name, {})[rest] = value
        else:
            values[name] = _convert(value, hints[name], str(key))
    for name, inner in nested.items():
        if name in values:
            raise UsageError(f"option {name!r} is given whole and in parts", "give it in one way")
        values[name] = from_options(hints[name], inner)
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"option {missing[0]!r} is needed", f"set {missing[0]}=...")
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:  # the class's own __post_init__ checks
        raise UsageError(str(error), "change the option") from error


def describe_options(cls: type) -> list[tuple[str, str, str]]:
    """(name, type, default) of every option of a dataclass, nested ones as ``a.b``."""
    hints = typing.get_type_hints(cls)
    rows = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            rows += [(f"{field.name}.{name}", kind, default) for name, kind, default in describe_options(hint)]  # type: ignore[arg-type]
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        rows.append((field.name, _type_name(hint), "needed" if default is dataclasses.MISSING else str(default)))
    return rows


def read_settings(path: str | Path, known: Iterable[str]) -> dict[str, Any]:
    """The contents of a TOML file (or JSON, by its ending) whose top-level keys are among `known`.

    Raises:
        FlambeauError: it cannot be read or parsed.
        UsageError: an unknown key, with a suggestion.
    """
    import json
    import tomllib

    parse = json.loads if str(path).endswith(".json") else tomllib.loads
    try:
        settings = parse(Path(path).read_text("utf-8"))
    except OSError as error:
        raise FlambeauError(f"{path} cannot be read: {error.strerror}", "check the path") from error
    except ValueError as error:  # of text encoding, JSON and TOML alike
        kind = "JSON" if parse is json.loads else "TOML"
        raise FlambeauError(f"{path} is not {kind}: {error}", "mend the file") from error
    names = list(known)
    if not isinstance(settings, dict):
        raise FlambeauError(f"{path} holds no keys", f"its keys are {', '.join(names)}")
    for key in settings:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            mend = f"did you mean {close[0]!r}?" if close else f"its keys are {', '.join(names)}"
            raise UsageError(f"{path} has an unknown key {key!r}", mend)
    return settings


def merge_settings(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; mappings inside are merged, and dots in the keys of `changes` lead into them.

    >>> merge_settings({"lr": 0.1, "model": {"width": 8}}, {"model.depth": 2})
    {'lr': 0.1, 'model': {'width': 8, 'depth': 2}}
    """
    merged = dict(base)
    for key, value in changes.items():
        name, dot, rest = key.partition(".")
        inner = {rest: value} if dot else value
        old = merged.get(name)
        if isinstance(inner, Mapping) and (dot or isinstance(old, Mapping)):
            merged[name] = merge_settings(old if isinstance(old, Mapping) else {}, inner)
        else:
            merged[name] = inner
    return merged


def to_plain(options: Any) -> Any:
    """Dataclasses, paths and enums as plain data for JSON."""
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        return {field.name: to_plain(getattr(options, field.name)) for field in dataclasses.fields(options)}
    if isinstance(options, Mapping):
        return {str(key): to_plain(value) for key, value in options.items()}
    if isinstance(options, (list, tuple)):
        return [to_plain(value) for value in options]
    if isinstance(options, enum.Enum):
        return options.value
    return str(options) if isinstance(options, Path) else options


def _suggest(key: str, cls: type) -> str:
    names = [name for name, _, _ in describe_options(cls)]
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(names)}"


def _convert(value: Any, hint: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in _NONE and type(None) in arguments):
            return None
        errors = []
        for choice in (a for a in arguments if a is not type(None)):
            try:
                return _convert(value, choice, key)
            except UsageError as error:
                errors.append(error)
        raise errors[0]
    if origin is Literal:
        for choice in arguments:
            if value == choice or str(value) == str(choice):
                return choice
        close = difflib.get_close_matches(str(value), [str(a) for a in arguments], n=1)
        mend = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(
            f"option {key}={value!r} is not one of its choices", f"{mend}choose {', '.join(map(str, arguments))}"
        )
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_options(hint, value)  # type: ignore[arg-type]
    if origin in (list, tuple):
        return _convert_sequence(value, origin, arguments, hint, key)
    if hint is dict or origin is dict:
        return _convert_dict(value, arguments, key)
    return _convert_scalar(value, hint, key)


def _convert_scalar(value: Any, hint: Any, key: str) -> Any:
    try:
        if hint is bool:
            if isinstance(value, bool):
                return value
            if str(value).lower() in _TRUE + _FALSE:
                return str(value).lower() in _TRUE
        elif hint is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            number = float(value) if not isinstance(value, bool) else None
            if number is not None and number.is_integer():
                return int(value) if isinstance(value, str) and value.strip().lstrip("+-").isdigit() else int(number)
        elif hint is float:
            if not isinstance(value, bool):
                return float(value)
        elif hint is str:
            if isinstance(value, str):
                return value
        elif hint is Path:
            return Path(value)
        elif isinstance(hint, type) and (isinstance(value, hint) or issubclass(hint, enum.Enum)):
            return value if isinstance(value, hint) else hint(value)
    except (ValueError, TypeError, OverflowError):
        pass
    raise UsageError(
        f"option {key}={value!r} is not {_type_name(hint)}", f"give {key} a value of type {_type_name(hint)}"
    )


def _convert_sequence(value: Any, origin: Any, arguments: tuple[Any, ...], hint: Any, key: str) -> Any:
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"option {key}={value!r} is not {_type_name(hint)}", "separate the values by commas")
    if origin is list or not arguments or arguments[-1] is Ellipsis:
        kind = arguments[0] if arguments else str
        return origin(_convert(item, kind, key) for item in value)
    if len(value) != len(arguments):
        raise UsageError(
            f"option {key} needs {len(arguments)} values, not {len(value)}", "separate the values by commas"
        )
    return tuple(_convert(item, kind, key) for item, kind in zip(value, arguments, strict=True))


def _convert_dict(value: Any, arguments: tuple[Any, ...], key: str) -> dict[str, Any]:
    import json

    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UsageError(f"option {key} is not JSON: {error}", 'write for example {"a": 1}') from error
    if not isinstance(value, Mapping):
        raise UsageError(f"option {key}={value!r} is not a JSON object", 'write for example {"a": 1}')
    kind = arguments[1] if arguments else Any
    return {name: _convert(item, kind, f"{key}.{name}") for name, item in value.items()}


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " | ".join(str(a) for a in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
