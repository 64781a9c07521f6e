"""Supervised training of segmentation networks on a CamVid folder.

The recipe: random zoom-crop-rotate-mirror windows with colour jitter; cross-entropy with class weights 1 / log(c + p),
as in ENet (Paszke et al. 2016), also on an auxiliary map, plus the soft Jaccard loss (Rahman & Wang 2016); AdamW with
warm-up and cosine decay; an exponential moving average of the weights, which is what is evaluated and kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor
from flambeau.data import ConcatDataset
from flambeau.errors import UsageError
from flambeau.options import from_options
from flambeau.plugins import create_model, load_model
from flambeau.train import Callback, MeanIoU, Run, supervised

from ..datasets import CamVid
from ..tasks.segmentation import score
from ..transforms import Compose, LightJitter, Normalize, RandomZoomCrop
from .common import statistics, store_half


@dataclass
class SegmentationOptions(supervised.Options):
    """Options of `train`, beside those of every supervised trainer.

    Attributes:
        crop: height and width of the training windows.
        late_crop: their size in the last part of the run, nearer to that of whole pictures.
        late: where the last part begins, as a share of the epochs; 1 for never. It needs ``workers=0``.
        zoom: range of the zoom of the windows.
        degrees: largest rotation of the windows.
        jitter: strength of the colour jitter; 0 for none, 1 for that of `LightJitter`.
        focus: probability that a window is drawn round a pixel of a rare class.
        class_weight: c of the class weights 1 / log(c + p); 0 weighs all classes alike.
        jaccard: weight of the soft Jaccard loss.
        auxiliary: weight of the auxiliary scores' loss.
        splits: what is trained on; with ``val`` among them nothing is held out, and the last weights are kept.
        half: store the weights as float16.
        model: options of the model as JSON, such as ``{"dropout": 0.1}``.
    """

    epochs: int = 60
    batch_size: int = 4
    lr: float = 2e-3
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = 2.0
    ema: float | None = 0.99
    drop_last: bool = True
    crop: tuple[int, int] = (128, 160)
    late_crop: tuple[int, int] = (160, 208)
    late: float = 0.85
    zoom: tuple[float, float] = (0.6, 1.8)
    degrees: float = 5.0
    jitter: float = 1.0
    focus: float = 0.0
    class_weight: float = 1.02
    jaccard: float = 1.0
    auxiliary: float = 0.4
    splits: tuple[str, ...] = ("train",)
    half: bool = True
    model: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_weight and self.class_weight <= 1:
            raise ValueError(f"option class_weight={self.class_weight} must be 0, or above 1 (1.02 strong, 1.1 mild)")
        if self.workers and self.late < 1:
            raise ValueError("option workers needs late=1: workers keep the transforms that they started with")
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"option zoom={self.zoom} must be two positive numbers, the smaller one first")


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Train a segmentation network; the run's folder gets weights, history, learning curve and checkpoints.

    Returns:
        The scores of the weights that were kept on the validation split (or, when ``splits`` has ``val``, on it all
        the same, though it was trained on).
    """
    settings = from_options(SegmentationOptions, options)
    parts = [CamVid(data, split) for split in settings.splits]
    if not parts:
        raise UsageError("option splits is empty", "give --set splits=train")
    held_out = "val" not in settings.splits
    validation = CamVid(data, "val") if held_out else parts[settings.splits.index("val")]
    raw = validation.images
    config = model_config(parts[0], settings)
    mean, std = config["mean"], config["std"]
    windows = Windows(parts, settings, mean, std)
    if held_out:
        validation.transform = Normalize(mean, std)
    supervised.run(
        lambda: create_model(model_id, **config),
        parts[0] if len(parts) == 1 else ConcatDataset(parts),
        validation if held_out else None,
        loss=SegmentationLoss(class_weights(parts, settings.class_weight), settings),
        metrics={"mean_iou": MeanIoU(config["num_classes"], CamVid.ignore_index)} if held_out else None,
        options=settings,
        output=output,
        model_id=model_id,
        config=config,
        plugin="flambeau-vision",
        resume=resume,
        callbacks=[windows],
    )
    weights = Path(output) / "model.safetensors"
    if settings.half:
        store_half(weights)
    module = load_model(weights).to(settings.device)
    return score(module, raw, validation.targets, CamVid.ignore_index)


def model_config(dataset: CamVid, settings: SegmentationOptions) -> dict[str, Any]:
    """The model's options: the data's classes, statistics and scale, and what the user set."""
    mean, std = statistics(dataset.images)
    return {
        "num_classes": len(dataset.classes),
        "classes": list(dataset.classes),
        "mean": round(float(mean.mean()), 3),
        "std": round(float(std.mean()), 3),
        "short_side": min(dataset.images[0].shape[:2]),
        **(settings.model or {}),
    }


class Windows(Callback):
    """Gives the datasets their training transforms: the windows grow in the last part of the run.

    A network that has only seen small windows meets another share of context in whole pictures; a few epochs on larger
    ones mend that (Touvron et al. 2019) at a fraction of the cost of training on them throughout.
    """

    def __init__(self, parts: list[CamVid], settings: SegmentationOptions, mean: float, std: float) -> None:
        self.parts, self.settings, self.mean, self.std = parts, settings, mean, std
        self._set(settings.crop)

    def on_start(self, run: Run) -> None:
        self.on_epoch(run, {})

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        late = run.counters.epoch >= self.settings.late * run.epochs
        self._set(self.settings.late_crop if late else self.settings.crop)

    def _set(self, crop: tuple[int, int]) -> None:
        for part in self.parts:
            part.transform = augmentation(self.settings, part, self.mean, self.std, crop)


def augmentation(
    settings: SegmentationOptions, dataset: CamVid, mean: float, std: float, crop: tuple[int, int]
) -> Compose:
    """The training transform. Rare classes are those with less than 2 % of the labelled pixels."""
    rare: tuple[int, ...] = ()
    if settings.focus:
        rare = tuple(int(index) for index in np.flatnonzero(dataset.class_frequencies() < 0.02))
    window = RandomZoomCrop(
        crop,
        settings.zoom,
        degrees=settings.degrees,
        fill=round(mean * 255),
        ignore_index=CamVid.ignore_index,
        focus=rare,
        focus_p=settings.focus,
    )
    colour = LightJitter(
        brightness=0.4 * settings.jitter,
        contrast=0.3 * settings.jitter,
        saturation=min(0.5 * settings.jitter, 1.0),
        gains=0.1 * settings.jitter,
    )
    return Compose([window, colour, Normalize(mean, std)])


def class_weights(parts: list[CamVid], constant: float) -> np.ndarray:
    """1 / log(constant + p) for each class, scaled so that a labelled pixel weighs 1 on average; ones for 0."""
    sizes = [len(part) for part in parts]
    share = np.average([part.class_frequencies() for part in parts], axis=0, weights=sizes)
    weights = 1 / np.log(constant + share) if constant else np.ones(len(share))
    return (weights / (weights * share).sum()).astype(np.float32)


class SegmentationLoss:
    """Weighted cross-entropy of the scores and of the auxiliary scores, and the soft Jaccard loss.

    Called as ``loss(output, masks)``; returns the loss times the number of labelled pixels, and that number.
    """

    def __init__(self, weights: np.ndarray, settings: SegmentationOptions) -> None:
        self.weights = flambeau.tensor(weights, device=settings.device)
        self.jaccard, self.auxiliary = settings.jaccard, settings.auxiliary

    def __call__(self, output: Tensor | tuple[Tensor, Tensor], masks: Tensor) -> tuple[Tensor, float]:
        scores, auxiliary = output if isinstance(output, tuple) else (output, None)
        loss = self._cross_entropy(scores, masks)
        if auxiliary is not None and self.auxiliary:
            coarse = masks[:, 2::4, 2::4]
            height, width = (min(a, b) for a, b in zip(coarse.shape[1:], auxiliary.shape[2:], strict=True))
            loss = loss + self.auxiliary * self._cross_entropy(
                auxiliary[:, :, :height, :width], coarse[:, :height, :width]
            )
        if self.jaccard:
            loss = loss + self.jaccard * jaccard_loss(scores, masks, CamVid.ignore_index)
        labelled = float((masks != CamVid.ignore_index).sum().item())
        return loss * labelled, labelled

    def _cross_entropy(self, scores: Tensor, masks: Tensor) -> Tensor:
        return F.cross_entropy(scores, masks, weight=self.weights, ignore_index=CamVid.ignore_index)


def jaccard_loss(scores: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """One minus the mean soft intersection over union of the classes that occur in the batch.

    Args:
        scores: (N, K, H, W), before the softmax.
        masks: (N, H, W), class indices; ``ignore_index`` is K.
    """
    probabilities = flambeau.softmax(scores, 1)
    classes = scores.shape[1]
    truth = F.one_hot(masks, classes + 1)[..., :classes].permute(0, 3, 1, 2).to(scores.dtype)
    known = (masks != ignore_index).to(scores.dtype).unsqueeze(1)
    probabilities = probabilities * known
    hits = (probabilities * truth).sum((0, 2, 3))
    size = truth.sum((0, 2, 3))
    union = probabilities.sum((0, 2, 3)) + size - hits
    present = (size > 0).to(scores.dtype)
    return 1 - (hits / (union + 1e-6) * present).sum() / present.sum().clamp(min=1)
