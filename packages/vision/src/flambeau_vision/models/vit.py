"""Vision transformers (Dosovitskiy et al. 2021), with the keys of Transformers' ViTForImageClassification."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flambeau
from flambeau import Tensor, nn

from .parts import Dense, activation, attend, hub_options, init_weights, pair, resized


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a `ViT`; the defaults are ViT-B/16. The names are those of a ``config.json`` of Transformers.

    Attributes:
        num_classes: classes to tell apart; 0 leaves the classifier out, and the class token's features come out.
        hidden_size: width of a token.
        num_hidden_layers: layers of the encoder.
        num_attention_heads: heads of each layer.
        intermediate_size: width inside the MLPs.
        hidden_act: their activation.
        hidden_dropout_prob: dropout after the embeddings and in each branch.
        attention_probs_dropout_prob: dropout of the attention's weights.
        layer_norm_eps: added to the variance.
        image_size: side of the pictures, or (height, width).
        patch_size: side of a patch.
        num_channels: channels of the pictures.
        qkv_bias: whether queries, keys and values have a bias.
        classes: names of the classes; empty when they have none.
        mean: of the training pictures' channels (0..1), subtracted from the input.
        std: of those channels; divides the input.
    """

    num_classes: int = 1000
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    layer_norm_eps: float = 1e-12
    image_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    num_channels: int = 3
    qkv_bias: bool = True
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size}")
        if any(patch > side for patch, side in zip(pair(self.patch_size), pair(self.image_size), strict=True)):
            raise ValueError(f"patches of {self.patch_size} are larger than pictures of {self.image_size}")

    @property
    def size(self) -> int:
        """Side of the pictures for the classification task."""
        return pair(self.image_size)[0]

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        (height, width), (down, across) = pair(self.image_size), pair(self.patch_size)
        return height // down, width // across


class _QueryKeyValue(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.query = nn.Linear(width, width, bias=config.qkv_bias)
        self.key = nn.Linear(width, width, bias=config.qkv_bias)
        self.value = nn.Linear(width, width, bias=config.qkv_bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(x), self.key(x), self.value(x)


class Attention(nn.Module):
    """Self-attention: tokens (N, L, C) to tokens, and the weights (N, heads, L, L) where they are wanted."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.attention = _QueryKeyValue(config)
        self.output = Dense(config.hidden_size, config.hidden_size)
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        dropout = self.dropout if self.training else 0.0
        query, key, value = self.attention(x)
        out, weights = attend(query, key, value, self.heads, dropout=dropout, need_weights=need_weights)
        return self.output(out), weights


class Layer(nn.Module):
    """Self-attention and an MLP, each after a layer norm and added to its input."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.attention = Attention(config)
        self.intermediate = Dense(width, config.intermediate_size)
        self.output = Dense(config.intermediate_size, width)
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        out, weights = self.attention(self.layernorm_before(x), need_weights)
        x = x + self.dropout(out)
        out = self.output(self.act(self.intermediate(self.layernorm_after(x))))
        return x + self.dropout(out), weights


class Encoder(nn.Module):
    """The layers one after the other."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        attentions = []
        for layer in self.layer:
            x, weights = layer(x, need_weights)
            if weights is not None:
                attentions.append(weights)
        return x, tuple(attentions)


class PatchEmbeddings(nn.Module):
    """Pictures (N, channels, H, W) as tokens (N, patches, C); rows and columns of less than a patch are left out."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        patch = pair(config.patch_size)
        self.channels, self.patch = config.num_channels, patch
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, patch, patch)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.channels:
            raise ValueError(f"pictures must be (N, {self.channels}, H, W), not {tuple(pixel_values.shape)}")
        return self.projection(pixel_values).flatten(2).transpose(1, 2)


class Embeddings(nn.Module):
    """Patches with the class token (and the distillation token) before them, and their positions added."""

    def __init__(self, config: ViTConfig, distilled: bool = False) -> None:
        super().__init__()
        self.config, self.special = config, 2 if distilled else 1
        down, across = config.grid
        self.cls_token = nn.Parameter(flambeau.zeros(1, 1, config.hidden_size))
        self.patch_embeddings = PatchEmbeddings(config)
        self.position_embeddings = nn.Parameter(flambeau.zeros(1, down * across + self.special, config.hidden_size))
        if distilled:
            self.distillation_token = nn.Parameter(flambeau.zeros(1, 1, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        tokens = self.patch_embeddings(pixel_values)
        special = [self.cls_token] if self.special == 1 else [self.cls_token, self.distillation_token]
        tokens = flambeau.cat([*(token.expand(tokens.shape[0], -1, -1) for token in special), tokens], 1)
        return self.dropout(tokens + self._positions(pixel_values.shape[2:], interpolate_pos_encoding))

    def _positions(self, size: tuple[int, ...], interpolate: bool) -> Tensor:
        wanted, patch = pair(self.config.image_size), self.patch_embeddings.patch
        if interpolate:
            special, patches = self.position_embeddings[:, : self.special], self.position_embeddings[:, self.special :]
            grid = (size[0] // patch[0], size[1] // patch[1])
            return flambeau.cat([special, resized(patches, self.config.grid, grid)], 1)
        if tuple(size) != wanted:
            raise ValueError(
                f"pictures of {size[0]}x{size[1]} where the model has positions for {wanted[0]}x{wanted[1]}; "
                "pass interpolate_pos_encoding=True to resample them"
            )
        return self.position_embeddings


class ViTModel(nn.Module):
    """Tokens (N, special + patches, C) of pictures, after the last layer norm."""

    def __init__(self, config: ViTConfig, distilled: bool = False) -> None:
        super().__init__()
        self.embeddings = Embeddings(config, distilled)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        init_weights(self)
        nn.init.trunc_normal_(self.embeddings.position_embeddings, std=0.02)
        nn.init.trunc_normal_(self.embeddings.cls_token, std=0.02)

    def forward(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, output_attentions: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        tokens = self.embeddings(pixel_values, interpolate_pos_encoding)
        tokens, attentions = self.encoder(tokens, output_attentions)
        return self.layernorm(tokens), attentions


class ViT(nn.Module):
    """Class scores (N, num_classes) for pictures (N, 3, H, W).

    Args of the call:
        pixel_values: the pictures.
        interpolate_pos_encoding: resample the position embeddings for pictures of another size than the model's.
        output_attentions: return a tuple of the scores and each layer's attention weights (N, heads, tokens, tokens),
            for attention maps and attention rollout.

    >>> small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    >>> model = ViT(ViTConfig(num_classes=10, image_size=32, patch_size=8, **small)).eval()
    >>> scores, attentions = model(flambeau.zeros(1, 3, 32, 32), output_attentions=True)
    >>> tuple(scores.shape), len(attentions), tuple(attentions[0].shape)
    ((1, 10), 2, (1, 2, 17, 17))
    >>> tuple(model(flambeau.zeros(1, 3, 40, 48), interpolate_pos_encoding=True).shape)
    (1, 10)
    """

    def __init__(self, config: ViTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ViTConfig()
        self.vit = ViTModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_classes) if config.num_classes else nn.Identity()
        init_weights(self.classifier)

    def forward(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, output_attentions: bool = False
    ) -> Any:
        tokens, attentions = self.vit(pixel_values, interpolate_pos_encoding, output_attentions)
        scores = self.classifier(tokens[:, 0])
        return (scores, attentions) if output_attentions else scores


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `ViTConfig` for a ``config.json``.

    >>> options({"hidden_size": 32, "id2label": {"0": "cat", "1": "dog"}, "encoder_stride": 16})
    {'hidden_size': 32, 'num_classes': 2, 'classes': ('cat', 'dog')}
    """
    return hub_options(config, ViTConfig)


_TORCHVISION = (
    (r"^class_token$", "vit.embeddings.cls_token"),
    (r"^conv_proj\.", "vit.embeddings.patch_embeddings.projection."),
    (r"^encoder\.pos_embedding$", "vit.embeddings.position_embeddings"),
    (r"^encoder\.ln\.", "vit.layernorm."),
    (r"^heads\.(?:head|0)\.", "classifier."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"vit.encoder.layer.\1."),
    (r"\.ln_1\.", ".layernorm_before."),
    (r"\.ln_2\.", ".layernorm_after."),
    (r"\.self_attention\.out_proj\.", ".attention.output.dense."),
    (r"\.mlp\.(?:linear_1|0)\.", ".intermediate.dense."),
    (r"\.mlp\.(?:linear_2|3)\.", ".output.dense."),
)


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of torchvision's ``vit_b_16`` and its like under this file's names.

    They were trained with ``ViTConfig(layer_norm_eps=1e-6)``, ImageNet's mean and standard deviation.

    >>> sorted(from_torchvision({"class_token": flambeau.zeros(1, 1, 8), "heads.head.bias": flambeau.zeros(2)}))
    ['classifier.bias', 'vit.embeddings.cls_token']
    """
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in _TORCHVISION:
            key = re.sub(pattern, replacement, key)
        if found := re.fullmatch(r"(.*)\.self_attention\.in_proj_(weight|bias)", key):
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"{found[1]}.attention.attention.{name}.{found[2]}"] = part
        else:
            renamed[key] = value
    return renamed
