"""The registered models and trainers: the checks that every plugin must pass, and what is particular to each."""

import numpy as np
import pytest

import flambeau
from flambeau.plugins import create_model
from flambeau.testing import ModelConformance, PluginConformance, TrainerConformance
from flambeau_nlp.models.char_gpt import CharGPT, CharGPTConfig
from flambeau_nlp.models.seq2seq import Seq2Seq, Seq2SeqConfig, sinusoids
from flambeau_nlp.models.text_cnn import TextCNN, TextCNNConfig

from .cases import TINY_CNN, TINY_GPT, TINY_SEQ2SEQ, write_pairs, write_reviews, write_text


def ids(*shape, high=9):
    return flambeau.randint(1, high, shape)


class TestPlugin(PluginConformance):
    plugin = "nlp"


class TestCharGPT(ModelConformance):
    model = "nlp/char_gpt"
    config = {**TINY_GPT, "vocab_size": 9, "dropout": 0.1}
    output_shape = (2, 8, 9)

    def inputs(self):
        return (ids(2, 8),)


class TestTextCNN(ModelConformance):
    model = "nlp/text_cnn"
    config = {**TINY_CNN, "vocab_size": 9, "num_classes": 3}
    output_shape = (2, 3)

    def inputs(self):
        return (ids(2, 6),)


class TestSeq2Seq(ModelConformance):
    model = "nlp/seq2seq"
    config = {**TINY_SEQ2SEQ, "source_size": 9, "target_size": 11}
    output_shape = (2, 4, 11)

    def inputs(self):
        return ids(2, 5), ids(2, 4, high=11)


class TestLanguageModelTrainer(TrainerConformance):
    model, trainer = "nlp/char_gpt", "nlp/language_model"
    options = {"epochs": 2, "windows": 8, "batch_size": 4, "model": TINY_GPT}

    def data(self, folder):
        return write_text(folder)


class TestTextClassificationTrainer(TrainerConformance):
    model, trainer = "nlp/text_cnn", "nlp/text_classification"
    options = {"epochs": 2, "batch_size": 20, "model": TINY_CNN}

    def data(self, folder):
        return write_reviews(folder)


class TestSeq2SeqTrainer(TrainerConformance):
    model, trainer = "nlp/seq2seq", "nlp/seq2seq"
    options = {"epochs": 2, "batch_size": 16, "source": "en", "target": "de", "model": TINY_SEQ2SEQ}

    def data(self, folder):
        return write_pairs(folder)


def test_a_character_is_foreseen_from_those_before_it_only():
    flambeau.manual_seed(0)
    model = CharGPT(CharGPTConfig(**TINY_GPT, vocab_size=9)).eval()
    first = ids(1, 8)
    second = first.clone()
    second[0, 5:] = 0
    with flambeau.no_grad():
        one, other = model(first).numpy(), model(second).numpy()
    np.testing.assert_array_equal(one[0, :5], other[0, :5])
    assert not np.allclose(one[0, 5:], other[0, 5:])


def test_a_text_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="context of 8"):
        CharGPT(CharGPTConfig(**TINY_GPT))(ids(1, 9))


def test_padding_does_not_change_the_scores_of_a_classifier():
    flambeau.manual_seed(0)
    model = TextCNN(TextCNNConfig(**TINY_CNN, vocab_size=9)).eval()
    model.convolutions[0].bias.data.fill_(3.0)  # would show if windows within the padding were counted
    row = ids(1, 5)
    padded = flambeau.cat([row, flambeau.zeros(1, 7, dtype=flambeau.int64)], 1)
    with flambeau.no_grad():
        np.testing.assert_allclose(model(row).numpy(), model(padded).numpy(), rtol=1e-6)
        assert np.isfinite(model(flambeau.zeros(1, 1, dtype=flambeau.int64)).numpy()).all()


def test_padding_does_not_change_the_scores_of_a_translator():
    flambeau.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig(**TINY_SEQ2SEQ, source_size=9, target_size=11)).eval()
    source, target = ids(1, 5), ids(1, 4)
    wider = flambeau.cat([source, flambeau.zeros(1, 3, dtype=flambeau.int64)], 1)
    longer = flambeau.cat([target, flambeau.zeros(1, 2, dtype=flambeau.int64)], 1)
    with flambeau.no_grad():
        expected, found = model(source, target).numpy(), model(wider, longer).numpy()
        last = model.decode(target, *model.encode(source), last=True).numpy()
    np.testing.assert_allclose(found[:, :4], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last, expected[:, -1:], rtol=1e-4, atol=1e-5)


def test_positions_are_those_of_the_paper():
    table = sinusoids(50, 8)
    for position, column in ((0, 0), (7, 1), (49, 6)):
        angle = position / 10000 ** (column // 2 * 2 / 8)
        assert table[position, column] == pytest.approx((np.cos if column % 2 else np.sin)(angle), abs=1e-6)


@pytest.mark.parametrize(
    "name, config, message",
    [
        ("char_gpt", {"width": 10, "heads": 4}, "multiple of heads"),
        ("char_gpt", {"characters": "abc", "vocab_size": 9}, "1 \\+ the 3 characters"),
        ("text_cnn", {"classes": ["a"], "num_classes": 2}, "number of the 1 classes"),
        ("text_cnn", {"widths": []}, "widths"),
        ("nlp/seq2seq", {"width": 9, "heads": 3}, "even"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, config, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **config)
