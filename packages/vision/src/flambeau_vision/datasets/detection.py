"""Detection data: COCO's JSON (boxes, instance masks, keypoints) and Pascal VOC's XML.

An item is a dict: ``image`` uint8 (H, W, 3), ``boxes`` float32 (N, 4) as x1 y1 x2 y2 in pixels, ``labels`` int64 (N,)
into ``classes``, ``iscrowd`` bool (N,), ``area`` float32 (N,), ``image_id``, and on request ``masks``, ``keypoints``.
A transform takes and returns such a dict (`flambeau_vision.transforms`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from flambeau.data import Dataset
from flambeau.errors import FlambeauError

from ..images import load_image
from .files import Problems
from .rle import decode_rle, fill_polygons

#: How far a box may leave the picture without a word (annotation tools round).
_SLACK = 2.0


@dataclass
class Instance:
    """One annotated object: box x1 y1 x2 y2, class index, and what else the file says of it."""

    box: tuple[float, float, float, float]
    label: int
    iscrowd: bool = False
    area: float | None = None
    segmentation: Any = None
    keypoints: Sequence[float] | None = None


@dataclass
class Entry:
    """One picture and its objects; the sizes are the annotation file's, or read from the picture."""

    path: Path
    image_id: Any
    instances: list[Instance] = field(default_factory=list)


class DetectionDataset(Dataset):
    """Pictures with boxes, read from disk when asked for.

    Args:
        label: what messages call the data set.
        entries: the pictures.
        classes: names of the classes.
        transform: takes and returns an item.
        problems: what was found while reading the annotations.
        masks: whether items have instance masks, bool (N, H, W).
        keypoints: number of keypoints of an object; items then have float32 (N, K, 3) with x, y, visibility.
        verify: ``headers`` opens every picture to see that it is one, ``pixels`` decodes it, ``none`` does neither.

    Attributes:
        problems: a line for each picture that was skipped and each box that was dropped or cut.

    Raises:
        FlambeauError: no picture is left, or with ``strict`` the first problem.
    """

    def __init__(
        self,
        label: str,
        entries: Sequence[Entry],
        classes: Sequence[str],
        transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        problems: Problems | None = None,
        masks: bool = False,
        keypoints: int = 0,
        verify: str = "headers",
    ) -> None:
        if verify not in ("headers", "pixels", "none"):
            raise ValueError(f"verify is headers, pixels or none, not {verify!r}")
        found = problems or Problems(label, strict=False)
        self.classes, self.transform = tuple(classes), transform
        self.masks, self.keypoints = masks, keypoints
        self.entries = [entry for entry in entries if _usable(entry, found, verify)]
        if not self.entries:
            raise FlambeauError(f"{label}: no picture can be read", "check that pictures and annotations fit together")
        found.warn("problems")
        self.problems = found.lines

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Any:
        entry = self.entries[index]
        image = load_image(entry.path)
        height, width = image.shape[:2]
        instances = entry.instances
        boxes = np.array([instance.box for instance in instances], dtype=np.float32).reshape(-1, 4)
        boxes = np.clip(boxes, 0, np.array([width, height] * 2, dtype=np.float32))
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = [side.prod() if i.area is None else i.area for i, side in zip(instances, sides, strict=True)]
        item: dict[str, Any] = {
            "image": image,
            "boxes": boxes,
            "labels": np.array([instance.label for instance in instances], dtype=np.int64),
            "iscrowd": np.array([instance.iscrowd for instance in instances], dtype=bool),
            "area": np.array(areas, dtype=np.float32),
            "image_id": entry.image_id,
        }
        if self.masks:
            found = [_mask(instance, (height, width), entry.path) for instance in instances]
            item["masks"] = np.array(found, dtype=bool).reshape(-1, height, width)
        if self.keypoints:
            points = [instance.keypoints or [0.0] * (3 * self.keypoints) for instance in instances]
            item["keypoints"] = np.array(points, dtype=np.float32).reshape(-1, self.keypoints, 3)
        return item if self.transform is None else self.transform(item)


def _usable(entry: Entry, problems: Problems, verify: str) -> bool:
    """Whether the picture is there; its boxes are checked against its size."""
    if not entry.path.is_file():
        problems.add(f"{entry.path}: no such picture", "copy it, or drop it from the annotations")
        return False
    if verify == "none":
        return True
    try:
        if verify == "pixels":
            height, width = load_image(entry.path).shape[:2]
        else:
            with Image.open(entry.path) as image:
                width, height = image.size
                if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # stored on its side
                    width, height = height, width
    except FlambeauError as error:
        problems.add(error.cause, error.mend)
        return False
    except Exception as error:  # whatever a broken header makes Pillow raise
        problems.add(f"{entry.path}: not a picture ({type(error).__name__})", "copy the file again")
        return False
    kept = []
    for instance in entry.instances:
        x1, y1, x2, y2 = instance.box
        if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
            problems.add(f"{entry.path}: box {_text(instance.box)} is empty or outside {width}x{height}", "drop it")
            continue
        if x1 < -_SLACK or y1 < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
            problems.add(f"{entry.path}: box {_text(instance.box)} leaves the picture {width}x{height}", "cut it")
        kept.append(instance)
    entry.instances = kept
    return True


def _text(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def _mask(instance: Instance, size: tuple[int, int], path: Path) -> np.ndarray:
    """An instance's mask; its box where the file has no outline."""
    shape = instance.segmentation
    try:
        if isinstance(shape, dict):
            mask = decode_rle(shape["counts"], tuple(shape["size"]))
            if mask.shape != size:
                raise ValueError(f"the mask is {mask.shape[1]}x{mask.shape[0]}")
            return mask
        if shape:
            return fill_polygons(shape, size)
    except (ValueError, TypeError, KeyError) as error:
        raise FlambeauError(f"{path}: broken segmentation ({error})", "export the annotations again") from error
    x1, y1, x2, y2 = (round(value) for value in instance.box)
    mask = np.zeros(size, dtype=bool)
    mask[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    return mask


class CocoDetection(DetectionDataset):
    """COCO's format (Lin et al. 2014): a folder of pictures and a JSON file.

    Classes are the file's categories in the order of their ids, so labels run from 0 without gaps
    (``category_ids[label]`` gives the file's id).

    Args:
        root: folder of the pictures.
        annotations: the JSON file.
        masks: give instance masks.
        keypoints: give keypoints.
        classes: keep only these, in this order.
        strict: stop at the first problem: an absent picture, a box outside, an unknown class.

    Raises:
        FlambeauError: not COCO's JSON, no usable picture, or with ``strict`` any problem.
    """

    def __init__(
        self,
        root: str | Path,
        annotations: str | Path,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        masks: bool = False,
        keypoints: bool = False,
        classes: Sequence[str] | None = None,
        strict: bool = False,
        verify: str = "headers",
    ) -> None:
        document = _coco_document(Path(annotations))
        problems = Problems(str(annotations), strict)
        try:
            categories = sorted(document["categories"], key=lambda category: category["id"])
            known = {category["id"] for category in categories}
            if classes is not None:
                named = {category["name"]: category for category in categories}
                absent = [name for name in classes if name not in named]
                if absent:
                    raise FlambeauError(f"{annotations}: no class {absent[0]!r}", f"use one of {', '.join(named)}")
                categories = [named[name] for name in classes]
            self.category_ids = [category["id"] for category in categories]
            label = {identity: index for index, identity in enumerate(self.category_ids)}
            names = [str(category["name"]) for category in categories]
            entries = {image["id"]: Entry(Path(root) / image["file_name"], image["id"]) for image in document["images"]}
            named_points = [category["keypoints"] for category in categories if category.get("keypoints")]
            self.keypoint_names: list[str] = list(named_points[0]) if named_points else []
            for annotation in document["annotations"]:
                category, image = annotation["category_id"], annotation["image_id"]
                if category not in known:
                    problems.add(f"annotation {annotation.get('id')}: unknown class {category}", "add it to categories")
                elif image not in entries:
                    problems.add(f"annotation {annotation.get('id')}: no image {image}", "add it to images")
                elif category in label:
                    x, y, width, height = (float(value) for value in annotation["bbox"])
                    instance = Instance(
                        (x, y, x + width, y + height),
                        label[category],
                        bool(annotation.get("iscrowd", 0)),
                        annotation.get("area"),
                        annotation.get("segmentation") if masks else None,
                        annotation.get("keypoints") if keypoints else None,
                    )
                    entries[image].instances.append(instance)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FlambeauError(
                f"{annotations}: not COCO's format ({type(error).__name__}: {error})",
                "it needs images, annotations (bbox, category_id, image_id) and categories",
            ) from error
        count = len(self.keypoint_names) if keypoints else 0
        ordered = list(entries.values())
        super().__init__(
            str(annotations),
            ordered,
            names,
            transform,
            problems=problems,
            masks=masks,
            keypoints=count,
            verify=verify,
        )


def _coco_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FlambeauError(f"{path}: no such file", "give the JSON file of the annotations") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FlambeauError(f"{path}: not a whole JSON file ({error})", "copy it again") from error
    absent = [key for key in ("images", "annotations", "categories") if key not in document]
    if absent or not isinstance(document, dict):
        raise FlambeauError(f"{path}: not COCO's format (no {', '.join(absent)})", "give an instances_*.json file")
    return document


class VOCDetection(DetectionDataset):
    """Pascal VOC's format (Everingham et al. 2010): one XML file for each picture.

    ``root`` holds ``JPEGImages``, ``Annotations`` and ``ImageSets/Main/<split>.txt``; without a list of the split and
    with ``split=None`` every annotation is used. Pixels count from 1 in the files; boxes here are 0-based edges.

    Args:
        classes: their order; the sorted names that occur in all annotations when left out.
        difficult: keep the objects that are marked as difficult.
        strict: stop at the first problem.

    Raises:
        FlambeauError: files are absent or broken, or with ``strict`` any problem.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
        difficult: bool = True,
        strict: bool = False,
        verify: str = "headers",
    ) -> None:
        root = Path(root)
        folder = root / "Annotations"
        every = sorted(folder.glob("*.xml"))
        if not every:
            raise FlambeauError(f"{folder}: no XML files here", f"put Annotations/ and JPEGImages/ into {root}")
        listing = root / "ImageSets" / "Main" / f"{split}.txt"
        if split is not None and not listing.is_file():
            raise FlambeauError(f"{listing}: no such file", "list the split's names in it, or use split=None")
        stems = [path.stem for path in every] if split is None else _listed(listing)
        problems = Problems(str(root), strict)
        trees: dict[str, ElementTree.Element] = {}
        # The class list must not depend on the split, so without one all files are read.
        for stem in [path.stem for path in every] if classes is None else stems:
            tree = _xml(folder / f"{stem}.xml", problems)
            if tree is not None:
                trees[stem] = tree
        if classes is None:
            classes = sorted({name.text or "" for tree in trees.values() for name in tree.iterfind("object/name")})
        entries = []
        for stem in stems:
            if stem in trees:
                entries.append(self._entry(root, stem, trees[stem], list(classes), difficult, problems))
            elif not (folder / f"{stem}.xml").is_file() and classes is not None:
                line = f"{folder / stem}.xml: no such file"
                if line not in problems.lines:
                    problems.add(line, "copy it, or drop it from the list")
        super().__init__(str(root), entries, classes, transform, problems=problems, verify=verify)

    @staticmethod
    def _entry(
        root: Path, stem: str, tree: ElementTree.Element, classes: list[str], difficult: bool, problems: Problems
    ) -> Entry:
        name = Path(tree.findtext("filename") or "").name
        path = root / "JPEGImages" / f"{stem}.jpg"
        if not path.is_file() and name:
            path = path.with_name(name)
        entry = Entry(path, stem)
        for node in tree.iterfind("object"):
            label, hard = node.findtext("name") or "", (node.findtext("difficult") or "0").strip() == "1"
            if label not in classes:
                problems.add(f"{stem}.xml: unknown class {label!r}", f"use one of {', '.join(classes)}")
                continue
            try:
                x1, y1, x2, y2 = (float(node.findtext(f"bndbox/{k}") or "") for k in ("xmin", "ymin", "xmax", "ymax"))
            except ValueError:
                problems.add(f"{stem}.xml: an object without a whole bndbox", "mend the file")
                continue
            if difficult or not hard:
                entry.instances.append(Instance((x1 - 1, y1 - 1, x2, y2), classes.index(label), hard))
        return entry


def _listed(path: Path) -> list[str]:
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _xml(path: Path, problems: Problems) -> ElementTree.Element | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        if "<!ENTITY" in text:
            raise ValueError("it declares entities")
        return ElementTree.fromstring(text)
    except FileNotFoundError:
        problems.add(f"{path}: no such file", "copy it, or drop it from the list")
    except (OSError, ValueError, ElementTree.ParseError) as error:
        problems.add(f"{path}: not a whole XML file ({error})", "copy it again")
    return None
