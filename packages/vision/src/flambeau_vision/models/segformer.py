"""SegFormer (Xie et al. 2021): a hierarchical transformer and an all-MLP decoder, with Transformers' keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor, nn

from .blocks import IMAGENET_MEAN, IMAGENET_STD, StochasticDepth
from .parts import (
    Dense,
    activation,
    attend,
    hub_options,
    init_weights,
)


@dataclass(frozen=True)
class MiTConfig:
    """Sizes of the encoder; the defaults are MiT-B0. The names are those of a ``config.json`` of Transformers.

    Attributes:
        num_classes: classes to tell apart.
        num_channels: channels of the pictures.
        depths: layers of each stage.
        sr_ratios: in each stage the factor by which keys and values are fewer along each side.
        hidden_sizes: width of a token in each stage.
        patch_sizes: side of the overlapping patches that lead to each stage.
        strides: their distance.
        num_attention_heads: heads of each stage.
        mlp_ratios: width inside the MLPs over the width of a token.
        hidden_act: activation of the MLPs.
        hidden_dropout_prob: dropout in each branch.
        attention_probs_dropout_prob: dropout of the attention's weights.
        drop_path_rate: stochastic depth of the last layer; it grows linearly from 0.
        classes: names of the classes; empty when they have none.
        mean: of the training pictures' channels (0..1), subtracted from the input.
        std: of those channels; divides the input.
    """

    num_classes: int = 1000
    num_channels: int = 3
    depths: tuple[int, ...] = (2, 2, 2, 2)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    hidden_sizes: tuple[int, ...] = (32, 64, 160, 256)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    num_attention_heads: tuple[int, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[float, ...] = (4, 4, 4, 4)
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.1
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        stages = len(self.depths)
        for name in ("sr_ratios", "hidden_sizes", "patch_sizes", "strides", "num_attention_heads", "mlp_ratios"):
            if len(getattr(self, name)) != stages:
                raise ValueError(f"{name} {getattr(self, name)} must have one entry for each of {stages} stages")


@dataclass(frozen=True)
class SegFormerConfig(MiTConfig):
    """Sizes of a `SegFormer`; the defaults are SegFormer-B0 for ADE20K. See also `MiTConfig`.

    Attributes:
        decoder_hidden_size: channels of the decoder.
        classifier_dropout_prob: dropout before its classifier.
        short_side: of the pictures that it was trained on.
    """

    num_classes: int = 150
    decoder_hidden_size: int = 256
    classifier_dropout_prob: float = 0.1
    short_side: int = 512


@dataclass(frozen=True)
class SegFormerClassifierConfig(MiTConfig):
    """Sizes of a `SegFormerClassifier`; the defaults are MiT-B0 for ImageNet. See also `MiTConfig`.

    Attributes:
        size: side of the square pictures that it was trained on.
    """

    size: int = 224


class _QueryKeyValue(nn.Module):
    """Queries of all tokens (N, H * W, C), keys and values of fewer: a strided convolution gathers them."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        inner = heads * (width // heads)
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, inner)
        self.ratio = ratio
        if ratio > 1:
            self.sr = nn.Conv2d(width, width, ratio, ratio)
            self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        fewer = x
        if self.ratio > 1:
            fewer = self.layer_norm(_tokens(self.sr(_grid(x, height, width))))
        return self.query(x), self.key(fewer), self.value(fewer)


class Attention(nn.Module):
    """Self-attention of tokens (N, H * W, C), over fewer keys and values."""

    def __init__(self, config: MiTConfig, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.self = _QueryKeyValue(width, heads, ratio)
        self.output = Dense(heads * (width // heads), width)
        self.heads, self.dropout = heads, config.attention_probs_dropout_prob

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        query, key, value = self.self(x, height, width)
        out, _ = attend(query, key, value, self.heads, dropout=self.dropout if self.training else 0.0)
        return self.output(out)


class _DepthwiseConv(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, 1, 1, groups=width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        return _tokens(self.dwconv(_grid(x, height, width)))


class MixMLP(nn.Module):
    """An MLP with a 3x3 convolution of each channel in its middle, which tells the tokens where they are."""

    def __init__(self, config: MiTConfig, width: int, ratio: float) -> None:
        super().__init__()
        self.dense1 = nn.Linear(width, int(width * ratio))
        self.dwconv = _DepthwiseConv(int(width * ratio))
        self.dense2 = nn.Linear(int(width * ratio), width)
        self.act = activation(config.hidden_act)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = self.dropout(self.act(self.dwconv(self.dense1(x), height, width)))
        return self.dropout(self.dense2(x))


class Layer(nn.Module):
    """Attention and MLP, each after a layer norm and added to its input."""

    def __init__(self, config: MiTConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        width, heads = config.hidden_sizes[stage], config.num_attention_heads[stage]
        self.layer_norm_1 = nn.LayerNorm(width)
        self.attention = Attention(config, width, heads, config.sr_ratios[stage])
        self.layer_norm_2 = nn.LayerNorm(width)
        self.mlp = MixMLP(config, width, config.mlp_ratios[stage])
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.drop_path(self.dropout(self.attention(self.layer_norm_1(x), height, width)))
        return x + self.drop_path(self.mlp(self.layer_norm_2(x), height, width))


class OverlapPatchEmbeddings(nn.Module):
    """A map (N, C, H, W) as fewer and wider tokens; their patches overlap."""

    def __init__(self, inputs: int, width: int, patch: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, patch, stride, patch // 2)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        return self.layer_norm(_tokens(x)), x.shape[2], x.shape[3]


class Encoder(nn.Module):
    """Maps (N, C, H, W) of the stages, at 1/4, 1/8, 1/16 and 1/32 of the picture."""

    def __init__(self, config: MiTConfig) -> None:
        super().__init__()
        widths = (config.num_channels, *config.hidden_sizes)
        self.patch_embeddings = nn.ModuleList(
            OverlapPatchEmbeddings(*shape)
            for shape in zip(widths[:-1], widths[1:], config.patch_sizes, config.strides, strict=True)
        )
        total = sum(config.depths)
        rates = iter(config.drop_path_rate * index / max(total - 1, 1) for index in range(total))
        self.block = nn.ModuleList(
            nn.ModuleList(Layer(config, stage, next(rates)) for _ in range(depth))
            for stage, depth in enumerate(config.depths)
        )
        self.layer_norm = nn.ModuleList(nn.LayerNorm(width) for width in config.hidden_sizes)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        x, maps = pixel_values, []
        for embed, layers, norm in zip(self.patch_embeddings, self.block, self.layer_norm, strict=True):
            x, height, width = embed(x)
            for layer in layers.children():
                x = layer(x, height, width)
            x = _grid(norm(x), height, width)
            maps.append(x)
        return maps


class SegFormerModel(nn.Module):
    """The encoder, under the name that the folders have for it."""

    def __init__(self, config: MiTConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.channels = config.num_channels

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.channels:
            raise ValueError(f"pictures must be (N, {self.channels}, H, W), not {tuple(pixel_values.shape)}")
        return self.encoder(pixel_values)


class _Project(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return _grid(self.proj(_tokens(x)), x.shape[2], x.shape[3])


class DecodeHead(nn.Module):
    """Scores (N, num_classes, H, W) at the size of the first map: all maps projected, scaled up and fused."""

    def __init__(self, config: SegFormerConfig) -> None:
        super().__init__()
        width = config.decoder_hidden_size
        self.linear_c = nn.ModuleList(_Project(inputs, width) for inputs in config.hidden_sizes)
        self.linear_fuse = nn.Conv2d(width * len(config.hidden_sizes), width, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Conv2d(width, config.num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = tuple(maps[0].shape[2:])
        scaled = [
            F.interpolate(project(x), size=size, mode="bilinear", align_corners=False)
            for project, x in zip(self.linear_c, maps, strict=True)
        ]
        return self.classifier(self.dropout(F.relu(self.batch_norm(self.linear_fuse(flambeau.cat(scaled[::-1], 1))))))


class SegFormer(nn.Module):
    """Scores (N, num_classes, H / 4, W / 4) for pictures (N, 3, H, W) of any size.

    With ``upsample=True`` the call scales the scores up to the pictures' size; while training it always does, so that
    they lie on the labels' pixels.

    >>> model = SegFormer(SegFormerConfig(num_classes=3)).eval()
    >>> x = flambeau.zeros(1, 3, 64, 96)
    >>> tuple(model(x).shape), tuple(model(x, upsample=True).shape)
    ((1, 3, 16, 24), (1, 3, 64, 96))
    """

    def __init__(self, config: SegFormerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SegFormerConfig()
        self.segformer = SegFormerModel(config)
        self.decode_head = DecodeHead(config)
        init_weights(self)

    def forward(self, pixel_values: Tensor, upsample: bool = False) -> Tensor:
        scores = self.decode_head(self.segformer(pixel_values))
        if upsample or self.training:
            size = tuple(pixel_values.shape[2:])
            scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        return scores


class SegFormerClassifier(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W): the encoder with a linear layer on the last map's mean.

    >>> tuple(SegFormerClassifier(SegFormerClassifierConfig(num_classes=10)).eval()(flambeau.zeros(1, 3, 64, 64)).shape)
    (1, 10)
    """

    def __init__(self, config: SegFormerClassifierConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SegFormerClassifierConfig()
        self.segformer = SegFormerModel(config)
        self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_classes)
        init_weights(self)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.classifier(self.segformer(pixel_values)[-1].mean((2, 3)))


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `SegFormerConfig` for a ``config.json``."""
    return hub_options(config, SegFormerConfig)


def classifier_options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `SegFormerClassifierConfig` for a ``config.json``."""
    return hub_options(config, SegFormerClassifierConfig)


def _tokens(grid: Tensor) -> Tensor:
    return grid.flatten(2).transpose(1, 2)


def _grid(tokens: Tensor, height: int, width: int) -> Tensor:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], height, width)
