"""Classification data: folders of classes, a CSV table, CIFAR's binary files, MNIST's idx files."""

from __future__ import annotations

import csv
import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from flambeau.errors import FlambeauError

from ..images import load_image
from .files import Augment, Files, PictureDataset, Problems, read_pictures, stack

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class ImageFolder(PictureDataset):
    """Classification: ``root/<split>.zip`` or ``root/<split>/`` with one folder for each class.

    Class indices follow the sorted folder names. Broken pictures are left out with one warning, and listed in
    ``skipped``; with ``strict`` the first one is an error.

    Raises:
        FlambeauError: files are absent or broken, or no picture lies in a class folder.
    """

    def __init__(
        self, root: str | Path, split: str = "train", transform: Augment | None = None, *, strict: bool = False
    ) -> None:
        files = Files(Path(root), split, f"{split}.zip with <class>/<name>.jpg inside (or the folder {split})")
        names = [name for name in files.pictures() if len(PurePosixPath(name).parts) >= 2]
        if not names:
            raise FlambeauError(f"{files.label}: no class folders with pictures", "it must hold <class>/<name>.jpg")
        classes = tuple(sorted({PurePosixPath(name).parent.name for name in names}))
        images, names, self.skipped = read_pictures(files, names, strict)
        targets = np.array([classes.index(PurePosixPath(name).parent.name) for name in names], dtype=np.int64)
        super().__init__(stack(images), targets, classes, transform)


class CIFAR10(ImageFolder):
    """CIFAR-10 (Krizhevsky 2009) in the folder layout: ``train.zip`` and ``test.zip`` with ``<class>/<nnnn>.jpg``."""

    def __init__(
        self, root: str | Path, split: str = "train", transform: Augment | None = None, *, strict: bool = False
    ) -> None:
        super().__init__(root, split, transform, strict=strict)
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

    def __init__(self, root: str | Path, split: str = "train", transform: Augment | None = None) -> None:
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


def open_classification(
    root: str | Path, split: str, transform: Augment | None = None, *, strict: bool = False
) -> PictureDataset:
    """The classification data under ``root``: MNIST's idx files where there are some, else folders of classes."""
    if any(Path(root).glob("*-idx3-ubyte*")):
        return MNIST(root, split, transform)
    return ImageFolder(root, split, transform, strict=strict)


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


class CSVImages(PictureDataset):
    """Pictures listed in a table: a row names a picture (relative to the table's folder) and its class.

    Args:
        path: a CSV file with a header.
        image: name of the column with the pictures' paths.
        label: name of the column with the classes.
        classes: their order; the sorted names that occur when left out.
        strict: stop at the first broken or absent picture or unknown class instead of skipping it.

    Raises:
        FlambeauError: the table cannot be read, a column is absent, or no picture can be read.
    """

    def __init__(
        self,
        path: str | Path,
        transform: Augment | None = None,
        *,
        image: str = "image",
        label: str = "label",
        classes: Sequence[str] | None = None,
        strict: bool = False,
    ) -> None:
        path = Path(path)
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                columns, rows = list(reader.fieldnames or ()), list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise FlambeauError(f"{path}: cannot read the table ({error})", "give a UTF-8 CSV with a header") from error
        for column in (image, label):
            if column not in columns:
                raise FlambeauError(
                    f"{path}: no column '{column}' (there are {', '.join(columns) or 'none'})",
                    "name the columns with image= and label=",
                )
        names = tuple(classes) if classes is not None else tuple(sorted({row[label] for row in rows if row[label]}))
        problems, images, targets = Problems(str(path), strict), [], []
        for number, row in enumerate(rows, 2):
            if row[label] not in names:
                problems.add(f"line {number}: unknown class {row[label]!r}", f"use one of {', '.join(names)}")
                continue
            try:
                images.append(load_image(path.parent / (row[image] or "")))
            except FlambeauError as error:
                problems.add(f"line {number}: {error.cause}", error.mend)
                continue
            targets.append(names.index(row[label]))
        if not images:
            raise FlambeauError(f"{path}: no picture of the table can be read", "check the paths in it")
        problems.warn("rows skipped")
        self.skipped = problems.lines
        super().__init__(stack(images), np.array(targets, dtype=np.int64), names, transform)


class CIFARBinary(PictureDataset):
    """CIFAR-10 or CIFAR-100 in its binary form (Krizhevsky 2009): no pickle is read.

    ``root`` is ``cifar-10-batches-bin`` (``data_batch_1.bin`` to ``_5.bin``, ``test_batch.bin``) or
    ``cifar-100-binary`` (``train.bin``, ``test.bin``; the fine labels are used), or the folder above it.

    Raises:
        FlambeauError: files are absent or cut.
    """

    def __init__(self, root: str | Path, split: str = "train", transform: Augment | None = None) -> None:
        root = Path(root)
        if split not in ("train", "test"):
            raise FlambeauError(f"CIFAR has no split '{split}'", "use train or test")
        ten = [f"data_batch_{n}.bin" for n in range(1, 6)] if split == "train" else ["test_batch.bin"]
        layouts = (
            (root, ten, 1, "batches.meta.txt"),
            (root / "cifar-10-batches-bin", ten, 1, "batches.meta.txt"),
            (root, [f"{split}.bin"], 2, "fine_label_names.txt"),
            (root / "cifar-100-binary", [f"{split}.bin"], 2, "fine_label_names.txt"),
        )
        found = [layout for layout in layouts if all((layout[0] / name).is_file() for name in layout[1])]
        if not found:
            raise FlambeauError(
                f"{root}: neither {ten[0]} nor {split}.bin here",
                f"unpack cifar-10-binary.tar.gz or cifar-100-binary.tar.gz into {root}",
            )
        folder, files, labels, meta = found[0]
        blocks = [self._read(folder / name, labels) for name in files]
        records = np.concatenate(blocks)
        images = np.ascontiguousarray(records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        targets = records[:, labels - 1].astype(np.int64)
        count = 10 if labels == 1 else 100
        listed = (folder / meta).read_text(encoding="utf-8").split() if (folder / meta).is_file() else []
        fallback = CIFAR10_CLASSES if count == 10 else tuple(str(n) for n in range(100))
        if targets.max(initial=0) >= count:
            raise FlambeauError(f"{folder}: label {targets.max()} in CIFAR-{count}", "download the archive again")
        super().__init__(images, targets, tuple(listed) if len(listed) == count else fallback, transform)

    @staticmethod
    def _read(path: Path, labels: int) -> np.ndarray:
        data, record = np.fromfile(path, dtype=np.uint8), labels + 3072
        if len(data) == 0 or len(data) % record:
            raise FlambeauError(f"{path}: {len(data)} bytes, not whole records of {record}", "download it again")
        return data.reshape(-1, record)
