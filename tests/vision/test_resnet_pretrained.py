"""ResNet-18 in the folders of Transformers and of timm."""

from __future__ import annotations

import json
import re

import pytest

import flambeau
from flambeau.errors import FlambeauError
from flambeau.io import from_pretrained, save_pretrained
from flambeau.plugins import create_model

WIDTHS = [8, 12]
CONFIG = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "layer_type": "basic",
    "depths": [1, 2],
    "hidden_sizes": WIDTHS,
    "embedding_size": 8,
    "id2label": {"10": "k", **{str(i): chr(97 + i) for i in range(10)}},
}


def transformers_name(key):
    """torchvision's name as Transformers has it."""
    kinds = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}
    if found := re.fullmatch(r"layer(\d)\.(\d)\.(conv|bn)(\d)\.(\w+)", key):
        stage, block, kind, number, leaf = found.groups()
        return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.layer.{int(number) - 1}.{kinds[kind]}.{leaf}"
    if found := re.fullmatch(r"layer(\d)\.(\d)\.downsample\.(\d)\.(\w+)", key):
        stage, block, kind, leaf = found.groups()
        return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.shortcut.{kinds[kind]}.{leaf}"
    if found := re.fullmatch(r"(conv|bn)1\.(\w+)", key):
        return f"resnet.embedder.embedder.{kinds[found[1]]}.{found[2]}"
    return key.replace("fc.", "classifier.1.")


@pytest.fixture
def model():
    return create_model("vision/resnet18", num_classes=11, layers=(1, 2), widths=tuple(WIDTHS)).eval()


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_transformers(model, file, tmp_path):
    state = {transformers_name(key): value for key, value in model.state_dict().items()}
    assert len(state) == len(model.state_dict()) and not set(state) & set(model.state_dict())
    flambeau.save(state, tmp_path / file)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    back = from_pretrained(tmp_path)
    assert back.config.classes == tuple("abcdefghijk")
    picture = flambeau.randn(1, 3, 32, 32)
    assert back(picture).tolist() == model(picture).tolist()


def test_timm(tmp_path):
    model = create_model("vision/resnet18", num_classes=5)
    flambeau.save(model.state_dict(), tmp_path / "model.safetensors")
    trained = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "input_size": [3, 288, 288]}
    config = {"architecture": "resnet18", "num_classes": 5, "pretrained_cfg": trained}
    (tmp_path / "config.json").write_text(json.dumps(config))
    back = from_pretrained(tmp_path)
    assert back.config.mean == (0.5, 0.5, 0.5) and back.config.size == 288
    assert back.fc.weight.tolist() == model.fc.weight.tolist()


def test_own(model, tmp_path):
    save_pretrained(model, tmp_path, max_shard_size="20KB")
    back = from_pretrained(tmp_path)
    assert all((a.array == b.array).all() for a, b in zip(model.parameters(), back.parameters(), strict=True))


def test_another_resnet(tmp_path):
    for change in ({"hidden_act": "gelu"}, {"layer_type": "bottleneck", "hidden_sizes": [6, 12]}):
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | change))
        with pytest.raises(FlambeauError, match="ResNet"):
            from_pretrained(tmp_path)
