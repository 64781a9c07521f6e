"""Swin transformers (Liu et al. 2021): attention in windows that shift, with the keys of Transformers' folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    pair,
    resized,
)


@dataclass(frozen=True)
class SwinConfig:
    """Sizes of a `Swin`; the defaults are Swin-T. The names are those of a ``config.json`` of Transformers.

    Attributes:
        num_classes: classes to tell apart; 0 leaves the classifier out.
        image_size: side of the pictures, or (height, width); pictures of any size are taken.
        patch_size: side of a patch.
        num_channels: channels of the pictures.
        embed_dim: width of a token in the first stage; each further stage doubles it and halves the grid.
        depths: blocks of each stage; every second one shifts its windows.
        num_heads: heads of each stage.
        window_size: side of a window, in tokens.
        mlp_ratio: width inside the MLPs over the width of a token.
        qkv_bias: whether queries, keys and values have a bias.
        hidden_dropout_prob: dropout after the embeddings and in each branch.
        attention_probs_dropout_prob: dropout of the attention's weights.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        hidden_act: activation of the MLPs.
        use_absolute_embeddings: whether learnt positions are added to the patches.
        layer_norm_eps: added to the variance in the blocks.
        out_features: the stages that a `SwinBackbone` gives, ``"stage1"`` to ``"stage4"``; the last one when empty.
        classes: names of the classes; empty when they have none.
        mean: of the training pictures' channels (0..1), subtracted from the input.
        std: of those channels; divides the input.
    """

    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 4
    num_channels: int = 3
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.1
    hidden_act: str = "gelu"
    use_absolute_embeddings: bool = False
    layer_norm_eps: float = 1e-5
    out_features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths {self.depths} and num_heads {self.num_heads} must have one entry for each stage")
        stages = [f"stage{number}" for number in range(1, len(self.depths) + 1)]
        if unknown := sorted(set(self.out_features) - set(stages)):
            raise ValueError(f"out_features has {unknown[0]!r}; there are {', '.join(stages)}")

    @property
    def size(self) -> int:
        """Side of the pictures for the classification task."""
        return pair(self.image_size)[0]


def partition(x: Tensor, window: int) -> Tensor:
    """Windows (N * windows, window * window, C) of a grid (N, H, W, C) whose sides they divide."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def unpartition(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The grid (N, H, W, C) that `partition` cut."""
    x = windows.reshape(-1, height // window, width // window, window, window, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def relative_index(window: int) -> np.ndarray:
    """For each pair of places in a window the row of the table with the bias for their offset.

    >>> relative_index(2)[0].tolist()
    [4, 3, 1, 0]
    """
    places = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    down, across = places[:, :, None] - places[:, None, :] + window - 1
    return down * (2 * window - 1) + across


def shift_bias(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """What keeps a rolled grid's windows from mixing opposite edges: (windows, 1, window ** 2, window ** 2).

    After the roll a window at the edge holds places from both sides of the picture; pairs of different sides get -100.
    """
    sides = [
        (np.arange(extent) >= extent - window).astype(int) + (np.arange(extent) >= extent - shift)
        for extent in (height, width)
    ]
    region = sides[0][:, None] * 3 + sides[1]
    region = region.reshape(height // window, window, width // window, window).swapaxes(1, 2).reshape(-1, window**2)
    return np.where(region[:, None, :, None] != region[:, None, None, :], -100.0, 0.0)


class _WindowedQueryKeyValue(nn.Module):
    """Queries, keys and values of windows, and the learnt bias (heads, window ** 2, window ** 2) of their offsets."""

    def __init__(self, config: SwinConfig, width: int, heads: int) -> None:
        super().__init__()
        window = config.window_size
        self.query = nn.Linear(width, width, bias=config.qkv_bias)
        self.key = nn.Linear(width, width, bias=config.qkv_bias)
        self.value = nn.Linear(width, width, bias=config.qkv_bias)
        self.relative_position_bias_table = nn.Parameter(flambeau.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", flambeau.from_numpy(relative_index(window)), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(x), self.key(x), self.value(x)

    def bias(self) -> Tensor:
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)


class WindowAttention(nn.Module):
    """Self-attention within each window (N, window ** 2, C); `bias` (N, 1, ...) is added to the learnt one."""

    def __init__(self, config: SwinConfig, width: int, heads: int) -> None:
        super().__init__()
        self.self = _WindowedQueryKeyValue(config, width, heads)
        self.output = Dense(width, width)
        self.heads, self.dropout = heads, config.attention_probs_dropout_prob

    def forward(self, windows: Tensor, bias: Tensor | None = None) -> Tensor:
        learnt = self.self.bias()
        bias = learnt.unsqueeze(0) if bias is None else learnt + bias
        query, key, value = self.self(windows)
        out, _ = attend(query, key, value, self.heads, bias, self.dropout if self.training else 0.0)
        return self.output(out)


class Block(nn.Module):
    """Attention in windows and an MLP, each after a layer norm and added to its input: a grid (N, H, W, C)."""

    def __init__(self, config: SwinConfig, width: int, heads: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.window, self.shift = config.window_size, shift
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = WindowAttention(config, width, heads)
        self.layernorm_after = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate = Dense(width, int(config.mlp_ratio * width))
        self.output = Dense(int(config.mlp_ratio * width), width)
        self.act = activation(config.hidden_act)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor, always_shift: bool = False) -> Tensor:
        x = x + self.drop_path(self._windows(self.layernorm_before(x), always_shift))
        out = self.output(self.act(self.intermediate(self.layernorm_after(x))))
        return x + self.dropout(out)

    def _windows(self, x: Tensor, always_shift: bool) -> Tensor:
        window, (batch, height, width, _) = self.window, x.shape
        # A grid of one window's height or width needs no shift; a backbone, for pictures of all sizes, shifts it too.
        shift = self.shift if always_shift or min(height, width) > window else 0
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        down, across = x.shape[1:3]
        bias = None
        if shift:
            x = flambeau.roll(x, (-shift, -shift), (1, 2))
            mask = np.tile(shift_bias(down, across, window, shift), (batch, 1, 1, 1))
            bias = flambeau.tensor(mask, dtype=x.dtype, device=x.device)
        x = unpartition(self.dropout(self.attention(partition(x, window), bias)), window, down, across)
        if shift:
            x = flambeau.roll(x, (shift, shift), (1, 2))
        return x[:, :height, :width]


class PatchMerging(nn.Module):
    """Half the grid and twice the width: four neighbours beside each other, normed and projected."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = flambeau.cat([x[:, row::2, column::2] for column in range(2) for row in range(2)], -1)
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    """Blocks on one grid, and the merging that leads to the next."""

    def __init__(self, config: SwinConfig, number: int) -> None:
        super().__init__()
        width, before = config.embed_dim * 2**number, sum(config.depths[:number])
        last = max(sum(config.depths) - 1, 1)
        self.blocks = nn.ModuleList(
            Block(
                config,
                width,
                config.num_heads[number],
                shift=config.window_size // 2 if index % 2 else 0,
                drop_path=config.drop_path_rate * (before + index) / last,
            )
            for index in range(config.depths[number])
        )
        self.downsample = PatchMerging(width) if number + 1 < len(config.depths) else None

    def forward(self, x: Tensor, always_shift: bool = False) -> tuple[Tensor, Tensor]:
        """The grid for the next stage, and this one's before the merging."""
        for block in self.blocks:
            x = block(x, always_shift)
        return (x if self.downsample is None else self.downsample(x)), x


class Encoder(nn.Module):
    """The stages: their grids (N, H, W, C) before the merging; the last is the encoder's output."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Stage(config, number) for number in range(len(config.depths)))

    def forward(self, x: Tensor, always_shift: bool = False) -> list[Tensor]:
        grids = []
        for stage in self.layers:
            x, grid = stage(x, always_shift)
            grids.append(grid)
        return grids


class _Patches(nn.Module):
    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        patch = pair(config.patch_size)
        self.projection = nn.Conv2d(config.num_channels, config.embed_dim, patch, patch)


class Embeddings(nn.Module):
    """Pictures (N, channels, H, W) as a grid of tokens (N, H / patch, W / patch, C); zeros fill the last patches up."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.patch, self.channels = pair(config.patch_size), config.num_channels
        self.patch_embeddings = _Patches(config)
        (height, width), (down, across) = pair(config.image_size), self.patch
        self.grid = (height // down, width // across)
        self.position_embeddings = None
        if config.use_absolute_embeddings:
            self.position_embeddings = nn.Parameter(flambeau.zeros(1, self.grid[0] * self.grid[1], config.embed_dim))
        self.norm = nn.LayerNorm(config.embed_dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.channels:
            raise ValueError(f"pictures must be (N, {self.channels}, H, W), not {tuple(pixel_values.shape)}")
        down, across = self.patch
        pixel_values = F.pad(pixel_values, (0, -pixel_values.shape[3] % across, 0, -pixel_values.shape[2] % down))
        x = self.norm(self.patch_embeddings.projection(pixel_values).permute(0, 2, 3, 1))
        if self.position_embeddings is not None:
            grid = tuple(x.shape[1:3])
            x = x + resized(self.position_embeddings, self.grid, grid).reshape(1, *grid, -1)
        return self.dropout(x)


class SwinModel(nn.Module):
    """Embeddings, stages and the last layer norm: a grid (N, H / 32, W / 32, C) for four stages."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.embed_dim * 2 ** (len(config.depths) - 1), eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layernorm(self.encoder(self.embeddings(pixel_values))[-1])


class Swin(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W) of any size.

    >>> model = Swin(SwinConfig(num_classes=10, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4)).eval()
    >>> tuple(model(flambeau.zeros(2, 3, 50, 64)).shape)
    (2, 10)
    """

    def __init__(self, config: SwinConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SwinConfig()
        self.swin = SwinModel(config)
        width = config.embed_dim * 2 ** (len(config.depths) - 1)
        self.classifier = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        init_weights(self)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.classifier(self.swin(pixel_values).mean((1, 2)))


class SwinBackbone(nn.Module):
    """Feature maps (N, C, H, W) of the stages in ``out_features``, each after a layer norm of its own: a `Backbone`.

    >>> small = dict(embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4)
    >>> model = SwinBackbone(SwinConfig(out_features=("stage1", "stage2"), **small)).eval()
    >>> [tuple(grid.shape) for grid in model(flambeau.zeros(1, 3, 50, 64))]
    [(1, 8, 13, 16), (1, 16, 7, 8)]
    """

    def __init__(self, config: SwinConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SwinConfig()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        stages = sorted(config.out_features) or [f"stage{len(config.depths)}"]
        self.channels = {stage: config.embed_dim * 2 ** (int(stage[5:]) - 1) for stage in stages}
        self.hidden_states_norms = nn.ModuleDict({stage: nn.LayerNorm(width) for stage, width in self.channels.items()})
        self.feature_channels = tuple(self.channels.values())
        self.feature_strides = tuple(pair(config.patch_size)[0] * 2 ** (int(stage[5:]) - 1) for stage in stages)
        init_weights(self)

    def features(self, pixel_values: Tensor) -> list[Tensor]:
        """The feature maps, finest first."""
        grids = self.encoder(self.embeddings(pixel_values), always_shift=True)
        return [norm(grids[int(stage[5:]) - 1]).permute(0, 3, 1, 2) for stage, norm in self.hidden_states_norms.items()]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.features(pixel_values))


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `SwinConfig` for a ``config.json``; ``out_features`` matters to backbones alone."""
    found = hub_options(config, SwinConfig)
    if "SwinBackbone" not in (config.get("architectures") or ()):
        found.pop("out_features", None)
    return found


def rename(state: dict[str, Any], config: dict[str, Any]) -> Mapping[str, Any]:
    """The tensors without the tables of indices, which older folders keep and the window's size implies."""
    return {key: value for key, value in state.items() if not key.endswith("relative_position_index")}


def rename_backbone(state: dict[str, Any], config: dict[str, Any]) -> Mapping[str, Any]:
    """The tensors of a backbone; the last layer norm of the whole model, which some folders keep, is left out."""
    state = {key.removeprefix("swin."): value for key, value in rename(state, config).items()}
    return {key: value for key, value in state.items() if not key.startswith(("layernorm.", "classifier."))}
