"""Tables: scores on a split of a CSV file, predictions for the rows of others."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import flambeau
from flambeau.errors import FlambeauError
from flambeau.io import atomic_write
from flambeau.options import from_options
from flambeau.plugins import load_model
from flambeau.train.metrics import F1, MAE, R2, RMSE, Accuracy, Metric

from ..tables import Schema, Table, read_csv, read_split


@dataclass(frozen=True)
class TableOptions:
    """Options of `evaluate` and `predict`: rows a step, what happens to rows with missing values, the device."""

    batch_size: int = 4096
    missing: Literal["refuse", "drop"] = "refuse"
    device: str = "cpu"


def load_regressor(model: str, device: str = "cpu") -> tuple[flambeau.nn.Module, Schema]:
    """A network that was trained on a table, and how it reads one.

    Raises:
        FlambeauError: not there, damaged, or a network that reads no tables.
    """
    module = load_model(model)
    schema = getattr(module, "schema", None)
    if schema is None:
        raise FlambeauError(
            f"{model}: a {type(module).__name__} that reads no tables", "train science/mlp on a CSV file"
        )
    return module.to(device).eval(), schema


def outputs(module: flambeau.nn.Module, table: Table, batch_size: int = 4096) -> np.ndarray:
    """What is predicted for each row: values in the target's unit (N,), or class probabilities (N, K); float64."""
    schema, inputs = module.schema, module.schema.encode(table)
    device = next(module.parameters()).device
    parts = []
    with flambeau.inference_mode():
        for start in range(0, len(inputs), batch_size):
            found = module(flambeau.from_numpy(inputs[start : start + batch_size]).to(device))
            if schema.kind == "classification":
                found = flambeau.softmax(found, 1)
            parts.append(found.to("cpu").numpy().astype(np.float64))
    found = np.concatenate(parts)
    return found if schema.kind == "classification" else found[:, 0] * schema.target_std + schema.target_mean


def score(module: flambeau.nn.Module, table: Table, batch_size: int = 4096) -> dict[str, float]:
    """MAE, RMSE (in the target's unit) and R² of a regression; accuracy and macro F1 of a classification.

    A two-class problem also gets the area under the ROC curve of its second class.
    """
    schema, found = module.schema, outputs(module, table, batch_size)
    if schema.kind == "regression":
        targets = table.values(schema.target)
        metrics: dict[str, Metric] = {"mae": MAE(), "rmse": RMSE(), "r2": R2()}
    else:
        targets = schema.encode_target(table)
        metrics = {"accuracy": Accuracy(), "macro_f1": F1(len(schema.classes))}
    for metric in metrics.values():
        metric.update(found, targets)
    scores = {name: float(metric.compute()) for name, metric in metrics.items()}
    if len(schema.classes) == 2 and 0 < targets.sum() < len(targets):
        scores["roc_auc"] = roc_auc(found[:, 1], targets)
    return scores


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties counting one half.

    >>> roc_auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
    0.875
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    above = positive.astype(bool)
    hits, misses = int(above.sum()), int((~above).sum())
    return float((ranks[above].sum() - hits * (hits + 1) / 2) / (hits * misses))


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Scores on a split: of a folder, of the file that it was trained on, or ``all`` rows of another file."""
    settings = from_options(TableOptions, options, "the tabular task")
    module, schema = load_regressor(model, settings.device)
    whole = read_split(data, split, schema.seed)
    table = whole.without_missing((*schema.inputs, schema.target)) if settings.missing == "drop" else whole
    if not len(table):
        raise FlambeauError(f"{data}: every row of the split {split!r} misses a value", "mend the table")
    scores: dict[str, Any] = dict(score(module, table, settings.batch_size))
    scores["rows"] = len(table)
    if len(table) < len(whole):
        scores["rows_dropped"] = len(whole) - len(table)
    return scores


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """Predict the target for the rows of CSV files, which need not have it; with an output, write a CSV for each."""
    settings = from_options(TableOptions, options, "the tabular task")
    module, schema = load_regressor(model, settings.device)
    for source in inputs:
        try:
            whole = read_csv(source)
            table = whole.without_missing(schema.inputs) if settings.missing == "drop" else whole
            if not len(table):
                raise FlambeauError(f"{source}: every row misses a value", "mend the table")
            found = outputs(module, table, settings.batch_size)
            record: dict[str, Any] = {"input": source, "output": summary(found, table, len(whole), schema)}
            if output is not None:
                record["path"] = str(write_predictions(_target(source, output, len(inputs) > 1), table, found, schema))
        except FlambeauError as error:
            yield {"input": source, "error": error.cause.removeprefix(f"{source}: "), "mend": error.mend}
        else:
            yield record


def summary(found: np.ndarray, table: Table, rows: int, schema: Schema) -> dict[str, Any]:
    """What is said of a file's predictions: counts of the classes, or the range of the values."""
    said: dict[str, Any] = {"target": schema.target, "rows": len(table)}
    if schema.kind == "classification":
        counts = np.bincount(found.argmax(1), minlength=len(schema.classes))
        said["classes"] = {name: int(count) for name, count in zip(schema.classes, counts, strict=True)}
    else:
        said |= {"mean": float(found.mean()), "min": float(found.min()), "max": float(found.max())}
    if rows > len(table):
        said["rows_dropped"] = rows - len(table)
    if unseen := schema.unseen(table):
        said["unseen_values"] = unseen
    return said


def write_predictions(path: Path, table: Table, found: np.ndarray, schema: Schema) -> Path:
    """Write the table with its predictions: ``predicted_<target>``, and a probability for each class."""
    header = [f"predicted_{schema.target}"]
    if schema.kind == "classification":
        header += [f"probability_{name}" for name in schema.classes]
        columns = [
            [schema.classes[index], *map(_short, row)] for index, row in zip(found.argmax(1), found, strict=True)
        ]
    else:
        columns = [[repr(float(value))] for value in found]
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*table.columns, *header])
        writer.writerows([*row, *extra] for row, extra in zip(table.rows, columns, strict=True))
    return path


def _short(value: float) -> str:
    return f"{value:.6g}"


def _target(source: str, output: str, several: bool) -> Path:
    path = Path(output)
    if not several and not path.is_dir():
        return path
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlambeauError(f"{path}: cannot be made a folder ({error.strerror})", "choose another output") from error
    name = "stdin" if source == "-" else Path(source).name.removesuffix(".gz").removesuffix(".csv")
    return path / f"{name}_predicted.csv"
