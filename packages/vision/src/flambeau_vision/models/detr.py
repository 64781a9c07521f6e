"""DETR (Carion et al. 2020): a ResNet, a transformer and queries that each find an object, with Transformers' keys."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flambeau
import flambeau.nn.functional as F
from flambeau import FlambeauError, Tensor, nn

from .blocks import IMAGENET_MEAN, IMAGENET_STD
from .parts import MLPHead, activation, attend, hub_options
from .resnet_pretrained import rename as torchvision_names
from .set_prediction import Detections

_DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


@dataclass(frozen=True)
class DetrConfig:
    """Sizes of a `Detr` and the weights of its loss; the defaults are DETR-R50 for COCO.

    Attributes:
        num_classes: classes of objects; the scores have one more, "no object".
        num_queries: objects that can be found in a picture.
        d_model: width of a token.
        encoder_layers: layers of the encoder.
        encoder_ffn_dim: width inside its MLPs.
        encoder_attention_heads: its heads.
        decoder_layers: layers of the decoder.
        decoder_ffn_dim: width inside its MLPs.
        decoder_attention_heads: its heads.
        activation_function: activation of the MLPs.
        dropout: dropout of each branch.
        attention_dropout: dropout of the attention's weights.
        activation_dropout: dropout inside the MLPs.
        auxiliary_loss: whether the output has the objects after each layer of the decoder, for the loss.
        backbone_layer_type: ``"bottleneck"`` or ``"basic"``.
        backbone_depths: blocks of each stage of the ResNet.
        backbone_widths: channels of each stage.
        backbone_stem: channels of its first convolution.
        dilation: whether the last stage keeps the resolution, with dilated convolutions (DC5).
        class_cost, bbox_cost, giou_cost: weights of the matching.
        bbox_loss_coefficient, giou_loss_coefficient: weights of the boxes' losses.
        eos_coefficient: weight of "no object" in the cross-entropy.
        classes: names of the classes; empty when they have none.
        mean: of the training pictures' channels (0..1), subtracted from the input.
        std: of those channels; divides the input.
    """

    num_classes: int = 91
    num_queries: int = 100
    d_model: int = 256
    encoder_layers: int = 6
    encoder_ffn_dim: int = 2048
    encoder_attention_heads: int = 8
    decoder_layers: int = 6
    decoder_ffn_dim: int = 2048
    decoder_attention_heads: int = 8
    activation_function: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    auxiliary_loss: bool = False
    backbone_layer_type: str = "bottleneck"
    backbone_depths: tuple[int, ...] = (3, 4, 6, 3)
    backbone_widths: tuple[int, ...] = (256, 512, 1024, 2048)
    backbone_stem: int = 64
    dilation: bool = False
    class_cost: float = 1
    bbox_cost: float = 5
    giou_cost: float = 2
    bbox_loss_coefficient: float = 5
    giou_loss_coefficient: float = 2
    eos_coefficient: float = 0.1
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.backbone_layer_type not in ("bottleneck", "basic"):
            raise ValueError(f"backbone_layer_type must be 'bottleneck' or 'basic', not {self.backbone_layer_type!r}")
        if self.d_model % 4:
            raise ValueError(f"d_model must divide by 4 for the sines of two directions, not {self.d_model}")


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with statistics and weights that stay as they are: the backbone was trained with other batches."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, flambeau.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * flambeau.rsqrt(self.running_var + 1e-5)
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a 3x3 one between two 1x1 ones, and the short-cut past them."""

    def __init__(self, inputs: int, width: int, kind: str, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        if kind == "basic":
            layers = [(inputs, width, 3, stride, 1), (width, width, 3, 1, dilation)]
        else:
            inner = width // 4
            layers = [(inputs, inner, 1, 1, 1), (inner, inner, 3, stride, dilation), (inner, width, 1, 1, 1)]
        self.count = len(layers)
        for number, (cin, cout, kernel, step, spread) in enumerate(layers, start=1):
            conv = nn.Conv2d(cin, cout, kernel, step, spread * (kernel // 2), spread, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", FrozenBatchNorm2d(cout))
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), FrozenBatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number in range(1, self.count + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            if number < self.count:
                out = F.relu(out)
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    """A ResNet's last map (N, C, H / 32, W / 32), under torchvision's names; with dilation at 1/16 of the picture."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        inputs, kind = config.backbone_stem, config.backbone_layer_type
        self.conv1 = nn.Conv2d(3, inputs, 7, 2, 3, bias=False)
        self.bn1 = FrozenBatchNorm2d(inputs)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = []
        last = len(config.backbone_depths)
        for number, (depth, width) in enumerate(
            zip(config.backbone_depths, config.backbone_widths, strict=True), start=1
        ):
            dilated = config.dilation and number == last
            stride = 1 if number == 1 or dilated else 2
            blocks = [ResidualBlock(inputs, width, kind, stride)]  # the first sees what the stage before has made
            blocks += [ResidualBlock(width, width, kind, dilation=2 if dilated else 1) for _ in range(depth - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            self.stages.append(f"layer{number}")
            inputs = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(pixel_values))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return x


def sine_positions(mask: Tensor, width: int, dtype: Any) -> Tensor:
    """Sines and cosines of a map's rows and columns, (N, H * W, width), counted over the mask (N, H, W)'s True pixels.

    >>> tuple(sine_positions(flambeau.ones(1, 2, 3, dtype=flambeau.bool), 8, flambeau.float32).shape)
    (1, 6, 8)
    """
    half, inside = width // 2, mask.to(dtype)
    exponents = flambeau.arange(half, device=mask.device) // 2 * 2
    periods = 10000.0 ** (exponents.to(dtype) / half)
    parts = []
    for axis in (1, 2):
        place = inside.cumsum(axis)
        end = place[:, -1:, :] if axis == 1 else place[:, :, -1:]
        angle = (place / (end + 1e-6) * (2 * math.pi)).unsqueeze(-1) / periods
        waves = flambeau.stack((flambeau.sin(angle[..., 0::2]), flambeau.cos(angle[..., 1::2])), 4)
        parts.append(waves.flatten(3))
    return flambeau.cat(parts, 3).flatten(1, 2)


class Attention(nn.Module):
    """Attention with a projection for each of queries, keys, values and result."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.heads, self.dropout = heads, dropout

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        query, key, value = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        dropout = self.dropout if self.training else 0.0
        out, weights = attend(query, key, value, self.heads, bias, dropout, need_weights)
        return self.out_proj(out), weights


class EncoderLayer(nn.Module):
    """Self-attention and an MLP, each added to its input before a layer norm."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width, hidden = config.d_model, config.encoder_ffn_dim
        self.self_attn = Attention(width, config.encoder_attention_heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout, self.inner_dropout = nn.Dropout(config.dropout), nn.Dropout(config.activation_dropout)
        self.act = activation(config.activation_function)

    def forward(self, x: Tensor, positions: Tensor, bias: Tensor | None) -> Tensor:
        query = x + positions
        x = self.self_attn_layer_norm(x + self.dropout(self.self_attn(query, query, x, bias)[0]))
        out = self.fc2(self.inner_dropout(self.act(self.fc1(x))))
        return self.final_layer_norm(x + self.dropout(out))


class DecoderLayer(nn.Module):
    """Self-attention of the queries, attention to the picture and an MLP, each added to its input before a norm."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width, heads, hidden = config.d_model, config.decoder_attention_heads, config.decoder_ffn_dim
        self.self_attn = Attention(width, heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = Attention(width, heads, config.attention_dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout, self.inner_dropout = nn.Dropout(config.dropout), nn.Dropout(config.activation_dropout)
        self.act = activation(config.activation_function)

    def forward(
        self, x: Tensor, queries: Tensor, memory: Tensor, keys: Tensor, bias: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        query = x + queries
        x = self.self_attn_layer_norm(x + self.dropout(self.self_attn(query, query, x)[0]))
        out, weights = self.encoder_attn(x + queries, keys, memory, bias, need_weights)
        x = self.encoder_attn_layer_norm(x + self.dropout(out))
        out = self.fc2(self.inner_dropout(self.act(self.fc1(x))))
        return self.final_layer_norm(x + self.dropout(out)), weights


class _Encoder(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))


class _Decoder(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.layernorm = nn.LayerNorm(config.d_model)


class _ConvEncoder(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.model = Backbone(config)


class _Features(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.conv_encoder = _ConvEncoder(config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.conv_encoder.model(pixel_values)


class DetrModel(nn.Module):
    """The queries (N, Q, C) after each layer of the decoder, and its attention to the map where that is wanted."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.backbone = _Features(config)
        self.input_projection = nn.Conv2d(config.backbone_widths[-1], config.d_model, 1)
        self.query_position_embeddings = nn.Embedding(config.num_queries, config.d_model)
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.dropout = nn.Dropout(config.dropout)
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor, need_weights: bool = False
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        features = self.input_projection(self.backbone(pixel_values))
        inside = F.interpolate(pixel_mask.unsqueeze(0).float(), size=tuple(features.shape[2:]))[0] > 0
        positions = sine_positions(inside, features.shape[1], features.dtype)
        bias = None
        if not bool(inside.all()):
            outside = ~inside.flatten(1)[:, None, None, :]
            bias = flambeau.zeros(outside.shape, dtype=features.dtype, device=features.device)
            bias = bias.masked_fill(outside, float("-inf"))
        memory = self.dropout(features.flatten(2).transpose(1, 2))
        for layer in self.encoder.layers:
            memory = layer(memory, positions, bias)
        keys = memory + positions
        queries = self.query_position_embeddings.weight.unsqueeze(0).expand(len(memory), -1, -1)
        x, states, attentions = flambeau.zeros_like(queries), [], []
        for layer in self.decoder.layers:
            x, weights = layer(x, queries, memory, keys, bias, need_weights)
            states.append(self.decoder.layernorm(x))
            if weights is not None:
                attentions.append(weights)
        return states, tuple(attentions)


class Detr(nn.Module):
    """Objects in pictures (N, 3, H, W) of any size, as `flambeau_vision.models.set_prediction.Detections`.

    Args of the call:
        pixel_values: the pictures; `set_prediction.pad_batch` makes a batch of several sizes.
        pixel_mask: (N, H, W), true or 1 on the pictures' pixels and 0 on the padding; all of them when left out.
        output_attentions: whether the output has each decoder layer's attention to the map (N, heads, Q, H / 32 *
            W / 32).

    Train it with `set_prediction.set_prediction_loss(model(...), targets, model.config)` and read its output with
    `set_prediction.post_process`.

    >>> small = dict(d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16)
    >>> small |= dict(backbone_depths=(1, 1), backbone_widths=(8, 16), backbone_stem=8)
    >>> model = Detr(DetrConfig(num_classes=3, num_queries=5, **small)).eval()
    >>> found = model(flambeau.zeros(2, 3, 32, 48))
    >>> tuple(found.logits.shape), tuple(found.pred_boxes.shape)
    ((2, 5, 4), (2, 5, 4))
    """

    def __init__(self, config: DetrConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DetrConfig()
        self.model = DetrModel(config)
        self.class_labels_classifier = nn.Linear(config.d_model, config.num_classes + 1)
        self.bbox_predictor = MLPHead(config.d_model, config.d_model, 4)

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, output_attentions: bool = False
    ) -> Detections:
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"pictures must be (N, 3, H, W), not {tuple(pixel_values.shape)}")
        shape = (pixel_values.shape[0], *pixel_values.shape[2:])
        if pixel_mask is None:
            pixel_mask = flambeau.ones(shape, dtype=flambeau.bool, device=pixel_values.device)
        elif tuple(pixel_mask.shape) != shape:
            raise ValueError(f"pixel_mask must be {shape} for these pictures, not {tuple(pixel_mask.shape)}")
        states, attentions = self.model(pixel_values, pixel_mask, output_attentions)
        kept = states if self.config.auxiliary_loss else states[-1:]
        found = [(self.class_labels_classifier(state), self.bbox_predictor(state).sigmoid()) for state in kept]
        return Detections(*found[-1], auxiliary=tuple(found[:-1]), attentions=attentions)


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `DetrConfig` for a ``config.json``.

    Raises:
        FlambeauError: a backbone that is no plain ResNet, or learnt position embeddings.

    >>> options({"backbone": "resnet101", "d_model": 256})["backbone_depths"]
    (3, 4, 23, 3)
    """
    if config.get("position_embedding_type", "sine") != "sine":
        raise FlambeauError("this DETR learns its position embeddings", "models with sine positions can be loaded")
    found = hub_options(config, DetrConfig)
    given = config.get("backbone_config") or {}
    name = given.get("backbone") or config.get("backbone") or "resnet50"
    if given.get("model_type") == "resnet":
        if given.get("downsample_in_first_stage") or given.get("downsample_in_bottleneck"):
            raise FlambeauError("this DETR's ResNet halves the picture elsewhere", "plain ResNets can be loaded")
        return found | {
            "backbone_layer_type": given.get("layer_type", "bottleneck"),
            "backbone_depths": tuple(given.get("depths", (3, 4, 6, 3))),
            "backbone_widths": tuple(given.get("hidden_sizes", (256, 512, 1024, 2048))),
            "backbone_stem": given.get("embedding_size", 64),
        }
    kind = re.sub(r"\..*", "", str(name))  # timm adds the recipe behind a point
    if kind not in _DEPTHS:
        raise FlambeauError(f"this DETR's backbone is {name!r}", f"those that can be loaded: {', '.join(_DEPTHS)}")
    basic = kind in ("resnet18", "resnet34")
    widths = (64, 128, 256, 512) if basic else (256, 512, 1024, 2048)
    layers = {"backbone_layer_type": "basic" if basic else "bottleneck", "backbone_depths": _DEPTHS[kind]}
    return found | layers | {"backbone_widths": widths}


def rename(state: dict[str, Any], config: dict[str, Any]) -> Mapping[str, Any]:
    """The tensors with torchvision's names in the backbone, which folders have from timm or as Transformers' ResNet."""
    prefix = "model.backbone.conv_encoder.model."
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    renamed = {key: value for key, value in state.items() if not key.startswith(prefix)}
    for key, value in torchvision_names(inner, config).items():
        if not key.endswith("num_batches_tracked"):
            renamed[prefix + key] = value
    return renamed
