"""Data-efficient image transformers (Touvron et al. 2021): a ViT with a distillation token, and Transformers' keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flambeau import Tensor, nn

from .blocks import IMAGENET_MEAN, IMAGENET_STD
from .parts import hub_options, init_weights
from .vit import ViTConfig, ViTModel


@dataclass(frozen=True)
class DeiTConfig(ViTConfig):
    """Sizes of a `DeiT`; the defaults are DeiT-B. See `ViTConfig` for the attributes."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


class DeiT(nn.Module):
    """Class scores (N, num_classes) from the class token; called as a `ViT` is.

    >>> import flambeau
    >>> small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    >>> model = DeiT(DeiTConfig(num_classes=10, image_size=32, patch_size=8, **small)).eval()
    >>> tuple(model(flambeau.zeros(2, 3, 32, 32)).shape)
    (2, 10)
    """

    def __init__(self, config: DeiTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DeiTConfig()
        self.deit = ViTModel(config, distilled=True)
        self.classifier = _classifier(config)

    def forward(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, output_attentions: bool = False
    ) -> Any:
        tokens, attentions = self.deit(pixel_values, interpolate_pos_encoding, output_attentions)
        scores = self.classifier(tokens[:, 0])
        return (scores, attentions) if output_attentions else scores


class DistilledDeiT(nn.Module):
    """Class scores from two heads: the class token's learns the labels, the distillation token's a teacher's answers.

    In training the call gives both heads' scores as a tuple (`distillation_loss` takes them), in evaluation their mean,
    as in section 4 of the paper.

    >>> import flambeau
    >>> small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    >>> model = DistilledDeiT(DeiTConfig(num_classes=10, image_size=32, patch_size=8, **small))
    >>> [tuple(scores.shape) for scores in model(flambeau.zeros(2, 3, 32, 32))]
    [(2, 10), (2, 10)]
    >>> tuple(model.eval()(flambeau.zeros(2, 3, 32, 32)).shape)
    (2, 10)
    """

    def __init__(self, config: DeiTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DeiTConfig()
        self.deit = ViTModel(config, distilled=True)
        self.cls_classifier = _classifier(config)
        self.distillation_classifier = _classifier(config)

    def forward(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, output_attentions: bool = False
    ) -> Any:
        tokens, attentions = self.deit(pixel_values, interpolate_pos_encoding, output_attentions)
        scores = self.cls_classifier(tokens[:, 0]), self.distillation_classifier(tokens[:, 1])
        out = scores if self.training else (scores[0] + scores[1]) / 2
        return (out, attentions) if output_attentions else out


def distillation_loss(scores: tuple[Tensor, Tensor], labels: Tensor, teacher_scores: Tensor) -> Tensor:
    """Hard-label distillation: equation 3 of the paper.

    Args:
        scores: of the class token's and the distillation token's head, (N, K) each.
        labels: true classes (N,).
        teacher_scores: of the teacher (N, K); its likeliest class is what the second head learns.

    >>> import flambeau
    >>> scores = flambeau.tensor([[2.0, 0.0]])
    >>> round(distillation_loss((scores, scores), flambeau.tensor([0]), scores).item(), 4)
    0.1269
    """
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(scores[0], labels) + cross_entropy(scores[1], teacher_scores.argmax(1))) / 2


def options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of `DeiTConfig` for a ``config.json``."""
    return hub_options(config, DeiTConfig)


def _classifier(config: DeiTConfig) -> nn.Module:
    if not config.num_classes:
        return nn.Identity()
    head = nn.Linear(config.hidden_size, config.num_classes)
    init_weights(head)
    return head
