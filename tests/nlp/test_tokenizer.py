"""Tokenizers: what goes in comes out, the same in another process and after JSON; and the metrics on texts."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambeau.errors import FlambeauError, MissingExtraError, UsageError
from flambeau.train.metrics.translation import tokens_13a
from flambeau_nlp.data import PAD, UNK
from flambeau_nlp.metrics import TokenPerplexity, bleu
from flambeau_nlp.tokenizer import EOS, make_tokenizer, normalize, split_pieces, train_tokenizer

LINES = ["Two young, white males are outside.", "It's 3.5 km to l'Étang!", "groß und klein"]


@pytest.mark.parametrize("kind", ["char", "word"])
@given(text=st.text())
def test_pieces_joined_are_the_text(kind, text):
    tokenizer = train_tokenizer(kind, [text])
    ids = tokenizer.encode(text)
    assert UNK not in ids and PAD not in ids
    if "\u2581" not in text:  # the mark itself comes back as a space
        assert tokenizer.decode(ids) == normalize(text)
    assert make_tokenizer(json.loads(json.dumps(tokenizer.to_dict()))).encode(text) == ids


def test_words_carry_the_space_before_them():
    assert split_pieces("word", "a man, big") == ["▁a", "▁man", ",", "▁big"]
    assert split_pieces("char", "a b") == ["a", " ", "b"]


def test_the_commonest_pieces_are_kept_and_others_are_unknown():
    tokenizer = train_tokenizer("word", ["a a a b b c"], size=6)
    assert tokenizer.size == 6
    assert tokenizer.encode("a c b") == [4, UNK, 5]
    assert tokenizer.decode([4, UNK, 5, EOS]) == "a \ufffd b"
    assert train_tokenizer("word", ["a a b"], min_count=2).size == 5


def test_wrong_kinds_and_damaged_vocabularies():
    with pytest.raises(UsageError, match="no tokenizer 'syllable'"):
        train_tokenizer("syllable", LINES)
    with pytest.raises(UsageError, match="no room"):
        train_tokenizer("word", LINES, size=4)
    for values in ({}, {"kind": "word"}, {"kind": "word", "pieces": [1]}, {"kind": "bpe", "pieces": 3}):
        with pytest.raises(FlambeauError, match="damaged"):
            make_tokenizer(values)


def test_byte_pairs():
    pytest.importorskip("tokenizers", reason="needs flambeau-nlp[tokenizers]")
    lines = LINES * 20
    tokenizer = train_tokenizer("bpe", lines, size=90)
    again = make_tokenizer(json.loads(json.dumps(tokenizer.to_dict())))
    for line in LINES:
        assert tokenizer.decode(tokenizer.encode(line)) == line
        assert again.encode(line) == tokenizer.encode(line)
    assert len(tokenizer.encode("young white")) < len("young white")
    assert tokenizer.encode("Ω")[-1] == UNK
    assert max(tokenizer.encode(" ".join(LINES))) < tokenizer.size == again.size
    with pytest.raises(FlambeauError, match="damaged"):
        make_tokenizer({"kind": "bpe", "json": "{"})


def test_byte_pairs_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError) as caught:
        train_tokenizer("bpe", LINES)
    assert caught.value.exit_code == 3
    assert caught.value.mend == "pip install 'flambeau-nlp[tokenizers]'"


def test_bleu_by_hand():
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 fours are found; six words against six: no penalty.
    expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu(["the cat sat on a mat"], ["the cat sat on the mat"]) == pytest.approx(expected)
    assert bleu(["a b c d"], ["a b c d e f"]) == pytest.approx(100 * np.exp(1 - 6 / 4))
    assert bleu(["a b c"], ["x y z"]) == 0.0
    assert bleu([""], ["x"]) == 0.0


def test_bleu_tokens_follow_mteval():
    found = " ".join(tokens_13a('Say "3.5%", it\'s (so) good.'))
    assert found == 'Say " 3.5 % " , it\'s ( so ) good .'
    assert tokens_13a("10-fold, well-known 1,000") == ["10", "-", "fold", ",", "well-known", "1,000"]


def test_token_perplexity_ignores_padding():
    metric = TokenPerplexity(PAD)
    scores = np.log(np.array([[[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]]]))
    metric.update(scores, np.array([[2, 1, PAD]]))
    assert metric.compute() == pytest.approx(1 / np.sqrt(0.7 * 0.3))
