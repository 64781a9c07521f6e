"""Training of character language models on a text: the next character at every position of random windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flambeau.errors import UsageError
from flambeau.options import from_options
from flambeau.plugins import create_model
from flambeau.train import supervised

from ..data import Windows, open_text
from ..metrics import TokenPerplexity
from ..tasks.language_modelling import character_ids, load_language_model, score
from .common import PLUGIN, token_loss


@dataclass
class LanguageModelOptions(supervised.Options):
    """Options of `train`, beside those of every supervised trainer.

    Attributes:
        holdout: share at the end of a single file that is not trained on; a folder has val.txt instead.
        windows: random windows in an epoch; none for as many as tile the text.
        model: options of the model as JSON, such as ``{"layers": 6, "context": 256}``.
    """

    epochs: int = 5
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = 1.0
    holdout: float = 0.1
    windows: int | None = None
    model: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.holdout < 1:
            raise ValueError(f"option holdout={self.holdout} must lie between 0 and 1")
        if self.windows is not None and self.windows < 1:
            raise ValueError(f"option windows={self.windows} must be at least 1")


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Train a language model; the run's folder gets weights, history, learning curve and checkpoints.

    Returns:
        Perplexity and nats per character of the weights that were kept, on the held-out text.
    """
    settings = from_options(LanguageModelOptions, options)
    text, held_out = open_text(data, "train", settings.holdout), open_text(data, "val", settings.holdout)
    config = model_config(text + held_out, settings)
    model = create_model(model_id, **config)  # finds wrong options before anything is written
    ids, context = character_ids(config["characters"], text), model.config.context
    supervised.run(
        lambda: create_model(model_id, **config),
        Windows(ids, context, randomly=True, count=settings.windows),
        Windows(character_ids(config["characters"], held_out), context),
        loss=token_loss(label_smoothing=settings.label_smoothing),
        metrics={"perplexity": TokenPerplexity()},
        options=settings,
        output=output,
        model_id=model_id,
        config=config,
        plugin=PLUGIN,
        resume=resume,
    )
    return score(load_language_model(output, settings.device), held_out, settings.batch_size)


def model_config(text: str, settings: LanguageModelOptions) -> dict[str, Any]:
    """The model's options: the characters of the text, and what the user set."""
    characters = "".join(sorted(set(text)))
    chosen = settings.model or {}
    if reserved := {"vocab_size", "characters"} & set(chosen):
        raise UsageError(f"the text decides {sorted(reserved)[0]}", "leave it out of the option model")
    return {"vocab_size": len(characters) + 1, "characters": characters, **chosen}
