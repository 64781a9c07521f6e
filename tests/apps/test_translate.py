"""``flambeau-translate``: what it prints and writes, and every way in which a text or an option can be wrong."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import flambeau
from flambeau.cli import main, run
from flambeau.plugins import create_model, save_model
from flambeau_nlp.decoding import translate
from flambeau_nlp.tasks.translation import load_translator
from flambeau_nlp.tokenizer import train_tokenizer
from flambeau_translate.cli import command


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny translator that has learnt nothing."""
    tokenizer = train_tokenizer("word", ["a big dog sees the red cat."])
    config = {"width": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feedforward": 16}
    for side in ("source", "target"):
        config |= {side: tokenizer.to_dict(), f"{side}_size": tokenizer.size}
    flambeau.manual_seed(0)
    model = create_model("nlp/seq2seq", **config)
    return str(save_model(model, tmp_path_factory.mktemp("translator"), "nlp/seq2seq", config))


@pytest.fixture
def app(tmp_path, monkeypatch, capfd):
    """Runs the command in an empty folder; gives exit code, stdout and stderr."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def call(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(command, [str(argument) for argument in arguments], prog_name="flambeau-translate")
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return call


def expected(checkpoint, lines, beam=4):
    return [one.text for one in translate(load_translator(checkpoint), lines, beam)]


def test_texts_files_and_standard_input(app, checkpoint):
    with open("a.txt", "w") as file:
        file.write("the cat\n\nred dog\n")
    lines = ["big dog", "a cat", "sees the", "the cat", "", "red dog"]
    code, out, err = app("big dog\na cat", "-", "-i", "a.txt", "--model", checkpoint, stdin=b"sees the\n")
    assert (code, err) == (0, "")
    assert out.split("\n")[:-1] == expected(checkpoint, lines)
    code, again, _ = app("-i", "-", "--model", os.path.dirname(checkpoint), stdin="\n".join(lines).encode())
    assert (code, again) == (0, out)


def test_beam_and_json(app, checkpoint):
    code, out, _ = app("a dog", "red", "--model", checkpoint, "--beam", "1", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [one["source"] for one in records] == ["a dog", "red"]
    assert [one["translation"] for one in records] == expected(checkpoint, ["a dog", "red"], beam=1)
    assert all(np.isfinite(one["score"]) and one["score"] <= 0 for one in records)


def test_output_file(app, checkpoint):
    code, out, _ = app("a dog", "the cat", "-o", "out.txt", "--model", checkpoint)
    assert (code, out) == (0, "")
    with open("out.txt", encoding="utf-8") as file:
        assert file.read().split("\n")[:-1] == expected(checkpoint, ["a dog", "the cat"])
    assert os.listdir() == ["out.txt"]


def test_no_model(app):
    code, out, err = app("hello", "-o", "out.txt")
    assert (code, out) == (2, "")
    cause, mend = err.splitlines()
    assert "no --model is given, and no weights ship" in cause
    assert "flambeau train nlp/seq2seq --data" in mend
    assert os.listdir() == []


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--model", "missing"], 2, "model 'missing' is not registered"),
        (["--model", "runs/missing.safetensors"], 1, "does not exist"),
        (["--model", "nlp/seq2seq"], 1, "no trained weights"),
        (["--model", "broken.safetensors"], 1, "broken.safetensors"),
        (["--model", "MODEL", "-o", "absent/out.txt"], 1, "its folder does not exist"),
        (["--model", "MODEL", "--beam", "0"], 2, "--beam"),
        (["--model", "MODEL", "--bean", "3"], 2, "there is no option '--bean'"),
        (["--model", "MODEL", "-", "-i", "-"], 2, "read once only"),
    ],
)
def test_wrong_options(app, checkpoint, arguments, code, message):
    with open("broken.safetensors", "wb") as file:
        file.write(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      tail")
    found, out, err = app("a dog", *[checkpoint if part == "MODEL" else part for part in arguments])
    assert found == code, err
    assert message in err and out == ""
    assert os.listdir() == ["broken.safetensors"]


def test_a_device_that_is_not_there(app, checkpoint):
    code, out, err = app("a dog", "--model", checkpoint, "--device", "cuda:99", "-o", "out.txt")
    assert code in (3, 4) and "cuda" in err and out == ""  # 3 without CuPy, 4 with it
    assert os.listdir() == []


def test_an_option_without_text(app, checkpoint):
    code, _, err = app("--model", checkpoint)
    assert code == 2 and "missing argument 'TEXT...'" in err


@pytest.mark.parametrize(
    "content, message", [(b"", "is empty"), (b"caf\xe9\n", "is not UTF-8"), (None, "does not exist")]
)
def test_bad_files_do_not_stop_the_others(app, checkpoint, content, message):
    if content is not None:
        with open("bad.txt", "wb") as file:
            file.write(content)
    code, out, err = app("a dog", "-i", "bad.txt", "--model", checkpoint)
    assert code == 1 and f"bad.txt {message}" in err and "mend:" in err
    assert out.split("\n")[:-1] == expected(checkpoint, ["a dog"])
    code, out, _ = app("-i", "bad.txt", "-o", "out.txt", "--model", checkpoint)
    assert (code, out) == (1, "") and not os.path.exists("out.txt")


def test_a_line_that_is_too_long_leaves_an_empty_one(app, checkpoint):
    code, out, err = app("a dog", "dog " * 1200, "the cat", "--model", checkpoint, "--batch-size", "1")
    assert code == 1 and "line 2 has 1201 tokens" in err
    first, last = expected(checkpoint, ["a dog", "the cat"])
    assert out.split("\n")[:-1] == [first, "", last]
    code, out, _ = app("dog " * 1200, "--model", checkpoint, "--json")
    assert code == 1 and "tokens" in json.loads(out)["error"]


def test_the_input_is_not_overwritten(app, checkpoint):
    with open("a.txt", "w") as file:
        file.write("the cat\n")
    code, _, err = app("-i", "a.txt", "-o", "a.txt", "--model", checkpoint)
    assert code == 1 and "overwrite" in err
    with open("a.txt") as file:
        assert file.read() == "the cat\n"


def test_sub_command_of_flambeau(checkpoint, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["translate", "a dog", "--model", checkpoint])
    assert ended.value.code == 0
    assert capfd.readouterr().out.split("\n")[:-1] == expected(checkpoint, ["a dog"])


def test_help_is_light():
    code = (
        "import sys\nfrom flambeau_translate.cli import main\nsys.argv[1:] = ['--help']\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "print([name for name in ('numpy', 'PIL', 'tokenizers', 'flambeau_nlp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: flambeau-translate") and done.stdout.splitlines()[-1] == "[]"
    done = subprocess.run([sys.executable, "-m", "flambeau_translate"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Usage:" in done.stderr + done.stdout
