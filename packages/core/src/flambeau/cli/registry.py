"""``flambeau models|datasets|tasks|trainers list|info``."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from ..plugins import manager, option_defaults, resolve
from ..plugins.manager import describe
from ..plugins.registry import Entry, singular
from .groups import LazyGroup
from .output import note, print_fields, print_json, print_table

_COLUMNS = {
    "models": ("task", "parameters"),
    "datasets": ("task", "splits", "licence"),
    "tasks": ("trainer",),
    "trainers": (),
}


def names_completion(family: str) -> Any:
    """A completion callback for ids of a family."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        specs = manager().specs(family)
        return [CompletionItem(s.key, help=getattr(s, "summary", "")) for s in specs if s.key.startswith(incomplete)]

    return complete


def _group(family: str) -> click.Group:
    one = singular(family)
    group = LazyGroup(family, help=f"List {family}, or describe one.")

    @group.command("list")
    @click.option("--namespace", help="Only those of this namespace, such as vision.")
    @click.option("--task", help="Only those of this task.", hidden=family not in ("models", "datasets"))
    @click.option("--tag", help="Only those with this tag.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def list_command(namespace: str | None, task: str | None, tag: str | None, as_json: bool) -> None:
        entries = [entry for entry in manager().entries(family) if _matches(entry, namespace, task, tag)]
        if as_json:
            print_json([{**entry.spec.to_dict(), "plugin": entry.plugin} for entry in entries])
        elif entries:
            columns = _COLUMNS[family]
            rows = [[entry.spec.key, *(_cell(entry, c) for c in columns), entry.spec.summary] for entry in entries]
            print_table([one, *columns, "summary"], rows)
        elif namespace or task or tag:
            note(f"no {family} match; `flambeau {family} list` shows all")
        else:
            note(f"no {family} are installed; packages bring them (pip install flambeau-vision)")

    list_command.help = f"List the installed {family}."

    @group.command("info")
    @click.argument("name", shell_complete=names_completion(family))
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def info_command(name: str, as_json: bool) -> None:
        spec = manager().get(family, name)
        owner = manager().owner(family, spec.key)
        values = {
            **spec.to_dict(),
            "options": _options(spec),
            "plugin": owner.name,
            "distribution": owner.distribution,
            "version": owner.version,
        }
        if as_json:
            print_json(values)
        else:
            print_fields(values)

    info_command.help = f"Describe one {one}: NAME is its id, or a short name."
    return group


def _matches(entry: Entry, namespace: str | None, task: str | None, tag: str | None) -> bool:
    spec = entry.spec
    own_task = getattr(spec, "task", None)
    return (
        (namespace is None or spec.namespace == namespace)
        and (task is None or (own_task is not None and task in (own_task, own_task.rpartition("/")[2])))
        and (tag is None or tag in getattr(spec, "tags", ()))
    )


def _cell(entry: Entry, column: str) -> str | None:
    value = getattr(entry.spec, column)
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else value


def _options(spec: Any) -> dict[str, Any] | str | None:
    """Options and their defaults. This imports the code that the spec names, as far as it can be imported."""
    path = getattr(spec, "config", None) or (spec.factory if spec._family == "models" else None)
    if path is None:
        return None
    try:
        found = option_defaults(resolve(path))
    except Exception as error:  # the description is worth more than the options
        note(f"the options are not known: {describe(error)}")
        return None
    return {name: "(required)" if value is ... else value for name, value in found.items()} if found else None


models = _group("models")
datasets = _group("datasets")
tasks = _group("tasks")
trainers = _group("trainers")
