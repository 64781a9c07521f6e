"""Predicting, evaluating and explaining for any task: its own functions, or the parts that it names composed here."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import FlambeauError, UsageError
from .manager import PluginManager, describe
from .models import load_object
from .options import check_keys
from .spec import TaskSpec, resolve


def predict(
    manager: PluginManager,
    task: TaskSpec,
    model: str,
    inputs: Sequence[str],
    output: str | None,
    options: Mapping[str, Any],
) -> Iterable[Mapping[str, Any]]:
    """One result for each input; the arguments and results are those of ``plugins.spec.Predict``.

    Raises:
        UsageError: the task cannot predict.
    """
    if task.predict:
        whole = load_object(manager, "tasks", task.id, task.predict)
        return whole(model, list(inputs), output, dict(options))  # type: ignore[no-any-return]
    parts = _parts(manager, task, ("load_input", "collate", "decode"), "predict")
    write = _parts(manager, task, ("write_output",), "write its output")["write_output"] if output else None
    check_keys(options, (), f"task {task.id!r}")
    return _predict_each(parts, resolve("flambeau.plugins:load_model")(model), inputs, output, write)


def _predict_each(
    parts: Mapping[str, Any], module: Any, inputs: Sequence[str], output: str | None, write: Any
) -> Iterator[Mapping[str, Any]]:
    for source in inputs:
        try:
            sample = parts["load_input"](source)
            result = _results(parts, module, [sample])[0]
            path = write(result, source, output) if write is not None else None
        except FlambeauError as error:
            yield {"input": source, "error": error.cause, "mend": error.mend}
        except (OSError, ValueError, RuntimeError) as error:  # what reading and a wrong shape raise
            yield {"input": source, "error": describe(error), "mend": "check that the file is what the model takes"}
        else:
            yield {"input": source, "output": result} | ({"path": os.fspath(path)} if path else {})


def evaluate(
    manager: PluginManager, task: TaskSpec, model: str, data: str, split: str, options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Metrics by name; the arguments are those of ``plugins.spec.Evaluate``.

    Raises:
        UsageError: the task cannot evaluate.
    """
    if task.evaluate:
        whole = load_object(manager, "tasks", task.id, task.evaluate)
        return whole(model, data, split, dict(options))  # type: ignore[no-any-return]
    parts = _parts(manager, task, ("load_data", "collate", "decode", "metrics"), "evaluate")
    check_keys(options, ("batch_size",), f"task {task.id!r}")
    size = options.get("batch_size", 32)
    if not isinstance(size, int) or size < 1:
        raise UsageError(f"batch_size must be a positive whole number, not {size!r}", "pass --batch-size 32")
    module = resolve("flambeau.plugins:load_model")(model)
    metric = parts["metrics"]()
    pairs = iter(parts["load_data"](data, split))
    seen = 0
    while batch := list(itertools.islice(pairs, size)):
        samples, targets = [sample for sample, _ in batch], [target for _, target in batch]
        metric.update(_results(parts, module, samples), targets)
        seen += len(batch)
    if not seen:
        raise FlambeauError(f"split {split!r} of {data!r} is empty", "name another split with --split")
    return metric.compute()  # type: ignore[no-any-return]


def explain(
    manager: PluginManager, task: TaskSpec, model: str, source: str, output: str, options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What was drawn; the arguments and the result are those of ``plugins.spec.Explain``.

    Raises:
        UsageError: the task cannot explain.
    """
    whole = _parts(manager, task, ("explain",), "explain")["explain"]
    return whole(model, source, output, dict(options))  # type: ignore[no-any-return]


def _results(parts: Mapping[str, Any], module: Any, samples: Sequence[Any]) -> Sequence[Any]:
    with resolve("flambeau:inference_mode")():
        outputs = module(*parts["collate"](samples))
        return parts["decode"](outputs, samples)  # type: ignore[no-any-return]


def _parts(manager: PluginManager, task: TaskSpec, names: Sequence[str], doing: str) -> dict[str, Any]:
    missing = [name for name in names if getattr(task, name) is None]
    if missing:
        raise UsageError(f"task {task.id!r} cannot {doing}: its plugin gives no {missing[0]}")
    return {name: load_object(manager, "tasks", task.id, getattr(task, name)) for name in names}
