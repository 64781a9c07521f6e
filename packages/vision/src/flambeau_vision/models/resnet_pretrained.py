"""ResNets in folders of Hugging Face Transformers and of timm: their options and their tensors' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flambeau import FlambeauError

from .pretrained import class_options, require

_PARTS = {"convolution": "conv", "normalization": "bn"}
_SHORTCUT = {"convolution": "0", "normalization": "1"}
_LAYER = re.compile(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.(convolution|normalization)\.(\w+)")
_SHORT = re.compile(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.(convolution|normalization)\.(\w+)")
_STEM = re.compile(r"embedder\.embedder\.(convolution|normalization)\.(\w+)")


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `ResNetConfig` for a ``config.json``.

    Raises:
        FlambeauError: other activations than ReLU.

    >>> found = options({"layer_type": "basic", "depths": [1], "hidden_sizes": [8], "num_labels": 3})
    >>> found["widths"], found["stem_width"], found["num_classes"]
    ((8,), 64, 3)
    """
    if "architecture" in config:  # timm's
        found: dict[str, Any] = {"num_classes": config.get("num_classes", 1000)}
        trained = config.get("pretrained_cfg", {})
        found |= {key: tuple(trained[key]) for key in ("mean", "std") if key in trained}
        if "input_size" in trained:
            found["size"] = trained["input_size"][-1]
        return found
    require(config, "ResNet", hidden_act="relu", num_channels=3)
    bottleneck = config.get("layer_type", "bottleneck") == "bottleneck"
    widths = tuple(config.get("hidden_sizes", (256, 512, 1024, 2048)))
    if bottleneck and any(width % 4 for width in widths):
        raise FlambeauError(f"this ResNet has bottlenecks of {widths} channels", "multiples of 4 can be loaded")
    return {
        **class_options(config),
        "layers": tuple(config.get("depths", (3, 4, 6, 3))),
        "widths": tuple(width // 4 for width in widths) if bottleneck else widths,
        "block": "bottleneck" if bottleneck else "basic",
        "stem_width": config.get("embedding_size", 64),
        "first_stride": 2 if config.get("downsample_in_first_stage", False) else 1,
        "early_stride": bool(config.get("downsample_in_bottleneck", False)),
    }


def rename(state: dict[str, Any], config: dict[str, Any]) -> Mapping[str, Any]:
    """The tensors under torchvision's names, which timm uses too."""
    return {_renamed(key): value for key, value in state.items()}


def _renamed(key: str) -> str:
    inner = key.removeprefix("resnet.")
    if found := _LAYER.fullmatch(inner):
        stage, block, number, part, leaf = found.groups()
        return f"layer{int(stage) + 1}.{block}.{_PARTS[part]}{int(number) + 1}.{leaf}"
    if found := _SHORT.fullmatch(inner):
        stage, block, part, leaf = found.groups()
        return f"layer{int(stage) + 1}.{block}.downsample.{_SHORTCUT[part]}.{leaf}"
    if found := _STEM.fullmatch(inner):
        return f"{_PARTS[found[1]]}1.{found[2]}"
    return key.replace("classifier.1.", "fc.") if key.startswith("classifier.1.") else key
