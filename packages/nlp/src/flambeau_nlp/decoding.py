"""Generating text: sampling from a language model, greedy and beam search with an encoder-decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import flambeau
from flambeau.errors import FlambeauError, UsageError

from .cache import KVCache
from .data import PAD, UNK, pad_batch
from .models.char_gpt import UNKNOWN, CharGPT
from .models.seq2seq import Seq2Seq
from .tokenizer import BOS, EOS

#: A longer line is not a sentence; its attention matrices would fill the memory.
MAX_TOKENS = 1000


def continue_text(
    model: CharGPT, prompt: str, length: int = 200, temperature: float = 0.8, top_k: int = 0, seed: int = 0
) -> Iterator[str]:
    """The characters that follow a prompt, one by one; the same seed gives the same ones.

    Args:
        temperature: divides the scores; 0 always takes the likeliest character.
        top_k: draw among the k likeliest only; 0 for all.
    """
    if temperature < 0 or top_k < 0 or length < 0:
        raise UsageError("length, temperature and top_k must not be negative", "choose 0 or more")
    characters, context = UNKNOWN + model.config.characters, model.config.context
    numbers = {character: number for number, character in enumerate(characters)}
    ids = [numbers.get(character, 0) for character in prompt] or [numbers.get("\n", 0)]
    rng, device = np.random.default_rng(seed), model.embedding.weight.device
    cache = KVCache(model.config.layers, capacity=min(context, len(ids) + length))
    for _ in range(length):
        with flambeau.inference_mode():
            if len(ids) <= context:
                seen = flambeau.tensor([ids[cache.length :]], device=device)
                found = model(seen, cache)
            else:  # the window moves, and with it the position of every character: nothing can be kept
                found = model(flambeau.tensor([ids[-context:]], device=device))
            scores = found[0, -1].to("cpu").numpy().astype(np.float64)
        scores[0] = -np.inf  # the unknown character cannot be written
        ids.append(_draw(scores, temperature, top_k, rng))
        yield characters[ids[-1]]


def _draw(scores: np.ndarray, temperature: float, top_k: int, rng: np.random.Generator) -> int:
    if temperature == 0:
        return int(scores.argmax())
    if 0 < top_k < len(scores):
        scores = np.where(scores < np.sort(scores)[-top_k], -np.inf, scores)
    weights = np.exp((scores - scores.max()) / temperature)
    return int(rng.choice(len(weights), p=weights / weights.sum()))


@dataclass(frozen=True)
class Translation:
    """A translated line; `score` is the mean log-probability of its tokens."""

    text: str
    score: float


@dataclass
class _Search:
    """The search for one sentence: its live beams and the translations that have ended."""

    number: int  # of its sentence
    limit: int  # tokens of a translation
    beams: list[tuple[float, list[int]]] = field(default_factory=lambda: [(0.0, [BOS])])
    ended: list[tuple[float, list[int]]] = field(default_factory=list)
    done: bool = False

    def advance(self, scores: np.ndarray, beam: int) -> None:
        """One step: `scores` (beams, V) are log-probabilities of what comes next."""
        sums = scores + np.array([[total] for total, _ in self.beams])
        count = min(2 * beam, sums.size)
        best = np.argpartition(-sums, count - 1, axis=None)[:count]
        best = best[np.lexsort((best, -sums.ravel()[best]))]
        beams: list[tuple[float, list[int]]] = []
        for rank, place in enumerate(best):
            row, token = divmod(int(place), sums.shape[1])
            total, tokens = float(sums[row, token]), self.beams[row][1]
            if total == -np.inf:
                break
            if token == EOS:
                if rank < beam:  # an end that is not among the best does not count as one
                    self.ended.append((total, [*tokens, EOS]))
            elif len(beams) < beam:
                beams.append((total, [*tokens, token]))
        if beams and len(beams[0][1]) > self.limit:
            self.ended += beams
            self.done = True
        self.beams, self.done = beams, self.done or not beams or len(self.ended) >= beam

    def result(self, length_penalty: float) -> tuple[float, list[int]]:
        """Mean log-probability and tokens of the best translation."""
        total, tokens = max(self.ended, key=lambda pair: pair[0] / (len(pair[1]) - 1) ** length_penalty)
        return total / (len(tokens) - 1), tokens


def translate(
    model: Seq2Seq,
    lines: Sequence[str],
    beam: int = 4,
    length_penalty: float = 1.0,
    batch_size: int = 16,
    first: int = 1,
) -> list[Translation | FlambeauError]:
    """Translates lines; one that cannot be translated gives its error, an empty one an empty translation.

    Args:
        beam: hypotheses that are kept; 1 is greedy search.
        length_penalty: exponent of the length that sums of log-probabilities are divided by.
        batch_size: sentences that are searched for at a time.
        first: number of the first line, for messages.
    """
    if beam < 1 or batch_size < 1:
        raise UsageError("beam and batch_size must be at least 1", "choose 1 or more")
    results: list[Translation | FlambeauError] = [Translation("", 0.0)] * len(lines)
    waiting = []
    for number, line in enumerate(lines):
        ids = model.source_ids(line)
        if len(ids) > MAX_TOKENS:
            cause = f"line {number + first} has {len(ids)} tokens, more than {MAX_TOKENS}"
            results[number] = FlambeauError(cause, "write one sentence in each line")
        elif len(ids) > 1:
            waiting.append((number, ids))
    waiting.sort(key=lambda pair: len(pair[1]))  # sentences of a length waste no padding
    for start in range(0, len(waiting), batch_size):
        batch = waiting[start : start + batch_size]
        found = search(model, [ids for _, ids in batch], beam, length_penalty)
        for (number, _), (score, tokens) in zip(batch, found, strict=True):
            results[number] = Translation(model.target_tokenizer.decode(tokens), score)
    return results


def search(
    model: Seq2Seq, sources: Sequence[Sequence[int]], beam: int, length_penalty: float = 1.0
) -> list[tuple[float, list[int]]]:
    """Beam search for sentences of ids: for each the mean log-probability and the tokens, begin and end included."""
    with flambeau.inference_mode():
        device = model.target_embedding.weight.device
        memory, padding = model.encode(pad_batch(sources).to(device))
        searches = [_Search(number, 2 * len(ids) + 10) for number, ids in enumerate(sources)]
        live = list(searches)
        while live:
            rows = flambeau.tensor([one.number for one in live for _ in one.beams], device=device)
            tokens = flambeau.tensor([tokens for one in live for _, tokens in one.beams], device=device)
            scores = _next_scores(model, tokens, memory[rows], padding[rows])
            start = 0
            for one in live:
                count = len(one.beams)
                one.advance(scores[start : start + count], beam)
                start += count
            live = [one for one in live if not one.done]
    return [one.result(length_penalty) for one in searches]


def _next_scores(model: Seq2Seq, tokens: Any, memory: Any, padding: Any) -> np.ndarray:
    scores: np.ndarray = flambeau.log_softmax(model.decode(tokens, memory, padding, last=True)[:, -1], -1).cpu().numpy()
    scores = scores.astype(np.float64)
    scores[:, [PAD, UNK, BOS]] = -np.inf  # nothing that could be written
    return scores
