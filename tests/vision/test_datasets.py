"""Datasets: whole ones, and every way in which their files can be wrong."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flambeau.data import DataLoader
from flambeau.errors import FlambeauError
from flambeau_vision.datasets import CIFAR10, CIFAR10_CLASSES, MNIST, CamVid, ImageFolder, read_idx
from flambeau_vision.transforms import Compose, Normalize, RandomZoomCrop


def encoded(array, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def camvid_files(count=3, size=(12, 16), top=12):
    rng = np.random.default_rng(0)
    files = {}
    for number in range(count):
        files[f"images/{number:02}.png"] = encoded(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
        files[f"labels/{number:02}.png"] = encoded(rng.integers(0, top, size, dtype=np.uint8))
    return files


def write(root, split, files, zipped):
    root.mkdir(parents=True, exist_ok=True)
    if zipped:
        with zipfile.ZipFile(root / f"{split}.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        for name, content in files.items():
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


@pytest.mark.parametrize("zipped", [True, False])
def test_camvid_from_zip_and_folder(tmp_path, zipped):
    dataset = CamVid(write(tmp_path, "train", camvid_files(), zipped))
    assert len(dataset) == 3
    assert dataset.images.shape == (3, 12, 16, 3)
    assert dataset.targets.shape == (3, 12, 16)
    assert dataset.names == ["00", "01", "02"]
    image, mask = dataset[1]
    assert image.shape == (3, 12, 16)
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(dataset[-2][1], mask)
    with pytest.raises(IndexError):
        dataset[3]
    frequencies = dataset.class_frequencies()
    assert frequencies.shape == (11,)
    assert frequencies.sum() == pytest.approx(1)


def test_camvid_pictures_of_several_sizes(tmp_path):
    files = {**camvid_files(2, (12, 16)), **{k.replace("0", "9"): v for k, v in camvid_files(1, (8, 10)).items()}}
    dataset = CamVid(write(tmp_path, "val", files, True), "val")
    assert [image.shape[:2] for image in dataset.images] == [(12, 16), (12, 16), (8, 10)]
    assert dataset[2][1].shape == (8, 10)


def camvid_faults():
    files = camvid_files()
    no_label = {k: v for k, v in files.items() if k != "labels/01.png"}
    other_size = {**files, "labels/01.png": encoded(np.zeros((3, 3), np.uint8))}
    yield "no label", no_label, "has no label"
    yield "size", other_size, "its label 3x3"
    yield "index", {**files, "labels/01.png": encoded(np.full((12, 16), 40, np.uint8))}, "index 40"
    yield "no images", {"labels/00.png": files["labels/00.png"]}, "no images/"
    yield "broken picture", {**files, "images/01.png": files["images/01.png"][:60]}, "images/01.png"
    yield "not a picture", {**files, "images/01.png": b"hello"}, "not a picture"
    yield "colour mask", {**files, "labels/01.png": files["images/01.png"]}, "class index"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("name", "files", "cause"), list(camvid_faults()), ids=[f[0] for f in camvid_faults()])
def test_camvid_faults(tmp_path, name, files, cause, zipped):
    with pytest.raises(FlambeauError, match=cause) as caught:
        CamVid(write(tmp_path, "train", files, zipped))
    assert caught.value.mend
    assert "\n" not in caught.value.cause + caught.value.mend


@pytest.mark.parametrize("make", [CamVid, ImageFolder, CIFAR10, MNIST])
def test_absent_data_say_which_file_goes_where(tmp_path, make):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FlambeauError) as caught:
            make(root, "train")
        assert str(root) in caught.value.cause
        assert str(root) in caught.value.mend
        assert ("train.zip" in caught.value.mend) or ("train-images-idx3-ubyte.gz" in caught.value.mend)


def test_a_broken_archive(tmp_path):
    write(tmp_path, "train", camvid_files(), True)
    data = (tmp_path / "train.zip").read_bytes()
    (tmp_path / "train.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(FlambeauError, match="zip"):
        CamVid(tmp_path)
    damaged = bytearray(data)
    damaged[60:70] = b"\0" * 10
    (tmp_path / "train.zip").write_bytes(damaged)
    with pytest.raises(FlambeauError, match=r"00\.png"):
        CamVid(tmp_path)


def test_class_names_come_from_the_file(tmp_path):
    root = write(tmp_path, "train", camvid_files(), True)
    (root / "classes.txt").write_text("\n".join(f"{i} name {i}" for i in range(12)))
    assert CamVid(root).classes == tuple(f"name {i}" for i in range(11))
    (root / "classes.txt").write_text("0 sky\n2 road\n")
    with pytest.raises(FlambeauError, match="needs the lines"):
        CamVid(root)


@pytest.mark.parametrize("zipped", [True, False])
def test_image_folder(tmp_path, zipped):
    rng = np.random.default_rng(0)
    files = {
        f"{name}/{number}.png": encoded(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        for name in ("dog", "cat")
        for number in range(2)
    }
    dataset = ImageFolder(write(tmp_path, "test", {**files, "readme.txt": b"hello"}, zipped), "test")
    assert dataset.classes == ("cat", "dog")
    assert dataset.targets.tolist() == [0, 0, 1, 1]
    image, target = dataset[3]
    assert image.shape == (3, 5, 6)
    assert target == 1
    assert isinstance(target, int)
    with pytest.raises(FlambeauError, match="not CIFAR-10"):
        CIFAR10(tmp_path, "test")
    with pytest.raises(FlambeauError, match="no class folders"):
        ImageFolder(write(tmp_path / "flat", "test", {"a.png": files["dog/0.png"]}, zipped), "test")


def test_augmentation_does_not_depend_on_workers(tmp_path):
    transform = Compose([RandomZoomCrop((8, 8), ignore_index=11), Normalize(0.4, 0.3)])
    dataset = CamVid(write(tmp_path, "train", camvid_files(6), True), transform=transform)

    def epoch(workers):
        loader = DataLoader(
            dataset, batch_size=2, shuffle=True, num_workers=workers, generator=np.random.default_rng(1)
        )
        return [(images.numpy().copy(), masks.numpy().copy()) for images, masks in loader]

    for (images, masks), (images2, masks2) in zip(epoch(0), epoch(2), strict=True):
        np.testing.assert_array_equal(images, images2)
        np.testing.assert_array_equal(masks, masks2)


def idx_bytes(array):
    kind = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}[array.dtype.str[1:]]
    head = struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@given(st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]), st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_idx_round_trip(tmp_path_factory, kind, shape):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(kind)
    path = tmp_path_factory.mktemp("idx") / "data"
    path.write_bytes(idx_bytes(array))
    out = read_idx(path)
    np.testing.assert_array_equal(out, array)
    assert out.dtype == array.dtype


@settings(max_examples=100)
@given(st.data())
def test_damaged_idx_files_raise_one_error(tmp_path_factory, data):
    raw = bytearray(idx_bytes(np.zeros((3, 4, 4), np.uint8)))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    zipped = data.draw(st.booleans())
    path = tmp_path_factory.mktemp("idx") / ("data.gz" if zipped else "data")
    path.write_bytes(gzip.compress(bytes(raw))[: data.draw(st.integers(0, 60))] if zipped else bytes(raw))
    try:
        array = read_idx(path)
    except FlambeauError as error:
        assert error.mend
    else:
        assert array.nbytes <= len(raw)


def test_mnist_files_must_fit(tmp_path):
    images, labels = np.zeros((3, 28, 28), np.uint8), np.array([1, 2, 3], np.uint8)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
    with pytest.raises(FlambeauError, match=r"no file t10k-labels"):
        MNIST(tmp_path, "test")
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    dataset = MNIST(tmp_path, "test")
    assert dataset[2][0].shape == (1, 28, 28)
    assert dataset[2][1] == 3
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels[:2]))
    with pytest.raises(FlambeauError, match="do not fit"):
        MNIST(tmp_path, "test")
    with pytest.raises(FlambeauError, match="no split"):
        MNIST(tmp_path, "val")


def test_the_real_camvid(camvid_folder):
    dataset = CamVid(camvid_folder, "test")
    assert len(dataset) == 233
    assert dataset.images.shape == (233, 180, 240, 3)
    assert dataset.classes[3] == "road"
    assert set(np.unique(dataset.targets)) == set(range(12))
    assert dataset.class_frequencies()[3] > 0.2


def test_the_real_cifar10(cifar_folder):
    dataset = CIFAR10(cifar_folder, "test")
    assert len(dataset) == 3000
    assert dataset.classes == CIFAR10_CLASSES
    assert np.bincount(dataset.targets).tolist() == [300] * 10


def test_the_real_mnist(mnist_folder):
    dataset = MNIST(mnist_folder, "test")
    assert dataset.images.shape == (10000, 28, 28)
    assert dataset.targets[:5].tolist() == [7, 2, 1, 0, 4]
