"""Text classification: scores on labelled texts, and the class of each line of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flambeau.errors import FlambeauError
from flambeau.options import from_options
from flambeau.train import F1, Accuracy

from ..data import Labelled, open_labelled
from ..models.text_cnn import TextCNN
from ..text import texts_of
from .common import failure, load, write_result


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `evaluate`: texts a step, held-out share of a single file, column of the label, and the device."""

    batch_size: int = 64
    holdout: float = 0.1
    label: str = "auto"
    device: str = "cpu"


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`: whether the inputs are the texts themselves, texts a step, and the device."""

    text: bool = False
    batch_size: int = 64
    device: str = "cpu"


def load_classifier(model: str, device: str = "cpu") -> TextCNN:
    """A trained text classifier."""
    module: TextCNN = load(model, device, ("classes", "vocabulary"), "classify texts")
    if not module.config.vocabulary or not module.config.classes:
        raise FlambeauError(f"{model}: the model has no vocabulary", "use a checkpoint that a trainer wrote")
    return module


def probabilities(module: TextCNN, texts: Sequence[str], batch_size: int) -> np.ndarray:
    """Class probabilities (N, num_classes) of texts."""
    steps = range(0, len(texts), batch_size)
    return np.concatenate([module.probabilities(texts[start : start + batch_size]) for start in steps])


def score(module: TextCNN, rows: Labelled, batch_size: int = 64) -> dict[str, float]:
    """Accuracy and macro F1 on labelled texts.

    Raises:
        FlambeauError: a label that is no class of the model.
    """
    numbers = {name: number for number, name in enumerate(module.config.classes)}
    if unknown := sorted(set(rows.labels) - set(numbers)):
        raise FlambeauError(
            f"the data have the class {unknown[0]!r}, the model knows {', '.join(numbers)}",
            "give its own data; --set label=first or last says where the label is",
        )
    targets = np.array([numbers[label] for label in rows.labels])
    scores = probabilities(module, rows.texts, batch_size)
    accuracy, f1 = Accuracy(), F1(len(numbers))
    accuracy.update(scores, targets)
    f1.update(scores.argmax(1), targets)
    return {"accuracy": accuracy.compute(), "macro_f1": f1.compute(), "texts": len(rows)}


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Accuracy and macro F1 on a split; of a single file, ``test`` is the part that training holds out."""
    settings = from_options(EvaluateOptions, options, "the text-classification task")
    rows = open_labelled(data, split, settings.holdout, settings.label)
    return score(load_classifier(model, settings.device), rows, settings.batch_size)


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """The likeliest class and its probability for each line of each input; with ``text=true`` of the input itself."""
    settings = from_options(PredictOptions, options, "the text-classification task")
    module = load_classifier(model, settings.device)
    classes = module.config.classes
    for source in inputs:
        try:
            texts = [source] if settings.text else texts_of(source, False)
            found = [
                {"label": classes[int(row.argmax())], "probability": round(float(row.max()), 4)}
                for row in probabilities(module, texts, settings.batch_size)
            ]
            table = "\n".join(f"{one['label']}\t{one['probability']}" for one in found)
            path = write_result(table, source, output, len(inputs) > 1, "_classes.tsv")
        except FlambeauError as error:
            yield failure(source, error)
            continue
        yield {"input": source, "output": found[0] if len(found) == 1 else found, **path}
