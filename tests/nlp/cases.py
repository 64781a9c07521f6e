"""Small files like the public ones, and tiny models."""

import random
from pathlib import Path

from flambeau_nlp.tokenizer import train_tokenizer

WORDS = {"red": "rot", "dog": "Hund", "cat": "Katze", "big": "groß", "sees": "sieht", "runs": "läuft"}


def write_text(folder):
    """A text in which each character follows from the one before."""
    path = Path(folder) / "text.txt"
    path.write_text("abcdefgh\n" * 60, encoding="utf-8")
    return str(path)


def write_reviews(folder, count=60):
    """``train.tsv``, ``val.tsv`` and ``test.tsv``: one word decides the label."""
    rng = random.Random(0)
    for split, number in (("train", count), ("val", 20), ("test", 20)):
        rows = []
        for index in range(number):
            words = rng.choices(["the", "film", "was", "plot", "a"], k=4) + [("awful", "lovely")[index % 2]]
            rng.shuffle(words)
            rows.append(f"{' '.join(words)}\t{index % 2}\n")
        (Path(folder) / f"{split}.tsv").write_text("".join(rows), encoding="utf-8")
    return str(folder)


def write_pairs(folder, count=40):
    """``train`` and ``val`` in English and a German made word by word."""
    rng = random.Random(0)
    for split, number in (("train", count), ("val", 8)):
        lines = [rng.choices(list(WORDS), k=rng.randint(2, 4)) for _ in range(number)]
        for ending, words in (("en", lines), ("de", [[WORDS[word] for word in line] for line in lines])):
            text = "".join(" ".join(line) + ".\n" for line in words)
            (Path(folder) / f"{split}.{ending}").write_text(text, encoding="utf-8")
    return str(folder)


TINY_GPT = {"width": 16, "layers": 1, "heads": 2, "context": 8}
TINY_CNN = {"embedding": 8, "filters": 4, "widths": [2, 3]}
TINY_SEQ2SEQ = {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feedforward": 32}


def translator_config():
    """A tiny translator with the vocabularies of `WORDS`."""
    config = dict(TINY_SEQ2SEQ, source_language="en", target_language="de", dropout=0.0)
    for side, words in (("source", WORDS), ("target", WORDS.values())):
        tokenizer = train_tokenizer("word", [" ".join(words) + "."])
        config |= {side: tokenizer.to_dict(), f"{side}_size": tokenizer.size}
    return config
