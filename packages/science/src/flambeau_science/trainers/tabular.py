"""Supervised training on a CSV file: regression or classification, as the target column says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flambeau.options import from_options
from flambeau.plugins import create_model, load_model
from flambeau.train import R2, Accuracy, supervised

from ..tables import Schema, Table, TabularDataset, fit_schema, read_split
from ..tasks.tabular import score


@dataclass
class TabularOptions(supervised.Options):
    """Options of `train`, beside those of every supervised trainer.

    Attributes:
        target: target column; the last one when left out.
        kind: what the target is; none decides by its values (text, or at most 10 whole numbers: classes).
        ignore: columns that are not inputs, such as identifiers.
        missing: refuse a row with a missing value, naming it, or drop such rows and say how many.
        max_levels: largest number of different values of a text column.
        split_seed: how the rows of a single file are dealt out to train (80%), val (10%) and test (10%).
        hidden: widths of the hidden layers.
        dropout: probability of dropping a hidden unit.
    """

    epochs: int = 30
    batch_size: int = 64
    lr: float = 2e-3
    clip: float | None = 5.0
    target: str | None = None
    kind: Literal["regression", "classification"] | None = None
    ignore: tuple[str, ...] = ()
    missing: Literal["refuse", "drop"] = "refuse"
    max_levels: int = 50
    split_seed: int = 0
    hidden: tuple[int, ...] = (64, 64)
    dropout: float = 0.1


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Train on a CSV file or a folder with train.csv and val.csv; the run's folder gets weights, history and curve.

    Returns:
        The scores of the weights that were kept on the validation rows, in the target's unit.
    """
    settings = from_options(TabularOptions, options)
    tables = {split: read_split(data, split, settings.split_seed) for split in ("train", "val")}
    dropped = 0
    if settings.missing == "drop":
        for split, table in tables.items():
            tables[split] = table.without_missing([name for name in table.columns if name not in settings.ignore])
            dropped += len(table) - len(tables[split])
        if dropped:
            print(f"{dropped} rows with missing values are left out", file=sys.stderr, flush=True)
    schema = fit_schema(
        tables["train"], settings.target, settings.kind, settings.ignore, settings.max_levels, settings.split_seed
    )
    fit(model_id, tables, schema, settings, output, resume)
    found = score(load_model(Path(output)), tables["val"])
    return {"target": schema.target, "kind": schema.kind, **found, **({"rows_dropped": dropped} if dropped else {})}


def fit(
    model_id: str, tables: Mapping[str, Table], schema: Schema, settings: TabularOptions, output: str, resume: bool
) -> None:
    """Train on ``tables["train"]`` and keep the weights that do best on ``tables["val"]``."""
    classify = schema.kind == "classification"
    config = {
        "features": schema.features,
        "outputs": len(schema.classes) if classify else 1,
        "hidden": list(settings.hidden),
        "dropout": settings.dropout,
        "schema": schema.to_dict(),
    }
    supervised.run(
        lambda: create_model(model_id, **config),
        TabularDataset.of(tables["train"], schema),
        TabularDataset.of(tables["val"], schema),
        loss=supervised.cross_entropy(label_smoothing=settings.label_smoothing)
        if classify
        else supervised.mean_squared_error(),
        metrics={"accuracy": Accuracy()} if classify else {"r2": R2()},
        options=settings,
        output=output,
        model_id=model_id,
        config=config,
        plugin="flambeau-science",
        resume=resume,
    )
