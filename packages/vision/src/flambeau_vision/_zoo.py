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
_VGG = {
    "vgg11": ("VGG11Config", "VGG-11 with torchvision's state-dict keys.", 132_863_336),
    "vgg11_bn": ("VGG11BNConfig", "VGG-11 with batch normalisation with torchvision's state-dict keys.", 132_868_840),
    "vgg13": ("VGG13Config", "VGG-13 with torchvision's state-dict keys.", 133_047_848),
    "vgg13_bn": ("VGG13BNConfig", "VGG-13 with batch normalisation with torchvision's state-dict keys.", 133_053_736),
    "vgg16": ("VGGConfig", "VGG-16 with torchvision's state-dict keys.", 138_357_544),
    "vgg16_bn": ("VGG16BNConfig", "VGG-16 with batch normalisation with torchvision's state-dict keys.", 138_365_992),
    "vgg19": ("VGG19Config", "VGG-19 with torchvision's state-dict keys.", 143_667_240),
    "vgg19_bn": ("VGG19BNConfig", "VGG-19 with batch normalisation with torchvision's state-dict keys.", 143_678_248),
}
_MOBILENET_V2 = {
    "mobilenet_v2": ("MobileNetV2Config", "MobileNetV2 with torchvision's state-dict keys.", 3_504_872),
}
_MOBILENET_V3 = {
    "mobilenet_v3_small": (
        "MobileNetV3SmallConfig",
        "MobileNetV3 small with torchvision's state-dict keys.",
        2_542_856,
    ),
    "mobilenet_v3_large": ("MobileNetV3Config", "MobileNetV3 large with torchvision's state-dict keys.", 5_483_032),
}
_EFFICIENTNET = {
    "efficientnet_b0": ("EfficientNetConfig", "EfficientNet-B0 with torchvision's state-dict keys.", 5_288_548),
    "efficientnet_b1": ("EfficientNetB1Config", "EfficientNet-B1 with torchvision's state-dict keys.", 7_794_184),
    "efficientnet_b2": ("EfficientNetB2Config", "EfficientNet-B2 with torchvision's state-dict keys.", 9_109_994),
    "efficientnet_b3": ("EfficientNetB3Config", "EfficientNet-B3 with torchvision's state-dict keys.", 12_233_232),
    "efficientnet_b4": ("EfficientNetB4Config", "EfficientNet-B4 with torchvision's state-dict keys.", 19_341_616),
    "efficientnet_v2_s": ("EfficientNetV2SConfig", "EfficientNetV2-S with torchvision's state-dict keys.", 21_458_488),
    "efficientnet_b5": ("EfficientNetB5Config", "EfficientNet-B5 with torchvision's state-dict keys.", 30_389_784),
    "efficientnet_b6": ("EfficientNetB6Config", "EfficientNet-B6 with torchvision's state-dict keys.", 43_040_704),
    "efficientnet_v2_m": ("EfficientNetV2MConfig", "EfficientNetV2-M with torchvision's state-dict keys.", 54_139_356),
    "efficientnet_b7": ("EfficientNetB7Config", "EfficientNet-B7 with torchvision's state-dict keys.", 66_347_960),
    "efficientnet_v2_l": ("EfficientNetV2LConfig", "EfficientNetV2-L with torchvision's state-dict keys.", 118_515_272),
}
_CONVNEXT = {
    "convnext_tiny": ("ConvNeXtConfig", "ConvNeXt tiny with torchvision's state-dict keys.", 28_589_128),
    "convnextv2_tiny": ("ConvNeXtV2Config", "ConvNeXt V2 tiny, with response normalisation.", 28_635_496),
    "convnext_small": ("ConvNeXtSmallConfig", "ConvNeXt small with torchvision's state-dict keys.", 50_223_688),
    "convnext_base": ("ConvNeXtBaseConfig", "ConvNeXt base with torchvision's state-dict keys.", 88_591_464),
    "convnext_large": ("ConvNeXtLargeConfig", "ConvNeXt large with torchvision's state-dict keys.", 197_767_336),
}
_REGNET = {
    "regnet_x_400mf": ("RegNetX400MFConfig", "RegNet-X 400MF with torchvision's state-dict keys.", 5_495_976),
    "regnet_x_800mf": ("RegNetX800MFConfig", "RegNet-X 800MF with torchvision's state-dict keys.", 7_259_656),
    "regnet_x_1_6gf": ("RegNetX1_6GFConfig", "RegNet-X 1.6GF with torchvision's state-dict keys.", 9_190_136),
    "regnet_x_3_2gf": ("RegNetX3_2GFConfig", "RegNet-X 3.2GF with torchvision's state-dict keys.", 15_296_552),
    "regnet_x_8gf": ("RegNetX8GFConfig", "RegNet-X 8GF with torchvision's state-dict keys.", 39_572_648),
    "regnet_x_16gf": ("RegNetX16GFConfig", "RegNet-X 16GF with torchvision's state-dict keys.", 54_278_536),
    "regnet_y_400mf": ("RegNetConfig", "RegNet-Y 400MF with torchvision's state-dict keys.", 4_344_144),
    "regnet_y_800mf": ("RegNetY800MFConfig", "RegNet-Y 800MF with torchvision's state-dict keys.", 6_432_512),
    "regnet_y_1_6gf": ("RegNetY1_6GFConfig", "RegNet-Y 1.6GF with torchvision's state-dict keys.", 11_202_430),
    "regnet_y_3_2gf": ("RegNetY3_2GFConfig", "RegNet-Y 3.2GF with torchvision's state-dict keys.", 19_436_338),
    "regnet_y_8gf": ("RegNetY8GFConfig", "RegNet-Y 8GF with torchvision's state-dict keys.", 39_381_472),
    "regnet_y_16gf": ("RegNetY16GFConfig", "RegNet-Y 16GF with torchvision's state-dict keys.", 83_590_140),
}

# (module, class, models)
_FAMILIES = (
    ("resnet", "ResNet", _RESNET),
    ("vgg", "VGG", _VGG),
    ("mobilenet_v2", "MobileNetV2", _MOBILENET_V2),
    ("mobilenet_v3", "MobileNetV3", _MOBILENET_V3),
    ("efficientnet", "EfficientNet", _EFFICIENTNET),
    ("convnext", "ConvNeXt", _CONVNEXT),
    ("regnet", "RegNet", _REGNET),
)

# Which model reads a folder of Transformers: one of a family does for all sizes. (architecture, model type)
_FOLDERS = {
    "resnet18": ("ResNetForImageClassification", "resnet"),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", "mobilenet_v2"),
    "convnext_tiny": ("ConvNextForImageClassification", "convnext"),
    "convnextv2_tiny": ("ConvNextV2ForImageClassification", "convnextv2"),
    "regnet_y_400mf": ("RegNetForImageClassification", "regnet"),
}


def classifiers() -> Iterator[ModelSpec]:
    """The specs of all of them."""
    for module, factory, models in _FAMILIES:
        mapping = f"{_MODELS}.{module}_pretrained"
        for name, (config, summary, parameters) in models.items():
            architecture, model_type = _FOLDERS.get(name, (None, None))
            # timm writes a model's name as its architecture; its ResNets have torchvision's keys.
            timm = (name,) if models is _RESNET else ()
            reads = bool(architecture or timm)
            yield ModelSpec(
                id=f"vision/{name}",
                factory=f"{_MODELS}.{module}:{factory}",
                config=f"{_MODELS}.{module}:{config}",
                summary=summary,
                task=CLASSIFICATION,
                parameters=parameters,
                architectures=(*timm, architecture) if architecture else timm,
                model_type=model_type,
                from_config=f"{mapping}:options" if reads else None,
                map_state=f"{mapping}:rename" if reads else None,
                tags=("classification", "backbone"),
            )
