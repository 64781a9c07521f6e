"""Training, evaluating and predicting from the command line: the models learn, and wrong input gives clear lines."""

import json

import pytest

from flambeau.cli import main
from flambeau.errors import FlambeauError
from flambeau.plugins import create_model, load_model, save_model
from flambeau.train import supervised
from flambeau_nlp.tasks import language_modelling, text_classification, translation
from flambeau_nlp.trainers import language_model, seq2seq

from .cases import TINY_CNN, TINY_GPT, TINY_SEQ2SEQ, WORDS, translator_config, write_pairs, write_reviews, write_text


@pytest.fixture
def flambeau_command(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return call


def settings(**options):
    pairs = [(key, json.dumps(value) if isinstance(value, dict) else value) for key, value in options.items()]
    return [part for key, value in pairs for part in ("--set", f"{key}={value}")]


def test_language_model(flambeau_command, tmp_path):
    data, run = write_text(tmp_path), tmp_path / "run"
    options = settings(model={**TINY_GPT, "width": 32}, windows=128)
    code, out, err = flambeau_command(
        "train",
        "nlp/char_gpt",
        "--data",
        data,
        "--output",
        run,
        "--epochs",
        4,
        "--lr",
        0.01,
        "--batch-size",
        8,
        "--json",
        *options,
    )
    assert code == 0, err
    metrics = json.loads(out)
    assert metrics["perplexity"] < 1.5  # of 9 characters, each certain from the one before
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    code, out, _ = flambeau_command("evaluate", run, "--data", data, "--json")
    assert code == 0 and json.loads(out) == metrics
    code, out, _ = flambeau_command("predict", run, "abc", *settings(text="true", length=9, temperature=0), "--json")
    assert code == 0 and json.loads(out)[0]["output"] == "abcdefgh\nabc"
    (tmp_path / "prompt.txt").write_text("fg\n")
    code, out, _ = flambeau_command(
        "predict", run, "prompt.txt", "-o", "new.txt", *settings(length=3, temperature=0, top_k=2, seed=1)
    )
    assert code == 0 and (tmp_path / "new.txt").read_text() == "fgh\na\n"


def test_text_classifier(flambeau_command, tmp_path):
    data, run = write_reviews(tmp_path), tmp_path / "run"
    code, out, err = flambeau_command(
        *("train", "nlp/text_cnn", "--data", data, "--output", run, "--epochs", 12, "--lr", 0.01, "--batch-size", 10),
        *settings(model={**TINY_CNN, "embedding": 16, "filters": 8}, min_count=1),
    )
    assert code == 0, err
    code, out, _ = flambeau_command("evaluate", run, "--data", data, "--json")
    assert json.loads(out) == {"accuracy": 1.0, "macro_f1": 1.0, "texts": 20}
    (tmp_path / "new.txt").write_text("a lovely plot\nthe film was awful\n")
    code, out, err = flambeau_command("predict", run, "new.txt", "missing.txt", "--json")
    good, bad = json.loads(out)
    assert code == 1 and [one["label"] for one in good["output"]] == ["1", "0"]
    assert "missing.txt: does not exist" in err and "text=true" in bad["mend"]
    code, out, _ = flambeau_command("predict", run, "lovely", "--set", "text=true", "-o", "folder")
    assert code == 0 and out.startswith("lovely: label 1")


def test_translator_learns_to_translate_word_by_word(tmp_path):
    data = write_pairs(tmp_path, count=400)
    options = {
        **{"source": "en", "target": "de", "epochs": 12, "batch_size": 16, "lr": 5e-3, "label_smoothing": 0.0},
        "model": {**TINY_SEQ2SEQ, "width": 32, "dropout": 0.0},
    }
    metrics = seq2seq.train("nlp/seq2seq", data, str(tmp_path / "run"), options, False)
    assert metrics["perplexity"] < 1.2 and metrics["bleu"] > 80
    again = translation.evaluate(str(tmp_path / "run"), data, "val", {"beam": 1})
    assert again["bleu"] == pytest.approx(metrics["bleu"])
    (tmp_path / "letter").write_text("big dog runs.\n\n" + "cat sees dog.")
    (record,) = translation.predict(str(tmp_path / "run"), [str(tmp_path / "letter")], None, {})
    assert record["output"].split("\n")[0] == f"{WORDS['big']} {WORDS['dog']} {WORDS['runs']}."
    assert record["output"].split("\n")[1] == "" and len(record["output"].split("\n")) == 3


def test_held_out_pairs_and_byte_pairs(tmp_path):
    pytest.importorskip("tokenizers", reason="needs flambeau-nlp[tokenizers]")
    data = write_pairs(tmp_path)
    options = {
        **{"source": "en", "target": "de", "epochs": 1, "val_split": "absent", "holdout": 0.25, "tokens": "bpe"},
        **{"vocabulary": 60, "limit": 20, "model": TINY_SEQ2SEQ},
    }
    metrics = seq2seq.train("nlp/seq2seq", data, str(tmp_path / "run"), options, False)
    assert metrics["sentences"] == 10
    assert load_model(tmp_path / "run").source_tokenizer.encode("big dog.")


class Interrupt(supervised.Callback):
    """Stops a run as Ctrl-C does, in the middle of its second epoch."""

    def on_step(self, run):
        if run.counters.optimizer_step == 3:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    data = write_text(tmp_path)
    options = {"epochs": 2, "windows": 8, "batch_size": 4, "model": {**TINY_GPT, "dropout": 0.2}}
    language_model.train("nlp/char_gpt", data, str(tmp_path / "through"), options, False)
    with monkeypatch.context() as patch:
        patch.setattr(supervised, "reporter", Interrupt)
        with pytest.raises(KeyboardInterrupt):
            language_model.train("nlp/char_gpt", data, str(tmp_path / "stopped"), options, False)
    language_model.train("nlp/char_gpt", data, str(tmp_path / "stopped"), options, True)
    first, second = (load_model(tmp_path / name).state_dict() for name in ("through", "stopped"))
    assert all(first[key].numpy().tobytes() == second[key].numpy().tobytes() for key in first)


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["nlp/char_gpt", "--data", "empty.txt"], 1, "empty.txt is empty"),
        (["nlp/char_gpt", "--data", "latin.txt"], 1, "latin.txt is not UTF-8 text (line 1)"),
        (["nlp/char_gpt", "--data", "missing.txt"], 1, "does not exist"),
        (["nlp/char_gpt", "--data", "text.txt", "--set", "holdot=0.1"], 2, "holdot"),
        (["nlp/char_gpt", "--data", "text.txt", "--set", "holdout=2"], 2, "must lie between 0 and 1"),
        (["nlp/char_gpt", "--data", "text.txt", "--set", 'model={"depth": 3}'], 2, "depth"),
        (
            ["nlp/char_gpt", "--data", "text.txt", "--set", 'model={"characters": "a"}'],
            2,
            "the text decides characters",
        ),
        (["nlp/text_cnn", "--data", "text.txt"], 1, "row 1 has no tab"),
        (["nlp/seq2seq", "--data", "."], 2, "option source is needed"),
        (["nlp/seq2seq", "--data", ".", "--set", "source=en", "--set", "target=fr"], 1, "no train.fr"),
        (["nlp/seq2seq", "--data", ".", "--set", "source=xx", "--set", "target=yy"], 1, "no train.xx"),
        (["nlp/seq2seq", "--data", ".", "--set", "source=en", "--set", "target=short"], 1, "lines"),
    ],
)
def test_wrong_data_and_options(flambeau_command, tmp_path, arguments, code, message):
    write_text(tmp_path)
    write_pairs(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"na\xefve " * 50)
    (tmp_path / "train.short").write_text("one line\n")
    found, out, err = flambeau_command("train", *arguments, "--output", "run")
    assert found == code, err
    assert message in err and out == ""
    assert not (tmp_path / "run").exists()


def test_a_label_of_its_own_for_each_text(tmp_path):
    (tmp_path / "rows.tsv").write_text("".join(f"text\t{index}\n" for index in range(30)))
    from flambeau_nlp.trainers.text_classification import train

    with pytest.raises(FlambeauError, match="27 different labels") as caught:
        train("nlp/text_cnn", str(tmp_path / "rows.tsv"), str(tmp_path / "run"), {"label": "last"}, False)
    assert "label=first" in caught.value.mend


def test_models_of_another_kind_and_untrained_ones(tmp_path):
    config = translator_config()
    path = str(save_model(create_model("nlp/seq2seq", **config), tmp_path / "mt", "nlp/seq2seq", config))
    with pytest.raises(FlambeauError, match="a Seq2Seq does not continue texts"):
        language_modelling.load_language_model(path)
    with pytest.raises(FlambeauError, match="a Seq2Seq does not classify texts"):
        text_classification.load_classifier(path)
    bare = str(save_model(create_model("char_gpt", **TINY_GPT), tmp_path / "gpt", "char_gpt", TINY_GPT))
    with pytest.raises(FlambeauError, match="no characters"):
        language_modelling.load_language_model(bare)
    with pytest.raises(FlambeauError, match="a CharGPT does not translate"):
        translation.load_translator(bare)
    tiny = TINY_SEQ2SEQ
    bare = str(save_model(create_model("nlp/seq2seq", **tiny), tmp_path / "bare", "nlp/seq2seq", tiny))
    with pytest.raises(FlambeauError, match="no vocabulary"):
        translation.load_translator(bare)


def test_results_do_not_overwrite_their_input(tmp_path):
    config = translator_config()
    path = str(save_model(create_model("nlp/seq2seq", **config), tmp_path / "mt", "nlp/seq2seq", config))
    letter = tmp_path / "letter.txt"
    letter.write_text("dog\n")
    (record,) = translation.predict(path, [str(letter)], str(letter), {})
    assert "would overwrite" in record["error"] and letter.read_text() == "dog\n"
    (record,) = translation.predict(path, [str(letter)], str(tmp_path), {"beam": 1})
    assert record["path"] == str(tmp_path / "letter_translated.txt")


def test_public_data_short(real_data, tmp_path):
    """A few steps on the real files: the layouts fit from reading to scores."""
    from flambeau_nlp.trainers import text_classification as trainer

    options = {
        "epochs": 2,
        "lr": 1e-2,
        "model": {"embedding": 16, "filters": 16, "widths": [1, 2], "max_words": 40, "dropout": 0.1},
    }
    data = str(real_data("05_text_classification/sms_spam"))
    assert trainer.train("nlp/text_cnn", data, str(tmp_path / "sms"), options, False)["accuracy"] > 0.94
    data = str(real_data("06_translation/multi30k"))
    options = {"source": "en", "target": "de", "epochs": 1, "limit": 64, "val_split": "test_2016_flickr"}
    settings = seq2seq.from_options(seq2seq.Seq2SeqOptions, options)
    pairs, validation = seq2seq.open_training_pairs(data, settings)
    assert (len(pairs), len(validation)) == (64, 1000)
