"""Translation: perplexity and BLEU on pairs of sentences, and the translation of each line of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flambeau.data import DataLoader
from flambeau.errors import FlambeauError
from flambeau.options import from_options
from flambeau.train import supervised

from ..data import PAD, ListDataset, Pairs, open_pairs, pad_batch
from ..decoding import Translation, translate
from ..metrics import TokenPerplexity, bleu
from ..models.seq2seq import Seq2Seq
from ..text import texts_of
from ..tokenizer import BOS, EOS
from .common import failure, load, write_result


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `evaluate`: sentences a step, width of the beam search, pairs to use at most, and the device."""

    batch_size: int = 32
    beam: int = 4
    length_penalty: float = 1.0
    limit: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`: width of the beam search, whether the inputs are the texts themselves, and the device."""

    beam: int = 4
    length_penalty: float = 1.0
    batch_size: int = 16
    text: bool = False
    device: str = "cpu"


def load_translator(model: str, device: str = "cpu") -> Seq2Seq:
    """A trained translator with its vocabularies.

    Raises:
        FlambeauError: not there, damaged, or a model that does not translate.
    """
    module: Seq2Seq = load(model, device, ("source_size", "target_size", "source", "target"), "translate")
    module.source_tokenizer, module.target_tokenizer  # noqa: B018  a damaged vocabulary shows now
    return module


def samples(model: Any, pairs: Pairs) -> ListDataset:
    """Ids of source, target so far and target; empty lines are left out, long ones cut at ``max_tokens``."""
    most, kept = model.config.max_tokens, []
    for source, target in zip(pairs.source, pairs.target, strict=True):
        first, second = model.source_tokenizer.encode(source)[: most - 1], model.target_tokenizer.encode(target)
        if first and second:
            second = second[: most - 1]
            kept.append(([*first, EOS], [BOS, *second], [*second, EOS]))
    if not kept:
        raise FlambeauError("there are no pairs without an empty side", "check the files of both languages")
    return ListDataset(kept)


def collate(rows: list[tuple[list[int], list[int], list[int]]]) -> tuple[Any, ...]:
    """Padded source (N, S), target so far (N, T) and target (N, T)."""
    return tuple(pad_batch(column) for column in zip(*rows, strict=True))


def teacher_forcing(model: Any, batch: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    """Scores of all target tokens, each from the true ones before it, and the target."""
    source, before, target = batch
    return model(source, before), target


def score(
    module: Seq2Seq, pairs: Pairs, batch_size: int = 32, beam: int = 4, length_penalty: float = 1.0
) -> dict[str, float]:
    """Perplexity of the target tokens, and BLEU of the translations."""
    loader = DataLoader(samples(module, pairs), batch_size, collate_fn=collate)
    found = supervised.evaluate(
        module,
        loader,
        metrics={"perplexity": TokenPerplexity(PAD)},
        predict=teacher_forcing,
        device=module.target_embedding.weight.device,
    )
    translations = translate(module, pairs.source, beam, length_penalty, batch_size)
    texts = [one.text if isinstance(one, Translation) else "" for one in translations]
    return {"perplexity": found["perplexity"], "bleu": bleu(texts, pairs.target), "sentences": len(pairs)}


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Perplexity and BLEU on ``<split>.<source language>`` and ``<split>.<target language>`` of a folder."""
    settings = from_options(EvaluateOptions, options, "the translation task")
    module = load_translator(model, settings.device)
    source, target = module.config.source_language, module.config.target_language
    pairs = open_pairs(data, split, source, target)
    if pairs is None:
        raise FlambeauError(f"{data} has no {split}.{source}", "name another split with --split")
    pairs = Pairs(pairs.source[: settings.limit], pairs.target[: settings.limit])
    return score(module, pairs, settings.batch_size, settings.beam, settings.length_penalty)


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """Each input with its lines translated; an input with a line that cannot be translated is reported and left out."""
    settings = from_options(PredictOptions, options, "the translation task")
    module = load_translator(model, settings.device)
    for source in inputs:
        try:
            lines = texts_of(source, settings.text)
            found = translate(module, lines, settings.beam, settings.length_penalty, settings.batch_size)
            text = "\n".join(_text(one) for one in found)
            path = write_result(text, source, output, len(inputs) > 1, "_translated.txt")
        except FlambeauError as error:
            yield failure(source, error)
            continue
        yield {"input": source, "output": text, **path}


def _text(found: Translation | FlambeauError) -> str:
    if isinstance(found, FlambeauError):
        raise found
    return found.text
