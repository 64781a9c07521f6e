"""MobileNetV2 (Sandler et al. 2018): inverted residuals with linear bottlenecks; torchvision's state-dict keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flambeau
from flambeau import Tensor, nn

from .blocks import ClassifierConfig, ConvNormActivation, Stages, initialize, make_divisible, stage_ends


@dataclass(frozen=True)
class MobileNetV2Config(ClassifierConfig):
    """Sizes of a `MobileNetV2`.

    Attributes:
        width_mult: factor of all widths.
        stem: channels of the first convolution.
        stages: (factor of expansion, channels, blocks, stride) of each stage.
        head: channels before the classifier; `width_mult` only widens it.
        divisor: widths are rounded to its multiples.
        dropout: share of the classifier's inputs left out while training.
        eps: of the batch normalisations.
        momentum: of the batch normalisations.
        same: TensorFlow's padding, which puts an odd row below and to the right.
    """

    width_mult: float = 1.0
    stem: int = 32
    stages: tuple[tuple[int, int, int, int], ...] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    head: int = 1280
    divisor: int = 8
    dropout: float = 0.2
    eps: float = 1e-5
    momentum: float = 0.1
    same: bool = False


class InvertedResidual(nn.Module):
    """Widen (1x1), filter each channel (3x3), narrow again without an activation."""

    def __init__(self, inplanes: int, planes: int, stride: int, expand: int, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        hidden = round(inplanes * expand)
        layers = [] if expand == 1 else [layer(inplanes, hidden, 1)]
        layers.append(layer(hidden, hidden, 3, stride, groups=hidden))
        self.conv = nn.Sequential(*layers, *layer(hidden, planes, 1, activation=None))
        self.residual = stride == 1 and inplanes == planes

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W).

    >>> model = MobileNetV2(MobileNetV2Config(width_mult=0.25, num_classes=5)).eval()
    >>> tuple(model(flambeau.zeros(1, 3, 32, 32)).shape), model.feature_channels
    ((1, 5), (8, 8, 24, 80))
    """

    def __init__(self, config: MobileNetV2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or MobileNetV2Config()
        layer = partial(
            ConvNormActivation,
            norm=partial(nn.BatchNorm2d, eps=config.eps, momentum=config.momentum),
            activation=nn.ReLU6,
            same=config.same,
        )
        planes = make_divisible(config.stem * config.width_mult, config.divisor)
        layers: list[nn.Module] = [layer(3, planes, 3, 2)]
        widths, strides = [planes], [2]
        for expand, width, blocks, stride in config.stages:
            inplanes, planes = planes, make_divisible(width * config.width_mult, config.divisor)
            for index in range(blocks):
                strides.append(stride if index == 0 else 1)
                widths.append(planes)
                layers.append(InvertedResidual(inplanes, planes, strides[-1], expand, layer))
                inplanes = planes
        head = make_divisible(config.head * max(1.0, config.width_mult), config.divisor)
        ends, self.feature_strides = stage_ends(strides)
        self.feature_channels = tuple(widths[end] for end in ends)
        self.features = Stages([*layers, layer(planes, head, 1)], ends)
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(head, config.num_classes))
        initialize(self, lambda linear: nn.init.normal_(linear.weight, 0, 0.01))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(flambeau.flatten(nn.functional.adaptive_avg_pool2d(self.features.last(x), 1), 1))
