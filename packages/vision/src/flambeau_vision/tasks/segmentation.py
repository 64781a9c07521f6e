"""Semantic segmentation: from a photo of any size to a class for each of its pixels, scored or drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import flambeau
from flambeau.errors import FlambeauError
from flambeau.options import from_options
from flambeau.plugins import load_model
from flambeau.train.metrics import MeanIoU

from ..datasets import CamVid
from ..draw import class_palette, class_shares, overlay, with_legend
from ..images import make_folder, read_picture, save_image, save_png
from ..transforms import Arrays, normalize, resize

#: The longer side of the network's input is at most this many times the shorter one.
MAX_ASPECT = 4


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `evaluate`: pictures a step, the sum of a picture and its mirror image, and the device."""

    batch_size: int = 8
    flip: bool = True
    device: str = "cpu"


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`: strength of the colours, legend, mirror image, a mask file beside the overlay, device."""

    alpha: float = 0.5
    legend: bool = True
    flip: bool = True
    mask: bool = False
    device: str = "cpu"


def load_segmenter(model: str, device: str = "cpu") -> flambeau.nn.Module:
    """A trained segmentation network: a checkpoint, a run's folder, or the name of a model with weights.

    Raises:
        FlambeauError: not there, damaged, or a network that does not segment.
    """
    module = load_model(model)
    config = getattr(module, "config", None)
    if not all(hasattr(config, name) for name in ("num_classes", "classes", "mean", "std", "short_side")):
        raise FlambeauError(
            f"{model}: a {type(module).__name__} does not segment",
            "`flambeau models list` shows the task of each model",
        )
    for name, value in module.state_dict().items():
        array = value.numpy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FlambeauError(f"{model}: the weights are damaged ({name} is not finite)", "use another copy")
    return module.to(device).eval()


def class_names(module: flambeau.nn.Module) -> tuple[str, ...]:
    """The names of a network's classes; numbers where it has none."""
    config = module.config
    return tuple(config.classes) or tuple(f"class {index}" for index in range(config.num_classes))


def working_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The size at which a photo is shown to the network: its sides' ratio, the short side as in training.

    >>> working_size(720, 1280, 180), working_size(4, 4000, 180)
    ((180, 320), (180, 720))
    """
    scale = short_side / min(height, width)
    longest = MAX_ASPECT * short_side
    return min(round(height * scale), longest), min(round(width * scale), longest)


def segment(module: flambeau.nn.Module, image: np.ndarray, *, flip: bool = True) -> np.ndarray:
    """The class of each pixel, uint8 (H, W), of a photo, uint8 (H, W, 3), of any size.

    The network sees the photo at about its training scale; the class probabilities are scaled back to the photo with
    bilinear interpolation, so that borders do not follow the coarse grid.

    Args:
        module: from `load_segmenter`.
        image: the photo.
        flip: average with the mirror image: a little better, twice the work.
    """
    config = module.config
    size = working_size(image.shape[0], image.shape[1], config.short_side)
    small = normalize(resize(image, size), config.mean, config.std)
    batch = np.stack([small, small[..., ::-1]]) if flip else small[None]
    probabilities = _probabilities(module, batch)
    return _classes_at(probabilities.mean(0) if flip else probabilities[0], image.shape[:2])


def _probabilities(module: flambeau.nn.Module, batch: np.ndarray) -> np.ndarray:
    """Class probabilities (N, K, H, W); of a mirrored second picture they are mirrored back."""
    parameter = next(module.parameters())
    with flambeau.inference_mode():
        scores = module(flambeau.from_numpy(batch).to(parameter.device))
        probabilities = flambeau.softmax(scores, 1).to("cpu").numpy()
    if len(batch) == 2:
        probabilities = np.stack([probabilities[0], probabilities[1, ..., ::-1]])
    return probabilities


def _classes_at(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The likeliest class of each pixel after scaling (K, h, w) to a size; class by class, to keep memory small."""
    if probabilities.shape[1:] == tuple(size):
        return probabilities.argmax(0).astype(np.uint8)
    best = np.zeros(size, dtype=np.float32)
    labels = np.zeros(size, dtype=np.uint8)
    for index, plane in enumerate(probabilities):
        if plane.max() * len(probabilities) < 1:  # the best of K probabilities is at least 1/K
            continue
        scaled = np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        np.copyto(labels, np.uint8(index), where=scaled > best)
        np.maximum(best, scaled, out=best)
    return labels


def draw_segmentation(
    image: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
    *,
    alpha: float = 0.5,
    legend: bool = True,
    title: str = "",
) -> Image.Image:
    """The photo with its classes in colour and, beside it, a legend with their shares."""
    palette = class_palette(classes)
    picture = overlay(image, mask, palette, alpha=alpha)
    if not legend:
        return Image.fromarray(picture)
    note = f"{image.shape[1]} x {image.shape[0]} pixels"
    return with_legend(picture, class_shares(mask, classes), palette, title=title, note=note)


def score(
    module: flambeau.nn.Module,
    images: Arrays,
    masks: Arrays,
    ignore_index: int,
    *,
    batch_size: int = 8,
    flip: bool = False,
) -> dict[str, Any]:
    """Mean IoU, pixel accuracy and each class's IoU of a network on pictures (N, H, W, 3), at their own size.

    All pixels of all pictures are counted together; a class that occurs nowhere has the IoU None and is left out of the
    mean. With ``flip`` the probabilities of the mirrored pictures are added.
    """
    config = module.config
    metric = MeanIoU(config.num_classes, ignore_index)
    device = next(module.parameters()).device
    if not isinstance(images, np.ndarray):  # of several sizes
        batch_size = 1
    for start in range(0, len(images), batch_size):
        batch = np.stack([normalize(image, config.mean, config.std) for image in images[start : start + batch_size]])
        with flambeau.inference_mode():
            scores = flambeau.softmax(module(flambeau.from_numpy(batch).to(device)), 1).to("cpu").numpy()
            if flip:
                mirrored = flambeau.from_numpy(np.ascontiguousarray(batch[..., ::-1])).to(device)
                scores = scores + flambeau.softmax(module(mirrored), 1).to("cpu").numpy()[..., ::-1]
        metric.update(scores.argmax(1), np.stack(list(masks[start : start + batch_size])))
    return {
        "mean_iou": metric.compute(),
        "pixel_accuracy": float(metric.matrix.trace() / metric.matrix.sum()),
        "iou": {
            name: None if np.isnan(value) else round(float(value), 4)
            for name, value in zip(class_names(module), metric.per_class(), strict=True)
        },
    }


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Mean IoU, pixel accuracy and the IoU of each class on a split of a CamVid folder."""
    settings = from_options(EvaluateOptions, options, "the segmentation task")
    dataset = CamVid(data, split)
    module = load_segmenter(model, settings.device)
    if module.config.num_classes != len(dataset.classes):
        raise FlambeauError(
            f"{model} knows {module.config.num_classes} classes, the data set has {len(dataset.classes)}",
            "give its own data set",
        )
    scores = score(
        module, dataset.images, dataset.targets, CamVid.ignore_index, batch_size=settings.batch_size, flip=settings.flip
    )
    return {**scores, "images": len(dataset)}


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """Segment photos; a photo that fails is reported in its own record and the others go on."""
    settings = from_options(PredictOptions, options, "the segmentation task")
    module = load_segmenter(model, settings.device)
    for source in inputs:
        try:
            yield _predict_one(module, source, _target(source, output, len(inputs) > 1), settings)
        except FlambeauError as error:
            yield {"input": source, "error": error.cause.removeprefix(f"{source}: "), "mend": error.mend}


def _predict_one(
    module: flambeau.nn.Module, source: str, target: Path | None, settings: PredictOptions
) -> dict[str, Any]:
    image = read_picture(source)
    classes = class_names(module)
    mask = segment(module, image, flip=settings.flip)
    shares = {entry.name: round(entry.share, 4) for entry in class_shares(mask, classes)}
    record: dict[str, Any] = {"input": source, "output": shares}
    if target is not None:
        title = "stdin" if source == "-" else Path(source).name
        picture = draw_segmentation(image, mask, classes, alpha=settings.alpha, legend=settings.legend, title=title)
        save_image(target, picture)
        record["path"] = str(target)
        if settings.mask:
            save_png(target.with_name(f"{target.stem}_mask.png"), mask, class_palette(classes))
            record["mask"] = str(target.with_name(f"{target.stem}_mask.png"))
    return record


def _target(source: str, output: str | None, several: bool) -> Path | None:
    if output is None:
        return None
    if several or Path(output).is_dir():
        return make_folder(output) / f"{'stdin' if source == '-' else Path(source).stem}_segmented.png"
    return Path(output)
