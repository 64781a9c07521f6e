"""What flambeau-nlp registers with Flambeau. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from flambeau.plugins import ModelSpec, TaskSpec, TrainerSpec, hookimpl

LANGUAGE_MODELLING, CLASSIFICATION, TRANSLATION = (
    "nlp/language-modelling",
    "nlp/text-classification",
    "nlp/translation",
)


@hookimpl
def flambeau_register_models() -> Iterator[ModelSpec]:
    yield ModelSpec(
        id="nlp/char_gpt",
        factory="flambeau_nlp.models.char_gpt:CharGPT",
        config="flambeau_nlp.models.char_gpt:CharGPTConfig",
        summary="Small GPT-style decoder over characters.",
        task=LANGUAGE_MODELLING,
        parameters=826_112,
        tags=("language-model", "characters"),
    )
    yield ModelSpec(
        id="nlp/text_cnn",
        factory="flambeau_nlp.models.text_cnn:TextCNN",
        config="flambeau_nlp.models.text_cnn:TextCNNConfig",
        summary="Convolutional text classifier over words (Kim 2014).",
        task=CLASSIFICATION,
        parameters=1_434_502,
        tags=("classification",),
    )
    yield ModelSpec(
        id="nlp/seq2seq",
        factory="flambeau_nlp.models.seq2seq:Seq2Seq",
        config="flambeau_nlp.models.seq2seq:Seq2SeqConfig",
        summary="Encoder-decoder transformer for translation.",
        task=TRANSLATION,
        parameters=8_050_688,
        tags=("translation", "transformer"),
    )


@hookimpl
def flambeau_register_trainers() -> Iterator[TrainerSpec]:
    yield TrainerSpec(
        id="nlp/language_model",
        factory="flambeau_nlp.trainers.language_model:train",
        config="flambeau_nlp.trainers.language_model:LanguageModelOptions",
        summary="Next-character training on a text file, its end held out.",
    )
    yield TrainerSpec(
        id="nlp/text_classification",
        factory="flambeau_nlp.trainers.text_classification:train",
        config="flambeau_nlp.trainers.text_classification:TextClassificationOptions",
        summary="Supervised text classification on tables of texts and labels.",
    )
    yield TrainerSpec(
        id="nlp/seq2seq",
        factory="flambeau_nlp.trainers.seq2seq:train",
        config="flambeau_nlp.trainers.seq2seq:Seq2SeqOptions",
        summary="Teacher-forced training on files that are aligned line by line.",
    )


@hookimpl
def flambeau_register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        id=LANGUAGE_MODELLING,
        summary="The next character of a text: perplexity on a text, the continuation of a prompt.",
        trainer="nlp/language_model",
        evaluate="flambeau_nlp.tasks.language_modelling:evaluate",
        predict="flambeau_nlp.tasks.language_modelling:predict",
    )
    yield TaskSpec(
        id=CLASSIFICATION,
        summary="A class for each text: accuracy and F1 on labelled texts, the class of each line.",
        trainer="nlp/text_classification",
        evaluate="flambeau_nlp.tasks.text_classification:evaluate",
        predict="flambeau_nlp.tasks.text_classification:predict",
    )
    yield TaskSpec(
        id=TRANSLATION,
        summary="A sentence in another language: perplexity and BLEU on pairs, the translation of each line.",
        trainer="nlp/seq2seq",
        evaluate="flambeau_nlp.tasks.translation:evaluate",
        predict="flambeau_nlp.tasks.translation:predict",
    )
