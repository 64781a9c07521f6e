"""Metrics of texts against sacrebleu, jiwer and rouge-score, on random and edge inputs."""

from __future__ import annotations

import numpy as np
import pytest

from flambeau.train import BLEU, CER, CHRF, ROUGE, WER

WORDS = [
    "the", "a", "cat,", "(dog)", "sat", "on", "3.5", "10-fold", "mat.", "well-known", "it's", "«été»", "中文",
    "₤5", "Naïve", "THE", "x", "&", "&amp;", "1,000", "¿qué?", "!",
]  # fmt: skip
EDGES = ["", " ", "a", ".", "the  cat\tsat", "the cat\nsat on-\nto", "x" * 30, "1990."]
seeds = pytest.mark.parametrize("seed", range(6))


def corpus(seed, lines=12, references=1, words=WORDS):
    """Texts and lists of references that are the texts with some words changed."""
    rng = np.random.default_rng(seed)
    texts, targets = [], []
    for _ in range(lines):
        line = [words[k] for k in rng.integers(0, len(words), rng.integers(1, 14))]
        texts.append(" ".join(line))
        targets.append([])
        for _ in range(references):
            other = [words[rng.integers(len(words))] if rng.random() < 0.3 else w for w in line if rng.random() < 0.9]
            targets[-1].append(" ".join(other or ["x"]))
    return texts, targets


def streamed(metric, texts, targets):
    metric.update(texts[:5], targets[:5])
    other = type(metric).__new__(type(metric))
    other.__dict__.update(metric.__dict__)
    other.reset()
    other.update(texts[5:], targets[5:])
    metric.merge(other)
    return metric.compute()


def same_signature(ours, theirs):
    assert ours.signature() == str(theirs.get_signature()).rsplit("|version", 1)[0]


@seeds
@pytest.mark.parametrize("references", [1, 3])
@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "none"])
def test_bleu(seed, references, tokenize):
    sacrebleu = pytest.importorskip("sacrebleu")
    texts, targets = corpus(seed, references=references)
    for smooth, value in (("exp", None), ("floor", None), ("add-k", None), ("none", None), ("add-k", 0.5)):
        for lowercase in (False, True):
            options = dict(tokenize=tokenize, smooth_method=smooth, smooth_value=value, lowercase=lowercase)
            ours, theirs = BLEU(**options), sacrebleu.BLEU(**options, force=True)
            expected = theirs.corpus_score(texts, list(zip(*targets)))
            assert streamed(ours, texts, targets) == pytest.approx(expected.score, abs=1e-9)
            if value is None:
                same_signature(ours, theirs)


@pytest.mark.parametrize("smooth", ["exp", "floor", "add-k", "none"])
@pytest.mark.parametrize("effective", [False, True])
def test_bleu_of_single_and_edge_sentences(smooth, effective):
    sacrebleu = pytest.importorskip("sacrebleu")
    texts, targets = corpus(0)
    pairs = list(zip(texts, targets)) + [(t, [r]) for t in EDGES for r in EDGES]
    for text, several in pairs:
        ours = BLEU(smooth_method=smooth, effective_order=effective)
        theirs = sacrebleu.BLEU(smooth_method=smooth, effective_order=effective)
        ours.update([text], [several])
        expected = theirs.corpus_score([text], [[r] for r in several]).score
        assert ours.compute() == pytest.approx(expected, abs=1e-9), (text, several)


@seeds
@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.parametrize("word_order", [0, 1, 2])
def test_chrf(seed, references, word_order):
    sacrebleu = pytest.importorskip("sacrebleu")
    texts, targets = corpus(seed, references=references)
    for more in ({}, {"whitespace": True}, {"eps_smoothing": True}, {"lowercase": True, "beta": 3, "char_order": 4}):
        ours, theirs = CHRF(word_order=word_order, **more), sacrebleu.CHRF(word_order=word_order, **more)
        expected = theirs.corpus_score(texts, list(zip(*targets))).score
        assert streamed(ours, texts, targets) == pytest.approx(expected, abs=1e-9)
        same_signature(ours, theirs)
        for text in EDGES:
            for reference in EDGES:
                ours.reset()
                ours.update([text], [reference])
                assert ours.compute() == pytest.approx(theirs.corpus_score([text], [[reference]]).score, abs=1e-9)


@seeds
@pytest.mark.parametrize("kind", ["words", "characters"])
def test_error_rates_and_their_counts(seed, kind):
    jiwer = pytest.importorskip("jiwer")
    make, process = (WER, jiwer.process_words) if kind == "words" else (CER, jiwer.process_characters)
    texts, targets = corpus(seed, lines=40, words=WORDS if kind == "words" else list("abc "))
    targets = [several[0] for several in targets]
    texts, targets = texts + EDGES + ["same"], targets + ["a", *EDGES[:-1], "same"]
    ours, theirs = make(), process(targets, texts)
    assert streamed(ours, texts, targets) == pytest.approx(theirs.wer if kind == "words" else theirs.cer, rel=1e-12)
    for name in ("hits", "substitutions", "deletions", "insertions"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_error_rate_of_an_empty_target_is_the_number_of_insertions():
    jiwer = pytest.importorskip("jiwer")
    for text in ("", "a b c"):
        ours = WER()
        ours.update([text], [""])
        assert ours.compute() == jiwer.wer("", text)


@seeds
@pytest.mark.parametrize("stemmed", [False, True])
def test_rouge(seed, stemmed):
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    stem = None
    if stemmed:
        stem = pytest.importorskip("nltk.stem.porter").PorterStemmer().stem
    kinds = ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"]
    words = ["running", "runs", "cats", "cat", "The", "a", "b", "c,", "naïve", "\n", "flies"]
    texts, targets = corpus(seed, lines=10, references=2, words=words)
    texts, targets = texts + EDGES, targets + [["a"], ["the cat"], [""], ["x"], ["cat\nsat"], ["cat"], ["."], [" "]]
    ours, scorer = ROUGE(kinds, stem), rouge_scorer.RougeScorer(kinds, use_stemmer=stemmed)
    found = streamed(ours, texts, targets)
    scores = [scorer.score_multi(several, text) for text, several in zip(texts, targets)]
    for kind in kinds:
        for part in ("precision", "recall", "fmeasure"):
            expected = np.mean([getattr(score[kind], part) for score in scores])
            assert found[f"{kind}_{part}"] == pytest.approx(expected, abs=1e-12), (kind, part)
