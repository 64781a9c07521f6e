"""Residual networks for classification, with torchvision's state-dict keys.

ResNet (He et al. 2016), ResNeXt (Xie et al. 2017: grouped 3x3 convolutions) and Wide ResNet (Zagoruyko and Komodakis
2016: wider ones) differ in the options alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import flambeau
from flambeau import Tensor, nn


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a `ResNet`; the defaults are ResNet-18.

    Attributes:
        num_classes: classes to tell apart.
        layers: blocks in each stage.
        widths: channels of each stage; every stage after the first halves the picture. A stage of bottlenecks gives
            four times as many.
        stem: ``"imagenet"`` (7x7 stride 2 and max pooling) or ``"cifar"`` (3x3, for pictures of about 32 pixels).
        classes: names of the classes; empty when they have none.
        mean: of the training pictures' channels (0..1), subtracted from the input.
        std: of those channels; divides the input.
        size: side of the square pictures that it was trained on.
        block: ``"basic"`` (two 3x3 convolutions) or ``"bottleneck"`` (1x1, 3x3, 1x1).
        groups: of the 3x3 convolutions in bottlenecks.
        width_per_group: channels of such a group for a stage of width 64.
        stem_width: channels of the first convolution; those of the first stage when None.
        first_stride: stride of the first stage.
        early_stride: whether a bottleneck halves in its first 1x1 convolution, as in the paper, or in its 3x3 one.
    """

    num_classes: int = 1000
    layers: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: str = "imagenet"
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    size: int = 224
    block: str = "basic"
    groups: int = 1
    width_per_group: int = 64
    stem_width: int | None = None
    first_stride: int = 1
    early_stride: bool = False

    def __post_init__(self) -> None:
        if self.stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem must be 'imagenet' or 'cifar', not {self.stem!r}")
        if len(self.layers) != len(self.widths):
            raise ValueError(f"layers {self.layers} and widths {self.widths} must have one entry for each stage")
        if self.block not in ("basic", "bottleneck"):
            raise ValueError(f"block must be 'basic' or 'bottleneck', not {self.block!r}")
        if self.block == "basic" and (self.groups != 1 or self.width_per_group != 64):
            raise ValueError("groups and width_per_group are for bottlenecks: pass block='bottleneck'")


@dataclass(frozen=True)
class ResNet20Config(ResNetConfig):
    """ResNet-20 for 32x32 pictures: section 4.2 of the paper, with projection short-cuts."""

    num_classes: int = 10
    layers: tuple[int, ...] = (3, 3, 3)
    widths: tuple[int, ...] = (16, 32, 64)
    stem: str = "cifar"
    mean: tuple[float, ...] = (0.491, 0.482, 0.447)
    std: tuple[float, ...] = (0.247, 0.243, 0.262)
    size: int = 32


@dataclass(frozen=True)
class ResNet34Config(ResNetConfig):
    """ResNet-34."""

    layers: tuple[int, ...] = (3, 4, 6, 3)


@dataclass(frozen=True)
class ResNet50Config(ResNetConfig):
    """ResNet-50, version 1.5."""

    layers: tuple[int, ...] = (3, 4, 6, 3)
    block: str = "bottleneck"


@dataclass(frozen=True)
class ResNet101Config(ResNetConfig):
    """ResNet-101."""

    layers: tuple[int, ...] = (3, 4, 23, 3)
    block: str = "bottleneck"


@dataclass(frozen=True)
class ResNet152Config(ResNetConfig):
    """ResNet-152."""

    layers: tuple[int, ...] = (3, 8, 36, 3)
    block: str = "bottleneck"


@dataclass(frozen=True)
class ResNeXt50Config(ResNetConfig):
    """ResNeXt-50 32x4d."""

    layers: tuple[int, ...] = (3, 4, 6, 3)
    block: str = "bottleneck"
    groups: int = 32
    width_per_group: int = 4


@dataclass(frozen=True)
class ResNeXt101Config(ResNetConfig):
    """ResNeXt-101 32x8d."""

    layers: tuple[int, ...] = (3, 4, 23, 3)
    block: str = "bottleneck"
    groups: int = 32
    width_per_group: int = 8


@dataclass(frozen=True)
class WideResNet50Config(ResNetConfig):
    """Wide ResNet-50-2: bottlenecks of twice the width."""

    layers: tuple[int, ...] = (3, 4, 6, 3)
    block: str = "bottleneck"
    width_per_group: int = 128


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the short-cut past them."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = flambeau.relu(self.bn1(self.conv1(x)))
        return flambeau.relu(self.bn2(self.conv2(out)) + shortcut)


class Bottleneck(nn.Module):
    """A 1x1 convolution to fewer channels, a 3x3 one, a 1x1 one to four times `planes`, and the short-cut."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        width, outplanes = int(planes * (config.width_per_group / 64)) * config.groups, planes * self.expansion
        first, second = (stride, 1) if config.early_stride else (1, stride)
        self.conv1 = nn.Conv2d(inplanes, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, groups=config.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outplanes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outplanes)
        self.downsample = None
        if stride != 1 or inplanes != outplanes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, outplanes, 1, stride, bias=False), nn.BatchNorm2d(outplanes)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = flambeau.relu(self.bn1(self.conv1(x)))
        out = flambeau.relu(self.bn2(self.conv2(out)))
        return flambeau.relu(self.bn3(self.conv3(out)) + shortcut)


class ResNet(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W).

    >>> model = ResNet(ResNet20Config()).eval()
    >>> tuple(model(flambeau.zeros(2, 3, 32, 32)).shape)
    (2, 10)
    >>> [tuple(stage.shape) for stage in model.features(flambeau.zeros(2, 3, 32, 32))]
    [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]
    """

    def __init__(self, config: ResNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ResNetConfig()
        width = config.stem_width or config.widths[0]
        self.maxpool: nn.Module
        if config.stem == "imagenet":
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        self.stages, channels, reductions = [], [], []
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if config.block == "basic" else Bottleneck
        inplanes, reduction = width, 4 if config.stem == "imagenet" else 1
        for number, (blocks, planes) in enumerate(zip(config.layers, config.widths, strict=True), start=1):
            strides = [config.first_stride if number == 1 else 2] + [1] * (blocks - 1)
            stage = nn.Sequential()
            for index, stride in enumerate(strides):
                stage.add_module(str(index), block(inplanes, planes, stride, config))
                inplanes = planes * block.expansion
            self.add_module(f"layer{number}", stage)
            self.stages.append(f"layer{number}")
            reduction *= strides[0]
            channels.append(inplanes)
            reductions.append(reduction)
        self.feature_channels, self.feature_strides = tuple(channels), tuple(reductions)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inplanes, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> list[Tensor]:
        """What each stage gives, finest first: `feature_channels` channels at `feature_strides`."""
        x = self.maxpool(flambeau.relu(self.bn1(self.conv1(x))))
        found = []
        for name in self.stages:
            x = getattr(self, name)(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(flambeau.flatten(self.avgpool(self.features(x)[-1]), 1))
