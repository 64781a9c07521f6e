"""What flambeau-vision registers with Flambeau. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from flambeau.plugins import DatasetSpec, ModelSpec, TaskSpec, TrainerSpec, hookimpl

from ._zoo import CLASSIFICATION, classifiers

SEGMENTATION = "vision/semantic-segmentation"


@hookimpl
def flambeau_register_models() -> Iterator[ModelSpec]:
    yield ModelSpec(
        id="vision/dilated_fpn",
        factory="flambeau_vision.models.dilated_fpn:DilatedFPN",
        config="flambeau_vision.models.dilated_fpn:DilatedFPNConfig",
        summary="Small street-scene segmenter: dilated residual encoder, feature-pyramid decoder.",
        task=SEGMENTATION,
        parameters=1_214_926,
        weights=("package:flambeau_segment/data/model.safetensors",),
        tags=("segmentation", "street"),
    )
    yield from classifiers()
    yield ModelSpec(
        id="vision/resnet20",
        factory="flambeau_vision.models.resnet:ResNet",
        config="flambeau_vision.models.resnet:ResNet20Config",
        summary="ResNet-20 for 32x32 pictures (CIFAR-10).",
        task=CLASSIFICATION,
        parameters=272_474,
        tags=("classification", "cifar"),
    )
    yield from _transformers()


@hookimpl
def flambeau_register_trainers() -> Iterator[TrainerSpec]:
    yield TrainerSpec(
        id="vision/segmentation",
        factory="flambeau_vision.trainers.segmentation:train",
        config="flambeau_vision.trainers.segmentation:SegmentationOptions",
        summary="Supervised semantic segmentation on a CamVid folder.",
    )
    yield TrainerSpec(
        id="vision/classification",
        factory="flambeau_vision.trainers.classification:train",
        config="flambeau_vision.trainers.classification:ClassificationOptions",
        summary="Supervised image classification on a folder of classes.",
    )


@hookimpl
def flambeau_register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        id=SEGMENTATION,
        summary="A class for each pixel: mean IoU on a data set, an overlay for a photo.",
        trainer="vision/segmentation",
        evaluate="flambeau_vision.tasks.segmentation:evaluate",
        predict="flambeau_vision.tasks.segmentation:predict",
        explain="flambeau_vision.tasks.explanation:segmentation",
        aliases=("segmentation",),
    )
    yield TaskSpec(
        id=CLASSIFICATION,
        summary="A class for each picture: accuracy on a data set, the likeliest classes of a picture.",
        trainer="vision/classification",
        evaluate="flambeau_vision.tasks.classification:evaluate",
        predict="flambeau_vision.tasks.classification:predict",
        explain="flambeau_vision.tasks.explanation:classification",
        aliases=("classification",),
    )


@hookimpl
def flambeau_register_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        id="vision/camvid",
        factory="flambeau_vision.datasets:CamVid",
        summary="Road scenes with 11 classes: train.zip, val.zip, test.zip with images/ and labels/.",
        task=SEGMENTATION,
        splits=("train", "val", "test"),
        licence="non-commercial research",
    )
    yield DatasetSpec(
        id="vision/cifar10",
        factory="flambeau_vision.datasets:CIFAR10",
        summary="32x32 pictures of 10 classes: train.zip and test.zip with <class>/<nnnn>.jpg.",
        task=CLASSIFICATION,
        splits=("train", "test"),
        licence="not stated",
    )
    yield DatasetSpec(
        id="vision/mnist",
        factory="flambeau_vision.datasets:MNIST",
        summary="28x28 handwritten digits in idx files.",
        task=CLASSIFICATION,
        splits=("train", "test"),
        licence="CC BY-SA 3.0",
    )
    yield DatasetSpec(
        id="vision/image_folder",
        factory="flambeau_vision.datasets:ImageFolder",
        summary="Your own pictures: <split>.zip or <split>/ with one folder for each class.",
        task=CLASSIFICATION,
    )


def _transformers() -> Iterator[ModelSpec]:
    """The transformers, which load folders of Hugging Face Transformers under their own names."""
    models = "flambeau_vision.models."
    yield ModelSpec(
        id="vision/vit",
        factory=models + "vit:ViT",
        config=models + "vit:ViTConfig",
        summary="Vision transformer (ViT-B/16); gives its attention maps.",
        task=CLASSIFICATION,
        parameters=86_567_656,
        architectures=("ViTForImageClassification",),
        model_type="vit",
        from_config=models + "vit:options",
        tags=("classification", "transformer"),
    )
    yield ModelSpec(
        id="vision/deit",
        factory=models + "deit:DeiT",
        config=models + "deit:DeiTConfig",
        summary="DeiT-B: a ViT with a distillation token, scored by the class token.",
        task=CLASSIFICATION,
        parameters=86_569_192,
        architectures=("DeiTForImageClassification",),
        model_type="deit",
        from_config=models + "deit:options",
        tags=("classification", "transformer"),
    )
    yield ModelSpec(
        id="vision/deit_distilled",
        factory=models + "deit:DistilledDeiT",
        config=models + "deit:DeiTConfig",
        summary="DeiT-B with a second head that learns from a teacher.",
        task=CLASSIFICATION,
        parameters=87_338_192,
        architectures=("DeiTForImageClassificationWithTeacher",),
        from_config=models + "deit:options",
        tags=("classification", "transformer", "distillation"),
    )
    yield ModelSpec(
        id="vision/swin",
        factory=models + "swin:Swin",
        config=models + "swin:SwinConfig",
        summary="Swin transformer (Swin-T): attention in shifted windows, pictures of any size.",
        task=CLASSIFICATION,
        parameters=28_288_354,
        architectures=("SwinForImageClassification",),
        model_type="swin",
        from_config=models + "swin:options",
        map_state=models + "swin:rename",
        tags=("classification", "transformer"),
    )
    yield ModelSpec(
        id="vision/swin_backbone",
        factory=models + "swin:SwinBackbone",
        config=models + "swin:SwinConfig",
        summary="Swin-T that gives its stages' feature maps.",
        parameters=27_519_354,
        architectures=("SwinBackbone",),
        from_config=models + "swin:options",
        map_state=models + "swin:rename_backbone",
        tags=("backbone", "transformer"),
    )
    yield ModelSpec(
        id="vision/segformer",
        factory=models + "segformer:SegFormer",
        config=models + "segformer:SegFormerConfig",
        summary="SegFormer-B0: hierarchical transformer with an all-MLP decoder.",
        task=SEGMENTATION,
        parameters=3_752_694,
        architectures=("SegformerForSemanticSegmentation",),
        model_type="segformer",
        from_config=models + "segformer:options",
        tags=("segmentation", "transformer"),
    )
    yield ModelSpec(
        id="vision/segformer_classifier",
        factory=models + "segformer:SegFormerClassifier",
        config=models + "segformer:SegFormerClassifierConfig",
        summary="MiT-B0, SegFormer's encoder, as a classifier.",
        task=CLASSIFICATION,
        parameters=3_576_392,
        architectures=("SegformerForImageClassification",),
        from_config=models + "segformer:classifier_options",
        tags=("classification", "transformer"),
    )
    yield ModelSpec(
        id="vision/detr",
        factory=models + "detr:Detr",
        config=models + "detr:DetrConfig",
        summary="DETR-R50: objects found by queries, without anchors or suppression.",
        parameters=41_524_768,
        architectures=("DetrForObjectDetection",),
        model_type="detr",
        from_config=models + "detr:options",
        map_state=models + "detr:rename",
        tags=("detection", "transformer"),
    )
    yield ModelSpec(
        id="vision/yolos",
        factory=models + "yolos:Yolos",
        config=models + "yolos:YolosConfig",
        summary="YOLOS-B: a plain vision transformer that detects objects.",
        parameters=105_016_416,
        architectures=("YolosForObjectDetection",),
        model_type="yolos",
        from_config=models + "yolos:options",
        tags=("detection", "transformer"),
    )
