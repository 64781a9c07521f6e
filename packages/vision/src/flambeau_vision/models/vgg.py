"""VGG (Simonyan and Zisserman 2015), with torchvision's state-dict keys."""

from __future__ import annotations

from dataclasses import dataclass

import flambeau
from flambeau import Tensor, nn

from .blocks import ClassifierConfig, Stages, initialize


@dataclass(frozen=True)
class VGGConfig(ClassifierConfig):
    """Sizes of a `VGG`; the defaults are VGG-16.

    Attributes:
        layers: 3x3 convolutions in each stage; every stage ends with a pooling that halves the picture.
        widths: channels of each stage.
        batch_norm: whether a batch normalisation follows each convolution.
        hidden: channels of the classifier's two hidden layers.
        dropout: share of them left out while training.
    """

    layers: tuple[int, ...] = (2, 2, 3, 3, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    batch_norm: bool = False
    hidden: int = 4096
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.widths) or len(self.layers) < 3:
            raise ValueError(
                f"layers {self.layers} and widths {self.widths} must have one entry for each of three stages or more"
            )


@dataclass(frozen=True)
class VGG11Config(VGGConfig):
    """VGG-11."""

    layers: tuple[int, ...] = (1, 1, 2, 2, 2)


@dataclass(frozen=True)
class VGG11BNConfig(VGGConfig):
    """VGG-11 with batch normalisation."""

    layers: tuple[int, ...] = (1, 1, 2, 2, 2)
    batch_norm: bool = True


@dataclass(frozen=True)
class VGG13Config(VGGConfig):
    """VGG-13."""

    layers: tuple[int, ...] = (2, 2, 2, 2, 2)


@dataclass(frozen=True)
class VGG13BNConfig(VGGConfig):
    """VGG-13 with batch normalisation."""

    layers: tuple[int, ...] = (2, 2, 2, 2, 2)
    batch_norm: bool = True


@dataclass(frozen=True)
class VGG16BNConfig(VGGConfig):
    """VGG-16 with batch normalisation."""

    batch_norm: bool = True


@dataclass(frozen=True)
class VGG19Config(VGGConfig):
    """VGG-19."""

    layers: tuple[int, ...] = (2, 2, 4, 4, 4)


@dataclass(frozen=True)
class VGG19BNConfig(VGGConfig):
    """VGG-19 with batch normalisation."""

    layers: tuple[int, ...] = (2, 2, 4, 4, 4)
    batch_norm: bool = True


class VGG(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W) of at least 32 pixels.

    The stages' outputs are taken before their pooling, and the last one after it too.

    >>> model = VGG(VGGConfig(layers=(1, 1, 1, 1, 1), widths=(4, 4, 8, 8, 8), hidden=16, num_classes=5)).eval()
    >>> tuple(model(flambeau.zeros(1, 3, 32, 32)).shape), model.feature_channels, model.feature_strides
    ((1, 5), (8, 8, 8, 8), (4, 8, 16, 32))
    """

    def __init__(self, config: VGGConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VGGConfig()
        layers: list[nn.Module] = []
        ends, inplanes = [], 3
        for blocks, planes in zip(config.layers, config.widths, strict=True):
            for _ in range(blocks):
                layers.append(nn.Conv2d(inplanes, planes, 3, padding=1))
                if config.batch_norm:
                    layers.append(nn.BatchNorm2d(planes))
                layers.append(nn.ReLU())
                inplanes = planes
            ends.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2, 2))
        self.feature_channels = (*config.widths[2:], config.widths[-1])
        self.feature_strides = tuple(2**stage for stage in range(2, len(config.layers) + 1))
        self.features = Stages(layers, (*ends[2:], len(layers) - 1))
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(inplanes * 49, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.num_classes),
        )
        initialize(self, lambda linear: nn.init.normal_(linear.weight, 0, 0.01))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(flambeau.flatten(self.avgpool(self.features.last(x)), 1))
