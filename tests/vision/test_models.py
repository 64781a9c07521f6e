"""The registered models and trainers: the checks that every plugin must pass, and what is particular to each."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

import flambeau
from flambeau.plugins import create_model, load_model
from flambeau.testing import ModelConformance, PluginConformance, TrainerConformance
from flambeau_vision.models.dilated_fpn import DilatedFPN, DilatedFPNConfig
from flambeau_vision.models.resnet import ResNetConfig


class TestPlugin(PluginConformance):
    plugin = "vision"


class TestDilatedFPN(ModelConformance):
    model = "vision/dilated_fpn"
    config = {
        "num_classes": 4,
        "widths": [4, 6, 8],
        "dilations": [1, 2],
        "bottleneck": 4,
        "decoder": [6, 4],
        "dropout": 0.1,
        "classes": ["a", "b", "c", "d"],
    }
    output_shape = (2, 4, 26, 38)

    def inputs(self):
        return (flambeau.randn(2, 3, 26, 38),)


class TestResNet18(ModelConformance):
    model = "vision/resnet18"
    config = {"num_classes": 5, "layers": [1, 1, 1, 1], "widths": [4, 6, 8, 10]}
    output_shape = (2, 5)

    def inputs(self):
        return (flambeau.randn(2, 3, 40, 48),)


class TestResNet20(ModelConformance):
    model = "vision/resnet20"
    config = {"widths": [4, 6, 8]}
    output_shape = (2, 10)

    def inputs(self):
        return (flambeau.randn(2, 3, 32, 32),)


def test_resnet18_has_torchvisions_keys():
    keys = set(create_model("vision/resnet18").state_dict())
    wanted = {"conv1.weight", "fc.weight", "fc.bias", "layer1.0.conv1.weight", "layer4.1.bn2.running_var"}
    assert wanted <= keys
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.num_batches_tracked"} <= keys
    assert not any(key.startswith("layer1.0.downsample") for key in keys)
    assert len(keys) == 122  # as torchvision's resnet18


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (45, 60), (8, 200)])
def test_dilated_fpn_takes_any_size(size):
    model = create_model("vision/dilated_fpn", **TestDilatedFPN.config).eval()
    with flambeau.no_grad():
        assert tuple(model(flambeau.zeros(1, 3, *size)).shape) == (1, 4, *size)
        model.train()
        scores, auxiliary = model(flambeau.zeros(2, 3, *size))
    assert tuple(scores.shape) == (2, 4, *size)
    assert tuple(auxiliary.shape[2:]) == tuple(-(-side // 4) for side in size)


def test_dilated_fpn_without_the_auxiliary_scores():
    model = DilatedFPN(DilatedFPNConfig(auxiliary=False)).train()
    assert isinstance(model(flambeau.zeros(2, 3, 32, 32)), flambeau.Tensor)
    assert not any(key.startswith("aux") for key in model.state_dict())


def test_wrong_configurations_are_refused():
    with pytest.raises(ValueError, match="stem"):
        ResNetConfig(stem="big")
    with pytest.raises(ValueError, match="stage"):
        ResNetConfig(layers=(2, 2))


def encoded(array, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def write_street(folder, count=6):
    """A street so simple that a small network learns it: sky above, road below, a car in between."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
            for number in range(count):
                mask = np.zeros((48, 64), dtype=np.uint8)
                mask[int(rng.integers(20, 28)) :] = 3
                left = int(rng.integers(0, 44))
                mask[26:38, left : left + 20] = 8
                image = np.array([(120, 180, 255), (0, 0, 0), (0, 0, 0), (90, 90, 90)] + [(200, 20, 20)] * 8)[mask]
                image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
                archive.writestr(f"images/{number}.png", encoded(image))
                archive.writestr(f"labels/{number}.png", encoded(mask))
    return str(folder)


TINY = {"widths": [6, 8, 12], "dilations": [1, 2], "bottleneck": 8, "decoder": [8, 8]}


class TestSegmentationTrainer(TrainerConformance):
    model, trainer = "vision/dilated_fpn", "vision/segmentation"
    options = {"epochs": 2, "batch_size": 2, "crop": [32, 32], "late_crop": [40, 40], "late": 0.5, "model": TINY}

    def data(self, folder):
        return write_street(folder)


def write_blobs(folder, count=10):
    """Two classes that differ in colour."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
            for name, colour in (("blue", (20, 20, 200)), ("red", (200, 20, 20))):
                for number in range(count):
                    image = np.clip(np.array(colour) + rng.normal(0, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
                    archive.writestr(f"{name}/{number}.png", encoded(image))
    return str(folder)


class TestClassificationTrainer(TrainerConformance):
    model, trainer = "vision/resnet20", "vision/classification"
    options = {"epochs": 2, "batch_size": 4, "jitter": True, "model": {"widths": [4, 6, 8], "layers": [1, 1, 1]}}

    def data(self, folder):
        return write_blobs(folder)


def test_the_segmentation_trainer_learns_a_simple_street(tmp_path):
    from flambeau_vision.trainers.segmentation import train

    data = write_street(tmp_path)
    options = {**TestSegmentationTrainer.options, "epochs": 25, "lr": 8e-3, "focus": 0.5, "half": True}
    scores = train("vision/dilated_fpn", data, str(tmp_path / "run"), options, resume=False)
    assert scores["iou"]["sky"] > 0.85
    assert scores["iou"]["road"] > 0.7
    assert scores["iou"]["building"] is None or scores["iou"]["building"] == 0
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"model.safetensors", "history.csv", "history.jsonl", "config.json", "checkpoints"} <= files
    model = load_model(tmp_path / "run")
    assert tuple(model.config.classes)[8] == "car"
    assert model.config.short_side == 48
    assert 0.2 < model.config.mean < 0.6


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    from flambeau_vision.trainers.segmentation import Windows, train

    data, options = write_street(tmp_path), {**TestSegmentationTrainer.options, "epochs": 3, "focus": 0.5}
    whole = train("vision/dilated_fpn", data, str(tmp_path / "whole"), options, resume=False)

    def interrupt(self, run):
        if run.counters.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Windows, "on_step", interrupt)
        train("vision/dilated_fpn", data, str(tmp_path / "part"), options, resume=False)
    assert not (tmp_path / "part" / "model.safetensors").exists()
    assert train("vision/dilated_fpn", data, str(tmp_path / "part"), options, resume=True) == whole
    one, two = (load_model(tmp_path / name).state_dict() for name in ("whole", "part"))
    for key, value in one.items():
        np.testing.assert_array_equal(value.numpy(), two[key].numpy())


@pytest.mark.parametrize("name", ["class_weight", "zoom", "workers", "splits"])
def test_wrong_options_are_refused_before_anything_is_written(tmp_path, name):
    from flambeau.errors import UsageError
    from flambeau_vision.trainers.segmentation import train

    value = {"class_weight": 0.5, "zoom": [2.0, 1.0], "workers": 2, "splits": []}[name]
    with pytest.raises(UsageError):
        train("vision/dilated_fpn", write_street(tmp_path), str(tmp_path / "run"), {name: value}, resume=False)
    assert not (tmp_path / "run").exists()


def test_the_classification_trainer_learns_two_colours(tmp_path):
    from flambeau_vision.trainers.classification import train

    data = write_blobs(tmp_path)
    options = {**TestClassificationTrainer.options, "epochs": 8, "lr": 1e-2, "half": True, "jitter": False}
    scores = train("vision/resnet20", data, str(tmp_path / "run"), options, resume=False)
    assert scores["accuracy"] == 1.0
    assert load_model(tmp_path / "run").config.num_classes == 2
