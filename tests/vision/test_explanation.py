"""``flambeau explain`` on pictures: what is written, what is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import flambeau
from flambeau.errors import FlambeauError, UsageError
from flambeau.plugins import create_model, save_model
from flambeau_vision.explain import METHODS, ExplainOptions, attribution_map
from flambeau_vision.tasks.explanation import class_index, class_subject, region_subject

from .test_models import TestDilatedFPN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A photo and two small networks that nobody trained."""
    folder = tmp_path_factory.mktemp("explain")
    photo = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(photo).save(folder / "photo.png")
    flambeau.manual_seed(0)
    config = {**TestDilatedFPN.config, "short_side": 32}
    save_model(create_model("vision/dilated_fpn", **config), folder / "segmenter", "vision/dilated_fpn", config)
    config = {"widths": [4, 6, 8], "layers": [1, 1, 1], "num_classes": 3, "classes": ["cat", "dog", "cow"]}
    save_model(create_model("vision/resnet20", **config), folder / "classifier", "vision/resnet20", config)
    return folder


def explain(folder, *arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "flambeau", "explain", *map(str, arguments)],
        capture_output=True, text=True, cwd=folder, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("model", ["segmenter", "classifier"])
def test_a_picture_is_written(folder, model):
    out, _ = explain(folder, model, "photo.png", "-o", f"{model}.png", "--json")
    found = json.loads(out)
    assert found["path"] == f"{model}.png" and found["method"] == "grad-cam" and np.isfinite(found["score"])
    assert min(Image.open(folder / found["path"]).size) >= 256


def test_wrong_use_is_explained(folder):
    for arguments, code, text in (
        (["classifier", "photo.png", "-o", "a.gif"], 1, "cannot write pictures with the suffix '.gif'"),
        (["classifier", "photo.png", "-o", "a.png", "--target", "cats"], 2, "no class 'cats'"),
        (["classifier", "photo.png", "-o", "a.png", "--layer", "layer9"], 2, "no layer 'layer9'"),
        (["classifier", "photo.png", "-o", "a.png", "--method", "lime"], 2, "use one of grad-cam"),
        (["classifier", "none.png", "-o", "a.png"], 1, "none.png"),
        (["classifier", "photo.png", "-o", "a.png", "--set", "step=3"], 2, "did you mean 'steps'"),
    ):
        _, err = explain(folder, *arguments, code=code)
        assert text in err and not (folder / arguments[3]).exists()


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("task", [region_subject, class_subject])
def test_all_methods_give_maps(folder, monkeypatch, method, task):
    monkeypatch.chdir(folder)
    subject = task("segmenter" if task is region_subject else "classifier", "photo.png", None, "cpu")
    options = ExplainOptions(method, steps=2, samples=2, window=0.5, stride=1)
    found = attribution_map(subject, options)
    assert tuple(found.shape[2:]) == tuple(subject.inputs.shape[2:])
    assert np.isfinite(found.numpy()).all()
    again = attribution_map(subject, options)
    assert np.array_equal(found.numpy(), again.numpy())


def test_targets(folder, monkeypatch):
    monkeypatch.chdir(folder)
    subject = class_subject("classifier", "photo.png", "dog", "cpu")
    assert subject.target == 1 and subject.label.startswith("dog ") and subject.picture.shape == (32, 32, 3)
    with pytest.raises(UsageError, match="no class 'goat'"):
        class_index("goat", ("cat", "dog"))
    counts = {}
    for name in "abcd":
        try:
            counts[name] = int(region_subject("segmenter", "photo.png", name, "cpu").target.mask.sum())
        except FlambeauError as error:
            assert f"no pixel is {name}" in str(error)
    assert sum(counts.values()) == 32 * 48  # every pixel is of one class
    largest = region_subject("segmenter", "photo.png", None, "cpu")
    assert counts[largest.label] == max(counts.values()) and largest.picture.shape == (40, 60, 3)


def test_the_classifiers_picture_is_what_it_sees(folder, monkeypatch):
    monkeypatch.chdir(folder)
    flat = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    Image.fromarray(flat).save("flat.png")
    assert np.array_equal(class_subject("classifier", "flat.png", None, "cpu").picture, flat)
