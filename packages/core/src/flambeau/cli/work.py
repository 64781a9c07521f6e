"""``flambeau evaluate`` and ``predict``: generic over what the plugins registered."""

from __future__ import annotations

import json
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..errors import EXIT_FAILURE, FlambeauError, UsageError
from ..plugins import ModelSpec, TaskSpec, find_checkpoint, get_task, manager, pipeline
from .given import existing_data, given_options, shared_options
from .output import print_error, print_json, print_metrics
from .registry import names_completion


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    found: list[CompletionItem] = names_completion("models")(ctx, param, incomplete)
    return found or [CompletionItem(incomplete, type="file")]


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.option("--data", required=True, type=click.Path(), help="Folder or file with the data, or a dataset's id.")
@click.option("--split", default="test", show_default=True, help="Split to measure on.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples in a batch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@shared_options
def evaluate(
    model: str, data: str, split: str, as_json: bool, task_name: str | None, settings: tuple[str, ...], **flags: Any
) -> None:
    """Measure MODEL on a dataset and print the metrics.

    MODEL is a checkpoint file, a run's folder, or the name of a model that has trained weights.
    """
    spec = trained(model)
    task = task_of(spec, task_name)
    if task.needs_data:
        data = existing_data(data)
    print_metrics(pipeline.evaluate(manager(), task, model, data, split, given_options(settings, flags)), as_json)


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(allow_dash=True))
@click.option("-o", "--output", type=click.Path(), help="File (one input) or folder to write results to.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.option("--jsonl", "as_lines", is_flag=True, help="Print one line of JSON for each input, as it is done.")
@shared_options
@click.pass_context
def predict(
    ctx: click.Context,
    model: str,
    inputs: tuple[str, ...],
    output: str | None,
    as_json: bool,
    as_lines: bool,
    task_name: str | None,
    settings: tuple[str, ...],
    **flags: Any,
) -> None:
    """Run MODEL on each INPUT (a file; - for stdin) and print what it says.

    MODEL is a checkpoint file, a run's folder, or the name of a model that has trained weights. An input that cannot be
    read is reported and the others are still done; the exit code is then 1.
    """
    if as_json and as_lines:
        raise UsageError("--json and --jsonl exclude each other", "use one of them")
    task = task_of(trained(model), task_name)
    collected, failed = [], False
    for result in pipeline.predict(manager(), task, model, inputs, output, given_options(settings, flags)):
        if "error" in result:
            failed = True
            print_error(f"{result.get('input')}: {result['error']}", str(result.get("mend", "")))
        if as_lines:
            print_json(dict(result), compact=True)
        elif as_json:
            collected.append(dict(result))
        elif "error" not in result:
            click.echo(_result_line(result))
    if as_json:
        print_json(collected)
    if failed:
        ctx.exit(EXIT_FAILURE)


def task_of(spec: ModelSpec, task_name: str | None) -> TaskSpec:
    name = task_name or spec.task
    if name is None:
        raise UsageError(f"model {spec.id!r} names no task", "choose one with --task; `flambeau tasks list` shows them")
    return get_task(name)


def trained(model: str) -> ModelSpec:
    file, spec = find_checkpoint(model)
    if file is None:
        raise FlambeauError(
            f"model {spec.id!r} has no trained weights",
            f"train it with `flambeau train {spec.id}` and pass the folder that this writes",
        )
    return spec


def _result_line(result: Any) -> str:
    output = result.get("output")
    if isinstance(output, dict):
        text = "  ".join(f"{key} {_short(value)}" for key, value in output.items())
    else:
        text = _short(output)
    where = f" -> {result['path']}" if result.get("path") else ""
    return f"{result.get('input')}: {text}{where}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
