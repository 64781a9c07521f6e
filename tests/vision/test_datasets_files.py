"""Data sets of other layouts, with files that are absent, broken or do not fit."""

import hashlib
import http.server
import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flambeau.errors import FlambeauError
from flambeau_vision import transforms as T
from flambeau_vision.datasets import (
    CIFARBinary,
    Cityscapes,
    CocoDetection,
    CSVImages,
    ImageFolder,
    VOCDetection,
    VOCSegmentation,
    download,
)
from flambeau_vision.datasets.rle import decode_rle, encode_rle, fill_polygons


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def photo(height=20, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def coco(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.png", photo())
    document = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "categories": [
            {"id": 3, "name": "dog"},
            {"id": 1, "name": "person", "keypoints": ["nose", "tail"], "skeleton": []},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "bbox": [2, 3, 10, 5],
                "area": 50,
                "segmentation": [[2, 3, 12, 3, 12, 8, 2, 8]],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 1,
                "bbox": [0, 0, 4, 4],
                "iscrowd": 1,
                "segmentation": {"counts": [0, 2, 598], "size": [20, 30]},
                "keypoints": [1, 2, 2, 0, 0, 0],
            },
        ],
    }

    def write():
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(document))
        return path

    return tmp_path, document, write


def test_coco_gives_boxes_masks_and_keypoints(coco):
    root, _, write = coco
    data = CocoDetection(root, write(), masks=True, keypoints=True, verify="pixels")
    assert data.classes == ("person", "dog") and data.category_ids == [1, 3] and len(data) == 2
    item = data[0]
    assert item["boxes"].tolist() == [[2, 3, 12, 8], [0, 0, 4, 4]] and item["boxes"].dtype == np.float32
    assert item["labels"].tolist() == [1, 0] and item["iscrowd"].tolist() == [False, True] and item["image_id"] == 7
    assert item["masks"].sum(axis=(1, 2)).tolist() == [50, 2] and item["masks"][0, 3:8, 2:12].all()
    assert item["keypoints"].shape == (2, 2, 3) and item["keypoints"][1, 0].tolist() == [1, 2, 2]
    assert data[1]["boxes"].shape == (0, 4) and data[1]["masks"].shape == (0, 20, 30)
    data.transform = T.Compose([T.RandomHorizontalFlip(1.0), T.SanitizeBoundingBoxes()])
    assert data[0]["boxes"][0].tolist() == [18, 3, 28, 8]
    assert CocoDetection(root, write(), classes=["dog"])[0]["labels"].tolist() == [0]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda d: d["images"].append({"id": 1, "file_name": "gone.png"}), r"gone\.png: no such picture"),
        (lambda d: d["annotations"][0].update(bbox=[50, 3, 4, 4]), r"box \(50, 3, 54, 7\) is empty or outside 30x20"),
        (lambda d: d["annotations"][0].update(bbox=[20, 3, 40, 4]), r"leaves the picture 30x20"),
        (lambda d: d["annotations"][0].update(category_id=44), "annotation 1: unknown class 44"),
        (lambda d: d["annotations"][0].update(image_id=44), "annotation 1: no image 44"),
    ],
)
def test_coco_problems_are_listed_or_stop(coco, change, line):
    root, document, write = coco
    change(document)
    with pytest.warns(UserWarning, match=line):
        data = CocoDetection(root, write())
    assert len(data.problems) == 1
    with pytest.raises(FlambeauError, match=line):
        CocoDetection(root, write(), strict=True)
    for item in (data[index] for index in range(len(data))):
        assert (item["boxes"][:, 2] <= 30).all()


def test_files_that_are_not_coco_are_refused(coco, tmp_path):
    root, document, write = coco
    for text, cause in (("{", "not a whole JSON"), ("[]", "not COCO"), ('{"images": []}', "annotations, categories")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(FlambeauError, match=cause):
            CocoDetection(root, tmp_path / "x.json")
    del document["annotations"][0]["bbox"]
    with pytest.raises(FlambeauError, match=r"not COCO's format.*bbox"):
        CocoDetection(root, write())
    with pytest.raises(FlambeauError, match="no such file"):
        CocoDetection(root, tmp_path / "none.json")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_run_lengths_come_back(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), mask.shape), mask)


def test_packed_run_lengths_and_polygons():
    # Runs 6, 1, 40, 4, 5, 4, 5, 4, 21 as COCO packs them.
    mask = decode_rle("61X13mN000`0", (9, 10))
    assert encode_rle(mask) == [6, 1, 40, 4, 5, 4, 5, 4, 21]
    with pytest.raises(ValueError, match="do not fill"):
        decode_rle([3], (2, 2))
    triangle = fill_polygons([[0, 0, 20, 0, 0, 20]], (20, 20))
    assert abs(int(triangle.sum()) - 200) <= 10 and triangle[0, 0] and not triangle[19, 19]
    with pytest.raises(ValueError, match="polygon of 2"):
        fill_polygons([[0, 0, 1, 1]], (4, 4))


VOC = """<annotation><filename>{0}.jpg</filename><size><width>30</width><height>20</height></size>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>8</ymax>
</bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for name in "ab":
        save(tmp_path / f"JPEGImages/{name}.jpg", photo())
        (tmp_path / f"Annotations/{name}.xml").write_text(VOC.format(name))
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\n")
    return tmp_path


def test_voc(voc):
    data = VOCDetection(voc, "train")
    assert len(data) == 1 and data.classes == ("cat",) and data[0]["boxes"].tolist() == [[2, 3, 12, 8]]
    assert len(VOCDetection(voc, None)) == 2 and len(VOCDetection(voc, None, difficult=False)[0]["boxes"]) == 0
    with pytest.raises(FlambeauError, match="unknown class 'cat'"):
        VOCDetection(voc, None, classes=["dog"], strict=True)
    with pytest.raises(FlambeauError, match=r"test\.txt: no such file"):
        VOCDetection(voc, "test")
    (voc / "Annotations/b.xml").write_text("<annotation><object>")
    with pytest.warns(UserWarning, match=r"b\.xml: not a whole XML"):
        assert len(VOCDetection(voc, None)) == 1
    (voc / "JPEGImages/a.jpg").write_bytes(b"no picture")
    with pytest.raises(FlambeauError, match=r"a\.jpg: not a picture"):
        VOCDetection(voc, "train", classes=["cat"], strict=True)
    with pytest.raises(FlambeauError, match="no XML files"):
        VOCDetection(voc / "ImageSets")


def test_voc_and_cityscapes_masks(tmp_path):
    save(tmp_path / "v/JPEGImages/a.jpg", photo())
    save(tmp_path / "v/SegmentationClass/a.png", np.full((20, 30), 15, np.uint8))
    (tmp_path / "v/ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "v/ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    with pytest.warns(UserWarning, match=r"b\.jpg: no such file"):
        voc = VOCSegmentation(tmp_path / "v")
    assert voc[0][0].shape == (3, 20, 30) and (voc[0][1] == 15).all() and voc.classes[15] == "person"
    save(tmp_path / "c/leftImg8bit/val/ulm/ulm_0_leftImg8bit.png", photo())
    save(tmp_path / "c/gtFine/val/ulm/ulm_0_gtFine_labelIds.png", np.array([[7, 26, 4] * 10] * 20, np.uint8))
    city = Cityscapes(tmp_path / "c", "val")
    assert city[0][1][0, :3].tolist() == [0, 13, 255] and city.classes[13] == "car"
    with pytest.raises(FlambeauError, match="leftImg8bit"):
        Cityscapes(tmp_path / "c", "train")


def test_broken_pictures_are_skipped_and_listed(tmp_path):
    for name in "abc":
        save(tmp_path / f"train/cat/{name}.png", photo())
    whole = (tmp_path / "train/cat/b.png").read_bytes()
    (tmp_path / "train/cat/b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"1 broken pictures skipped: .*b\.png: the picture is truncated"):
        data = ImageFolder(tmp_path)
    assert len(data) == 2 and len(data.skipped) == 1
    with pytest.raises(FlambeauError, match=r"b\.png"):
        ImageFolder(tmp_path, strict=True)


def test_csv(tmp_path):
    save(tmp_path / "pictures/a.png", photo())
    table = tmp_path / "table.csv"
    table.write_text("file,kind\npictures/a.png,cat\npictures/gone.png,dog\n")
    with pytest.warns(UserWarning, match=r"line 3: .*gone\.png: no such file"):
        data = CSVImages(table, image="file", label="kind")
    assert len(data) == 1 and data.classes == ("cat", "dog") and data[0][1] == 0
    with pytest.raises(FlambeauError, match="no column 'image' \\(there are file, kind\\)"):
        CSVImages(table)
    with pytest.raises(FlambeauError, match="unknown class 'cat'"):
        CSVImages(table, image="file", label="kind", classes=["dog"], strict=True)


def test_cifar_binary(tmp_path):
    record = np.arange(3073, dtype=np.int64).astype(np.uint8)
    record[0] = 3
    (tmp_path / "test_batch.bin").write_bytes(record.tobytes() * 2)
    data = CIFARBinary(tmp_path, "test")
    assert len(data) == 2 and data[0][1] == 3 and data.classes[3] == "cat"
    np.testing.assert_array_equal(data.images[0][..., 1].reshape(-1), record[1 + 1024 : 1 + 2048])
    (tmp_path / "test_batch.bin").write_bytes(record.tobytes()[:-1])
    with pytest.raises(FlambeauError, match="not whole records"):
        CIFARBinary(tmp_path, "test")
    with pytest.raises(FlambeauError, match="data_batch_1"):
        CIFARBinary(tmp_path, "train")


CONTENT = bytes(range(256)) * 40


class Server(http.server.BaseHTTPRequestHandler):
    asked: list = []

    def do_GET(self):
        start = self.headers.get("Range")
        self.asked.append(start)
        first = int(start.split("=")[1].rstrip("-")) if start and self.path == "/resumes" else 0
        self.send_response(404 if self.path == "/gone" else 206 if first else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        self.wfile.write(CONTENT[first:])

    def log_message(self, *args):
        pass


def test_downloads_are_checked_resumed_and_whole(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base, digest = f"http://127.0.0.1:{server.server_port}", hashlib.sha256(CONTENT).hexdigest()
    try:
        for path in ("/resumes", "/restarts"):
            target = tmp_path / path[1:]
            target.with_name(target.name + ".part").write_bytes(CONTENT[:1000])
            assert download(base + path, target, digest).read_bytes() == CONTENT
            assert Server.asked[-1] == "bytes=1000-" and len(list(tmp_path.glob("*.part"))) == 0
            asked = len(Server.asked)
            download(base + path, target, digest)
            assert len(Server.asked) == asked
        with pytest.raises(FlambeauError, match="has SHA-256"):
            download(base + "/x", tmp_path / "x", "0" * 64)
        with pytest.raises(FlambeauError, match="answers 404"):
            download(base + "/gone", tmp_path / "x", digest)
        assert not (tmp_path / "x").exists()
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(FlambeauError, match="cannot be downloaded") as caught:
        download(base + "/x", tmp_path / "x", digest)
    assert f"put it at {tmp_path / 'x'}" in caught.value.mend and digest in caught.value.mend
