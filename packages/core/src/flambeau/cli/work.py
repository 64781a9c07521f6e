"""``flambeau train``, ``evaluate`` and ``predict``: generic over what the plugins registered."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ..errors import EXIT_FAILURE, FlambeauError, UsageError
from ..launch import is_main_process
from ..plugins import (
    ModelSpec,
    NotRegisteredError,
    TaskSpec,
    TrainerSpec,
    check_keys,
    find_checkpoint,
    get_dataset,
    get_model,
    get_task,
    get_trainer,
    manager,
    option_defaults,
    pipeline,
)
from ..plugins.models import load_object
from .output import note, print_error, print_json, print_metrics
from .registry import names_completion

F = TypeVar("F", bound=Callable[..., Any])


def _complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    found: list[CompletionItem] = names_completion("models")(ctx, param, incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def _shared(function: F) -> F:
    """The options that all three commands have."""
    set_option = click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any other option; repeatable."
    )
    device = click.option("--device", help="cpu, cuda, cuda:1 …")
    task = click.option("--task", "task_name", help="Task to use instead of the model's own.")
    return set_option(device(task(function)))


@click.command()
@click.argument("model", shell_complete=names_completion("models"))
@click.option("--data", type=click.Path(), help="Folder or file with the data, or a dataset's id.")
@click.option("--trainer", "trainer_name", help="Trainer to use instead of the model's or task's own.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples in a batch.")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Learning rate.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random.")
@click.option("--output", type=click.Path(file_okay=False), help="Folder to write the run to [default: runs/MODEL].")
@click.option("--resume", type=click.Path(file_okay=False), help="Folder of a run to go on with.")
@click.option("--json", "as_json", is_flag=True, help="Print the final metrics as JSON.")
@_shared
def train(
    model: str,
    data: str | None,
    trainer_name: str | None,
    task_name: str | None,
    output: str | None,
    resume: str | None,
    as_json: bool,
    settings: tuple[str, ...],
    **flags: Any,
) -> None:
    """Train MODEL, the id or short name of a model.

    The run's folder gets model.safetensors, which evaluate and predict take. The final metrics are printed.
    `flambeau trainers info TRAINER` lists the options for --set.
    """
    spec = get_model(model)
    trainer = _trainer_of(spec, trainer_name, task_name)
    options = _options(settings, flags)
    if trainer.config:
        known = option_defaults(load_object(manager(), "trainers", trainer.id, trainer.config))
        if known is not None:
            check_keys(options, known, f"trainer {trainer.id!r}")
    if trainer.needs_data:
        data = _existing_data(data)
    folder, resuming = _run_folder(spec, output, resume)
    factory = load_object(manager(), "trainers", trainer.id, trainer.factory)
    try:
        metrics = factory(model_id=spec.id, data=data or "", output=folder, options=options, resume=resuming)
    except KeyboardInterrupt:
        if os.path.isdir(folder) and os.listdir(folder):
            note(f"stopped; go on with: flambeau train {spec.id} --resume {folder} and the same options")
        raise
    if is_main_process():
        print_metrics(metrics, as_json)
        note(f"run written to {folder}")


@click.command()
@click.argument("model", shell_complete=_complete_models)
@click.option("--data", required=True, type=click.Path(), help="Folder or file with the data, or a dataset's id.")
@click.option("--split", default="test", show_default=True, help="Split to measure on.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples in a batch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_shared
def evaluate(
    model: str, data: str, split: str, as_json: bool, task_name: str | None, settings: tuple[str, ...], **flags: Any
) -> None:
    """Measure MODEL on a dataset and print the metrics.

    MODEL is a checkpoint file, a run's folder, or the name of a model that has trained weights.
    """
    spec = _trained(model)
    task = _task_of(spec, task_name)
    if task.needs_data:
        data = _existing_data(data)
    print_metrics(pipeline.evaluate(manager(), task, model, data, split, _options(settings, flags)), as_json)


@click.command()
@click.argument("model", shell_complete=_complete_models)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(allow_dash=True))
@click.option("-o", "--output", type=click.Path(), help="File (one input) or folder to write results to.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.option("--jsonl", "as_lines", is_flag=True, help="Print one line of JSON for each input, as it is done.")
@_shared
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
    task = _task_of(_trained(model), task_name)
    collected, failed = [], False
    for result in pipeline.predict(manager(), task, model, inputs, output, _options(settings, flags)):
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


def _trainer_of(spec: ModelSpec, trainer_name: str | None, task_name: str | None) -> TrainerSpec:
    """The trainer: named on the line, else the named task's, else the model's, else its task's."""
    if trainer_name:
        return get_trainer(trainer_name)
    if task_name:
        name = get_task(task_name).trainer
    else:
        name = spec.trainer or (get_task(spec.task).trainer if spec.task else None)
    if name is None:
        source = f"task {task_name!r}" if task_name else f"model {spec.id!r}"
        raise UsageError(f"{source} names no trainer", "choose one with --trainer; `flambeau trainers list` shows them")
    return get_trainer(name)


def _task_of(spec: ModelSpec, task_name: str | None) -> TaskSpec:
    name = task_name or spec.task
    if name is None:
        raise UsageError(f"model {spec.id!r} names no task", "choose one with --task; `flambeau tasks list` shows them")
    return get_task(name)


def _trained(model: str) -> ModelSpec:
    file, spec = find_checkpoint(model)
    if file is None:
        raise FlambeauError(
            f"model {spec.id!r} has no trained weights",
            f"train it with `flambeau train {spec.id}` and pass the folder that this writes",
        )
    return spec


def _existing_data(data: str | None) -> str:
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


def _run_folder(spec: ModelSpec, output: str | None, resume: str | None) -> tuple[str, bool]:
    """The run's folder and whether to go on in it. A finished run is never overwritten."""
    if resume is not None:
        if output is not None and os.path.abspath(output) != os.path.abspath(resume):
            raise UsageError("--resume goes on in its own folder", "leave --output out")
        if not os.path.isdir(resume):
            raise FlambeauError(f"run {resume!r} does not exist", "pass the folder that an earlier train command wrote")
        return resume, True
    folder = output or os.path.join("runs", spec.short_name)
    if os.path.isdir(folder) and os.listdir(folder):
        raise FlambeauError(f"{folder!r} already holds files", f"add --resume {folder}, or name another --output")
    return folder, False


def _options(settings: tuple[str, ...], flags: dict[str, Any]) -> dict[str, Any]:
    """The given flags and every ``--set key=value``, values read as JSON where they are JSON."""
    options = {name: value for name, value in flags.items() if value is not None}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key.isidentifier():
            raise UsageError(f"--set {setting!r} is not KEY=VALUE", "write --set width=64")
        if key in options:
            raise UsageError(f"option {key!r} is given twice", "give it once")
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options


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
