"""Sampling and beam search, against what the scores say by hand."""

import itertools

import numpy as np
import pytest

import flambeau
from flambeau.errors import FlambeauError, UsageError
from flambeau_nlp import decoding
from flambeau_nlp.decoding import _draw, continue_text, search, translate
from flambeau_nlp.models.char_gpt import CharGPT, CharGPTConfig
from flambeau_nlp.models.seq2seq import Seq2Seq, Seq2SeqConfig
from flambeau_nlp.tokenizer import BOS, EOS

from .cases import TINY_GPT, TINY_SEQ2SEQ, translator_config


@pytest.fixture(scope="module")
def writer():
    flambeau.manual_seed(0)
    return CharGPT(CharGPTConfig(**TINY_GPT, vocab_size=6, characters="abcd\n")).eval()


@pytest.fixture(scope="module")
def translator():
    flambeau.manual_seed(0)
    return Seq2Seq(Seq2SeqConfig(**translator_config())).eval()


def test_the_seed_decides(writer):
    texts = ["".join(continue_text(writer, "ab", 30, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 30 and set(texts[0]) <= set("abcd\n")


def test_temperature_zero_and_top_one_are_the_likeliest_character(writer):
    greedy = "".join(continue_text(writer, "ab", 12, temperature=0))
    assert greedy == "".join(continue_text(writer, "ab", 12, top_k=1, seed=5))
    with flambeau.no_grad():
        scores = writer(flambeau.tensor([[1, 2]]))[0, -1].numpy()
    assert greedy[0] == "abcd\n"[scores[1:].argmax()]


def test_empty_and_unknown_prompts_and_wrong_options(writer):
    assert len("".join(continue_text(writer, "", 3))) == 3
    assert len("".join(continue_text(writer, "Ω" * 20, 3))) == 3
    with pytest.raises(UsageError, match="must not be negative"):
        list(continue_text(writer, "a", 3, temperature=-1.0))


def test_draws_follow_the_probabilities():
    scores, rng = np.log(np.array([0.1, 0.6, 0.3])), np.random.default_rng(0)
    share = np.bincount([_draw(scores, 1.0, 0, rng) for _ in range(3000)]) / 3000
    np.testing.assert_allclose(share, [0.1, 0.6, 0.3], atol=0.03)
    share = np.bincount([_draw(scores, 1.0, 2, rng) for _ in range(3000)], minlength=3) / 3000
    np.testing.assert_allclose(share, [0, 2 / 3, 1 / 3], atol=0.03)
    sharp = np.bincount([_draw(scores, 0.5, 0, rng) for _ in range(3000)]) / 3000
    np.testing.assert_allclose(sharp, np.array([1, 36, 9]) / 46, atol=0.03)


def test_greedy_search_takes_the_best_token_at_each_step(translator):
    source = [4, 6, 5, EOS]
    ((_, found),) = search(translator, [source], beam=1)
    tokens = [BOS]
    with flambeau.no_grad():
        while tokens[-1] != EOS and len(tokens) <= 2 * len(source) + 10:
            scores = translator(flambeau.tensor([source]), flambeau.tensor([tokens]))[0, -1].numpy()
            scores[:3] = -np.inf
            tokens.append(int(scores.argmax()))
    assert found == tokens


def test_a_wide_beam_finds_the_best_of_all(monkeypatch):
    """With scores that depend on the last token only, against trying every sequence."""
    table = np.log(np.random.default_rng(3).dirichlet(np.ones(3), size=6))  # columns: EOS, 4, 5
    flambeau.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig(**TINY_SEQ2SEQ, source_size=6, target_size=6)).eval()

    def next_scores(model, tokens, memory, padding):
        scores = np.full((len(tokens), 6), -np.inf)
        scores[:, [EOS, 4, 5]] = table[tokens.numpy()[:, -1]]
        return scores

    monkeypatch.setattr(decoding, "_next_scores", next_scores)
    column = {EOS: 0, 4: 1, 5: 2}
    best = max(
        sum(table[a, column[b]] for a, b in itertools.pairwise([BOS, *middle, EOS]))
        for length in range(6)
        for middle in itertools.product([4, 5], repeat=length)
    )
    ((score, tokens),) = search(model, [[4, EOS]], beam=40, length_penalty=0.0)
    assert tokens[0] == BOS and tokens[-1] == EOS
    assert score * (len(tokens) - 1) == pytest.approx(best)


def test_batches_do_not_matter_and_lines_keep_their_order(translator):
    lines = ["red dog", "", "big red cat sees dog.", "unseen", "cat"]
    together = translate(translator, lines, beam=3, batch_size=5)
    alone = [translate(translator, [line], beam=3)[0] for line in lines]
    assert [one.text for one in together] == [one.text for one in alone]
    np.testing.assert_allclose([one.score for one in together], [one.score for one in alone], rtol=1e-4)
    assert together[1].text == ""
    assert not any("\ufffd" in one.text or "<" in one.text for one in together)


def test_a_line_without_end_is_refused_and_the_others_are_translated(translator):
    found = translate(translator, ["cat", "dog " * 1200, "dog"], beam=1, first=7)
    assert isinstance(found[1], FlambeauError) and "line 8 has 1201 tokens" in found[1].cause
    assert found[0].text is not None and found[2].text is not None
    with pytest.raises(UsageError):
        translate(translator, ["cat"], beam=0)
