"""``flambeau tune``: many runs of ``flambeau train`` with other options, scheduled by Ray Tune (extra ``[ray]``)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ..errors import FlambeauError, MissingExtraError, UsageError
from ..options import merge_settings
from ..plugins import get_model, manager
from ..plugins.models import load_object
from .given import existing_data, given_options, shared_options
from .output import note, print_json
from .registry import names_completion
from .train import check_options, trainer_of

_KINDS = ("choice", "grid", "uniform", "loguniform", "randint", "quniform")


@click.command()
@click.argument("model", shell_complete=names_completion("models"))
@click.option("--data", type=click.Path(), help="Folder or file with the data, or a dataset's id.")
@click.option("--trainer", help="Trainer to use instead of the model's or task's own.")
@click.option("--space", "spaces", multiple=True, required=True, metavar="KEY=KIND:A,B",
              help=f"What to try, repeatable: lr=loguniform:1e-5,1e-2. Kinds: {', '.join(_KINDS)}.")  # fmt: skip
@click.option(
    "--trials", type=click.IntRange(min=1), default=10, show_default=True, help="Runs (times those of grids)."
)
@click.option("--at-once", type=click.IntRange(min=1), help="Runs at the same time [default: one].")
@click.option("--metric", required=True, help="Name of the final metric to choose by, as `flambeau train` prints it.")
@click.option("--mode", type=click.Choice(["min", "max"]), default="min", show_default=True, help="What is better.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the choice of options.")
@click.option("--output", type=click.Path(file_okay=False), default="runs/tune", show_default=True, help="Folder.")
@click.option("--resume", is_flag=True, help="Go on with the unfinished trials in the folder.")
@shared_options
def tune(
    model: str, data: str | None, trainer: str | None, task_name: str | None, spaces: tuple[str, ...], trials: int,
    at_once: int | None, metric: str, mode: str, seed: int, output: str, resume: bool, settings: tuple[str, ...],
    **flags: Any,
) -> None:  # fmt: skip
    """Train MODEL many times and print the trials, the best first.

    Each trial is a run's folder in OUTPUT/trials; evaluate and predict take the best one's.
    """
    if find_spec("ray") is None:
        raise MissingExtraError("flambeau tune needs Ray Tune", "pip install 'flambeau-core[ray]'")
    spec = get_model(model)
    chosen = trainer_of(spec, trainer, task_name)
    options = given_options(settings, flags)
    space = dict(map(parse_space, spaces))
    check_options(chosen, merge_settings(options, dict.fromkeys(space)))
    if chosen.needs_data:
        data = existing_data(data)
    where = os.path.abspath(data) if data and os.path.exists(data) else data or ""
    folder = Path(output).absolute()
    if resume != (folder / "ray").exists():
        cause = f"{output} holds no sweep" if resume else f"{output} already holds a sweep"
        raise UsageError(cause, "leave --resume out" if resume else "add --resume, or name another --output")
    trial = _Trial(spec.id, chosen.id, chosen.factory, where, options, str(folder / "trials"), metric)
    results = _run(trial, space, trials, at_once or 1, metric, mode, seed, folder, resume)
    rows = _rows(results, metric, mode, folder / "trials")
    if not rows:
        reasons = [str(error).strip().splitlines()[-1] for error in results.errors]
        raise FlambeauError(f"no trial ended well: {reasons[0] if reasons else 'none ran'}", f"see {folder / 'ray'}")
    print_json(rows)
    note(f"the best run is {rows[0]['run']}")


def parse_space(text: str) -> tuple[str, tuple[str, list[Any]]]:
    """``"lr=loguniform:1e-5,1e-2"`` as ("lr", ("loguniform", [1e-5, 1e-2])).

    >>> parse_space("model.width=choice:32,64")
    ('model.width', ('choice', [32, 64]))
    """
    key, equals, rest = text.partition("=")
    kind, colon, numbers = rest.partition(":")
    mend = "write --space lr=loguniform:1e-5,1e-2 or --space batch_size=choice:16,32"
    if not (key and equals and colon and numbers):
        raise UsageError(f"--space {text!r} is not KEY=KIND:VALUES", mend)
    if kind not in _KINDS:
        raise UsageError(f"--space {text!r} is of no kind that is known", f"the kinds are {', '.join(_KINDS)}")
    values = [_value(part) for part in numbers.split(",")]
    count = {"choice": None, "grid": None, "quniform": 3}.get(kind, 2)
    if count is not None and (len(values) != count or any(isinstance(v, str) for v in values)):
        raise UsageError(f"--space {text!r}: {kind} takes {count} numbers", mend)
    return key.strip().replace("-", "_"), (kind, values)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


class _Trial:
    """What a Ray worker calls with the options of one trial; plain data, so that it can be sent there."""

    def __init__(
        self, model: str, trainer: str, factory: str, data: str, options: Mapping[str, Any], folder: str, metric: str
    ) -> None:
        self.model, self.trainer, self.factory = model, trainer, factory
        self.data, self.options, self.folder, self.metric = data, dict(options), folder, metric

    def __call__(self, config: dict[str, Any]) -> None:
        from ray import tune

        name = tune.get_context().get_trial_id()
        folder = os.path.join(self.folder, name)
        resume = os.path.isdir(os.path.join(folder, "checkpoints"))
        factory = load_object(manager(), "trainers", self.trainer, self.factory)
        options = merge_settings(self.options, config)
        metrics = factory(model_id=self.model, data=self.data, output=folder, options=options, resume=resume)
        if self.metric not in metrics:
            raise FlambeauError(f"there is no metric {self.metric!r}", f"the metrics are {', '.join(metrics)}")
        tune.report({key: value for key, value in metrics.items() if isinstance(value, int | float)})


def _run(
    trial: _Trial, space: Mapping[str, tuple[str, list[Any]]], trials: int, at_once: int, metric: str,
    mode: str, seed: int, folder: Path, resume: bool,
) -> Any:  # fmt: skip
    import random

    import numpy as np
    import ray
    from ray import tune

    makers: dict[str, Any] = {
        "choice": lambda *v: tune.choice(list(v)), "grid": lambda *v: tune.grid_search(list(v)),
        "uniform": tune.uniform, "loguniform": tune.loguniform, "randint": tune.randint, "quniform": tune.quniform,
    }  # fmt: skip
    random.seed(seed)
    np.random.seed(seed)  # Ray draws from NumPy's global generator
    cores = os.cpu_count() or 1
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    runnable = tune.with_resources(trial.__call__, {"cpu": cores / at_once})
    if resume:
        tuner = tune.Tuner.restore(
            str(folder / "ray"), trainable=runnable, resume_unfinished=True, restart_errored=True
        )
    else:
        tuner = tune.Tuner(
            runnable,
            param_space={key: makers[kind](*values) for key, (kind, values) in space.items()},
            tune_config=tune.TuneConfig(metric=metric, mode=mode, num_samples=trials),
            run_config=tune.RunConfig(name="ray", storage_path=str(folder), verbose=1),
        )
    try:
        with redirect_stdout(sys.stderr):  # Ray's tables; the trials go to stdout as JSON
            return tuner.fit()
    finally:
        ray.shutdown()


def _rows(results: Any, metric: str, mode: str, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for result in results:
        if result.error is None and result.metrics and metric in result.metrics:
            name = result.metrics["trial_id"]
            rows.append({metric: result.metrics[metric], "options": result.config, "run": str(folder / name)})
    return sorted(rows, key=lambda row: row[metric], reverse=mode == "max")
