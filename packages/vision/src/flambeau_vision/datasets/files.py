"""Where a data set's files lie, and what is said of those that are absent or broken."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from flambeau.data import Dataset, sample_rng
from flambeau.errors import FlambeauError

from ..images import SUFFIXES, load_image
from ..transforms import Arrays, normalize

#: A transform of pairs: called as ``transform(image, mask or None, rng)``.
Augment = Callable[[np.ndarray, np.ndarray | None, np.random.Generator], Any]


class Files:
    """The files under ``root/split/`` or in ``root/split.zip``, read by their name relative to it."""

    def __init__(self, root: Path, split: str, layout: str) -> None:
        archive, folder = root / f"{split}.zip", root / split
        self.label = str(archive if archive.is_file() else folder)
        self._zip: zipfile.ZipFile | None = None
        self._folder = folder
        if archive.is_file():
            try:
                self._zip = zipfile.ZipFile(archive)
                names = self._zip.namelist()
            except (zipfile.BadZipFile, OSError) as error:
                raise FlambeauError(f"{archive}: not a whole zip archive ({error})", "copy it again") from error
        elif folder.is_dir():
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        else:
            what = "there is no such folder" if not root.is_dir() else f"neither {split}.zip nor the folder {split}"
            raise FlambeauError(f"{root}: {what}", f"put {layout} into {root}")
        self.names = sorted(name for name in names if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        if self._zip is None:
            return (self._folder / name).read_bytes()
        try:
            return self._zip.read(name)
        except (zipfile.BadZipFile, OSError, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
            raise FlambeauError(f"{self.label}: cannot read {name} ({error})", "copy the archive again") from error

    def pictures(self) -> list[str]:
        return [name for name in self.names if PurePosixPath(name).suffix.lower() in SUFFIXES]


class PictureDataset(Dataset):
    """Pictures in memory with one target each: the shared half of the datasets here.

    Attributes:
        images: uint8 arrays (H, W, 3), or (H, W) for grey data; one array of shape (N, …) when all have one size.
        targets: class indices (N,), or masks (N, H, W).
        classes: their names.
        transform: called as ``transform(image, mask or None, rng)``; without one, pictures become float32 in 0..1.
    """

    def __init__(
        self,
        images: Arrays,
        targets: Arrays,
        classes: tuple[str, ...],
        transform: Augment | None = None,
    ) -> None:
        self.images, self.targets, self.classes = images, targets, classes
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside a dataset of {len(self)}")
        index %= len(self)
        image, target = self.images[index], self.targets[index]
        mask = target if np.ndim(target) == 2 else None
        if self.transform is None:
            image = normalize(image if image.ndim == 3 else image[..., None], 0.0, 1.0)
            return image, int(target) if mask is None else mask.astype(np.int64)
        image, changed = self.transform(image, mask, sample_rng())
        return image, int(target) if mask is None else changed


class Problems:
    """What is wrong with a data set, one line each: the first is an error when ``strict``, else all are listed.

    Call `warn` once everything is read: it gives one warning with the count and the first lines.
    """

    def __init__(self, label: str, strict: bool) -> None:
        self.label, self.strict = label, strict
        self.lines: list[str] = []

    def add(self, line: str, mend: str) -> None:
        if self.strict:
            raise FlambeauError(line, mend)
        self.lines.append(line)

    def warn(self, what: str) -> None:
        if self.lines:
            more = f" and {len(self.lines) - 3} more" if len(self.lines) > 3 else ""
            text = "; ".join(self.lines[:3])
            warnings.warn(f"{self.label}: {len(self.lines)} {what}: {text}{more}", UserWarning, stacklevel=4)


def read_pictures(files: Files, names: Sequence[str], strict: bool) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Read all pictures; those that are broken are left out with one warning, or are an error when ``strict``.

    Returns:
        The pictures, their names, and a line for each that was left out.
    """
    images, kept, problems = [], [], Problems(files.label, strict)
    for name in names:
        try:
            images.append(load_image(files.read(name), name=f"{files.label}/{name}"))
            kept.append(name)
        except FlambeauError as error:
            problems.add(error.cause, error.mend)
    if not images:
        raise FlambeauError(f"{files.label}: none of {len(names)} pictures can be read", "copy the data set again")
    problems.warn("broken pictures skipped")
    return images, kept, problems.lines


def stack(arrays: Iterable[np.ndarray]) -> Arrays:
    """One array where all shapes agree, else the list."""
    arrays = list(arrays)
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
