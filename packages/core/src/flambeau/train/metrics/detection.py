"""Average precision of object detection in COCO's definition (Lin et al., 2014; cocodataset.org/#detection-eval)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np

from .base import Metric, check_choice

__all__ = ["MeanAveragePrecision"]

# Areas in pixels, both ends included, as COCO has them.
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
RECALLS = np.linspace(0.0, 1.0, 101)


class MeanAveragePrecision(Metric):
    """COCO's average precision and recall, with crowds, area ranges and limits on the detections of an image.

    ``update(predictions, targets)`` takes one dictionary an image. Predictions: "boxes" (n, 4), "scores" (n,), "labels"
    (n,), and "masks" (n, H, W) where `iou_type` is "segm" (boxes are then not needed). Targets: "boxes" or "masks",
    "labels", and where there are such "iscrowd" (n,), "area" (n,) (else the area of the box or mask) and "image_id".
    Equal scores rank by "image_id", else in the order of arrival. `box_format` is "xyxy" or COCO's "xywh".

    ``compute()`` gives AP (mean over IoU 0.50:0.95 and classes), AP50, AP75, APs, APm, APl (by area), AR1, AR10, AR100
    (by detections an image), ARs, ARm, ARl. A value without any object to find is -1, as in pycocotools. It keeps the
    scores of all detections and their matches, never masks: precision is known only at the end.

    >>> metric = MeanAveragePrecision()
    >>> metric.update(
    ...     [{"boxes": [[0, 0, 10, 10]], "scores": [0.9], "labels": [1]}],
    ...     [{"boxes": [[0, 0, 10, 8]], "labels": [1]}],
    ... )
    >>> found = metric.compute()
    >>> round(found["AP50"], 4), round(found["AP"], 4)
    (1.0, 0.7)
    """

    # For each detection: label, image, rank in its image, score; and bits of (areas, thresholds): matched, ignored.
    # For each (image, label): label, and objects to find by area.
    _fields = ("images", "explicit", "rows", "matched", "ignored", "objects")

    def __init__(
        self,
        iou_type: Literal["bbox", "segm"] = "bbox",
        box_format: Literal["xyxy", "xywh"] = "xyxy",
        iou_thresholds: Sequence[float] | None = None,
        max_detections: Sequence[int] = (1, 10, 100),
    ) -> None:
        check_choice(iou_type, ("bbox", "segm"), "iou_type", "MeanAveragePrecision")
        check_choice(box_format, ("xyxy", "xywh"), "box_format", "MeanAveragePrecision")
        self.iou_type, self.box_format = iou_type, box_format
        self.thresholds = np.linspace(0.5, 0.95, 10) if iou_thresholds is None else np.array(iou_thresholds, float)
        if not self.thresholds.size or self.thresholds.min() <= 0 or self.thresholds.max() > 1:
            raise ValueError("MeanAveragePrecision: iou_thresholds must lie in (0, 1]")
        self.max_detections = tuple(sorted(max_detections))
        if not self.max_detections or self.max_detections[0] < 1:
            raise ValueError(f"MeanAveragePrecision: max_detections must be positive, not {max_detections}")
        self.reset()

    def reset(self) -> None:
        self.images, self.explicit = 0, 0
        self.rows: list[np.ndarray] = []
        self.matched: list[np.ndarray] = []
        self.ignored: list[np.ndarray] = []
        self.objects: list[np.ndarray] = []

    def update(self, preds: Sequence[Mapping[str, Any]], target: Sequence[Mapping[str, Any]]) -> None:
        name = "MeanAveragePrecision"
        if isinstance(preds, Mapping) or isinstance(target, Mapping):
            raise ValueError(f"{name}: it takes a list of dictionaries, one an image; put it in a list")
        if len(preds) != len(target):
            raise ValueError(f"{name}: {len(preds)} predictions do not fit {len(target)} targets")
        # All is read before any is counted: a wrong image leaves the state as it was.
        images = [(self._objects(p, True), self._objects(t, False), t) for p, t in zip(preds, target, strict=True)]
        given = [t["image_id"] for _, _, t in images if "image_id" in t]
        if given and (len(given) < len(images) or self.explicit < self.images):
            raise ValueError(f"{name}: either all targets have an image_id or none")
        if not given and self.explicit:
            raise ValueError(f"{name}: the targets have no image_id, but earlier ones had")
        for place, (found, truth, _) in enumerate(images):
            self._image(int(given[place]) if given else self.images, found, truth)
            self.images += 1
        self.explicit += len(given)

    def merge(self, other: Self) -> None:
        """Takes the images of another metric in, after its own, or in the order of their image_id if they have one."""
        self._check_alike(other)
        if self.images and other.images and bool(self.explicit) != bool(other.explicit):
            raise ValueError("MeanAveragePrecision: either all targets have an image_id or none")
        shift = 0 if other.explicit else self.images
        rows = [row + np.array([0, shift, 0, 0]) for row in other.rows]
        self.rows, self.matched = self.rows + rows, self.matched + other.matched
        self.ignored, self.objects = self.ignored + other.ignored, self.objects + other.objects
        self.images, self.explicit = self.images + other.images, self.explicit + other.explicit

    def _objects(self, item: Mapping[str, Any], predicted: bool) -> dict[str, np.ndarray]:
        """One image's objects: labels, shapes, areas, and scores or crowd flags."""
        what, name = "predictions" if predicted else "targets", "MeanAveragePrecision"
        key = "boxes" if self.iou_type == "bbox" else "masks"
        wanted = [key, "labels"] + (["scores"] if predicted else [])
        for field in wanted:
            if field not in item:
                raise ValueError(f'{name}: the {what} of an image have no "{field}"')
        labels, shapes = self._array(item["labels"], "labels"), self._array(item[key], key)
        count = labels.size
        if labels.ndim != 1 or (count and labels.dtype.kind == "f"):
            raise ValueError(f"{name}: labels must be class numbers of shape (n,), not {labels.dtype} {labels.shape}")
        out: dict[str, np.ndarray] = {"labels": labels.astype(np.int64)}
        if key == "boxes":
            shapes = shapes.astype(np.float64).reshape(0, 4) if not count and not shapes.size else shapes
            if shapes.shape != (count, 4):
                raise ValueError(f"{name}: boxes of shape {shapes.shape} do not fit {count} labels; (n, 4) is needed")
            boxes = shapes.astype(np.float64)
            if self.box_format == "xyxy":
                boxes[:, 2:] -= boxes[:, :2]
            if (boxes[:, 2:] < 0).any():
                raise ValueError(f"{name}: the {what} have boxes of negative size; is box_format={self.box_format!r}?")
            out["shapes"], area = boxes, boxes[:, 2] * boxes[:, 3]
        else:
            if len(shapes) != count or (count and shapes.ndim != 3):
                raise ValueError(
                    f"{name}: masks of shape {shapes.shape} do not fit {count} labels; (n, H, W) is needed"
                )
            out["size"] = np.array(shapes.shape[1:])
            out["shapes"] = (shapes.reshape(count, -1) != 0).astype(np.float64) if count else np.zeros((0, 0))
            area = out["shapes"].sum(1)
        extra = {"scores": np.zeros(count)} if predicted else {"iscrowd": np.zeros(count), "area": area}
        for key, default in extra.items():
            values: np.ndarray = self._array(item.get(key, default), key).astype(np.float64)
            if values.shape != (count,):
                raise ValueError(f"{name}: {key} of shape {values.shape} does not fit {count} labels")
            out[key] = values
        return {"area": area, **out}

    def _image(self, image: int, found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> None:
        if self.iou_type == "segm" and len(found["labels"]) and len(truth["labels"]):
            if not np.array_equal(found["size"], truth["size"]):
                shown = f"{tuple(found['size'].tolist())} and {tuple(truth['size'].tolist())}"
                raise ValueError(f"MeanAveragePrecision: masks of one image have the sizes {shown}")
        low, high = np.array(list(AREAS.values())).T[:, :, None]
        for label in np.union1d(found["labels"], truth["labels"]):
            mine, theirs = np.flatnonzero(found["labels"] == label), np.flatnonzero(truth["labels"] == label)
            mine = mine[np.argsort(-found["scores"][mine], kind="stable")][: self.max_detections[-1]]
            crowd, sizes = truth["iscrowd"][theirs] != 0, truth["area"][theirs]
            aside = crowd | (sizes < low) | (sizes > high)  # (areas, objects): they need not be found
            self.objects.append(np.array([label, *(~aside).sum(1)]))
            if not len(mine):
                continue
            overlap = self._iou(found["shapes"][mine], truth["shapes"][theirs], crowd)
            matched, ignored = _match(overlap, aside, crowd, self.thresholds)
            areas = found["area"][mine]
            outside = (areas < low) | (areas > high)
            ignored |= ~matched & outside[:, None]
            ranks = np.arange(len(mine))
            self.rows.append(
                np.stack([np.full(len(mine), label), np.full(len(mine), image), ranks, found["scores"][mine]], 1)
            )
            self.matched.append(matched.transpose(2, 0, 1))
            self.ignored.append(ignored.transpose(2, 0, 1))

    def _iou(self, found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
        """Overlap (found, truth); with a crowd it is the share of the detection that lies in it."""
        if not len(truth):
            return np.zeros((len(found), 0))
        if self.iou_type == "segm":
            inner = found @ truth.T
            ours, theirs = found.sum(1)[:, None], truth.sum(1)
        else:
            start = np.maximum(found[:, None, :2], truth[None, :, :2])
            end = np.minimum((found[:, :2] + found[:, 2:])[:, None], (truth[:, :2] + truth[:, 2:])[None])
            inner = np.prod(np.maximum(end - start, 0), 2)
            ours, theirs = (found[:, 2] * found[:, 3])[:, None], truth[:, 2] * truth[:, 3]
        union = np.where(crowd, ours, ours + theirs - inner)
        return np.divide(inner, union, out=np.zeros_like(inner), where=inner > 0)

    def _curves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, precision (labels, limits, areas, thresholds, recalls) and recall without the last; -1: no value."""
        self._need(self.images)
        objects = np.stack(self.objects) if self.objects else np.zeros((0, 1 + len(AREAS)), np.int64)
        labels = np.unique(objects[:, 0])
        shape = (len(labels), len(self.max_detections), len(AREAS), len(self.thresholds))
        precision, recall = np.full((*shape, len(RECALLS)), -1.0), np.full(shape, -1.0)
        rows = np.concatenate([np.zeros((0, 4)), *self.rows])
        matched = np.concatenate([np.zeros((0, *shape[2:]), bool), *self.matched])
        ignored = np.concatenate([np.zeros((0, *shape[2:]), bool), *self.ignored])
        for k, label in enumerate(labels):
            wanted = objects[objects[:, 0] == label, 1:].sum(0)
            own = np.flatnonzero(rows[:, 0] == label)
            own = own[np.lexsort((rows[own, 2], rows[own, 1], -rows[own, 3]))]
            for m, limit in enumerate(self.max_detections):
                chosen = own[rows[own, 2] < limit]
                hits = np.cumsum(matched[chosen] & ~ignored[chosen], 0).astype(np.float64)
                misses = np.cumsum(~matched[chosen] & ~ignored[chosen], 0).astype(np.float64)
                for a in np.flatnonzero(wanted):
                    recall[k, m, a] = hits[-1, a] / wanted[a] if len(chosen) else 0.0
                    precision[k, m, a] = _interpolate(hits[:, a], misses[:, a], wanted[a])
        return labels, precision, recall

    def compute(self) -> dict[str, float]:
        _, precision, recall = self._curves()
        values = {"AP": _mean(precision[:, -1, 0])}
        for percent in (50, 75):
            at = np.isclose(self.thresholds, percent / 100)
            values[f"AP{percent}"] = _mean(precision[:, -1, 0, at])
        areas = list(enumerate(AREAS))[1:]
        values |= {f"AP{size}": _mean(precision[:, -1, a]) for a, size in areas}
        values |= {f"AR{limit}": _mean(recall[:, m, 0]) for m, limit in enumerate(self.max_detections)}
        return values | {f"AR{size}": _mean(recall[:, -1, a]) for a, size in areas}

    def per_class(self) -> dict[int, float]:
        """AP of each label; -1 for one that no target has."""
        labels, precision, _ = self._curves()
        return {int(label): _mean(precision[k, -1, 0]) for k, label in enumerate(labels)}


def _match(
    overlap: np.ndarray, aside: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections (best first) find an object, and which of those are set aside: (areas, thresholds, found).

    Each takes the free object of highest overlap, the last of equal ones; objects set aside only if there is no other.
    A crowd is never used up.
    """
    areas, count = len(aside), len(overlap)
    matched, ignored = np.zeros((2, areas, len(thresholds), count), bool)
    if not overlap.size:
        return matched, ignored
    free = np.ones((areas, len(thresholds), overlap.shape[1]), bool)
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    last = overlap.shape[1] - 1
    for d, row in enumerate(overlap):
        fits = free & (row >= least)
        if not fits.any():
            continue
        first = fits & ~aside[:, None]
        fits = np.where(first.any(-1, keepdims=True), first, fits)
        best = last - np.where(fits, row, -1.0)[..., ::-1].argmax(-1)
        hit = fits.any(-1)
        a, t = np.nonzero(hit)
        object_ = best[a, t]
        matched[a, t, d] = True
        ignored[a, t, d] = aside[a, object_]
        free[a, t, object_] = crowd[object_]
    return matched, ignored


def _interpolate(hits: np.ndarray, misses: np.ndarray, wanted: int) -> np.ndarray:
    """Precision (thresholds, recalls): at each recall the highest at that recall or beyond, 0 where none is."""
    out = np.zeros((hits.shape[1], len(RECALLS)))
    if not len(hits):
        return out
    precision = hits / (hits + misses + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    for t in range(out.shape[0]):
        place = np.searchsorted(hits[:, t] / wanted, RECALLS, side="left")
        reached = place < len(hits)
        out[t, reached] = precision[place[reached], t]
    return out


def _mean(values: np.ndarray) -> float:
    there = values[values > -1]
    return float(there.mean()) if there.size else -1.0
