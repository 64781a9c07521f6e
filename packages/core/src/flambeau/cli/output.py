"""What commands print: results on stdout, the rest on stderr."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click


def print_error(cause: str, mend: str = "") -> None:
    """One line of cause and, when there is something to do, one of mend."""
    click.echo(f"error: {cause}", err=True)
    if mend:
        click.echo(f"  mend: {mend}", err=True)


def note(text: str) -> None:
    """A line for the person, not for the pipe."""
    click.echo(text, err=True)


def counted(number: int, plural: str) -> str:
    """``"1 model"``, ``"2 models"``."""
    return f"{number} {plural.removesuffix('s') if number == 1 else plural}"


def print_json(value: Any, compact: bool = False) -> None:
    """`value` as JSON; what JSON does not know (NumPy's numbers, paths) by its plain value or its text."""
    indent = None if compact else 2
    click.echo(json.dumps(value, indent=indent, ensure_ascii=False, default=plain))


def plain(value: Any) -> Any:
    """A JSON value for a number-like or array-like object, else its text."""
    for method in ("item", "tolist"):
        try:
            return getattr(value, method)()
        except (AttributeError, ValueError, TypeError, RuntimeError):
            continue
    return str(value)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns. On a terminal the last column is cut to the width; in a pipe nothing is."""
    texts = [[("-" if cell in (None, "") else str(cell)) for cell in row] for row in rows]
    lines = [list(headers), *texts]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(text if limit is None or len(text) <= limit else text[: limit - 1] + "…")


def print_fields(values: Mapping[str, Any]) -> None:
    """One ``name  value`` line for each entry that says something."""
    shown = {name: _text(value) for name, value in values.items() if value not in (None, "", [], (), {})}
    width = max((len(name) for name in shown), default=0)
    for name, text in shown.items():
        click.echo(f"{name.ljust(width)}  {text}")


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def print_metrics(metrics: Mapping[str, Any], as_json: bool) -> None:
    """Metrics by name, as lines or as JSON."""
    values = {
        name: value if isinstance(value, str | int | float | list | dict) else plain(value)
        for name, value in metrics.items()
    }
    if as_json:
        print_json(values)
    else:
        print_fields(values)
