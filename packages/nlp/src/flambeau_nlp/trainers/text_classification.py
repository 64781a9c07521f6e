"""Supervised training of text classifiers on tables of texts and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import flambeau
from flambeau.errors import FlambeauError, UsageError
from flambeau.options import from_options
from flambeau.plugins import create_model
from flambeau.train import Accuracy, supervised

from ..data import Labelled, ListDataset, open_labelled, pad_batch
from ..models.text_cnn import words_of
from ..tasks.text_classification import load_classifier, score
from .common import PLUGIN


@dataclass
class TextClassificationOptions(supervised.Options):
    """Options of `train`, beside those of every supervised trainer.

    Attributes:
        train_split, val_split: what is trained on, and what is evaluated after each epoch.
        holdout: share of a single file that is not trained on.
        label: column of the class: first, last, or auto for the one with fewer different values.
        min_count: how often a word must occur to be known.
        max_vocabulary: known words at most.
        model: options of the model as JSON, such as ``{"filters": 50}``.
    """

    epochs: int = 5
    batch_size: int = 50
    lr: float = 1e-3
    weight_decay: float = 1e-2
    clip: float | None = 3.0
    train_split: str = "train"
    val_split: str = "val"
    holdout: float = 0.1
    label: Literal["auto", "first", "last"] = "auto"
    min_count: int = 2
    max_vocabulary: int = 20_000
    model: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.holdout < 1:
            raise ValueError(f"option holdout={self.holdout} must lie between 0 and 1")
        if self.min_count < 1 or self.max_vocabulary < 1:
            raise ValueError("options min_count and max_vocabulary must be at least 1")


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Train a text classifier; the run's folder gets weights, history, learning curve and checkpoints.

    Returns:
        The scores of the weights that were kept on the validation split.
    """
    settings = from_options(TextClassificationOptions, options)
    rows = open_labelled(data, settings.train_split, settings.holdout, settings.label)
    validation = open_labelled(data, settings.val_split, settings.holdout, settings.label)
    config = model_config(rows, settings)
    model = create_model(model_id, **config)  # finds wrong options before anything is written
    numbers = {name: number for number, name in enumerate(config["classes"])}
    if unknown := sorted(set(validation.labels) - set(numbers)):
        raise FlambeauError(
            f"split {settings.val_split!r} has the class {unknown[0]!r}, which is not in {settings.train_split!r}",
            "check which column has the label: --set label=first or last",
        )

    def samples(rows: Labelled) -> ListDataset:
        pairs = zip(rows.texts, rows.labels, strict=True)
        return ListDataset([(model.encode(text), numbers[label]) for text, label in pairs])

    supervised.run(
        lambda: create_model(model_id, **config),
        samples(rows),
        samples(validation),
        loss=supervised.cross_entropy(label_smoothing=settings.label_smoothing),
        metrics={"accuracy": Accuracy()},
        options=settings,
        output=output,
        model_id=model_id,
        config=config,
        plugin=PLUGIN,
        resume=resume,
        collate_fn=collate,
    )
    return score(load_classifier(output, settings.device), validation)


def collate(samples: list[tuple[list[int], int]]) -> tuple[Any, Any]:
    """Padded word ids (N, T) and class numbers (N,)."""
    return pad_batch([ids for ids, _ in samples]), flambeau.tensor([number for _, number in samples])


def model_config(rows: Labelled, settings: TextClassificationOptions) -> dict[str, Any]:
    """The model's options: the classes and words of the data, and what the user set."""
    chosen = settings.model or {}
    if reserved := {"num_classes", "classes", "vocab_size", "vocabulary"} & set(chosen):
        raise UsageError(f"the data decide {sorted(reserved)[0]}", "leave it out of the option model")
    classes = sorted(set(rows.labels))
    if not 2 <= len(classes) <= max(2, len(rows) // 2):
        raise FlambeauError(
            f"the {len(rows)} training texts have {len(classes)} different labels",
            "check which column has the label: --set label=first or last",
        )
    counts = Counter(word for text in rows.texts for word in words_of(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    words = [word for word in ranked if counts[word] >= settings.min_count][: settings.max_vocabulary]
    return {
        "num_classes": len(classes),
        "classes": classes,
        "vocab_size": len(words) + 2,
        "vocabulary": words,
        **chosen,
    }
