"""Training of encoder-decoders on pairs of sentences: each target token from the source and the tokens before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flambeau.errors import FlambeauError, UsageError
from flambeau.options import from_options
from flambeau.plugins import create_model
from flambeau.train import supervised

from ..data import PAD, Pairs, open_pairs
from ..metrics import TokenPerplexity
from ..tasks.translation import collate, load_translator, samples, score, teacher_forcing
from ..tokenizer import train_tokenizer
from .common import PLUGIN, token_loss


@dataclass
class Seq2SeqOptions(supervised.Options):
    """Options of `train`, beside those of every supervised trainer.

    Attributes:
        source, target: endings of the files, such as ``en`` and ``de`` for train.en and train.de; both are needed.
        train_split, val_split: what is trained on, and what is evaluated after each epoch.
        holdout: share at the end of the training pairs that is held out when there are no files of `val_split`.
        limit: pairs to train on; none for all.
        tokens: pieces of the vocabularies: word, char, or bpe (needs the extra ``flambeau-nlp[tokenizers]``).
        vocabulary: pieces of each language at most.
        min_count: how often a piece must occur to be known.
        model: options of the model as JSON, such as ``{"width": 128}``.
    """

    epochs: int = 20
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: float = 0.1
    clip: float | None = 1.0
    label_smoothing: float = 0.1
    source: str = ""
    target: str = ""
    train_split: str = "train"
    val_split: str = "val"
    holdout: float = 0.05
    limit: int | None = None
    tokens: Literal["word", "char", "bpe"] = "word"
    vocabulary: int = 8000
    min_count: int = 2
    model: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("source", "target"):
            if not getattr(self, name):
                raise ValueError(f"option {name} is needed: the ending of a language's files, such as {name}=en")
        if not 0 < self.holdout < 1:
            raise ValueError(f"option holdout={self.holdout} must lie between 0 and 1")
        if self.vocabulary < 5 or self.min_count < 1 or (self.limit is not None and self.limit < 2):
            raise ValueError("options vocabulary, min_count and limit must be at least 5, 1 and 2")


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Train a translator; the run's folder gets weights, history, learning curve and checkpoints.

    Returns:
        Perplexity of the target tokens and BLEU (greedy) of the weights that were kept, on the held-out pairs.
    """
    settings = from_options(Seq2SeqOptions, options)
    pairs, validation = open_training_pairs(data, settings)
    config = model_config(pairs, settings)
    model = create_model(model_id, **config)  # finds wrong options before anything is written
    supervised.run(
        lambda: create_model(model_id, **config),
        samples(model, pairs),
        samples(model, validation),
        loss=token_loss(PAD, settings.label_smoothing),
        metrics={"perplexity": TokenPerplexity(PAD)},
        options=settings,
        output=output,
        model_id=model_id,
        config=config,
        plugin=PLUGIN,
        resume=resume,
        predict=teacher_forcing,
        collate_fn=collate,
    )
    return score(load_translator(output, settings.device), validation, settings.batch_size, beam=1)


def open_training_pairs(data: str, settings: Seq2SeqOptions) -> tuple[Pairs, Pairs]:
    """The pairs to train on and those that are held out."""
    pairs = open_pairs(data, settings.train_split, settings.source, settings.target)
    if pairs is None:
        name = f"{settings.train_split}.{settings.source}"
        raise FlambeauError(f"{data} has no {name}", "check the folder and the options source and target")
    validation = open_pairs(data, settings.val_split, settings.source, settings.target)
    if validation is None:
        cut = len(pairs) - max(1, round(len(pairs) * settings.holdout))
        validation = Pairs(pairs.source[cut:], pairs.target[cut:])
        pairs = Pairs(pairs.source[:cut], pairs.target[:cut])
    pairs = Pairs(pairs.source[: settings.limit], pairs.target[: settings.limit])
    if not len(pairs):
        raise FlambeauError(f"{data} has too few pairs to train on", "give more")
    return pairs, validation


def model_config(pairs: Pairs, settings: Seq2SeqOptions) -> dict[str, Any]:
    """The model's options: the vocabularies of the training pairs, and what the user set."""
    chosen = settings.model or {}
    reserved = {"source", "target", "source_size", "target_size", "source_language", "target_language"} & set(chosen)
    if reserved:
        raise UsageError(f"the data decide {sorted(reserved)[0]}", "leave it out of the option model")
    config: dict[str, Any] = {"source_language": settings.source, "target_language": settings.target}
    for side in ("source", "target"):
        tokenizer = train_tokenizer(settings.tokens, getattr(pairs, side), settings.vocabulary, settings.min_count)
        config |= {side: tokenizer.to_dict(), f"{side}_size": tokenizer.size}
    return {**config, **chosen}
