"""Language modelling: how well a model foresees a text, and how it goes on with a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flambeau.data import DataLoader
from flambeau.errors import FlambeauError
from flambeau.options import from_options
from flambeau.train import supervised

from ..data import Windows, open_text
from ..decoding import continue_text
from ..metrics import TokenPerplexity
from ..models.char_gpt import CharGPT
from ..text import TEXT_OPTION, read_text
from .common import failure, load, write_result


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `evaluate`: windows a step, the share of a single file that is held out, and the device."""

    batch_size: int = 32
    holdout: float = 0.1
    device: str = "cpu"


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`: characters to write, how they are drawn, whether the inputs are the prompts themselves."""

    length: int = 200
    temperature: float = 0.8
    top_k: int = 0
    seed: int = 0
    text: bool = False
    device: str = "cpu"


def load_language_model(model: str, device: str = "cpu") -> CharGPT:
    """A trained character language model."""
    module: CharGPT = load(model, device, ("characters", "context"), "continue texts")
    if not module.config.characters:
        raise FlambeauError(f"{model}: the model has no characters", "use a checkpoint that a trainer wrote")
    return module


def character_ids(characters: str, text: str) -> np.ndarray:
    """The ids (T,) of the characters of a text; 0 for those that are not known."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    known = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    table = np.zeros(int(max(codes.max(initial=0), known.max(initial=0))) + 1, dtype=np.int64)
    table[known] = np.arange(1, len(known) + 1)
    return table[codes]


def score(module: CharGPT, text: str, batch_size: int = 32) -> dict[str, float]:
    """Perplexity, nats and bits for each character of a text that follows another, seen in windows of the context."""
    windows = Windows(character_ids(module.config.characters, text), module.config.context)
    device = module.embedding.weight.device
    metrics = {"perplexity": TokenPerplexity()}
    found = supervised.evaluate(module, DataLoader(windows, batch_size), metrics=metrics, device=device)
    nats = math.log(found["perplexity"])
    return {
        "perplexity": found["perplexity"],
        "nats_per_char": nats,
        "bits_per_char": nats / math.log(2),
        "characters": len(text),
    }


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Perplexity and nats per character on a split; of a single file, ``test`` is its tail and ``all`` the whole."""
    settings = from_options(EvaluateOptions, options, "the language-modelling task")
    text = open_text(data, split, settings.holdout)
    return score(load_language_model(model, settings.device), text, settings.batch_size)


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """Each input's text and what the model writes after it; a line end that closes a file is no part of the prompt."""
    settings = from_options(PredictOptions, options, "the language-modelling task")
    module = load_language_model(model, settings.device)
    for source in inputs:
        try:
            prompt = source if settings.text else read_text(source, TEXT_OPTION).removesuffix("\n")
            written = "".join(
                continue_text(module, prompt, settings.length, settings.temperature, settings.top_k, settings.seed)
            )
            path = write_result(prompt + written, source, output, len(inputs) > 1, "_continued.txt")
        except FlambeauError as error:
            yield failure(source, error)
            continue
        yield {"input": source, "output": prompt + written, **path}
