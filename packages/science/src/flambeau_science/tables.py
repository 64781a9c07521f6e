"""Tables: reading CSV strictly, and turning rows into standardised numbers.

A row that cannot be used is never dropped in silence: reading refuses it with its row number (the first line after the
header is row 1), or, when asked, leaves it out and counts it.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flambeau.data import Dataset
from flambeau.errors import FlambeauError, UsageError
from flambeau.plugins.registry import did_you_mean, near

Kind = Literal["regression", "classification"]
SPLITS = ("train", "val", "test")
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?"))
_FEW = 10  # whole-number targets of at most so many distinct values are taken for classes


@dataclass(frozen=True)
class Table:
    """A CSV file in memory: names of the columns, and the fields of the rows as text.

    Attributes:
        name: where it came from, for messages.
        numbers: row number of each row in the file.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def position(self, column: str) -> int:
        """Where a column stands.

        Raises:
            FlambeauError: there is no such column.
        """
        if column not in self.columns:
            mend = did_you_mean(near(column, self.columns)) or f"it has {', '.join(self.columns)}"
            raise FlambeauError(f"{self.name}: there is no column {column!r}", mend)
        return self.columns.index(column)

    def texts(self, column: str) -> list[str]:
        """The fields of a column."""
        position = self.position(column)
        return [row[position] for row in self.rows]

    def values(self, column: str) -> np.ndarray:
        """The numbers of a column, float64 (N,).

        Raises:
            FlambeauError: a field is no finite number; the row is named.
        """
        out = np.empty(len(self), np.float64)
        for index, text in enumerate(self.texts(column)):
            value = _number(text)
            if value is None or not math.isfinite(value):
                what = "is missing" if is_missing(text) else f"is {text!r}, not a finite number"
                raise FlambeauError(
                    f"{self.name}: row {self.numbers[index]}, column {column!r} {what}",
                    "mend or delete the row, or leave such rows out with --set missing=drop",
                )
            out[index] = value
        return out

    def take(self, indices: Sequence[int] | np.ndarray) -> Table:
        """The rows at `indices`, in that order."""
        return Table(
            self.name,
            self.columns,
            tuple(self.rows[index] for index in indices),
            tuple(self.numbers[index] for index in indices),
        )

    def without_missing(self, columns: Sequence[str]) -> Table:
        """The rows that have a value in each of `columns`."""
        positions = [self.position(column) for column in columns]
        kept = [i for i, row in enumerate(self.rows) if not any(is_missing(row[position]) for position in positions)]
        return self.take(kept)


def is_missing(text: str) -> bool:
    """Whether a field says that there is no value: empty, NA, nan, null, none, ?."""
    return text.strip().lower() in _MISSING


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_csv(source: str | Path) -> Table:
    """Read a CSV file with a header line: plain or gzipped, UTF-8; ``-`` reads stdin.

    Raises:
        FlambeauError: unreadable, empty, columns of the same name, or a row of another length (its number is named).
    """
    name = "stdin" if str(source) == "-" else str(source)
    try:
        data = sys.stdin.buffer.read() if str(source) == "-" else Path(source).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = next(lines, None)
        body = list(lines)
    except FileNotFoundError:
        raise FlambeauError(f"{name}: no such file", "check the path") from None
    except UnicodeDecodeError:
        raise FlambeauError(f"{name}: not UTF-8 text", "save the table as CSV in UTF-8") from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise FlambeauError(f"{name}: cannot be read as CSV ({error})", "save the table as CSV again") from error
    if not header or not any(header):
        raise FlambeauError(f"{name}: the file is empty", "it needs a line with the names of the columns, then rows")
    columns = tuple(column.strip() for column in header)
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise FlambeauError(f"{name}: two columns are called {twice[0]!r}", "give every column a name of its own")
    rows, numbers = [], []
    for number, row in enumerate(body, 1):
        if not row:
            continue  # an empty line is no row
        if len(row) != len(columns):
            raise FlambeauError(
                f"{name}: row {number} has {len(row)} fields, the header {len(columns)}",
                "mend the row (quotes? commas?)",
            )
        rows.append(tuple(row))
        numbers.append(number)
    if not rows:
        raise FlambeauError(f"{name}: there are no rows below the header", "give a table with data")
    return Table(name, columns, tuple(rows), tuple(numbers))


def read_split(data: str | Path, split: str, seed: int = 0) -> Table:
    """The rows of a split.

    A folder holds ``train.csv``, ``val.csv``, ``test.csv`` (or ``.csv.gz``). The rows of a single file are dealt out by
    `seed`: 80% train, 10% val, 10% test; ``all`` is the whole file.

    Raises:
        FlambeauError: no such file or split, or the split is empty.
    """
    path = Path(data)
    if path.is_dir():
        for suffix in (".csv", ".csv.gz"):
            if (path / f"{split}{suffix}").is_file():
                return read_csv(path / f"{split}{suffix}")
        raise FlambeauError(f"{path}: there is no {split}.csv", f"put {split}.csv there, or pass one CSV file")
    if split not in (*SPLITS, "all"):
        raise UsageError(f"there is no split {split!r}", f"choose {', '.join(SPLITS)} or all")
    table = read_csv(path)
    if split == "all":
        return table
    order = np.random.default_rng(seed).permutation(len(table))
    tenth = len(table) // 10
    parts = {"val": order[:tenth], "test": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
    if not len(parts[split]):
        raise FlambeauError(f"{path}: {len(table)} rows are too few for the split {split!r}", "give at least 10 rows")
    return table.take(np.sort(parts[split]))


@dataclass(frozen=True)
class Schema:
    """How rows become numbers: fixed by the training rows, stored with the weights.

    Attributes:
        target: name of the target column.
        kind: regression or classification.
        numeric: names of the numeric columns, standardised by `mean` and `std`.
        levels: text column -> its values; one 0/1 input for each. A value unseen in training gives zeros.
        classes: names of the classes.
        target_mean, target_std: of a regression's target.
        seed: by which a single file was split.
    """

    target: str
    kind: Kind
    numeric: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: dict[str, list[str]]
    classes: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_std: float = 1.0
    seed: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schema:
        """The schema that `to_dict` described."""
        lists = {name: tuple(values[name]) for name in ("numeric", "mean", "std", "classes")}
        return cls(**{**values, **lists})

    def to_dict(self) -> dict[str, Any]:
        """As plain data for a checkpoint."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that are read."""
        return (*self.numeric, *self.levels)

    @property
    def features(self) -> int:
        """Inputs of the network."""
        return len(self.numeric) + sum(map(len, self.levels.values()))

    def encode(self, table: Table) -> np.ndarray:
        """Inputs, float32 (N, features).

        Raises:
            FlambeauError: a column is absent, or a field is missing or no number.
        """
        parts = [
            ((table.values(name) - mean) / std)[:, None]
            for name, mean, std in zip(self.numeric, self.mean, self.std, strict=True)
        ]
        for name, levels in self.levels.items():
            texts = _texts(table, name)
            parts.append(np.array([[text == level for level in levels] for text in texts], np.float64))
        return np.concatenate(parts, 1).astype(np.float32)

    def unseen(self, table: Table) -> int:
        """How many text fields hold a value that training did not have."""
        return sum(text not in levels for name, levels in self.levels.items() for text in _texts(table, name))

    def encode_target(self, table: Table) -> np.ndarray:
        """Class numbers, int64 (N,), or standardised values, float32 (N, 1).

        Raises:
            FlambeauError: the target is missing somewhere, or an unknown class.
        """
        if self.kind == "regression":
            return ((table.values(self.target) - self.target_mean) / self.target_std).astype(np.float32)[:, None]
        names = {name: index for index, name in enumerate(self.classes)}
        texts = _texts(table, self.target)
        for text, number in zip(texts, table.numbers, strict=True):
            if text not in names:
                raise FlambeauError(
                    f"{table.name}: row {number}, column {self.target!r}: no training row has the class {text!r}",
                    f"the classes are {', '.join(self.classes)}",
                )
        return np.array([names[text] for text in texts], np.int64)


def _texts(table: Table, column: str) -> list[str]:
    texts = [text.strip() for text in table.texts(column)]
    for text, number in zip(texts, table.numbers, strict=True):
        if is_missing(text):
            raise FlambeauError(
                f"{table.name}: row {number}, column {column!r} is missing",
                "mend or delete the row, or leave such rows out with --set missing=drop",
            )
    return texts


def fit_schema(
    table: Table,
    target: str | None = None,
    kind: Kind | None = None,
    ignore: Sequence[str] = (),
    max_levels: int = 50,
    seed: int = 0,
) -> Schema:
    """Decide from the training rows how to encode a table.

    Args:
        target: target column; None for the last one.
        kind: None: classification for a target of text or of at most 10 distinct whole numbers, else regression.
        ignore: columns that are not inputs.
        max_levels: a text column with more distinct values is refused: it is more likely a name than a category.

    Raises:
        FlambeauError: absent columns, missing values, too many levels, a constant target, or no inputs left.
    """
    target = target or table.columns[-1]
    ignored = {table.columns[table.position(column)] for column in ignore} | {table.columns[table.position(target)]}
    numeric, mean, std, levels = [], [], [], {}
    for column in table.columns:
        if column in ignored:
            continue
        texts = table.texts(column)
        if all(_number(text) is not None or is_missing(text) for text in texts):
            values = table.values(column)
            numeric.append(column)
            mean.append(float(values.mean()))
            std.append(float(values.std()) or 1.0)  # a constant column becomes zeros
            continue
        found = sorted(set(_texts(table, column)))
        if len(found) > max_levels:
            raise FlambeauError(
                f"{table.name}: the text column {column!r} has {len(found)} different values in {len(table)} rows",
                f"leave it out with --set ignore={column}, or allow it with --set max_levels={len(found)}",
            )
        levels[column] = found
    if not numeric and not levels:
        raise FlambeauError(f"{table.name}: no column is left as an input", "ignore fewer columns")
    schema = Schema(target, kind or _kind(table, target), tuple(numeric), tuple(mean), tuple(std), levels, seed=seed)
    return Schema.from_dict({**schema.to_dict(), **_fit_target(table, schema)})


def _fit_target(table: Table, schema: Schema) -> dict[str, Any]:
    if schema.kind == "classification":
        found = sorted(set(_texts(table, schema.target)), key=lambda text: (_number(text) is None, _number(text), text))
        if len(found) < 2:
            raise FlambeauError(f"{table.name}: the target {schema.target!r} is always {found[0]!r}", "choose a target")
        return {"classes": found}
    values = table.values(schema.target)
    if not values.std() > 0:
        raise FlambeauError(f"{table.name}: the target {schema.target!r} is always {values[0]:g}", "choose a target")
    return {"target_mean": float(values.mean()), "target_std": float(values.std())}


def _kind(table: Table, target: str) -> Kind:
    values = [_number(text) for text in table.texts(target) if not is_missing(text)]
    if any(value is None for value in values):
        return "classification"
    whole = all(value.is_integer() for value in values if value is not None)
    return "classification" if whole and len(set(values)) <= _FEW else "regression"


class TabularDataset(Dataset):
    """Pairs (inputs, target) of a table's rows: float32 (features,), and float32 (1,) or an int64 class number.

    ``TabularDataset(root, split)`` reads a CSV file or a folder as `read_split` does and fits the schema to the
    training rows, so that no split leaks into the statistics.
    """

    def __init__(
        self, root: str | Path, split: str = "train", schema: Schema | None = None, seed: int = 0, **options: Any
    ) -> None:
        if schema is None:
            schema = fit_schema(read_split(root, "train", seed), seed=seed, **options)
        elif options:
            raise TypeError(f"a schema is given, so {sorted(options)[0]!r} has no effect")
        self._take(read_split(root, split, seed), schema)

    @classmethod
    def of(cls, table: Table, schema: Schema) -> TabularDataset:
        """The dataset of a table that is already read."""
        dataset = cls.__new__(cls)
        dataset._take(table, schema)
        return dataset

    def _take(self, table: Table, schema: Schema) -> None:
        self.table, self.schema = table, schema
        self.inputs, self.targets = schema.encode(table), schema.encode_target(table)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        target = self.targets[index]
        return self.inputs[index], int(target) if target.ndim == 0 else target
