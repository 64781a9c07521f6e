"""MobileNetV3 (Howard et al. 2019): inverted residuals with squeeze-and-excitation; torchvision's state-dict keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import flambeau
from flambeau import Tensor, nn

from .blocks import (
    ClassifierConfig,
    ConvNormActivation,
    SqueezeExcitation,
    Stages,
    initialize,
    make_divisible,
    stage_ends,
)


@dataclass(frozen=True)
class MobileNetV3Config(ClassifierConfig):
    """Sizes of a `MobileNetV3`; the defaults are the large one (table 1 of the paper).

    Attributes:
        width_mult: factor of all widths.
        stem: channels of the first convolution.
        blocks: (kernel, widened channels, channels, whether it has squeeze-and-excitation, ``"relu"`` or
            ``"hardswish"``, stride) of each block.
        head: channels between the classifier's two layers.
        dropout: share of them left out while training.
    """

    width_mult: float = 1.0
    stem: int = 16
    blocks: tuple[tuple[int, int, int, bool, str, int], ...] = (
        (3, 16, 16, False, "relu", 1),
        (3, 64, 24, False, "relu", 2),
        (3, 72, 24, False, "relu", 1),
        (5, 72, 40, True, "relu", 2),
        (5, 120, 40, True, "relu", 1),
        (5, 120, 40, True, "relu", 1),
        (3, 240, 80, False, "hardswish", 2),
        (3, 200, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 480, 112, True, "hardswish", 1),
        (3, 672, 112, True, "hardswish", 1),
        (5, 672, 160, True, "hardswish", 2),
        (5, 960, 160, True, "hardswish", 1),
        (5, 960, 160, True, "hardswish", 1),
    )
    head: int = 1280
    dropout: float = 0.2


@dataclass(frozen=True)
class MobileNetV3SmallConfig(MobileNetV3Config):
    """The small MobileNetV3 (table 2 of the paper)."""

    blocks: tuple[tuple[int, int, int, bool, str, int], ...] = (
        (3, 16, 16, True, "relu", 2),
        (3, 72, 24, False, "relu", 2),
        (3, 88, 24, False, "relu", 1),
        (5, 96, 40, True, "hardswish", 2),
        (5, 240, 40, True, "hardswish", 1),
        (5, 240, 40, True, "hardswish", 1),
        (5, 120, 48, True, "hardswish", 1),
        (5, 144, 48, True, "hardswish", 1),
        (5, 288, 96, True, "hardswish", 2),
        (5, 576, 96, True, "hardswish", 1),
        (5, 576, 96, True, "hardswish", 1),
    )
    head: int = 1024


_norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, weigh the channels, narrow."""

    def __init__(
        self, inplanes: int, hidden: int, planes: int, kernel: int, stride: int, squeeze: bool, activation: str
    ) -> None:
        super().__init__()
        if activation not in ("relu", "hardswish"):
            raise ValueError(f"a block's activation must be 'relu' or 'hardswish', not {activation!r}")
        layer = partial(ConvNormActivation, norm=_norm, activation=nn.ReLU if activation == "relu" else nn.Hardswish)
        layers: list[nn.Module] = [] if hidden == inplanes else [layer(inplanes, hidden, 1)]
        layers.append(layer(hidden, hidden, kernel, stride, groups=hidden))
        if squeeze:
            layers.append(SqueezeExcitation(hidden, make_divisible(hidden // 4), scale_activation=nn.Hardsigmoid))
        layers.append(layer(hidden, planes, 1, activation=None))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and inplanes == planes

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W).

    >>> model = MobileNetV3(MobileNetV3SmallConfig(num_classes=5)).eval()
    >>> tuple(model(flambeau.zeros(1, 3, 32, 32)).shape), model.feature_channels
    ((1, 5), (16, 24, 48, 96))
    """

    def __init__(self, config: MobileNetV3Config | None = None) -> None:
        super().__init__()
        self.config = config = config or MobileNetV3Config()
        width = config.width_mult
        planes = make_divisible(config.stem * width)
        layers: list[nn.Module] = [ConvNormActivation(3, planes, 3, 2, norm=_norm, activation=nn.Hardswish)]
        widths, strides = [planes], [2]
        for kernel, hidden, out, squeeze, activation, stride in config.blocks:
            inplanes, planes = planes, make_divisible(out * width)
            layers.append(
                InvertedResidual(inplanes, make_divisible(hidden * width), planes, kernel, stride, squeeze, activation)
            )
            widths.append(planes)
            strides.append(stride)
        layers.append(ConvNormActivation(planes, 6 * planes, 1, norm=_norm, activation=nn.Hardswish))
        ends, self.feature_strides = stage_ends(strides)
        self.feature_channels = tuple(widths[end] for end in ends)
        self.features = Stages(layers, ends)
        head = make_divisible(config.head * width)
        self.classifier = nn.Sequential(
            nn.Linear(6 * planes, head),
            nn.Hardswish(),
            nn.Dropout(config.dropout),
            nn.Linear(head, config.num_classes),
        )
        initialize(self, lambda linear: nn.init.normal_(linear.weight, 0, 0.01))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(flambeau.flatten(nn.functional.adaptive_avg_pool2d(self.features.last(x), 1), 1))
