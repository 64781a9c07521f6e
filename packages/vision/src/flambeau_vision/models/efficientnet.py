"""EfficientNet (Tan and Le 2019) and EfficientNetV2 (Tan and Le 2021), with torchvision's state-dict keys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import flambeau
from flambeau import Tensor, nn

from .blocks import (
    ClassifierConfig,
    ConvNormActivation,
    Norm,
    SqueezeExcitation,
    Stages,
    StochasticDepth,
    initialize,
    make_divisible,
    stage_ends,
)

Stage = tuple[str, int, int, int, int, int]


@dataclass(frozen=True)
class EfficientNetConfig(ClassifierConfig):
    """Sizes of an `EfficientNet`; the defaults are B0.

    Attributes:
        width_mult: factor of all widths.
        depth_mult: factor of the stages' blocks.
        stem: channels of the first convolution.
        stages: (``"mbconv"`` or ``"fused"``, factor of expansion, kernel, stride, channels, blocks) of each stage.
        head: channels before the classifier; four times those of the last stage when None.
        dropout: share of the classifier's inputs left out while training.
        stochastic_depth: how often the last block is left out while training; earlier ones less often.
        eps: of the batch normalisations.
        momentum: of the batch normalisations.
    """

    width_mult: float = 1.0
    depth_mult: float = 1.0
    stem: int = 32
    stages: tuple[Stage, ...] = (
        ("mbconv", 1, 3, 1, 16, 1),
        ("mbconv", 6, 3, 2, 24, 2),
        ("mbconv", 6, 5, 2, 40, 2),
        ("mbconv", 6, 3, 2, 80, 3),
        ("mbconv", 6, 5, 1, 112, 3),
        ("mbconv", 6, 5, 2, 192, 4),
        ("mbconv", 6, 3, 1, 320, 1),
    )
    head: int | None = None
    dropout: float = 0.2
    stochastic_depth: float = 0.2
    eps: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True)
class EfficientNetB1Config(EfficientNetConfig):
    """EfficientNet-B1."""

    size: int = 240
    depth_mult: float = 1.1


@dataclass(frozen=True)
class EfficientNetB2Config(EfficientNetConfig):
    """EfficientNet-B2."""

    size: int = 288
    width_mult: float = 1.1
    depth_mult: float = 1.2
    dropout: float = 0.3


@dataclass(frozen=True)
class EfficientNetB3Config(EfficientNetConfig):
    """EfficientNet-B3."""

    size: int = 300
    width_mult: float = 1.2
    depth_mult: float = 1.4
    dropout: float = 0.3


@dataclass(frozen=True)
class EfficientNetB4Config(EfficientNetConfig):
    """EfficientNet-B4."""

    size: int = 380
    width_mult: float = 1.4
    depth_mult: float = 1.8
    dropout: float = 0.4


@dataclass(frozen=True)
class EfficientNetB5Config(EfficientNetConfig):
    """EfficientNet-B5."""

    size: int = 456
    width_mult: float = 1.6
    depth_mult: float = 2.2
    dropout: float = 0.4
    eps: float = 0.001
    momentum: float = 0.01


@dataclass(frozen=True)
class EfficientNetB6Config(EfficientNetConfig):
    """EfficientNet-B6."""

    size: int = 528
    width_mult: float = 1.8
    depth_mult: float = 2.6
    dropout: float = 0.5
    eps: float = 0.001
    momentum: float = 0.01


@dataclass(frozen=True)
class EfficientNetB7Config(EfficientNetConfig):
    """EfficientNet-B7."""

    size: int = 600
    width_mult: float = 2.0
    depth_mult: float = 3.1
    dropout: float = 0.5
    eps: float = 0.001
    momentum: float = 0.01


@dataclass(frozen=True)
class EfficientNetV2SConfig(EfficientNetConfig):
    """EfficientNetV2-S."""

    size: int = 384
    stem: int = 24
    stages: tuple[Stage, ...] = (
        ("fused", 1, 3, 1, 24, 2),
        ("fused", 4, 3, 2, 48, 4),
        ("fused", 4, 3, 2, 64, 4),
        ("mbconv", 4, 3, 2, 128, 6),
        ("mbconv", 6, 3, 1, 160, 9),
        ("mbconv", 6, 3, 2, 256, 15),
    )
    head: int | None = 1280
    dropout: float = 0.2
    eps: float = 0.001


@dataclass(frozen=True)
class EfficientNetV2MConfig(EfficientNetConfig):
    """EfficientNetV2-M."""

    size: int = 480
    stem: int = 24
    stages: tuple[Stage, ...] = (
        ("fused", 1, 3, 1, 24, 3),
        ("fused", 4, 3, 2, 48, 5),
        ("fused", 4, 3, 2, 80, 5),
        ("mbconv", 4, 3, 2, 160, 7),
        ("mbconv", 6, 3, 1, 176, 14),
        ("mbconv", 6, 3, 2, 304, 18),
        ("mbconv", 6, 3, 1, 512, 5),
    )
    head: int | None = 1280
    dropout: float = 0.3
    eps: float = 0.001


@dataclass(frozen=True)
class EfficientNetV2LConfig(EfficientNetConfig):
    """EfficientNetV2-L."""

    size: int = 480
    stem: int = 32
    stages: tuple[Stage, ...] = (
        ("fused", 1, 3, 1, 32, 4),
        ("fused", 4, 3, 2, 64, 7),
        ("fused", 4, 3, 2, 96, 7),
        ("mbconv", 4, 3, 2, 192, 10),
        ("mbconv", 6, 3, 1, 224, 19),
        ("mbconv", 6, 3, 2, 384, 25),
        ("mbconv", 6, 3, 1, 640, 7),
    )
    head: int | None = 1280
    dropout: float = 0.4
    eps: float = 0.001
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


class MBConv(nn.Module):
    """Widen, filter each channel, weigh the channels, narrow; the fused form widens and filters at once."""

    def __init__(
        self, kind: str, inplanes: int, planes: int, expand: int, kernel: int, stride: int, drop: float, norm: Norm
    ) -> None:
        super().__init__()
        layer = partial(ConvNormActivation, norm=norm, activation=nn.SiLU)
        hidden = make_divisible(inplanes * expand)
        layers: list[nn.Module] = []
        if kind == "mbconv":
            if hidden != inplanes:
                layers.append(layer(inplanes, hidden, 1))
            layers.append(layer(hidden, hidden, kernel, stride, groups=hidden))
            layers.append(SqueezeExcitation(hidden, max(1, inplanes // 4), nn.SiLU))
            layers.append(layer(hidden, planes, 1, activation=None))
        elif kind != "fused":
            raise ValueError(f"a stage is 'mbconv' or 'fused', not {kind!r}")
        elif hidden != inplanes:
            layers.append(layer(inplanes, hidden, kernel, stride))
            layers.append(layer(hidden, planes, 1, activation=None))
        else:
            layers.append(layer(inplanes, planes, kernel, stride))
        self.block = nn.Sequential(*layers)
        self.stochastic_depth = StochasticDepth(drop)
        self.residual = stride == 1 and inplanes == planes

    def forward(self, x: Tensor) -> Tensor:
        return self.stochastic_depth(self.block(x)) + x if self.residual else self.block(x)


class EfficientNet(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W).

    >>> model = EfficientNet(EfficientNetConfig(width_mult=0.25, depth_mult=0.3, num_classes=5)).eval()
    >>> tuple(model(flambeau.zeros(1, 3, 32, 32)).shape), model.feature_channels
    ((1, 5), (8, 16, 32, 80))
    """

    def __init__(self, config: EfficientNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EfficientNetConfig()
        norm = partial(nn.BatchNorm2d, eps=config.eps, momentum=config.momentum)
        layer = partial(ConvNormActivation, norm=norm, activation=nn.SiLU)
        planes = make_divisible(config.stem * config.width_mult)
        layers: list[nn.Module] = [layer(3, planes, 3, 2)]
        widths, strides = [planes], [2]
        total = sum(math.ceil(stage[-1] * config.depth_mult) for stage in config.stages)
        done = 0
        for kind, expand, kernel, stride, width, blocks in config.stages:
            inplanes, planes = planes, make_divisible(width * config.width_mult)
            stage = []
            for index in range(math.ceil(blocks * config.depth_mult)):
                drop = config.stochastic_depth * done / total
                step = stride if index == 0 else 1
                stage.append(MBConv(kind, inplanes, planes, expand, kernel, step, drop, norm))
                inplanes = planes
                done += 1
            layers.append(nn.Sequential(*stage))
            widths.append(planes)
            strides.append(stride)
        head = 4 * planes if config.head is None else config.head
        ends, self.feature_strides = stage_ends(strides)
        self.feature_channels = tuple(widths[end] for end in ends)
        self.features = Stages([*layers, layer(planes, head, 1)], ends)
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(head, config.num_classes))
        bound = 1 / math.sqrt(config.num_classes)
        initialize(self, lambda linear: nn.init.uniform_(linear.weight, -bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(flambeau.flatten(nn.functional.adaptive_avg_pool2d(self.features.last(x), 1), 1))
