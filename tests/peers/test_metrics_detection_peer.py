"""Detection against pycocotools: boxes and masks, crowds, areas, equal scores, empty images."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

pytest.importorskip("pycocotools")
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from flambeau.train import MeanAveragePrecision

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
SIZE = 160


def boxes_of(rng, count):
    side = np.exp(rng.uniform(np.log(6), np.log(140), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * (SIZE - side)
    return np.round(np.concatenate([corner, side], 1) * 4) / 4  # quarters: equal overlaps occur


def masks_of(boxes, rng):
    masks = np.zeros((len(boxes), SIZE, SIZE), bool)
    for mask, (x, y, w, h) in zip(masks, boxes.astype(int)):
        mask[y : y + h, x : x + w] = True
        mask[y : y + int(rng.integers(0, h + 1)) // 2, x : x + w // 2] = False
    return masks


def images_of(seed, count, classes=3, objects=6, shift=0.15, crowds=True):
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(count):
        n = int(rng.integers(0, objects + 1))
        boxes, labels = boxes_of(rng, n), rng.integers(0, classes, n)
        keep = np.flatnonzero(rng.random(n) < 0.8)
        more = int(rng.integers(0, 4))
        guess = np.concatenate([boxes[keep], boxes[keep][: len(keep) // 2], boxes_of(rng, more)])
        size = guess[:, 2:].copy()
        guess[:, :2] += np.round(rng.normal(size=size.shape) * shift * size * 4) / 4
        guess = np.concatenate([np.clip(guess[:, :2], 0, SIZE - 2), size], 1)
        guess[:, 2:] = np.maximum(np.minimum(guess[:, 2:], SIZE - guess[:, :2]), 1)
        named = np.concatenate([labels[keep], labels[keep][: len(keep) // 2], rng.integers(0, classes, more)])
        scores = np.round(rng.random(len(guess)), 1)  # many equal ones
        crowd = (rng.random(n) < 0.2).astype(int) if crowds else np.zeros(n, int)
        found.append({"boxes": guess, "labels": named.astype(int), "scores": scores, "masks": masks_of(guess, rng)})
        truth.append({"boxes": boxes, "labels": labels, "iscrowd": crowd, "masks": masks_of(boxes, rng)})
    return found, truth


def encode(mask):
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))


def reference(found, truth, kind, classes=3):
    annotations, results = [], []
    for image, (f, t) in enumerate(zip(found, truth), 1):
        for k in range(len(t["labels"])):
            area = t["boxes"][k, 2] * t["boxes"][k, 3] if kind == "bbox" else t["masks"][k].sum()
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": int(t["labels"][k]),
                "bbox": t["boxes"][k].tolist(), "area": float(t.get("area", {k: area})[k]),
                "iscrowd": int(t["iscrowd"][k]), "segmentation": encode(t["masks"][k]),
            })  # fmt: skip
        for k in range(len(f["labels"])):
            shape = {"bbox": f["boxes"][k].tolist()} if kind == "bbox" else {"segmentation": encode(f["masks"][k])}
            row = {"image_id": image, "category_id": int(f["labels"][k]), "score": float(f["scores"][k])}
            results.append(row | shape)
    data = COCO()
    size = {"height": SIZE, "width": SIZE}
    data.dataset = {
        "info": {}, "images": [{"id": k + 1, **size} for k in range(len(truth))],
        "categories": [{"id": k} for k in range(classes)], "annotations": annotations,
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        run = COCOeval(data, data.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(NAMES, run.stats))


def check(found, truth, kind, box_format="xywh"):
    metric, other = (MeanAveragePrecision(kind, box_format) for _ in range(2))
    half = len(truth) // 2
    metric.update(found[:half], truth[:half])
    other.update(found[half:], truth[half:])
    metric.merge(other)
    ours, theirs = metric.compute(), reference(found, truth, kind)
    assert list(ours) == NAMES
    for name in NAMES:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-12), name
    return ours


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_random_images(seed, kind):
    found, truth = images_of(seed, 12)
    values = check(found, truth, kind)
    assert 0.05 < values["AP"] < 0.95


def test_more_detections_than_the_limit():
    rng = np.random.default_rng(0)
    found, truth = images_of(1, 4, classes=1, objects=8)
    for item in found:
        more = boxes_of(rng, 130)
        item["boxes"] = np.concatenate([item["boxes"], more])
        item["labels"] = np.concatenate([item["labels"], np.zeros(130, int)])
        item["scores"] = np.concatenate([item["scores"], np.round(rng.random(130), 2)])
        item["masks"] = np.concatenate([item["masks"], np.zeros((130, SIZE, SIZE), bool)])
    check(found, truth, "bbox")


def test_given_areas_and_perfect_detections():
    found, truth = images_of(2, 6, crowds=False)
    rng = np.random.default_rng(2)
    for f, t in zip(found, truth):
        t["area"] = rng.uniform(10, 20000, len(t["labels"]))
        f.update(boxes=t["boxes"], labels=t["labels"], scores=np.ones(len(t["labels"])), masks=t["masks"])
    assert check(found, truth, "bbox")["AP"] == pytest.approx(1)


def test_no_object_and_only_crowds():
    found, truth = images_of(3, 4)
    for t in truth:
        t["iscrowd"] = np.ones_like(t["iscrowd"])
    assert set(check(found, truth, "bbox").values()) == {-1}
    for t in truth:
        t.update(boxes=np.zeros((0, 4)), labels=np.zeros(0, int), iscrowd=np.zeros(0), masks=np.zeros((0, SIZE, SIZE)))
    assert set(check(found, truth, "segm").values()) == {-1}


def test_corners_give_the_same_as_sizes():
    found, truth = images_of(4, 8)
    sizes, corners = MeanAveragePrecision(box_format="xywh"), MeanAveragePrecision()
    sizes.update(found, truth)
    for item in found + truth:
        item["boxes"][:, 2:] += item["boxes"][:, :2]
    corners.update(found, truth)
    assert corners.compute() == sizes.compute()
