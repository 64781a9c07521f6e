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
        aliases=("segmentation",),
    )
    yield TaskSpec(
        id=CLASSIFICATION,
        summary="A class for each picture: accuracy on a data set, the likeliest classes of a picture.",
        trainer="vision/classification",
        evaluate="flambeau_vision.tasks.classification:evaluate",
        predict="flambeau_vision.tasks.classification:predict",
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
