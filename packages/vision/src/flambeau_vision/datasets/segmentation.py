"""Segmentation data: CamVid, Cityscapes, Pascal VOC: a picture and a mask of class indices each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from flambeau.data import Dataset, sample_rng
from flambeau.errors import FlambeauError

from ..draw import STREET_CLASSES
from ..images import load_image, load_mask
from ..transforms import normalize
from .files import Augment, Files, PictureDataset, Problems, stack

CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
#: Label ids of Cityscapes' annotations that are trained on, in the order of the classes.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class CamVid(PictureDataset):
    """CamVid road scenes with 11 classes and void (Brostow et al. 2009): pictures and masks.

    ``root`` holds ``train.zip``, ``val.zip`` and ``test.zip`` (or folders of these names), each with
    ``images/<name>.jpg`` and ``labels/<name>.png``; the labels are 8-bit class indices, 11 is void. A ``classes.txt``
    with lines ``index name`` beside them replaces the names.

    Raises:
        FlambeauError: files are absent, broken, of unequal size, or a label is out of range.
    """

    ignore_index = 11

    def __init__(self, root: str | Path, split: str = "train", transform: Augment | None = None) -> None:
        root = Path(root)
        files = Files(root, split, f"CamVid as {split}.zip with images/<name>.jpg and labels/<name>.png inside")
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
        super().__init__(stack(images), stack(masks), classes[: self.ignore_index], transform)

    def class_frequencies(self) -> np.ndarray:
        """Share of each class among the labelled pixels, float64 (11,)."""
        counts = np.zeros(self.ignore_index, dtype=np.int64)
        for mask in self.targets:
            counts += np.bincount(mask.reshape(-1), minlength=self.ignore_index + 1)[: self.ignore_index]
        return counts / max(int(counts.sum()), 1)


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


class MaskDataset(Dataset):
    """Pictures and masks that are read from disk when asked for: for data sets that do not fit into memory.

    Attributes:
        pairs: path of the picture, path of its mask.
        classes: their names.
        transform: as for `PictureDataset`.
        skipped: a line for each picture without a mask.
    """

    ignore_index = 255

    def __init__(
        self,
        label: str,
        pairs: Sequence[tuple[Path, Path]],
        classes: tuple[str, ...],
        transform: Augment | None = None,
        *,
        strict: bool = False,
    ) -> None:
        problems = Problems(label, strict)
        self.pairs = []
        for image, mask in pairs:
            absent = [str(path) for path in (image, mask) if not path.is_file()]
            if absent:
                problems.add(f"{absent[0]}: no such file", "copy the data set again")
            else:
                self.pairs.append((image, mask))
        if not self.pairs:
            raise FlambeauError(f"{label}: no picture has a mask", "check that pictures and masks are both there")
        problems.warn("pictures skipped")
        self.classes, self.transform, self.skipped = classes, transform, problems.lines

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image_path, mask_path = self.pairs[index]
        image, mask = load_image(image_path), self._classes(load_mask(mask_path))
        if image.shape[:2] != mask.shape:
            raise FlambeauError(
                f"{mask_path}: the mask is {mask.shape[1]}x{mask.shape[0]}, its picture {image.shape[1]}x"
                f"{image.shape[0]}",
                "scale both alike",
            )
        if self.transform is None:
            return normalize(image, 0.0, 1.0), mask.astype(np.int64)
        return self.transform(image, mask, sample_rng())

    def _classes(self, mask: np.ndarray) -> np.ndarray:
        return mask


class Cityscapes(MaskDataset):
    """Cityscapes' fine annotations with the 19 classes that are trained on (Cordts et al. 2016); void is 255.

    ``root`` holds ``leftImg8bit/<split>/<city>/*_leftImg8bit.png`` and
    ``gtFine/<split>/<city>/*_gtFine_labelIds.png``.

    Raises:
        FlambeauError: files are absent or broken.
    """

    def __init__(
        self, root: str | Path, split: str = "train", transform: Augment | None = None, *, strict: bool = False
    ) -> None:
        folder = Path(root) / "leftImg8bit" / split
        images = sorted(folder.glob("*/*_leftImg8bit.png"))
        if not images:
            raise FlambeauError(
                f"{folder}: no <city>/*_leftImg8bit.png here",
                f"unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into {root}",
            )
        truth = Path(root) / "gtFine" / split
        ending = "_leftImg8bit.png"
        pairs = [
            (path, truth / path.parent.name / f"{path.name[: -len(ending)]}_gtFine_labelIds.png") for path in images
        ]
        super().__init__(str(root), pairs, CITYSCAPES_CLASSES, transform, strict=strict)

    def _classes(self, mask: np.ndarray) -> np.ndarray:
        table = np.full(256, self.ignore_index, dtype=np.uint8)
        table[list(_CITYSCAPES_IDS)] = np.arange(len(_CITYSCAPES_IDS))
        return table[mask]


class VOCSegmentation(MaskDataset):
    """Pascal VOC's segmentation: background and 20 classes, borders are 255 (Everingham et al. 2010).

    ``root`` is ``VOCdevkit/VOC2012``, with ``ImageSets/Segmentation``, ``JPEGImages`` and ``SegmentationClass``.

    Raises:
        FlambeauError: files are absent or broken.
    """

    def __init__(
        self, root: str | Path, split: str = "train", transform: Augment | None = None, *, strict: bool = False
    ) -> None:
        root = Path(root)
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listing.is_file():
            raise FlambeauError(f"{listing}: no such file", "unpack VOCtrainval and give the folder VOCdevkit/VOC2012")
        names = listing.read_text(encoding="utf-8").split()
        pairs = [(root / "JPEGImages" / f"{n}.jpg", root / "SegmentationClass" / f"{n}.png") for n in names]
        super().__init__(str(root), pairs, ("background", *VOC_CLASSES), transform, strict=strict)
