"""Datasets of pictures: CamVid, folders of classes (CIFAR-10), MNIST. Nothing is downloaded.

Each reads a folder or the zip archives in it, keeps the pictures as uint8 in memory, and says exactly which file
belongs where when something is absent. Items are pairs ready for a loader. A transform draws from
``flambeau.data.sample_rng()``, so neither the number of workers nor a resumed run changes what it does.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from flambeau.data import Dataset, sample_rng
from flambeau.errors import FlambeauError

from .draw import STREET_CLASSES
from .images import SUFFIXES, load_image, load_mask
from .transforms import Arrays, Transform, normalize

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class _Files:
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
        transform: Transform | None = None,
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


class CamVid(PictureDataset):
    """CamVid road scenes with 11 classes and void (Brostow et al. 2009): pictures and masks.

    ``root`` holds ``train.zip``, ``val.zip`` and ``test.zip`` (or folders of these names), each with
    ``images/<name>.jpg`` and ``labels/<name>.png``; the labels are 8-bit class indices, 11 is void. A ``classes.txt``
    with lines ``index name`` beside them replaces the names.

    Raises:
        FlambeauError: files are absent, broken, of unequal size, or a label is out of range.
    """

    ignore_index = 11

    def __init__(self, root: str | Path, split: str = "train", transform: Transform | None = None) -> None:
        root = Path(root)
        files = _Files(root, split, f"CamVid as {split}.zip with images/<name>.jpg and labels/<name>.png inside")
        names = [name for name in files.pictures() if PurePosixPath(name).parent.name == "images"]
        if not names:
            raise FlambeauError(f"{files.label}: no images/ inside", "it needs images/<name>.jpg, labels/<name>.png")
        classes = _class_names(root / "classes.txt") or STREET_CLASSES
        images, masks, known = [], [], set(files.names)
        for name in names:
            path = PurePosixPath(name)
            label = (path.parent.parent / "labels" / path.name).with_suffix(".png").as_posix()
            if label not in known:
                raise FlambeauError(f"{files.label}: {name} has no label {label}", "copy the data set again")
            image = load_image(files.read(name), name=f"{files.label}/{name}")
            mask = load_mask(files.read(label), name=f"{files.label}/{label}")
            if image.shape[:2] != mask.shape:
                raise FlambeauError(
                    f"{files.label}: {name} is {image.shape[1]}x{image.shape[0]}, its label "
                    f"{mask.shape[1]}x{mask.shape[0]}",
                    "scale both alike",
                )
            if mask.max() > self.ignore_index:
                raise FlambeauError(
                    f"{files.label}: {label} has the index {mask.max()}", f"use 0..10, and {self.ignore_index} for void"
                )
            images.append(image)
            masks.append(mask)
        self.names = [PurePosixPath(name).stem for name in names]
        super().__init__(_stack(images), _stack(masks), classes[: self.ignore_index], transform)

    def class_frequencies(self) -> np.ndarray:
        """Share of each class among the labelled pixels, float64 (11,)."""
        counts = np.zeros(self.ignore_index, dtype=np.int64)
        for mask in self.targets:
            counts += np.bincount(mask.reshape(-1), minlength=self.ignore_index + 1)[: self.ignore_index]
        return counts / max(int(counts.sum()), 1)


class ImageFolder(PictureDataset):
    """Classification: ``root/<split>.zip`` or ``root/<split>/`` with one folder for each class.

    Class indices follow the sorted folder names.

    Raises:
        FlambeauError: files are absent or broken, or no picture lies in a class folder.
    """

    def __init__(self, root: str | Path, split: str = "train", transform: Transform | None = None) -> None:
        files = _Files(Path(root), split, f"{split}.zip with <class>/<name>.jpg inside (or the folder {split})")
        names = [name for name in files.pictures() if len(PurePosixPath(name).parts) >= 2]
        if not names:
            raise FlambeauError(f"{files.label}: no class folders with pictures", "it must hold <class>/<name>.jpg")
        classes = tuple(sorted({PurePosixPath(name).parent.name for name in names}))
        images = [load_image(files.read(name), name=f"{files.label}/{name}") for name in names]
        targets = np.array([classes.index(PurePosixPath(name).parent.name) for name in names], dtype=np.int64)
        super().__init__(_stack(images), targets, classes, transform)


class CIFAR10(ImageFolder):
    """CIFAR-10 (Krizhevsky 2009) in the folder layout: ``train.zip`` and ``test.zip`` with ``<class>/<nnnn>.jpg``."""

    def __init__(self, root: str | Path, split: str = "train", transform: Transform | None = None) -> None:
        super().__init__(root, split, transform)
        if self.classes != CIFAR10_CLASSES or np.shape(self.images)[1:] != (32, 32, 3):
            raise FlambeauError(
                f"{root}: not CIFAR-10 (it needs 32x32 pictures of {', '.join(CIFAR10_CLASSES)})",
                "use vision/image_folder for other pictures",
            )


class MNIST(PictureDataset):
    """MNIST and what shares its files (Fashion-MNIST): idx files, gzipped or not.

    ``split`` is ``train`` or ``test``; the files are ``<train|t10k>-images-idx3-ubyte[.gz]`` and
    ``<train|t10k>-labels-idx1-ubyte[.gz]``. Pictures are (28, 28) uint8.

    Raises:
        FlambeauError: files are absent, broken, or do not fit each other.
    """

    def __init__(self, root: str | Path, split: str = "train", transform: Transform | None = None) -> None:
        prefixes = {"train": "train", "test": "t10k"}
        if split not in prefixes:
            raise FlambeauError(f"MNIST has no split '{split}'", "use train or test")
        images, labels = (
            self._read(Path(root), f"{prefixes[split]}-{what}-ubyte") for what in ("images-idx3", "labels-idx1")
        )
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise FlambeauError(
                f"{root}: images {images.shape} and labels {labels.shape} do not fit", "copy both files again"
            )
        super().__init__(images, labels.astype(np.int64), tuple("0123456789"), transform)

    @staticmethod
    def _read(root: Path, name: str) -> np.ndarray:
        for path in (root / f"{name}.gz", root / name):
            if path.is_file():
                return read_idx(path)
        raise FlambeauError(f"{root}: no file {name}.gz", f"put {name}.gz into {root}")


def open_classification(root: str | Path, split: str, transform: Transform | None = None) -> PictureDataset:
    """The classification data under ``root``: MNIST's idx files where there are some, else folders of classes."""
    if any(Path(root).glob("*-idx3-ubyte*")):
        return MNIST(root, split, transform)
    return ImageFolder(root, split, transform)


def read_idx(path: str | Path) -> np.ndarray:
    """Read an idx file (LeCun's MNIST format), gzipped when its name ends in ``.gz``, as an array in native order.

    Raises:
        FlambeauError: cut or broken, or not an idx file.
    """
    kinds = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
    try:
        data = Path(path).read_bytes()
        if str(path).endswith(".gz"):
            data = gzip.decompress(data)
        zero, kind, ndim = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{ndim}I", data, 4)
        if zero != 0 or kind not in kinds:
            raise ValueError("no idx header")
        dtype, start = np.dtype(kinds[kind]), 4 + 4 * ndim
        count = 1
        for extent in shape:  # Python integers: a hostile header must not overflow
            count *= extent
        if len(data) - start != count * dtype.itemsize:
            raise ValueError(f"{len(data) - start} bytes where {count * dtype.itemsize} belong")
        array = np.frombuffer(data, dtype, count, start).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise FlambeauError(f"{path}: not a whole idx file ({error})", "copy it again") from error
    return array.astype(dtype.newbyteorder("="))


def _class_names(path: Path) -> tuple[str, ...] | None:
    """Names from lines ``index name``; None without the file."""
    if not path.is_file():
        return None
    names = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        index, _, name = line.strip().partition(" ")
        if index.isdigit() and name.strip():
            names[int(index)] = name.strip()
    if sorted(names) != list(range(len(names))) or len(names) < CamVid.ignore_index:
        raise FlambeauError(f"{path}: needs the lines '0 name' to '10 name'", "copy it again, or delete it")
    return tuple(names[index] for index in range(len(names)))


def _stack(arrays: Iterable[np.ndarray]) -> Arrays:
    """One array where all shapes agree, else the list."""
    arrays = list(arrays)
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
