"""Supervised training of classifiers on folders of classes, CIFAR-10 or MNIST.

The recipe of the CIFAR part of He et al. (2016), with AdamW, a cosine schedule, label smoothing and averaged weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambeau.options import from_options
from flambeau.plugins import create_model, load_model
from flambeau.train import Accuracy, supervised

from ..datasets import PictureDataset, open_classification
from ..tasks.classification import score
from ..transforms import AsRGB, Compose, LightJitter, Normalize, RandomCrop, RandomHorizontalFlip, Resize
from .common import statistics, store_half


@dataclass
class ClassificationOptions(supervised.Options):
    """Options of `train`, beside those of every supervised trainer.

    Attributes:
        padding: pictures are shifted by up to this many pixels.
        flip: probability of mirroring; 0 for letters and digits.
        jitter: whether colours vary.
        train_split: split that is trained on.
        val_split: split that is evaluated after each epoch.
        half: store the weights as float16.
        strict: stop at a broken picture instead of leaving it out.
        model: options of the model as JSON, such as ``{"layers": [2, 2, 2]}``.
    """

    epochs: int = 30
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.05
    clip: float | None = 5.0
    ema: float | None = 0.995
    label_smoothing: float = 0.1
    drop_last: bool = True
    padding: int = 4
    flip: float = 0.5
    jitter: bool = False
    train_split: str = "train"
    val_split: str = "test"
    half: bool = False
    strict: bool = False
    model: dict[str, Any] | None = None


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Train a classifier; the run's folder gets weights, history, learning curve and checkpoints.

    Returns:
        The scores of the weights that were kept on the validation split.
    """
    settings = from_options(ClassificationOptions, options)
    dataset = open_classification(data, settings.train_split, strict=settings.strict)
    validation = open_classification(data, settings.val_split, strict=settings.strict)
    config = model_config(dataset, settings)
    dataset.transform = augmentation(settings, config)
    size = (config["size"], config["size"])
    validation.transform = Compose([AsRGB(), Resize(size), Normalize(config["mean"], config["std"])])
    supervised.run(
        lambda: create_model(model_id, **config),
        dataset,
        validation,
        loss=supervised.cross_entropy(label_smoothing=settings.label_smoothing),
        metrics={"accuracy": Accuracy()},
        options=settings,
        output=output,
        model_id=model_id,
        config=config,
        plugin="flambeau-vision",
        resume=resume,
    )
    weights = Path(output) / "model.safetensors"
    if settings.half:
        store_half(weights)
    return score(load_model(weights).to(settings.device), validation.images, validation.targets)


def model_config(dataset: PictureDataset, settings: ClassificationOptions) -> dict[str, Any]:
    """The model's options: the data's classes, statistics and size, and what the user set."""
    mean, std = statistics(dataset.images)
    return {
        "num_classes": len(dataset.classes),
        "classes": list(dataset.classes),
        "mean": [round(float(value), 3) for value in mean],
        "std": [round(float(value), 3) for value in std],
        "size": min(dataset.images[0].shape[:2]),
        **(settings.model or {}),
    }


def augmentation(settings: ClassificationOptions, config: Mapping[str, Any]) -> Compose:
    """The training transform: resize, shift, mirror, colours, normalise."""
    size = (config["size"], config["size"])
    steps: list[Any] = [
        AsRGB(),
        Resize(size),
        RandomCrop(size, settings.padding),
        RandomHorizontalFlip(settings.flip),
    ]
    if settings.jitter:
        steps.append(LightJitter())
    return Compose([*steps, Normalize(config["mean"], config["std"])])
