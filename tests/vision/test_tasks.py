"""Evaluating and predicting from the command line's side."""

import numpy as np
import pytest
from PIL import Image

import flambeau
from flambeau.errors import FlambeauError
from flambeau.plugins import create_model, resolve, save_model
from flambeau.plugins.spec import TaskSpec
from flambeau_vision._plugin import flambeau_register_tasks
from flambeau_vision.datasets import CamVid
from flambeau_vision.draw import STREET_CLASSES
from flambeau_vision.images import load_mask
from flambeau_vision.tasks import classification, segmentation

from .test_models import TINY, write_blobs, write_street


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """A checkpoint of an untrained small network."""
    flambeau.manual_seed(0)
    config = {**TINY, "classes": list(STREET_CLASSES), "short_side": 40}
    return str(
        save_model(create_model("vision/dilated_fpn", **config), tmp_path_factory.mktemp("net"), "dilated_fpn", config)
    )


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    flambeau.manual_seed(0)
    config = {"num_classes": 2, "widths": [4, 6, 8], "layers": [1, 1, 1], "classes": ["blue", "red"], "size": 16}
    return str(
        save_model(create_model("vision/resnet20", **config), tmp_path_factory.mktemp("net"), "resnet20", config)
    )


def photo(path, size=(33, 47)):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return str(path)


def test_every_path_that_a_task_names_exists():
    for spec in flambeau_register_tasks():
        assert isinstance(spec, TaskSpec)
        assert callable(resolve(spec.evaluate))
        assert callable(resolve(spec.predict))


def test_evaluate_equals_counting_by_hand(segmenter, tmp_path):
    data = write_street(tmp_path)
    scores = segmentation.evaluate(segmenter, data, "test", {"flip": False})
    dataset, module = CamVid(data, "test"), segmentation.load_segmenter(segmenter)
    hits, union, right = np.zeros(11), np.zeros(11), 0
    for image, mask in zip(dataset.images, dataset.targets):
        batch = flambeau.tensor(segmentation.normalize(image, 0.41, 0.30)[None])
        with flambeau.no_grad():
            guess = module(batch).numpy()[0].argmax(0)
        for index in range(11):
            hits[index] += ((guess == index) & (mask == index)).sum()
            union[index] += ((guess == index) | (mask == index)).sum()
        right += (guess == mask).sum()
    wanted = np.divide(hits, union, out=np.full(11, np.nan), where=union > 0)
    assert scores["mean_iou"] == pytest.approx(np.nanmean(wanted))
    assert scores["pixel_accuracy"] == pytest.approx(right / dataset.targets.size)
    assert scores["images"] == 6
    for name, value in zip(STREET_CLASSES, wanted):
        assert scores["iou"][name] == (None if np.isnan(value) else pytest.approx(value, abs=1e-4))


def test_evaluating_in_batches_changes_nothing(segmenter, tmp_path):
    data = write_street(tmp_path)
    one = segmentation.evaluate(segmenter, data, "val", {"batch_size": 1, "flip": True})
    many = segmentation.evaluate(segmenter, data, "val", {"batch_size": 4, "flip": True})
    assert one["mean_iou"] == pytest.approx(many["mean_iou"], abs=2e-3)


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (3, 900), (700, 20), (120, 90)])
@pytest.mark.parametrize("flip", [True, False])
def test_the_mask_has_the_photos_size(segmenter, size, flip):
    module = segmentation.load_segmenter(segmenter)
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    mask = segmentation.segment(module, image, flip=flip)
    assert mask.shape == size
    assert mask.dtype == np.uint8
    assert mask.max() < 11


def test_a_mirrored_photo_gives_a_mirrored_mask(segmenter):
    module = segmentation.load_segmenter(segmenter)
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    mask = segmentation.segment(module, image)
    mirrored = segmentation.segment(module, np.ascontiguousarray(image[:, ::-1]))
    assert (mirrored[:, ::-1] == mask).mean() > 0.995


def test_working_sizes():
    for height, width in [(1, 1), (180, 240), (3000, 4000), (10, 10000), (10000, 10)]:
        size = segmentation.working_size(height, width, 180)
        assert min(size) == 180
        assert max(size) <= 180 * segmentation.MAX_ASPECT


def test_predict_goes_on_after_a_bad_photo(segmenter, tmp_path):
    good, bad = photo(tmp_path / "a.png"), tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    records = list(segmentation.predict(segmenter, [good, str(bad), good], str(tmp_path / "out"), {"mask": True}))
    assert [record["input"] for record in records] == [good, str(bad), good]
    assert "not a picture" in records[1]["error"]
    assert records[1]["mend"]
    assert sum(records[0]["output"].values()) == pytest.approx(1, abs=0.01)
    assert load_mask(records[0]["mask"]).shape == (33, 47)
    with Image.open(records[0]["path"]) as image:
        assert image.size[0] > 47


def test_predict_without_an_output_writes_nothing(segmenter, tmp_path):
    records = list(segmentation.predict(segmenter, [photo(tmp_path / "a.png")], None, {}))
    assert "path" not in records[0]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_wrong_kind_of_network(segmenter, classifier, tmp_path):
    with pytest.raises(FlambeauError, match="does not segment"):
        segmentation.evaluate(classifier, write_street(tmp_path), "test", {})
    with pytest.raises(FlambeauError, match="does not classify"):
        classification.evaluate(segmenter, write_blobs(tmp_path), "test", {})


def test_damaged_weights(segmenter, tmp_path):
    module = segmentation.load_segmenter(segmenter)
    module.stem.conv.weight.data[0, 0, 0, 0] = float("nan")
    path = save_model(module, tmp_path, "dilated_fpn", {**TINY, "classes": list(STREET_CLASSES)})
    with pytest.raises(FlambeauError, match="not finite"):
        segmentation.load_segmenter(str(path))


def test_classification(classifier, tmp_path):
    data = write_blobs(tmp_path)
    scores = classification.evaluate(classifier, data, "test", {"batch_size": 3})
    assert 0 <= scores["accuracy"] <= 1
    assert scores["images"] == 20
    good = photo(tmp_path / "a.png", (40, 20))
    records = list(classification.predict(classifier, [good, "nowhere.png"], None, {"top": 2}))
    assert set(records[0]["output"]) == {"blue", "red"}
    assert sum(records[0]["output"].values()) == pytest.approx(1, abs=1e-3)
    assert "no such file" in records[1]["error"]
    with pytest.raises(FlambeauError, match="writes no files"):
        list(classification.predict(classifier, [good], "out", {}))


def test_another_number_of_classes(classifier, tmp_path):
    (tmp_path / "test").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "test" / name).mkdir()
        photo(tmp_path / "test" / name / "1.png")
    with pytest.raises(FlambeauError, match="2 classes, the data set has 3"):
        classification.evaluate(classifier, str(tmp_path), "test", {})


def test_mnist_through_the_generic_path(tmp_path, mnist_folder):
    flambeau.manual_seed(0)
    config = {"num_classes": 10, "widths": [4, 6, 8], "layers": [1, 1, 1], "size": 28}
    path = save_model(create_model("vision/resnet20", **config), tmp_path, "resnet20", config)
    dataset = classification.open_classification(mnist_folder, "test")
    scores = classification.score(classification.load_classifier(str(path)), dataset.images[:50], dataset.targets[:50])
    assert 0 <= scores["accuracy"] <= scores["top5_accuracy"] <= 1
