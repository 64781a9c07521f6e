"""``flambeau plugins``: what is installed, whether it is sound, and how to start one."""

from __future__ import annotations

from typing import Any

import click

from ..errors import EXIT_FAILURE
from ..plugins import check, manager
from .groups import LazyGroup
from .output import counted, note, print_json, print_table


@click.group(
    "plugins", cls=LazyGroup, lazy={"new": ("flambeau.cli.scaffold:new", "Write the package of a new plugin.")}
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--check", "checking", is_flag=True, help="Also import all that they name; exit 1 if anything is wrong.")
@click.pass_context
def plugins(ctx: click.Context, as_json: bool, checking: bool) -> None:
    """Show the installed plugins: version, status, what each registers, load time, errors.

    \b
    FLAMBEAU_LOAD_PLUGINS=a,b      load only these
    FLAMBEAU_DISABLE_PLUGINS=a,b   do not load these (* or all: none at all)
    FLAMBEAU_PLUGIN_STRICT=1       a broken plugin is an error instead of a warning
    """
    if ctx.invoked_subcommand is not None:
        return
    found = manager()
    found.report = lambda line: None  # the table says it
    found.load_everything()
    problems = check.problems(found) if checking else {}
    rows = [_describe(name, problems.get(name, [])) for name in sorted(found.records)]
    if as_json:
        print_json(rows)
    elif rows:
        _print(rows)
    else:
        note("no plugins are installed; flambeau-vision is one (pip install flambeau-vision)")
    if checking:
        bad = [row for row in rows if row["status"] in ("failed", "warning")]
        if bad:
            note(f"{len(bad)} of {counted(len(rows), 'plugins')} with problems")
            ctx.exit(EXIT_FAILURE)
        note(f"{counted(len(rows), 'plugins')} checked, no problems")


def _describe(name: str, extra: list[str]) -> dict[str, Any]:
    record = manager().records[name]
    row = record.to_dict() | {"counts": manager().counts(name), "problems": record.problems + extra}
    if extra and record.status == "ok":
        row["status"] = "warning"
    return row


def _print(rows: list[dict[str, Any]]) -> None:
    lines = []
    for row in rows:
        counts = ", ".join(counted(number, family) for family, number in row["counts"].items() if number)
        lines.append(
            [row["name"], row["distribution"], row["version"], row["status"], f"{row['load_ms']:.0f} ms", counts]
        )
    print_table(["plugin", "distribution", "version", "status", "load", "registers"], lines)
    for row in rows:
        for problem in row["problems"]:
            click.echo(f"{row['name']}: {problem}")
