"""``flambeau train``: a model, data and a trainer from the line, a TOML file, or the folder of an earlier run.

What a run was started with stands in its folder as ``run.json``, so that ``--resume FOLDER`` needs nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from ..errors import FlambeauError, UsageError
from ..launch import is_main_process
from ..options import read_settings
from ..plugins import ModelSpec, TrainerSpec, check_keys, get_model, get_task, get_trainer, manager, option_defaults
from ..plugins.models import load_object
from .given import existing_data, given_options, shared_options
from .output import note, print_metrics
from .registry import names_completion

_KEYS = ("model", "data", "trainer", "task", "output", "options")
_STARTED = "run.json"


@click.command()
@click.argument("model", required=False, shell_complete=names_completion("models"))
@click.option("--data", type=click.Path(), help="Folder or file with the data, or a dataset's id.")
@click.option("--trainer", help="Trainer to use instead of the model's or task's own.")
@click.option("--config", type=click.Path(dir_okay=False), help="TOML file: model, data, output, a table [options] …")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples in a batch.")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Learning rate.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random.")
@click.option("--output", type=click.Path(file_okay=False), help="Folder to write the run to [default: runs/MODEL].")
@click.option("--resume", type=click.Path(file_okay=False), help="Folder of a run to go on with; needs nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the final metrics as JSON.")
@shared_options
def train(
    model: str | None,
    data: str | None,
    trainer: str | None,
    task_name: str | None,
    config: str | None,
    output: str | None,
    resume: str | None,
    as_json: bool,
    settings: tuple[str, ...],
    **flags: Any,
) -> None:
    """Train MODEL, the id or short name of a model.

    The run's folder gets model.safetensors, which evaluate and predict take. The final metrics are printed.
    `flambeau trainers info TRAINER` lists the options for --set. What stands on the line goes before what stands in
    the file of --config.
    """
    started = _started(resume, config)
    spec = get_model(_model(model, started, resume))
    chosen = trainer_of(spec, trainer or started.get("trainer"), task_name or started.get("task"))
    options = given_options(settings, flags, started.get("options"))
    check_options(chosen, options)
    data = data or started.get("data")
    if chosen.needs_data:
        data = existing_data(data)
    folder = _run_folder(spec, output, resume, started)
    factory = load_object(manager(), "trainers", chosen.id, chosen.factory)
    lasting = os.path.abspath(data) if data and os.path.exists(data) else data
    record = {"model": spec.id, "data": lasting, "trainer": chosen.id, "options": options}
    with _recorded(Path(folder), record) if is_main_process() else nullcontext():
        metrics = factory(model_id=spec.id, data=data or "", output=folder, options=options, resume=resume is not None)
    if is_main_process():
        print_metrics(metrics, as_json)
        note(f"run written to {folder}")


def _started(resume: str | None, config: str | None) -> dict[str, Any]:
    """What the run was or is to be started with, as far as it does not stand on the line."""
    if resume is None:
        return read_settings(config, _KEYS) if config else {}
    if config is not None:
        raise UsageError("--resume and --config exclude each other", "a run goes on with what it was started with")
    if not os.path.isdir(resume):
        raise FlambeauError(f"run {resume!r} does not exist", "pass the folder that an earlier train command wrote")
    path = Path(resume) / _STARTED
    return read_settings(path, _KEYS) if path.exists() else {}


def _model(model: str | None, started: Mapping[str, Any], resume: str | None) -> str:
    before = started.get("model")
    if model is None:
        if before is None:
            where = f"{resume} does not say its model" if resume else "there is no MODEL"
            raise UsageError(where, "name one; `flambeau models list` shows them")
        return str(before)
    if resume and before is not None and get_model(model).id != get_model(before).id:
        raise UsageError(f"the run in {resume} trains {before}, not {model}", "leave MODEL out")
    return model


class _recorded:
    """Keeps ``run.json`` beside what the trainer writes; a run that failed before it wrote anything leaves nothing."""

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder, self.record = folder, record
        self.made = [path for path in (folder, *folder.parents) if not path.exists()]

    def __enter__(self) -> None:
        from ..io.atomic import atomic_write

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlambeauError(f"cannot create {self.folder}: {error.strerror}", "choose another --output") from error
        with atomic_write(self.folder / _STARTED, "w") as file:
            json.dump(self.record, file, indent=2)
            file.write("\n")

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            return
        if os.listdir(self.folder) == [_STARTED]:
            (self.folder / _STARTED).unlink()
            for path in self.made:
                path.rmdir()
        elif issubclass(kind, KeyboardInterrupt | SystemExit):
            note(f"stopped; go on with: flambeau train --resume {self.folder}")


def check_options(trainer: TrainerSpec, options: Mapping[str, Any]) -> None:
    """Refuses options that the trainer does not have, with a suggestion."""
    if trainer.config:
        known = option_defaults(load_object(manager(), "trainers", trainer.id, trainer.config))
        if known is not None:
            check_keys(options, known, f"trainer {trainer.id!r}")


def trainer_of(spec: ModelSpec, trainer_name: str | None, task_name: str | None) -> TrainerSpec:
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


def _run_folder(spec: ModelSpec, output: str | None, resume: str | None, started: Mapping[str, Any]) -> str:
    """The run's folder. A finished run is never overwritten."""
    if resume is not None:
        if output is not None and os.path.abspath(output) != os.path.abspath(resume):
            raise UsageError("--resume goes on in its own folder", "leave --output out")
        return resume
    folder = output or started.get("output") or os.path.join("runs", spec.short_name)
    # The main one of several processes looks alone: it may have begun to write when the others come to look.
    if is_main_process() and os.path.isdir(folder) and os.listdir(folder):
        raise FlambeauError(f"{folder!r} already holds files", f"add --resume {folder}, or name another --output")
    return str(folder)
