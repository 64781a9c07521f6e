"""ConvNeXt and ConvNeXt V2 in folders of Hugging Face Transformers: their options and their tensors' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .pretrained import class_options, renamed, require

_LAYER = r"encoder\.stages\.(\d+)\.layers\.(\d+)\."


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `ConvNeXtConfig` for a ``config.json``.

    Raises:
        FlambeauError: other activations than GELU.

    >>> options({"model_type": "convnext", "hidden_sizes": [8, 16], "depths": [1, 2]})["layers"]
    (1, 2)
    """
    require(config, "ConvNeXt", hidden_act="gelu", num_channels=3)
    second = config.get("model_type") == "convnextv2"
    scale = config.get("layer_scale_init_value", 1e-6)
    return {
        **class_options(config),
        "layers": tuple(config.get("depths") or (3, 3, 9, 3)),
        "widths": tuple(config.get("hidden_sizes") or (96, 192, 384, 768)),
        "patch": config.get("patch_size", 4),
        "layer_scale": None if second or scale <= 0 else scale,
        "response_norm": second,
        "stochastic_depth": config.get("drop_path_rate", 0.0),
        "head_eps": config.get("layer_norm_eps", 1e-12),
    }


def rename(state: dict[str, Any], config: dict[str, Any]) -> Mapping[str, Any]:
    """The tensors under torchvision's names; the scales of the branches get its shape (C, 1, 1)."""
    last = {"grn": 5, "pwconv2": 6} if config.get("model_type") == "convnextv2" else {"pwconv2": 5}
    parts = {"dwconv": 0, "layernorm": 2, "pwconv1": 3, **last}

    def layer(stage: str, block: str, part: str, leaf: str) -> str:
        return f"features.{2 * int(stage) + 1}.{block}.block.{parts[part]}.{leaf}"

    rules = [
        (re.compile(r"embeddings\.patch_embeddings\.(\w+)"), r"features.0.0.\1"),
        (re.compile(r"embeddings\.layernorm\.(\w+)"), r"features.0.1.\1"),
        (
            re.compile(r"encoder\.stages\.(\d+)\.downsampling_layer\.(\d)\.(\w+)"),
            lambda stage, index, leaf: f"features.{2 * int(stage)}.{index}.{leaf}",
        ),
        (re.compile(rf"{_LAYER}({'|'.join(parts)})\.(\w+)"), layer),
        (
            re.compile(rf"{_LAYER}layer_scale_parameter"),
            lambda stage, block: f"features.{2 * int(stage) + 1}.{block}.layer_scale",
        ),
        (re.compile(r"layernorm\.(\w+)"), r"classifier.0.\1"),
        (re.compile(r"classifier\.(\w+)"), r"classifier.2.\1"),
    ]
    found = {}
    for key, value in state.items():
        name = renamed(re.sub(r"^convnext(v2)?\.", "", key), rules)
        found[name] = value.reshape(-1, 1, 1) if name.endswith(".layer_scale") else value
    return found
