"""Residual networks for classification (He et al. 2016), with torchvision's state-dict keys."""

from __future__ import annotations

from dataclasses import dataclass

import flambeau
from flambeau import Tensor, nn


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a `ResNet` of basic blocks; the defaults are ResNet-18.

    Attributes:
        num_classes: classes to tell apart.
        layers: blocks in each stage.
        widths: channels of each stage; every stage after the first halves the picture.
        stem: ``"imagenet"`` (7x7 stride 2 and max pooling) or ``"cifar"`` (3x3, for pictures of about 32 pixels).
        classes: names of the classes; empty when they have none.
        mean: of the training pictures' channels (0..1), subtracted from the input.
        std: of those channels; divides the input.
        size: side of the square pictures that it was trained on.
    """

    num_classes: int = 1000
    layers: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: str = "imagenet"
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    size: int = 224

    def __post_init__(self) -> None:
        if self.stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem must be 'imagenet' or 'cifar', not {self.stem!r}")
        if len(self.layers) != len(self.widths):
            raise ValueError(f"layers {self.layers} and widths {self.widths} must have one entry for each stage")


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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the short-cut past them."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
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


class ResNet(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W).

    >>> model = ResNet(ResNet20Config()).eval()
    >>> tuple(model(flambeau.zeros(2, 3, 32, 32)).shape)
    (2, 10)
    """

    def __init__(self, config: ResNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ResNetConfig()
        width = config.widths[0]
        self.maxpool: nn.Module
        if config.stem == "imagenet":
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = []
        inplanes = width
        for number, (blocks, planes) in enumerate(zip(config.layers, config.widths, strict=True), start=1):
            strides = [1 if number == 1 else 2] + [1] * (blocks - 1)
            stage = nn.Sequential()
            for index, stride in enumerate(strides):
                stage.add_module(str(index), BasicBlock(inplanes, planes, stride))
                inplanes = planes
            self.add_module(f"layer{number}", stage)
            self.stages.append(f"layer{number}")
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inplanes, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(flambeau.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(flambeau.flatten(self.avgpool(x), 1))
