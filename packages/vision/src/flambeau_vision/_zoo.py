"""The classification networks that flambeau-vision registers, family by family. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from flambeau.plugins import ModelSpec

CLASSIFICATION = "vision/image-classification"
_MODELS = "flambeau_vision.models"

# name: (config class, summary, parameters)
_RESNET = {
    "resnet18": ("ResNetConfig", "ResNet-18 with torchvision's state-dict keys.", 11_689_512),
    "resnet34": ("ResNet34Config", "ResNet-34 with torchvision's state-dict keys.", 21_797_672),
    "resnet50": ("ResNet50Config", "ResNet-50 with torchvision's state-dict keys.", 25_557_032),
    "resnet101": ("ResNet101Config", "ResNet-101 with torchvision's state-dict keys.", 44_549_160),
    "resnet152": ("ResNet152Config", "ResNet-152 with torchvision's state-dict keys.", 60_192_808),
    "resnext50_32x4d": ("ResNeXt50Config", "ResNeXt-50 of 32 groups of 4.", 25_028_904),
    "resnext101_32x8d": ("ResNeXt101Config", "ResNeXt-101 of 32 groups of 8.", 88_791_336),
    "wide_resnet50_2": ("WideResNet50Config", "ResNet-50 with bottlenecks of twice the width.", 68_883_240),
}

# timm writes the model's name as ``architecture``; its ResNets have the same keys.
_TIMM = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d")


def classifiers() -> Iterator[ModelSpec]:
    """The specs of all of them."""
    for name, row in _RESNET.items():
        architectures = (name,) if name in _TIMM or name == "wide_resnet50_2" else ()
        if name == "resnet18":  # reads the folders of all sizes
            yield _spec(
                name, "resnet", "ResNet", row, (*architectures, "ResNetForImageClassification"), "resnet", mapped=True
            )
        else:
            yield _spec(name, "resnet", "ResNet", row, architectures, mapped=True)


def _spec(
    name: str,
    module: str,
    factory: str,
    row: tuple[str, str, int],
    architectures: tuple[str, ...] = (),
    model_type: str | None = None,
    mapped: bool = False,
) -> ModelSpec:
    config, summary, parameters = row
    mapping = f"{_MODELS}.{module}_pretrained"
    return ModelSpec(
        id=f"vision/{name}",
        factory=f"{_MODELS}.{module}:{factory}",
        config=f"{_MODELS}.{module}:{config}",
        summary=summary,
        task=CLASSIFICATION,
        parameters=parameters,
        architectures=architectures,
        model_type=model_type,
        from_config=f"{mapping}:options" if mapped else None,
        map_state=f"{mapping}:rename" if mapped else None,
        tags=("classification", "backbone"),
    )
