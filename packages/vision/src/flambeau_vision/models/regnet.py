"""RegNet X and Y (Radosavovic et al. 2020), with torchvision's state-dict keys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import flambeau
from flambeau import Tensor, nn

from .blocks import ClassifierConfig, ConvNormActivation, SqueezeExcitation


@dataclass(frozen=True)
class RegNetConfig(ClassifierConfig):
    """Sizes of a `RegNet`; the defaults are RegNet-Y of 400 million multiplications.

    Attributes:
        layers: blocks in each stage.
        widths: channels of each stage.
        group_width: channels in a group of the 3x3 convolutions.
        squeeze: channels of squeeze-and-excitation for each one that comes in; 0 leaves it out (RegNet-X).
        stem: channels of the first convolution.
        first_stride: stride of the first stage.
    """

    layers: tuple[int, ...] = (1, 3, 6, 6)
    widths: tuple[int, ...] = (48, 104, 208, 440)
    group_width: int = 8
    squeeze: float = 0.25
    stem: int = 32
    first_stride: int = 2

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.widths):
            raise ValueError(f"layers {self.layers} and widths {self.widths} must have one entry for each stage")


@dataclass(frozen=True)
class RegNetY800MFConfig(RegNetConfig):
    """RegNet-Y of 800 million multiplications."""

    layers: tuple[int, ...] = (1, 3, 8, 2)
    widths: tuple[int, ...] = (64, 144, 320, 784)
    group_width: int = 16


@dataclass(frozen=True)
class RegNetY1_6GFConfig(RegNetConfig):
    """RegNet-Y of 1.6 thousand million multiplications."""

    layers: tuple[int, ...] = (2, 6, 17, 2)
    widths: tuple[int, ...] = (48, 120, 336, 888)
    group_width: int = 24


@dataclass(frozen=True)
class RegNetY3_2GFConfig(RegNetConfig):
    """RegNet-Y of 3.2 thousand million multiplications."""

    layers: tuple[int, ...] = (2, 5, 13, 1)
    widths: tuple[int, ...] = (72, 216, 576, 1512)
    group_width: int = 24


@dataclass(frozen=True)
class RegNetY8GFConfig(RegNetConfig):
    """RegNet-Y of 8 thousand million multiplications."""

    layers: tuple[int, ...] = (2, 4, 10, 1)
    widths: tuple[int, ...] = (224, 448, 896, 2016)
    group_width: int = 56


@dataclass(frozen=True)
class RegNetY16GFConfig(RegNetConfig):
    """RegNet-Y of 16 thousand million multiplications."""

    layers: tuple[int, ...] = (2, 4, 11, 1)
    widths: tuple[int, ...] = (224, 448, 1232, 3024)
    group_width: int = 112


@dataclass(frozen=True)
class RegNetX400MFConfig(RegNetConfig):
    """RegNet-X of 400 million multiplications."""

    layers: tuple[int, ...] = (1, 2, 7, 12)
    widths: tuple[int, ...] = (32, 64, 160, 400)
    group_width: int = 16
    squeeze: float = 0.0


@dataclass(frozen=True)
class RegNetX800MFConfig(RegNetConfig):
    """RegNet-X of 800 million multiplications."""

    layers: tuple[int, ...] = (1, 3, 7, 5)
    widths: tuple[int, ...] = (64, 128, 288, 672)
    group_width: int = 16
    squeeze: float = 0.0


@dataclass(frozen=True)
class RegNetX1_6GFConfig(RegNetConfig):
    """RegNet-X of 1.6 thousand million multiplications."""

    layers: tuple[int, ...] = (2, 4, 10, 2)
    widths: tuple[int, ...] = (72, 168, 408, 912)
    group_width: int = 24
    squeeze: float = 0.0


@dataclass(frozen=True)
class RegNetX3_2GFConfig(RegNetConfig):
    """RegNet-X of 3.2 thousand million multiplications."""

    layers: tuple[int, ...] = (2, 6, 15, 2)
    widths: tuple[int, ...] = (96, 192, 432, 1008)
    group_width: int = 48
    squeeze: float = 0.0


@dataclass(frozen=True)
class RegNetX8GFConfig(RegNetConfig):
    """RegNet-X of 8 thousand million multiplications."""

    layers: tuple[int, ...] = (2, 5, 15, 1)
    widths: tuple[int, ...] = (80, 240, 720, 1920)
    group_width: int = 120
    squeeze: float = 0.0


@dataclass(frozen=True)
class RegNetX16GFConfig(RegNetConfig):
    """RegNet-X of 16 thousand million multiplications."""

    layers: tuple[int, ...] = (2, 6, 13, 1)
    widths: tuple[int, ...] = (256, 512, 896, 2048)
    group_width: int = 128
    squeeze: float = 0.0


class RegNetBlock(nn.Module):
    """A 1x1 convolution, a grouped 3x3 one, a 1x1 one, and the short-cut past them."""

    def __init__(self, inplanes: int, planes: int, stride: int, config: RegNetConfig) -> None:
        super().__init__()
        self.proj = None
        if inplanes != planes or stride != 1:
            self.proj = ConvNormActivation(inplanes, planes, 1, stride, activation=None)
        groups = planes // min(config.group_width, planes)
        self.f = nn.Sequential()
        self.f.add_module("a", ConvNormActivation(inplanes, planes, 1))
        self.f.add_module("b", ConvNormActivation(planes, planes, 3, stride, groups=groups))
        if config.squeeze:
            self.f.add_module("se", SqueezeExcitation(planes, round(config.squeeze * inplanes)))
        self.f.add_module("c", ConvNormActivation(planes, planes, 1, activation=None))

    def forward(self, x: Tensor) -> Tensor:
        return flambeau.relu((x if self.proj is None else self.proj(x)) + self.f(x))


class RegNet(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W).

    >>> model = RegNet(RegNetConfig(layers=(1, 1), widths=(8, 16), num_classes=5)).eval()
    >>> tuple(model(flambeau.zeros(1, 3, 32, 32)).shape), model.feature_strides
    ((1, 5), (4, 8))
    """

    def __init__(self, config: RegNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RegNetConfig()
        self.stem = ConvNormActivation(3, config.stem, 3, 2)
        self.trunk_output = nn.Sequential()
        inplanes, reduction, reductions = config.stem, 2, []
        for number, (blocks, planes) in enumerate(zip(config.layers, config.widths, strict=True), start=1):
            stride = config.first_stride if number == 1 else 2
            stage = nn.Sequential()
            for index in range(blocks):
                block = RegNetBlock(inplanes, planes, stride if index == 0 else 1, config)
                stage.add_module(f"block{number}-{index}", block)
                inplanes = planes
            self.trunk_output.add_module(f"block{number}", stage)
            reduction *= stride
            reductions.append(reduction)
        self.feature_channels, self.feature_strides = tuple(config.widths), tuple(reductions)
        self.fc = nn.Linear(inplanes, config.num_classes)
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # without the groups in the fan: what the paper's models start from
                fan = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan))

    def features(self, x: Tensor) -> list[Tensor]:
        """What each stage gives, finest first: `feature_channels` channels at `feature_strides`."""
        x = self.stem(x)
        found = []
        for stage in self.trunk_output:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(flambeau.flatten(nn.functional.adaptive_avg_pool2d(self.features(x)[-1], 1), 1))
