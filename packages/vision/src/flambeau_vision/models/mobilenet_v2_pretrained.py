"""MobileNetV2 in folders of Hugging Face Transformers: its options and its tensors' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flambeau import FlambeauError

from .blocks import make_divisible
from .mobilenet_v2 import MobileNetV2Config
from .pretrained import class_options, renamed, require

_LEAF = {"convolution": "0", "normalization": "1"}
_LINEAR = {"convolution": "2", "normalization": "3"}
_STEM_LINEAR = {"convolution": "1", "normalization": "2"}
_PART = r"(convolution|normalization)\.(\w+)"
_RULES = [
    (re.compile(rf"conv_stem\.first_conv\.{_PART}"), lambda part, leaf: f"features.0.{_LEAF[part]}.{leaf}"),
    (re.compile(rf"conv_stem\.conv_3x3\.{_PART}"), lambda part, leaf: f"features.1.conv.0.{_LEAF[part]}.{leaf}"),
    (re.compile(rf"conv_stem\.reduce_1x1\.{_PART}"), lambda part, leaf: f"features.1.conv.{_STEM_LINEAR[part]}.{leaf}"),
    (re.compile(rf"layer\.(\d+)\.expand_1x1\.{_PART}"), lambda i, part, leaf: _block(i, f"0.{_LEAF[part]}.{leaf}")),
    (re.compile(rf"layer\.(\d+)\.conv_3x3\.{_PART}"), lambda i, part, leaf: _block(i, f"1.{_LEAF[part]}.{leaf}")),
    (re.compile(rf"layer\.(\d+)\.reduce_1x1\.{_PART}"), lambda i, part, leaf: _block(i, f"{_LINEAR[part]}.{leaf}")),
    (re.compile(rf"conv_1x1\.{_PART}"), lambda part, leaf: f"features.18.{_LEAF[part]}.{leaf}"),
    (re.compile(r"classifier\.(\w+)"), r"classifier.1.\1"),
]


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `MobileNetV2Config` for a ``config.json``.

    Raises:
        FlambeauError: a network of another make, such as one with dilated convolutions.

    >>> options({"depth_multiplier": 0.35, "num_labels": 3})["stem"]
    16
    """
    require(config, "MobileNetV2", output_stride=32, first_layer_is_expansion=True, hidden_act="relu6", num_channels=3)
    expand = config.get("expand_ratio", 6.0)
    if expand != int(expand) or expand < 2:
        raise FlambeauError(f"this MobileNetV2 has expand_ratio {expand}", "whole numbers from 2 can be loaded")
    multiplier, divisor = config.get("depth_multiplier", 1.0), config.get("depth_divisible_by", 8)
    require(config, "MobileNetV2", min_depth=divisor)

    def width(channels: int) -> int:
        return make_divisible(round(channels * multiplier), divisor)

    first, *rest = MobileNetV2Config.stages
    return {
        **class_options(config),
        "stem": width(32),
        "stages": tuple(
            (factor, width(planes), blocks, stride)
            for factor, planes, blocks, stride in [first, *((int(expand), *stage[1:]) for stage in rest)]
        ),
        "head": 1280 if config.get("finegrained_output", True) and multiplier < 1 else width(1280),
        "divisor": 1,  # the widths are rounded already
        "dropout": config.get("classifier_dropout_prob", 0.8),
        "eps": config.get("layer_norm_eps", 0.001),
        "momentum": 0.997,
        "same": config.get("tf_padding", True),
    }


def rename(state: dict[str, Any], config: dict[str, Any]) -> Mapping[str, Any]:
    """The tensors under torchvision's names."""
    return {renamed(key.removeprefix("mobilenet_v2."), _RULES): value for key, value in state.items()}


def _block(index: str, inner: str) -> str:
    return f"features.{int(index) + 2}.conv.{inner}"
