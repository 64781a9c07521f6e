"""Classification models as backbones of detectors and segmenters: the outputs of their stages."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

from flambeau import Tensor
from flambeau.errors import UsageError


@runtime_checkable
class Backbone(Protocol):
    """What a detector or segmenter needs of a classification model; every convolutional one of this package has it.

    Attributes:
        feature_channels: channels of each stage's output, finest stage first.
        feature_strides: pixels of the picture between two neighbours in it, such as ``(4, 8, 16, 32)``.
        features: a callable from pictures (N, 3, H, W) to the list of the stages' outputs, without the classifier's
            layers. It is a method, or the module with the convolutions where torchvision calls that ``features``.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]
    features: Callable[[Tensor], list[Tensor]]


def create_backbone(name: str, *, weights: str | os.PathLike[str] | None = None, **options: Any) -> Backbone:
    """A registered classification model, to be used through `Backbone.features`.

    Its state dict is the classification model's, so that its checkpoints load unchanged; the classifier's parameters
    get no gradient from the stages' outputs.

    Args:
        name: id or short name of the model, such as ``"vision/resnet50"``.
        weights: a file with its state dict (torchvision's ``.pth`` or safetensors); untrained when left out.
        options: of the model.

    Raises:
        NotRegisteredError: no such model.
        UsageError: an option that it does not have, or a model without stages.
        RuntimeError: weights of another model; the keys that differ are listed.

    >>> import flambeau
    >>> backbone = create_backbone("vision/resnet20", widths=(4, 8, 16))
    >>> backbone.feature_channels, backbone.feature_strides
    ((4, 8, 16), (1, 2, 4))
    >>> [tuple(stage.shape[2:]) for stage in backbone.features(flambeau.zeros(1, 3, 32, 48))]
    [(32, 48), (16, 24), (8, 12)]
    """
    from flambeau import load
    from flambeau.plugins import create_model

    model = create_model(name, **options)
    if not isinstance(model, Backbone):
        raise UsageError(
            f"model {name!r} has no stages to build on", "use a convolutional classifier such as vision/resnet50"
        )
    if weights is not None:
        cast(Any, model).load_state_dict(load(weights))
    return model
