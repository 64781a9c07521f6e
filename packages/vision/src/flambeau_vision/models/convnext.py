"""ConvNeXt (Liu et al. 2022), with torchvision's state-dict keys, and ConvNeXt V2 (Woo et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import flambeau
from flambeau import Tensor, nn

from .blocks import ClassifierConfig, Stages, StochasticDepth


@dataclass(frozen=True)
class ConvNeXtConfig(ClassifierConfig):
    """Sizes of a `ConvNeXt`; the defaults are the tiny one.

    Attributes:
        layers: blocks in each stage.
        widths: channels of each stage.
        patch: side of the patches that the first convolution takes.
        layer_scale: what the branches are scaled by at first; None leaves the scaling out.
        response_norm: whether the blocks normalise their responses, as in V2.
        stochastic_depth: how often the last block is left out while training; earlier ones less often.
        head_eps: of the normalisation before the classifier.
    """

    layers: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    patch: int = 4
    layer_scale: float | None = 1e-6
    response_norm: bool = False
    stochastic_depth: float = 0.1
    head_eps: float = 1e-6

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.widths):
            raise ValueError(f"layers {self.layers} and widths {self.widths} must have one entry for each stage")


@dataclass(frozen=True)
class ConvNeXtSmallConfig(ConvNeXtConfig):
    """ConvNeXt small."""

    layers: tuple[int, ...] = (3, 3, 27, 3)
    stochastic_depth: float = 0.4


@dataclass(frozen=True)
class ConvNeXtBaseConfig(ConvNeXtConfig):
    """ConvNeXt base."""

    layers: tuple[int, ...] = (3, 3, 27, 3)
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    stochastic_depth: float = 0.5


@dataclass(frozen=True)
class ConvNeXtLargeConfig(ConvNeXtConfig):
    """ConvNeXt large."""

    layers: tuple[int, ...] = (3, 3, 27, 3)
    widths: tuple[int, ...] = (192, 384, 768, 1536)
    stochastic_depth: float = 0.5


@dataclass(frozen=True)
class ConvNeXtV2Config(ConvNeXtConfig):
    """ConvNeXt V2 tiny."""

    layer_scale: float | None = None
    response_norm: bool = True


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of (N, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Permute(nn.Module):
    """The dimensions in another order."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(*self.dims)


class ResponseNorm(nn.Module):
    """Global response normalisation of (N, H, W, C): channels compete by their norm over the picture."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(flambeau.zeros(1, 1, 1, planes))
        self.bias = nn.Parameter(flambeau.zeros(1, 1, 1, planes))

    def forward(self, x: Tensor) -> Tensor:
        norm = flambeau.linalg.vector_norm(x, 2, (1, 2), True)
        return self.weight * (x * (norm / (norm.mean(-1, True) + 1e-6))) + self.bias + x


class ConvNeXtBlock(nn.Module):
    """A 7x7 convolution of each channel, then two linear layers over the channels."""

    def __init__(self, planes: int, drop: float, config: ConvNeXtConfig) -> None:
        super().__init__()
        respond = [ResponseNorm(4 * planes)] if config.response_norm else []
        self.block = nn.Sequential(
            nn.Conv2d(planes, planes, 7, padding=3, groups=planes),
            Permute(0, 2, 3, 1),
            nn.LayerNorm(planes, eps=1e-6),
            nn.Linear(planes, 4 * planes),
            nn.GELU(),
            *respond,
            nn.Linear(4 * planes, planes),
            Permute(0, 3, 1, 2),
        )
        self.layer_scale: nn.Parameter | None = None
        if config.layer_scale is not None:
            self.layer_scale = nn.Parameter(flambeau.full((planes, 1, 1), config.layer_scale))
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.block(x)
        if self.layer_scale is not None:
            branch = self.layer_scale * branch
        return self.stochastic_depth(branch) + x


class ConvNeXt(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W).

    >>> model = ConvNeXt(ConvNeXtConfig(layers=(1, 1), widths=(8, 16), num_classes=5)).eval()
    >>> tuple(model(flambeau.zeros(1, 3, 32, 32)).shape), model.feature_strides
    ((1, 5), (4, 8))
    """

    def __init__(self, config: ConvNeXtConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ConvNeXtConfig()
        norm, widths = partial(LayerNorm2d, eps=1e-6), tuple(config.widths)
        layers: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, widths[0], config.patch, config.patch), norm(widths[0]))]
        done, last = 0, max(sum(config.layers) - 1, 1)
        for index, (blocks, planes) in enumerate(zip(config.layers, widths, strict=True)):
            if index:
                layers.append(nn.Sequential(norm(widths[index - 1]), nn.Conv2d(widths[index - 1], planes, 2, 2)))
            stage = []
            for _ in range(blocks):
                stage.append(ConvNeXtBlock(planes, config.stochastic_depth * done / last, config))
                done += 1
            layers.append(nn.Sequential(*stage))
        self.feature_channels = widths
        self.feature_strides = tuple(config.patch * 2**index for index in range(len(widths)))
        self.features = Stages(layers, range(1, len(layers), 2))
        self.classifier = nn.Sequential(
            LayerNorm2d(widths[-1], eps=config.head_eps), nn.Flatten(1), nn.Linear(widths[-1], config.num_classes)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features.last(x), 1))
