"""What the trainers read: windows of a text, labelled texts, and pairs of sentences; and batches of ids."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flambeau.data import Dataset, sample_rng
from flambeau.errors import FlambeauError

from .text import only_file, read_lines, read_text, split_file

#: Ids that all vocabularies share: padding, and what they do not know.
PAD, UNK = 0, 1
TEXT_ENDINGS = (".txt", ".tokens", ".text")
TABLE_ENDINGS = (".tsv", ".csv", ".txt")
HELD_OUT = ("val", "valid", "dev", "test")


def pad_batch(rows: Sequence[Sequence[int]]) -> Any:
    """Sequences of ids as one int64 Tensor (N, longest, at least 1), padded at the end.

    >>> pad_batch([[5, 6], [7]]).tolist()
    [[5, 6], [7, 0]]
    """
    from flambeau import from_numpy

    batch = np.full((len(rows), max([1, *map(len, rows)])), PAD, dtype=np.int64)
    for row, ids in zip(batch, rows, strict=True):
        row[: len(ids)] = ids
    return from_numpy(batch)


class ListDataset(Dataset[Any]):
    """Samples that are in a list already."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)


# --- language modelling -----------------------------------------------------------------------------------------------


def open_text(data: str, split: str, holdout: float = 0.1) -> str:
    """The text of a split: of ``<split>.txt[.gz]`` in a folder, or a part of the one file that there is.

    Of a single file the last `holdout` share is ``val`` and ``test``, what is before it ``train``, and it is whole as
    ``all``.

    Raises:
        FlambeauError: there is no such split, or the file cannot be read.
    """
    path = Path(data)
    if path.is_dir():
        found = split_file(path, split, TEXT_ENDINGS)
        if found is not None:
            return read_text(found)
        single = only_file(path, TEXT_ENDINGS)
        if single is None:
            raise FlambeauError(f"{data} has no {split}.txt and not one text file only", "give the file itself")
        path = single
    text = read_text(path)
    cut = len(text) - round(len(text) * holdout)
    parts = {"train": text[:cut], "all": text, **dict.fromkeys(HELD_OUT, text[cut:])}
    if split not in parts:
        raise FlambeauError(f"{path} has no split {split!r}", f"choose one of {', '.join(parts)}")
    return parts[split]


class Windows(Dataset[Any]):
    """Pieces of a text for a language model: (ids, the ids one further on), each (length,).

    Fixed windows tile the text, the last one a little over its neighbour. Random ones begin anywhere; there are as many
    in an epoch as would tile the text, or `count`.
    """

    def __init__(self, ids: np.ndarray, length: int, *, randomly: bool = False, count: int | None = None) -> None:
        if len(ids) < 2:
            raise FlambeauError("the text is too short to learn from", "give a longer one")
        self.ids, self.randomly = ids, randomly
        self.length = min(length, len(ids) - 1)
        self.tiles = -(-(len(ids) - 1) // self.length)
        self.count = count or self.tiles

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        last = len(self.ids) - 1 - self.length
        start = int(sample_rng().integers(last + 1)) if self.randomly else min(index * self.length, last)
        piece = self.ids[start : start + self.length + 1]
        target = piece[1:].copy()
        if not self.randomly and index == self.tiles - 1:
            target[: index * self.length - start] = -100  # counted in the window before
        return piece[:-1], target

    def __len__(self) -> int:
        return self.count


# --- classification ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """Texts and the name of each one's class."""

    texts: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)


def open_labelled(data: str, split: str, holdout: float = 0.1, label: str = "auto") -> Labelled:
    """The labelled texts of a split: of ``<split>.tsv`` or ``.csv`` (also ``.gz``) in a folder, or a part of one file.

    Of a single file, shuffled always the same way, the last `holdout` share is ``val`` and ``test``, the rest
    ``train``.

    Args:
        label: which column has the class: ``first``, ``last``, or ``auto`` for the one with fewer different values.
    """
    path = Path(data)
    if path.is_dir():
        found = split_file(path, split, TABLE_ENDINGS)
        if found is not None:
            return read_labelled(found, label)
        single = only_file(path, TABLE_ENDINGS)
        if single is None:
            raise FlambeauError(f"{data} has no {split}.tsv or {split}.csv", "give the file itself, or another split")
        path = single
    rows = read_labelled(path, label)
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    cut = len(order) - round(len(order) * holdout)
    parts = {"train": order[:cut], "all": order, **dict.fromkeys(HELD_OUT, order[cut:])}
    if split not in parts:
        raise FlambeauError(f"{path} has no split {split!r}", f"choose one of {', '.join(parts)}")
    chosen = parts[split]
    return Labelled([rows.texts[i] for i in chosen], [rows.labels[i] for i in chosen])


def read_labelled(path: str | Path, label: str = "auto") -> Labelled:
    """The rows of a table: two columns separated by a tab, or the columns of a csv file; a header row is left out.

    Raises:
        FlambeauError: a line with one column only, or no rows.
    """
    name = Path(path).name.removesuffix(".gz")
    if name.lower().endswith(".csv"):
        rows = [row for row in csv.reader(io.StringIO(read_text(path))) if row]
        separator = "comma"
    else:
        rows = [line.split("\t") for line in read_lines(path) if line.strip()]
        separator = "tab"
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise FlambeauError(
                f"{path}: row {number} has no {separator}", f"write text<{separator}>label in each line"
            )
    if {cell.strip().lower() for cell in (rows[0][0], rows[0][-1])} & {"label", "class", "category"}:
        rows = rows[1:]
    if not rows:
        raise FlambeauError(f"{path} has no rows", "give a file with labelled texts")
    first = label == "first"
    if label == "auto":
        first = len({row[0] for row in rows}) < len({row[-1] for row in rows})
    texts = [" ".join(row[1:] if first else row[:-1]) for row in rows]
    return Labelled(texts, [(row[0] if first else row[-1]).strip() for row in rows])


# --- translation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Sentences and their translations."""

    source: list[str]
    target: list[str]

    def __len__(self) -> int:
        return len(self.source)


def open_pairs(data: str, split: str, source: str, target: str) -> Pairs | None:
    """The pairs of ``<split>.<source>`` and ``<split>.<target>`` (also ``.gz``) in a folder; None when there are none.

    Raises:
        FlambeauError: one of the two is missing, or they have different numbers of lines.
    """
    if not Path(data).is_dir():
        raise FlambeauError(f"{data} is not a folder", f"give the folder with train.{source} and train.{target}")
    paths = [split_file(data, split, [f".{language}"]) for language in (source, target)]
    if paths == [None, None]:
        return None
    for path, language in zip(paths, (source, target), strict=True):
        if path is None:
            raise FlambeauError(f"{data} has no {split}.{language}", "give a folder with both languages")
    assert paths[0] is not None and paths[1] is not None
    first, second = read_lines(paths[0]), read_lines(paths[1])
    if len(first) != len(second):
        raise FlambeauError(
            f"{paths[0]} has {len(first)} lines, {paths[1].name} has {len(second)}", "line n must translate line n"
        )
    return Pairs(first, second)
