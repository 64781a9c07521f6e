"""RegNets in folders of Hugging Face Transformers: their options and their tensors' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .pretrained import class_options, renamed, require

_LEAF = {"convolution": "0", "normalization": "1"}
_PART = r"(convolution|normalization)\.(\w+)"
_LAYER = r"encoder\.stages\.(\d+)\.layers\.(\d+)\."


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `RegNetConfig` for a ``config.json``.

    Raises:
        FlambeauError: other activations than ReLU.

    >>> options({"layer_type": "x", "hidden_sizes": [8, 16], "depths": [1, 2]})["squeeze"]
    0.0
    """
    require(config, "RegNet", hidden_act="relu", num_channels=3)
    return {
        **class_options(config),
        "layers": tuple(config.get("depths", (2, 6, 12, 2))),
        "widths": tuple(config.get("hidden_sizes", (128, 192, 512, 1088))),
        "group_width": config.get("groups_width", 64),
        "squeeze": 0.25 if config.get("layer_type", "y") == "y" else 0.0,
        "stem": config.get("embedding_size", 32),
        "first_stride": 2 if config.get("downsample_in_first_stage", True) else 1,
    }


def rename(state: dict[str, Any], config: dict[str, Any]) -> Mapping[str, Any]:
    """The tensors under torchvision's names."""
    squeeze = config.get("layer_type", "y") == "y"
    parts = {"0": "a", "1": "b", "3" if squeeze else "2": "c"}
    rules = [
        (re.compile(rf"embedder\.embedder\.{_PART}"), lambda part, leaf: f"stem.{_LEAF[part]}.{leaf}"),
        (
            re.compile(rf"{_LAYER}layer\.(\d)\.{_PART}"),
            lambda stage, block, index, part, leaf: f"{_block(stage, block)}.f.{parts[index]}.{_LEAF[part]}.{leaf}",
        ),
        (
            re.compile(rf"{_LAYER}layer\.2\.attention\.(0|2)\.(\w+)"),
            lambda stage, block, index, leaf: f"{_block(stage, block)}.f.se.fc{int(index) // 2 + 1}.{leaf}",
        ),
        (
            re.compile(rf"{_LAYER}shortcut\.{_PART}"),
            lambda stage, block, part, leaf: f"{_block(stage, block)}.proj.{_LEAF[part]}.{leaf}",
        ),
        (re.compile(r"classifier\.1\.(\w+)"), r"fc.\1"),
    ]
    return {renamed(key.removeprefix("regnet."), rules): value for key, value in state.items()}


def _block(stage: str, block: str) -> str:
    number = int(stage) + 1
    return f"trunk_output.block{number}.block{number}-{block}"
