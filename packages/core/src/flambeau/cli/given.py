"""What the commands that work with models have in common on their line: options, ``--set``, ``--data``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import FlambeauError, UsageError
from ..options import merge_settings
from ..plugins import NotRegisteredError, get_dataset

F = TypeVar("F", bound=Callable[..., Any])


def shared_options(function: F) -> F:
    """The options that train, evaluate and predict have."""
    set_option = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any other option; repeatable. A dot leads into an option that holds options: model.width=64.",
    )
    device = click.option("--device", help="cpu, cuda, cuda:1 …")
    task = click.option("--task", "task_name", help="Task to use instead of the model's own.")
    return set_option(device(task(function)))


def existing_data(data: str | None) -> str:
    if not data:
        raise UsageError("there is no --data", "add --data PATH, or the id of a dataset")
    if os.path.exists(data):
        return data
    try:
        return get_dataset(data).id
    except NotRegisteredError as error:
        if error.missing_package and not data.startswith((".", "/")) and not Path(data).suffix:
            raise
        mend = error.mend if error.suggestions else "check the path; `flambeau datasets list` shows datasets by id"
        raise FlambeauError(f"{data!r} does not exist and is no dataset", mend) from None


def given_options(
    settings: tuple[str, ...], flags: Mapping[str, Any], base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`base` under the given flags and every ``--set key=value``; values are read as JSON where they are JSON."""
    given = {name: value for name, value in flags.items() if value is not None}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise UsageError(f"--set {setting!r} is not KEY=VALUE", "write --set width=64 or --set model.width=64")
        if key in given:
            raise UsageError(f"option {key!r} is given twice", "give it once")
        try:
            given[key] = json.loads(text)
        except ValueError:
            given[key] = text
    return merge_settings(base or {}, given)
