"""YOLOS (Fang et al. 2021): a plain ViT that detects objects with tokens of its own, with Transformers' keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flambeau
from flambeau import Tensor, nn

from .blocks import IMAGENET_MEAN, IMAGENET_STD
from .parts import MLPHead, hub_options, init_weights, resized
from .set_prediction import Detections
from .vit import Layer, PatchEmbeddings, ViTConfig


@dataclass(frozen=True)
class YolosConfig(ViTConfig):
    """Sizes of a `Yolos` and the weights of its loss; the defaults are YOLOS-B for COCO. See also `ViTConfig`.

    Attributes:
        num_detection_tokens: objects that can be found in a picture.
        use_mid_position_embeddings: whether positions are added after each layer but the last, too.
        class_cost, bbox_cost, giou_cost: weights of the matching.
        bbox_loss_coefficient, giou_loss_coefficient: weights of the boxes' losses.
        eos_coefficient: weight of "no object" in the cross-entropy.
    """

    num_classes: int = 91
    image_size: int | tuple[int, int] = (512, 864)
    num_detection_tokens: int = 100
    use_mid_position_embeddings: bool = True
    class_cost: float = 1
    bbox_cost: float = 5
    giou_cost: float = 2
    bbox_loss_coefficient: float = 5
    giou_loss_coefficient: float = 2
    eos_coefficient: float = 0.1
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


class Embeddings(nn.Module):
    """Class token, patches and detection tokens with their positions: (N, 1 + patches + detections, C)."""

    def __init__(self, config: YolosConfig) -> None:
        super().__init__()
        width, (down, across) = config.hidden_size, config.grid
        self.config = config
        self.cls_token = nn.Parameter(flambeau.zeros(1, 1, width))
        self.detection_tokens = nn.Parameter(flambeau.zeros(1, config.num_detection_tokens, width))
        self.patch_embeddings = PatchEmbeddings(config)
        length = 1 + down * across + config.num_detection_tokens
        self.position_embeddings = nn.Parameter(flambeau.zeros(1, length, width))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor, grid: tuple[int, int]) -> Tensor:
        patches = self.patch_embeddings(pixel_values)
        batch = len(patches)
        first, last = self.cls_token.expand(batch, -1, -1), self.detection_tokens.expand(batch, -1, -1)
        tokens = flambeau.cat([first, patches, last], 1)
        return self.dropout(tokens + positions_for(self.position_embeddings, self.config, grid))


def positions_for(positions: Tensor, config: YolosConfig, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (..., 1 + patches + detections, C) with those of the patches resampled for another grid."""
    end = positions.shape[-2] - config.num_detection_tokens
    first, patches, last = positions[..., :1, :], positions[..., 1:end, :], positions[..., end:, :]
    return flambeau.cat([first, resized(patches, config.grid, grid), last], -2)


class Encoder(nn.Module):
    """The ViT's layers, with positions added between them."""

    def __init__(self, config: YolosConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        if config.use_mid_position_embeddings:
            length = 1 + config.grid[0] * config.grid[1] + config.num_detection_tokens
            shape = (config.num_hidden_layers - 1, 1, length, config.hidden_size)
            self.mid_position_embeddings = nn.Parameter(flambeau.zeros(*shape))

    def forward(self, x: Tensor, grid: tuple[int, int], need_weights: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        attentions, between = [], None
        if self.config.use_mid_position_embeddings:
            between = positions_for(self.mid_position_embeddings, self.config, grid)
        for index, layer in enumerate(self.layer):
            x, weights = layer(x, need_weights)
            if between is not None and index < len(between):
                x = x + between[index]
            if weights is not None:
                attentions.append(weights)
        return x, tuple(attentions)


class YolosModel(nn.Module):
    """Tokens (N, 1 + patches + detections, C) after the last layer norm."""

    def __init__(self, config: YolosConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor, need_weights: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        down, across = self.embeddings.patch_embeddings.patch
        grid = (pixel_values.shape[-2] // down, pixel_values.shape[-1] // across)
        x, attentions = self.encoder(self.embeddings(pixel_values, grid), grid, need_weights)
        return self.layernorm(x), attentions


class Yolos(nn.Module):
    """Objects in pictures (N, 3, H, W) of any size, as `flambeau_vision.models.set_prediction.Detections`.

    With ``output_attentions=True`` the output has each layer's attention weights (N, heads, tokens, tokens). Train it
    with `set_prediction.set_prediction_loss` and read its output with `set_prediction.post_process`.

    >>> small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    >>> small |= dict(image_size=(32, 48), patch_size=8, num_detection_tokens=5)
    >>> found = Yolos(YolosConfig(num_classes=3, **small)).eval()(flambeau.zeros(2, 3, 40, 40))
    >>> tuple(found.logits.shape), tuple(found.pred_boxes.shape)
    ((2, 5, 4), (2, 5, 4))
    """

    def __init__(self, config: YolosConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or YolosConfig()
        width = config.hidden_size
        self.vit = YolosModel(config)
        self.class_labels_classifier = MLPHead(width, width, config.num_classes + 1)
        self.bbox_predictor = MLPHead(width, width, 4)
        init_weights(self.vit)
        embeddings = self.vit.embeddings
        for parameter in (embeddings.cls_token, embeddings.detection_tokens, embeddings.position_embeddings):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, pixel_values: Tensor, output_attentions: bool = False) -> Detections:
        tokens, attentions = self.vit(pixel_values, output_attentions)
        found = tokens[:, tokens.shape[1] - self.config.num_detection_tokens :]
        boxes = self.bbox_predictor(found).sigmoid()
        return Detections(self.class_labels_classifier(found), boxes, attentions=attentions)


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `YolosConfig` for a ``config.json``."""
    return hub_options(config, YolosConfig)
