"""Image classification: the accuracy on a data set, the likeliest classes of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import flambeau
from flambeau.errors import FlambeauError
from flambeau.options import from_options
from flambeau.plugins import load_model
from flambeau.train.metrics import Accuracy

from ..datasets import open_classification
from ..images import read_picture
from ..transforms import Arrays, as_rgb, crop, normalize, resize


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `evaluate`: pictures a step and the device."""

    batch_size: int = 64
    device: str = "cpu"


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`: how many classes are named, and the device."""

    top: int = 5
    device: str = "cpu"


def load_classifier(model: str, device: str = "cpu") -> flambeau.nn.Module:
    """A trained classifier: a checkpoint, a run's folder, or the name of a model with weights.

    Raises:
        FlambeauError: not there, damaged, or a network that does not classify pictures.
    """
    module = load_model(model)
    config = getattr(module, "config", None)
    if not all(hasattr(config, name) for name in ("num_classes", "classes", "mean", "std", "size")):
        raise FlambeauError(
            f"{model}: a {type(module).__name__} does not classify pictures",
            "`flambeau models list` shows the task of each model",
        )
    return module.to(device).eval()


def prepare(image: np.ndarray, config: Any) -> np.ndarray:
    """A picture of any size as the network's input (3, size, size): shorter side scaled, middle cut out."""
    image, side = as_rgb(image), config.size
    if image.shape[:2] != (side, side):
        scale = side / min(image.shape[:2])
        height, width = (max(side, round(extent * scale)) for extent in image.shape[:2])
        image = resize(image, (height, width))
        image = crop(image, (height - side) // 2, (width - side) // 2, (side, side))
    return normalize(image, config.mean, config.std)


def probabilities(module: flambeau.nn.Module, batch: np.ndarray) -> np.ndarray:
    """Class probabilities (N, K) of inputs (N, 3, H, W)."""
    device = next(module.parameters()).device
    with flambeau.inference_mode():
        return flambeau.softmax(module(flambeau.from_numpy(batch).to(device)), 1).to("cpu").numpy()


def score(module: flambeau.nn.Module, images: Arrays, targets: Arrays, batch_size: int = 64) -> dict[str, float]:
    """Top-1 and top-5 accuracy (where there are more than five classes)."""
    metrics = {"accuracy": Accuracy()}
    if module.config.num_classes > 5:
        metrics["top5_accuracy"] = Accuracy(top_k=5)
    for start in range(0, len(images), batch_size):
        batch = np.stack([prepare(image, module.config) for image in images[start : start + batch_size]])
        scores = probabilities(module, batch)
        for metric in metrics.values():
            metric.update(scores, targets[start : start + batch_size])
    return {name: metric.compute() for name, metric in metrics.items()}


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Accuracy on a split of a folder of classes, or of MNIST."""
    settings = from_options(EvaluateOptions, options, "the classification task")
    dataset = open_classification(data, split)
    module = load_classifier(model, settings.device)
    if module.config.num_classes != len(dataset.classes):
        raise FlambeauError(
            f"{model} knows {module.config.num_classes} classes, the data set has {len(dataset.classes)}",
            "give its own data set",
        )
    return {**score(module, dataset.images, dataset.targets, settings.batch_size), "images": len(dataset)}


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """The likeliest classes of each picture; one that fails is reported in its own record and the others go on."""
    settings = from_options(PredictOptions, options, "the classification task")
    if output is not None:
        raise FlambeauError("classification writes no files", "leave -o out; --json prints the result as JSON")
    module = load_classifier(model, settings.device)
    config = module.config
    names = tuple(config.classes) or tuple(f"class {index}" for index in range(config.num_classes))
    for source in inputs:
        try:
            batch = prepare(read_picture(source), config)[None]
        except FlambeauError as error:
            yield {"input": source, "error": error.cause.removeprefix(f"{source}: "), "mend": error.mend}
            continue
        scores = probabilities(module, batch)[0]
        order = np.argsort(-scores, kind="stable")[: settings.top]
        yield {"input": source, "output": {names[index]: round(float(scores[index]), 4) for index in order}}
