"""What the transformers for vision have in common: attention over heads, positions, options of a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor, nn

from .pretrained import class_options

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": flambeau.tanh,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function that a ``config.json`` calls so.

    >>> activation("relu")(flambeau.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not there; those that are: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of several heads.

    Args:
        query: (N, L, C); the heads lie beside each other in C.
        key: (N, S, C).
        value: (N, S, C).
        heads: their number.
        bias: added to the scores, of a shape that broadcasts to (N, heads, L, S).
        dropout: share of the weights that is dropped.
        need_weights: whether the weights are wanted; without them the fused kernel is used.

    Returns:
        The result (N, L, C) and the weights (N, heads, L, S), or None.
    """
    query, key, value = (x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2) for x in (query, key, value))
    weights = None
    if need_weights:
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        weights = flambeau.softmax(scores if bias is None else scores + bias, -1)
        out = F.dropout(weights, dropout, training=dropout > 0) @ value
    else:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    return out.transpose(1, 2).flatten(2), weights


class Dense(nn.Module):
    """A linear layer one level down, where the state dicts of Transformers have it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class MLPHead(nn.Module):
    """Linear layers with ReLU between them, as box predictors are."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int = 3) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == 0 else layer(F.relu(x))
        return x


def init_weights(module: nn.Module, std: float = 0.02) -> None:
    """Truncated normal weights of linear layers and convolutions, no bias: how these models begin their training."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def resized(positions: Tensor, size: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Position embeddings (..., H * W, C) of a grid, resampled bicubically for a grid of another size.

    >>> tuple(resized(flambeau.ones(1, 4, 3), (2, 2), (2, 3)).shape)
    (1, 6, 3)
    """
    if size == wanted:
        return positions
    *lead, _, width = positions.shape
    grid = positions.reshape(-1, *size, width).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=wanted, mode="bicubic", align_corners=False)
    return grid.flatten(2).transpose(1, 2).reshape(*lead, -1, width)


def pair(value: Any) -> tuple[int, int]:
    """A size as (height, width); one number stands for both.

    >>> pair(16), pair([32, 48])
    ((16, 16), (32, 48))
    """
    if isinstance(value, int):
        return value, value
    height, width = value
    return int(height), int(width)


def hub_options(config: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The options of a config dataclass that a ``config.json`` of Transformers gives.

    Keys of the same name are taken, lists as tuples; the classes come from ``id2label``.

    Raises:
        FlambeauError: ``id2label`` is no dict of numbered names.
    """
    known = {field.name for field in fields(kind)}
    found = {key: _plain(value) for key, value in config.items() if key in known and value is not None}
    named = class_options(config)
    found["num_classes"] = named["num_classes"]
    if "classes" in known and any(not name.startswith("LABEL_") for name in named["classes"]):
        found["classes"] = named["classes"]
    return found


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, list) else value
